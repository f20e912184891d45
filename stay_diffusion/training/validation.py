"""The validation loss, with fixed noise, and the best averaged weights by it."""

import torch

from ..checkpoint import RunFolder, save_tensors
from ..device import autocast
from ..diffusion.gaussian_diffusion import GaussianDiffusion
from ..logger import Logger
from .train_loop import TrainingState


class Validation:
    """Always on the same images, layouts, steps and noise; keeps ema_RATE_best.pt of the first average."""

    def __init__(self, batches: list, folder: RunFolder, diffusion: GaussianDiffusion, seed: int):
        self.batches, self.folder = batches, folder
        total = sum(len(images) for images, _ in batches)
        generator = torch.Generator().manual_seed(seed)
        # Every image gets another step, spread over the whole process, so that the figure varies little.
        steps = ((torch.arange(total) + 0.5) / total * diffusion.num_timesteps).long()
        self.steps = steps[torch.randperm(total, generator=generator)]
        self.noise = [torch.randn(images.shape, generator=generator) for images, _ in batches]

    def __call__(self, state: TrainingState, logger: Logger) -> None:
        loss = self.loss(state)
        logger.set("val_loss", loss)
        if loss < state.best_val_loss:
            state.best_val_loss = loss
            ema = state.emas[0]
            save_tensors(self.folder.path / f"{ema.name}_best.pt", ema.model.state_dict())

    @torch.no_grad()
    def loss(self, state: TrainingState) -> float:
        """The mean loss of the first average's weights."""
        # What a network draws by itself (z_mode prior) is the same each time, and training's stream is left alone.
        with torch.random.fork_rng(devices=[state.device] if state.device.type == "cuda" else []):
            torch.manual_seed(0)
            return self._loss(state)

    def _loss(self, state: TrainingState) -> float:
        total, start = 0.0, 0
        for (images, layout), noise in zip(self.batches, self.noise, strict=True):
            t = self.steps[start : start + len(images)].to(state.device)
            images, layout, noise = (x.to(state.device) for x in (images, layout, noise))
            with autocast(state.device, state.precision):
                terms = state.diffusion.training_losses(state.emas[0].model, images, t, noise, {"layout": layout})
            total += terms["loss"].sum().item()
            start += len(images)
        return total / len(self.steps)
