"""Options of a run, each declared once: frozen dataclasses, from which flags.py makes flags and JSON.

Imports nothing heavy, so that `--help` is quick.
"""

from dataclasses import dataclass

from .data import DataConfig
from .diffusion import DiffusionConfig
from .model import ModelConfig
from .option import option
from .sample import SampleConfig
from .train import TrainConfig

__all__ = [
    "DataConfig",
    "DiffusionConfig",
    "ModelConfig",
    "RunConfig",
    "SampleConfig",
    "SampleRun",
    "TrainConfig",
    "option",
]


@dataclass(frozen=True)
class RunConfig:
    """Options that a run folder's config.json holds."""

    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()


@dataclass(frozen=True)
class SampleRun:
    """Options of image_sample.py: data flags override, model and diffusion flags are held against the trained ones."""

    sample: SampleConfig = SampleConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
