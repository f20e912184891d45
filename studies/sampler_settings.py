"""Settings of sampling that are compared, and their cost in calls of the network."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from stay_diffusion.config import SampleConfig
from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.diffusion.guidance import classifier_free, guided_timesteps
from stay_diffusion.diffusion.samplers import SAMPLERS


@dataclass(frozen=True)
class Setting:
    sampler: str
    respacing: str
    guidance_interval: str = ""

    @classmethod
    def of(cls, word: str) -> "Setting":
        parts = word.split(":")
        if not 2 <= len(parts) <= 3 or parts[0] not in SAMPLERS:
            known = ", ".join(SAMPLERS)
            raise ValueError(f"--settings {word}: expected SAMPLER:RESPACING[:LO,HI] with a sampler of {known}")
        return cls(*parts)

    @property
    def name(self) -> str:
        guided = f"_guided_{self.guidance_interval}" if self.guidance_interval else ""
        return f"{self.sampler}_{self.respacing}{guided}"

    def __str__(self) -> str:
        spacing = "log-SNR" if self.respacing.startswith("logsnr") else "time"
        guided = f", guided in {self.guidance_interval}" if self.guidance_interval else ""
        return f"{self.sampler}, {self.respacing.removeprefix('logsnr')} steps even in {spacing}{guided}"

    def flags(self) -> list[str]:
        """Return image_sample.py's flags."""
        interval = ["--guidance_interval", self.guidance_interval] if self.guidance_interval else []
        return ["--sampler", self.sampler, "--timestep_respacing", self.respacing, *interval]


SETTINGS = (
    "dpmpp_2m:logsnr5",
    "dpmpp_2m:logsnr10",
    "dpmpp_2m:logsnr20",
    "dpmpp_2m:logsnr40",
    "dpmpp_2m:10",
    "dpmpp_2m:20",
    "ddim:20",
    "ddim:40",
    "heun:logsnr5",
    "heun:logsnr10",
    "ddpm:40",
    "ddpm:100",
    "dpmpp_2m:logsnr20:0.3,1000",
    "dpmpp_2m:logsnr20:0.3,5",
)


def cost(diffusion: GaussianDiffusion, setting: Setting, s: float) -> tuple[int, int]:
    """Count calls of the network for an image, and images that these show it, on a network that answers 0."""
    shown: list[int] = []

    def network(x: torch.Tensor, t: torch.Tensor, layout: Sequence) -> torch.Tensor:
        shown.append(len(layout))
        return x.new_zeros(len(layout), (1 + diffusion.learns_variance) * x.shape[1], *x.shape[2:])

    short = respace(diffusion, setting.respacing)
    levels = SampleConfig(guidance_interval=setting.guidance_interval).guided_levels
    guided = classifier_free(network, s, 1, guided_timesteps(short, levels) if levels else None)
    kwargs = {"layout": range(1 if s == 1 else 2)}
    if levels and s != 1:
        kwargs["alone"] = range(1)
    x = torch.ones(1, 1, 1, 1)
    SAMPLERS[setting.sampler](short, guided, x, lambda: torch.zeros_like(x), model_kwargs=kwargs)
    return len(shown), sum(shown)
