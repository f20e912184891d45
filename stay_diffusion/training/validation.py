"""The validation loss, with fixed noise, and the best averaged weights by it."""

import torch

from ..data.loader import in_order
from ..diffusion.gaussian_diffusion import GaussianDiffusion
from ..run.checkpoint import RunFolder, save_tensors
from ..run.logger import Logger
from ..system.device import autocast
from ..system.distributed import sum_over_ranks
from ..system.launchers import ALONE, World
from .best import Best
from .data_sets import TrainingData
from .draws import noise
from .state import TrainingState


class Validation:
    """The validation loss on the same images, layouts, steps and noise, shared among the processes.

    Keeps ema_RATE_best.pt if `keeps_best`. `batches` hold this process's images: every `world.size`-th of `total`.
    """

    def __init__(
        self,
        batches: list,
        total: int,
        folder: RunFolder,
        diffusion: GaussianDiffusion,
        seed: int,
        world: World = ALONE,
        keeps_best: bool = True,
    ):
        self.keeps_best = keeps_best
        self.batches, self.total, self.folder, self.seed = batches, total, folder, seed
        generator = torch.Generator().manual_seed(seed)
        # Every image gets another step, spread over the whole process, so that the figure varies little.
        steps = ((torch.arange(total) + 0.5) / total * diffusion.num_timesteps).long()
        self.steps = steps[torch.randperm(total, generator=generator)]
        self.indices = range(world.rank, total, world.size)
        self.is_main = world.is_main

    def __call__(self, state: TrainingState, logger: Logger) -> None:
        loss = self.loss(state)
        logger.set("val_loss", loss)
        if self.keeps_best and state.best.is_beaten("val_loss", loss):
            state.best = Best("val_loss", loss, state.step)
            ema = state.emas[0]
            if self.is_main:
                save_tensors(self.folder.path / f"{ema.name}_best.pt", ema.model.state_dict())

    @torch.no_grad()
    def loss(self, state: TrainingState) -> float:
        """The mean loss of the first average's weights."""
        # What a network draws by itself (z_mode prior) is the same each time.
        with torch.random.fork_rng(devices=[state.device] if state.device.type == "cuda" else []):
            torch.manual_seed(0)
            (total,) = sum_over_ranks([self._sum(state)])
        return total / self.total

    def _sum(self, state: TrainingState) -> float:
        total, start = 0.0, 0
        for images, layout in self.batches:
            indices = self.indices[start : start + len(images)]
            t = self.steps[list(indices)].to(state.device)
            drawn = noise(self.seed, indices, images.shape[1:], state.device)
            images, layout = images.to(state.device), layout.to(state.device)
            with autocast(state.device, state.precision):
                terms = state.diffusion.training_losses(state.emas[0].model, images, t, drawn, {"layout": layout})
            total += terms["loss"].sum().item()
            start += len(images)
        return total


def build_validation(data: TrainingData, folder: RunFolder, diffusion: GaussianDiffusion, world: World) -> Validation:
    """Return the validation of a run by its held-out images, this process's share of them in memory."""
    options, dataset = data.config.train, data.watched(data.config.train.val_images)
    batches = list(in_order(dataset, options.batch_size, rank=world.rank, world=world.size))
    keeps_best = options.kept_by == "val_loss"
    return Validation(batches, len(dataset), folder, diffusion, options.seed, world, keeps_best)
