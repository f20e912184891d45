"""Layouts -> images, each from its own random numbers."""

from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import torch
from torch import Tensor
from tqdm import tqdm

from ..config import SampleConfig
from ..data.annotations import Vocabulary
from ..data.layout import Layout
from ..device import autocast, resolve_precision
from ..diffusion.gaussian_diffusion import GaussianDiffusion, respace
from ..diffusion.guidance import classifier_free
from ..diffusion.samplers import SAMPLERS
from ..launchers import ALONE, World
from ..models.object_codes import STYLE_WIDTH
from .layouts import LayoutItem


def image_generators(seed: int, indices: Sequence[int], run: int = 0) -> list[torch.Generator]:
    """One CPU generator per image, from (seed, index, run): the same on every device, in any batch, on any rank."""
    states = [np.random.SeedSequence((seed, index, run)).generate_state(1, np.uint64)[0] for index in indices]
    return [torch.Generator().manual_seed(int(state)) for state in states]


@torch.no_grad()
def generate(
    model: torch.nn.Module,
    diffusion: GaussianDiffusion,
    layout: Layout,
    generators: Sequence[torch.Generator],
    shape: tuple[int, int, int],
    *,
    sampler: str = "dpmpp_2m",
    scale: float = 1.0,
    eta: float = 0.0,
    clip_denoised: bool = True,
    precision: str = "fp32",
) -> Tensor:
    """Images (B, C, H, W) in [-1, 1] of shape (C, H, W) for a layout of B, on the diffusion's device.

    `diffusion` is already respaced; `generators` (B) draw the starting noise and then every step's.
    """
    device = torch.device(diffusion.device)
    style = object_styles(layout, generators) if _needs_style(model) else None

    def draw_noise() -> Tensor:
        return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

    noise, layout = draw_noise(), layout.to(device)
    guided = classifier_free(model, scale, num_channels=shape[0])
    if scale != 1:
        layout = layout.with_null()
        style = None if style is None else style.repeat(2, 1, 1)
    with autocast(device, precision):
        conditioning = model.condition(layout, shape[1:], None if style is None else style.to(device))
        extra = {"eta": eta} if sampler == "ddim" else {}
        kwargs = {"layout": conditioning}
        images = SAMPLERS[sampler](diffusion, guided, noise, draw_noise, clip_denoised, kwargs, **extra)
    return images.float().clamp(-1, 1)


def generate_all(
    model: torch.nn.Module,
    full_diffusion: GaussianDiffusion,
    items: Sequence[LayoutItem],
    vocabulary: Vocabulary,
    shape: tuple[int, int, int],
    sample: SampleConfig,
    respacing: str,
    device: torch.device,
    on_image: Callable[..., None],
    done: AbstractSet[int] = frozenset(),
    run: int = 0,
    world: World = ALONE,
    good_parts: bool = False,
) -> None:
    """Calls on_image(index, item, image (C, H, W)) for every item whose index is not done, batch by batch.

    With `good_parts` a fourth argument is the same image without its objects, from the same random numbers.

    Batches are cut at the same indices whatever is done and however many processes share them, in turn, so that a
    continued or a shared run makes the very same images.
    """
    diffusion = respace(full_diffusion, respacing).to(device)
    precision = resolve_precision(sample.precision, sample.use_fp16, device)
    starts = range(0, len(items), sample.batch_size)
    own = [range(start, min(start + sample.batch_size, len(items))) for start in starts][world.rank :: world.size]
    total, finished = sum(map(len, own)), sum(i in done for indices in own for i in indices)
    with tqdm(total=total, initial=finished, unit="image", mininterval=1.0, disable=not world.is_main) as progress:
        for indices in own:
            missing = [i for i in indices if i not in done]
            if not missing:
                continue
            layout = Layout.collate([items[i].tensors(vocabulary) for i in indices])
            made = [
                generate(
                    model,
                    diffusion,
                    wanted,
                    image_generators(sample.seed, indices, run),
                    shape,
                    sampler=sample.sampler,
                    scale=sample.s,
                    eta=sample.eta,
                    clip_denoised=sample.clip_denoised,
                    precision=precision,
                ).cpu()
                for wanted in ([layout, layout.good_part()] if good_parts else [layout])
            ]
            for i in missing:
                on_image(i, items[i], *(images[i - indices.start] for images in made))
            progress.update(len(missing))


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
