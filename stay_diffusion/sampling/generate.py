"""Layouts -> images, each from its own random numbers."""

from collections.abc import Callable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from ..config import SampleConfig
from ..data.annotations import Vocabulary
from ..data.images import to_pil
from ..data.layout import Layout
from ..diffusion.editing import inpaint
from ..diffusion.gaussian_diffusion import GaussianDiffusion
from ..diffusion.guidance import classifier_free, within_interval
from ..diffusion.samplers import SAMPLERS
from ..layouts.items import LayoutItem
from ..models.compilation import Compiled, compiled, padded, padded_number
from ..models.object_codes import STYLE_WIDTH
from ..system.device import autocast, resolve_precision
from .batches import Made, Make


def image_generators(seed: int, indices: Sequence[int], run: int = 0, attempt: int = 0) -> list[torch.Generator]:
    """One CPU generator per image, from (seed, index, run) and for images drawn again their attempt.

    They are the same on every device, in any batch, on any rank.
    """
    again = (attempt,) if attempt else ()
    states = [np.random.SeedSequence((seed, index, run, *again)).generate_state(1, np.uint64)[0] for index in indices]
    return [torch.Generator().manual_seed(int(state)) for state in states]


@torch.no_grad()
def generate(
    model: torch.nn.Module,
    diffusion: GaussianDiffusion,
    layout: Layout,
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int],
    *,
    sampler: str | Callable[..., Tensor] = "dpmpp_2m",
    scale: float = 1.0,
    guided_levels: tuple[float, float] | None = None,
    eta: float = 0.0,
    clip_denoised: bool = True,
    precision: str = "fp32",
    network: Callable[..., Tensor] | None = None,
) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] of shape (C, H, W) for a layout of B, on the diffusion's device.

    The sampler calls `network`, the model itself or compilation.Compiled.
    `sampler` is one of SAMPLERS, or a function like them; `diffusion` is already respaced; `generators` (B) draw the
    starting noise and then every step's. Guidance may be kept to noise levels (guidance.within_interval).
    """
    device = torch.device(diffusion.device)
    network = network or model
    layout = padded(layout) if isinstance(network, Compiled) else layout
    style = object_styles(layout, generators).to(device) if _needs_style(model) else None

    def draw_noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

    noise, layout = draw_noise(), layout.to(device)
    guided, kwargs = classifier_free(network, scale, num_channels=shape[0]), {}
    with autocast(device, precision):
        if scale != 1 and guided_levels:
            guided = within_interval(guided, network, diffusion, guided_levels)
            kwargs["alone"] = model.modulation(layout, shape[1:], style)
        if scale != 1:
            layout = layout.with_null()
            style = None if style is None else style.repeat(2, 1, 1)
        kwargs["layout"] = model.modulation(layout, shape[1:], style)
        extra = {"eta": eta} if sampler == "ddim" else {}
        draw = SAMPLERS[sampler] if isinstance(sampler, str) else sampler
        images = draw(diffusion, guided, noise, draw_noise, clip_denoised, kwargs, **extra)
    return images.float().clamp(-1, 1)


def sampling(
    model: torch.nn.Module,
    diffusion: GaussianDiffusion,
    items: Sequence[LayoutItem],
    vocabulary: Vocabulary,
    shape: tuple[int, int, int],
    sample: SampleConfig,
    run: int = 0,
    with_good_parts: bool = False,
) -> Make:
    """What makes pictures of the model's own size (C, H, W); `diffusion` is respaced and where the model is.

    With `with_good_parts` also the same pictures without their objects, from the same random numbers.
    """
    device = torch.device(diffusion.device)
    options = {
        "sampler": sample.sampler,
        "scale": sample.s,
        "guided_levels": sample.guided_levels,
        "eta": sample.eta,
        "clip_denoised": sample.clip_denoised,
        "precision": resolve_precision(sample.precision, sample.use_fp16, device),
        "network": compiled(model, sample.compile),
    }

    def make(indices: Sequence[int], attempt: int) -> list[Made]:
        number, indices = len(indices), _evened(indices, sample)
        layout = Layout.collate([items[i].tensors(vocabulary) for i in indices])
        pictures = [
            map(to_pil, generate(model, diffusion, wanted, _generators(indices, attempt), shape, **options).cpu())
            for wanted in ([layout, layout.good_part()] if with_good_parts else [layout])
        ]
        return [Made(*same) for same in zip(*pictures, strict=True)][:number]

    def _generators(indices: Sequence[int], attempt: int) -> list[torch.Generator]:
        return image_generators(sample.seed, indices, run, attempt)

    return make


def filling(
    model: torch.nn.Module, diffusion: GaussianDiffusion, shape: tuple[int, int, int], sample: SampleConfig
) -> Callable[[Layout, Tensor, Tensor, Sequence[torch.Generator]], Tensor]:
    """What draws a layout of B pictures around known pixels (B, C, S, S), as insertion.insert takes it."""
    device = torch.device(diffusion.device)
    precision = resolve_precision(sample.precision, sample.use_fp16, device)
    network = compiled(model, sample.compile)

    def fill(layout: Layout, known: Tensor, keep: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
        number, evened = len(layout), _evened(range(len(layout)), sample)
        layout, known, keep = layout[evened], known[evened], keep[evened]
        generators = [*generators, *(generators[-1].clone_state() for _ in evened[number:])]
        sampler = partial(inpaint, known=known.to(device), keep=keep.to(device), num_resamples=sample.num_resamples)
        return generate(
            model,
            diffusion,
            layout,
            generators,
            shape,
            sampler=sampler,
            scale=sample.s,
            guided_levels=sample.guided_levels,
            clip_denoised=sample.clip_denoised,
            precision=precision,
            network=network,
        ).cpu()[:number]

    return fill


def _evened(indices: Sequence[int], sample: SampleConfig) -> list[int]:
    """With --compile the last again and again, up to a number that recurs; what is drawn of these is left out."""
    extra = padded_number(len(indices), sample.batch_size) - len(indices) if sample.compile else 0
    return [*indices, *[indices[-1]] * extra]


def _needs_style(model) -> bool:
    codes = getattr(getattr(model, "conditioner", None), "object_codes", None)
    return codes is not None and codes.z_mode == "prior"


def object_styles(layout: Layout, generators: Sequence[torch.Generator]) -> Tensor:
    """z (B, O+1, 128), drawn for each image's own objects so that padding changes nothing; background last.

    From a stream of their own, so that the same picture with other objects starts from the same noise.
    """
    z = torch.zeros(len(layout), layout.num_objects + 1, STYLE_WIDTH)
    for i, generator in enumerate(generators):
        n = int(layout.valid[i].sum())
        own = torch.Generator().manual_seed(generator.initial_seed() ^ 1)
        drawn = torch.randn(n + 1, STYLE_WIDTH, generator=own)
        z[i, :n], z[i, -1] = drawn[1:], drawn[0]
    return z
