"""What is measured: a training step and a sampling step of a named or given network, on noise and made-up boxes."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import torch

from stay_diffusion.config import DiffusionConfig, ModelConfig, RunConfig, TrainConfig
from stay_diffusion.diffusion.guidance import classifier_free
from stay_diffusion.run import factory
from stay_diffusion.run.logger import Logger
from stay_diffusion.system.device import autocast, in_best_format, resolve_precision
from stay_diffusion.training.noise_batch import noise_batch, with_made_up_names
from stay_diffusion.training.state import TrainingState
from stay_diffusion.training.train_loop import train_step

SCALE = 1.5  # of guidance


@dataclass(frozen=True)
class Network:
    """The flags that make a network; pictures are square, `attention` are resolutions in pixels."""

    image_size: int
    num_channels: int
    channel_mult: str
    num_res_blocks: int = 1
    attention: str = "16,8"
    resblock_updown: bool = False
    learn_sigma: bool = False
    num_head_channels: int = -1

    def config(self, batch_size: int, precision: str = "fp32", **train) -> RunConfig:
        model = ModelConfig(
            image_size=self.image_size,
            num_channels=self.num_channels,
            channel_mult=self.channel_mult,
            num_res_blocks=self.num_res_blocks,
            attention_resolutions=self.attention,
            resblock_updown=self.resblock_updown,
            num_head_channels=self.num_head_channels,
        )
        diffusion = DiffusionConfig(noise_schedule="cosine", learn_sigma=self.learn_sigma)
        options = TrainConfig(batch_size=batch_size, precision=precision, log_interval=10**9, **train)
        return with_made_up_names(RunConfig(model=model, diffusion=diffusion, train=options))

    def __str__(self) -> str:
        attention = self.attention or "in the middle alone"
        blocks = f"{self.num_res_blocks} block{'s' if self.num_res_blocks > 1 else ''} a resolution"
        return (
            f"{self.image_size} px, {self.num_channels} channels x {self.channel_mult}, {blocks}, attention {attention}"
        )


NETWORKS = {
    "tiny": Network(16, 32, "1,1", attention=""),
    "S": Network(64, 64, "1,2,3,4", 2),
    "M": Network(128, 128, "1,1,2,3,4", 2, attention="32,16,8", resblock_updown=True),
    "L": Network(256, 256, "1,1,2,2,4,4", 2, "32,16,8", resblock_updown=True, learn_sigma=True, num_head_channels=64),
}


class Training:
    """A training state with a batch that stays; `step()` is one whole step, waited for on a GPU unless told not to."""

    def __init__(
        self,
        config: RunConfig,
        device: torch.device,
        num_objects: int,
        seed: int = 0,
        state: TrainingState | None = None,
    ):
        torch.manual_seed(seed)
        self.config, self.device = config, device
        self.state = state or TrainingState(
            config, factory.build_model(config), factory.build_diffusion(config.diffusion), device
        )
        images, layout = noise_batch(config, config.train.batch_size, num_objects, seed)
        self.batch = images.to(device), layout.to(device)
        self._folder = tempfile.TemporaryDirectory()
        self.logger = Logger(Path(self._folder.name))

    def step(self, wait: bool = True) -> None:
        train_step(self.state, self.config, *self.batch, self.logger)
        self.state.step += 1
        self.state.samples += len(self.batch[0])
        if wait:
            wait_for(self.device)


class Sampling:
    """A network with a layout that stays; `step()` is one call of it as a guided sampler makes it."""

    def __init__(
        self, config: RunConfig, device: torch.device, num_objects: int, scale: float = SCALE, model=None, seed: int = 0
    ):
        torch.manual_seed(seed)
        options = config.train
        self.device, self.precision = device, resolve_precision(options.precision, options.use_fp16, device)
        self.model = in_best_format((model or factory.build_model(config)).to(device)).eval()
        self.diffusion = factory.build_diffusion(config.diffusion).to(device)
        images, layout = noise_batch(config, options.batch_size, num_objects, seed)
        self.x, layout = images.to(device), layout.to(device)
        self.t = torch.full((len(self.x),), self.diffusion.num_timesteps // 2, device=device)
        self.guided = classifier_free(self.model, scale, num_channels=config.model.image_channels)
        self.layout = layout if scale == 1 else layout.with_null()
        with torch.no_grad(), autocast(device, self.precision):
            self.conditioning = prepared(self.model, self.layout, self.x)

    @torch.no_grad()
    def step(self, wait: bool = True) -> torch.Tensor:
        with autocast(self.device, self.precision):
            t = self.diffusion.model_timesteps(self.t)
            output = self.guided(self.x, t, layout=self.conditioning)
            x_start = self.diffusion.denoise(output, self.x, self.t)
        if wait:
            wait_for(self.device)
        return x_start


def prepared(model, layout, x: torch.Tensor):
    """What a sampler works out of a layout before its first step."""
    return model.modulation(layout, tuple(x.shape[2:]))


def wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
