"""Layouts -> images, each from its own random numbers."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import RunConfig, SampleConfig
from ..data.annotations import Vocabulary
from ..data.images import to_pil
from ..data.layout import Layout
from ..diffusion.editing import inpaint
from ..diffusion.gaussian_diffusion import GaussianDiffusion, respace
from ..diffusion.guidance import classifier_free, guided_timesteps
from ..diffusion.samplers import SAMPLERS
from ..layouts.items import LayoutItem
from ..models.compilation import Compiled, compiled, padded, padded_number
from ..models.object_codes import STYLE_WIDTH
from ..models.unet import UNet
from ..run import factory
from ..system.device import autocast, resolve_precision
from .batches import Made


def image_generators(seed: int, indices: Sequence[int], run: int = 0, attempt: int = 0) -> list[torch.Generator]:
    """Make one CPU generator per image, from (seed, index, run) and for images drawn again their attempt.

    They are the same on every device, in any batch, on any rank.
    """
    again = (attempt,) if attempt else ()
    states = [np.random.SeedSequence((seed, index, run, *again)).generate_state(1, np.uint64)[0] for index in indices]
    return [torch.Generator().manual_seed(int(state)) for state in states]


@dataclass(frozen=True)
class TrainedModel:
    """A trained network, the (respaced) steps it visits, its images' shape (C, H, W), and the options of sampling."""

    network: UNet
    diffusion: GaussianDiffusion
    shape: tuple[int, int, int]
    sample: SampleConfig

    @classmethod
    def load(
        cls, config: RunConfig, weights: Path, respacing: str, sample: SampleConfig, device: torch.device
    ) -> "TrainedModel":
        """Load weights of a run with this configuration."""
        network = factory.load_trained(config, weights, device)
        diffusion = respace(factory.build_diffusion(config.diffusion), respacing).to(device)
        size = config.model.image_size
        return cls(network, diffusion, (config.model.image_channels, size, size), sample)

    @cached_property
    def _called(self) -> nn.Module:
        """The network as samplers call it: compiled, if the options say so."""
        return compiled(self.network, self.sample.compile)

    @torch.no_grad()
    def generate(
        self, layout: Layout, generators: Sequence[torch.Generator], sampler: Callable[..., Tensor] | None = None
    ) -> Tensor:
        """Draw images (B, C, H, W) in [-1, 1], on the diffusion's device, for a layout of B.

        `generators` (B) draw the starting noise and then every step's. `sampler` is a function like those of SAMPLERS,
        in place of the options' own.
        """
        sample, diffusion, shape = self.sample, self.diffusion, self.shape
        device = torch.device(diffusion.device)
        precision = resolve_precision(sample.precision, sample.use_fp16, device)
        layout = padded(layout) if isinstance(self._called, Compiled) else layout
        style = object_styles(layout, generators).to(device) if _needs_style(self.network) else None

        def draw_noise() -> Tensor:
            return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

        noise, layout = draw_noise(), layout.to(device)  # noise: B C H W
        levels = sample.guided_levels if sample.s != 1 else None
        guided_at = guided_timesteps(diffusion, levels) if levels else None
        guided = classifier_free(self._called, sample.s, shape[0], guided_at)
        kwargs, eta = {}, {}
        if sampler is None:
            sampler, eta = SAMPLERS[sample.sampler], {"eta": sample.eta} if sample.sampler == "ddim" else {}
        with autocast(device, precision):
            if levels:
                kwargs["alone"] = self.network.modulation(layout, shape[1:], style)
            if sample.s != 1:
                layout = layout.with_null()
                style = None if style is None else style.repeat(2, 1, 1)
            kwargs["layout"] = self.network.modulation(layout, shape[1:], style)
            images = sampler(diffusion, guided, noise, draw_noise, sample.clip_denoised, kwargs, **eta)  # B C H W
        return images.float().clamp(-1, 1)

    def fill(self, layout: Layout, known: Tensor, keep: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        """Draw a layout of B images on the CPU around the pixels of `known` that `keep` (B, 1, H, W) marks."""
        B, device = len(layout), self.diffusion.device
        indices = self.pad_batch(range(B))
        known, keep = known[indices].to(device), keep[indices].to(device)
        generators = [*generators, *(generators[-1].clone_state() for _ in indices[B:])]
        sampler = partial(inpaint, known=known, keep=keep, num_resamples=self.sample.num_resamples)
        return self.generate(layout[torch.tensor(indices)], generators, sampler).cpu()[:B]

    def pad_batch(self, indices: Sequence[int]) -> list[int]:
        """Repeat the last index up to a number that recurs, if the network is compiled; the repeats are left out."""
        sample = self.sample
        extra = padded_number(len(indices), sample.batch_size) - len(indices) if sample.compile else 0
        return [*indices, *[indices[-1]] * extra]


def make_images(
    model: TrainedModel,
    items: Sequence[LayoutItem],
    vocabulary: Vocabulary,
    run: int,
    with_good_parts: bool,
    indices: Sequence[int],
    attempt: int,
) -> list[Made]:
    """Draw the items at some indices, as `batches.Make` does it.

    With `with_good_parts` also the same images without their objects, from the same random numbers.
    """
    padded_indices = model.pad_batch(indices)
    layout = Layout.collate([items[i].tensors(vocabulary) for i in padded_indices])
    images = []
    for each in [layout, layout.good_part()] if with_good_parts else [layout]:
        generators = image_generators(model.sample.seed, padded_indices, run, attempt)
        images.append(map(to_pil, model.generate(each, generators).cpu()))
    return [Made(*same) for same in zip(*images, strict=True)][: len(indices)]


def _needs_style(network: nn.Module) -> bool:
    codes = getattr(getattr(network, "conditioner", None), "object_codes", None)
    return codes is not None and codes.z_mode == "prior"


def object_styles(layout: Layout, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw z (B, O+1, 128) for each image's own objects so that padding changes nothing; background last.

    From a stream of their own, so that the same image with other objects starts from the same noise.
    """
    z = torch.zeros(len(layout), layout.num_objects + 1, STYLE_WIDTH)
    for i, generator in enumerate(generators):
        n = int(layout.valid[i].sum())
        own = torch.Generator().manual_seed(generator.initial_seed() ^ 1)
        drawn = torch.randn(n + 1, STYLE_WIDTH, generator=own)
        z[i, :n], z[i, -1] = drawn[1:], drawn[0]
    return z
