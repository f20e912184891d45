"""Bits per dimension of images under a trained model."""

import itertools
import math
from collections.abc import Iterable

import torch
from tqdm import tqdm

from ...diffusion.likelihood import bits_per_dim
from ...sampling.generate import image_generators, object_styles
from ...system.device import autocast
from ...system.distributed import gather_shares
from ...system.launchers import ALONE, World
from ..options import NllConfig

TERMS = {"vb": "vb_terms.npz", "x_start_mse": "xstart_mse_terms.npz", "mse": "mse_terms.npz"}


def measure(
    model,
    diffusion,
    batches: Iterable,
    num_images: int,
    nll: NllConfig,
    precision: str,
    z_mode: str,
    world: World = ALONE,
):
    """(total of each image, prior of each image, {term: its mean over images (T,) float64, from t = T - 1 down to 0}).

    `diffusion` is already respaced and on the model's device; `batches` yield `num_images` images in order, all of
    them on every process, which take them in turn: to read a picture costs little beside T calls of the network.
    """
    device, own = torch.device(diffusion.device), {}  # by the number of a batch
    starts = range(0, num_images, nll.batch_size)
    calls = len(starts[world.rank :: world.size]) * diffusion.num_timesteps
    with torch.no_grad(), tqdm(total=calls, unit="step", mininterval=1.0, disable=not world.is_main) as progress:

        def network(x, t, layout):
            progress.update()
            with autocast(device, precision):
                return model(x, t, layout=layout)

        for number, (images, layout) in enumerate(batches):
            if number % world.size != world.rank:
                continue
            generators = image_generators(nll.seed, range(starts[number], starts[number] + len(images)))
            style = object_styles(layout, generators).to(device) if z_mode == "prior" else None

            def draw_noise(shape=images.shape[1:], generators=generators):
                return torch.stack([torch.randn(shape, generator=generator) for generator in generators]).to(device)

            with autocast(device, precision):
                conditioning = model.modulation(layout.to(device), images.shape[-2:], style)
            kwargs = {"layout": conditioning}
            found = bits_per_dim(diffusion, network, images.to(device), draw_noise, nll.clip_denoised, kwargs)
            sums = {name: getattr(found, name).double().sum(dim=0).cpu() for name in TERMS}
            own[number] = found.total.tolist(), found.prior.tolist(), sums
    totals, priors, sums = zip(*gather_shares("terms", own), strict=True)
    means = {name: (sum(of_batch[name] for of_batch in sums) / num_images).numpy() for name in TERMS}
    return list(itertools.chain(*totals)), list(itertools.chain(*priors)), means


def summarise(totals: list[float], priors: list[float], vb) -> dict:
    """The figures in bits per dimension, from those of each image and the mean vb (T,), t = T - 1 first."""
    N, T = len(totals), len(vb)
    mean = sum(totals) / N
    spread = math.sqrt(sum((total - mean) ** 2 for total in totals) / (N - 1)) if N > 1 else None
    quartiles = [0.0] * 4
    for t, value in enumerate(reversed(vb.tolist())):
        quartiles[4 * t // T] += value
    return {
        "bpd": mean,
        "standard_error": None if spread is None else spread / math.sqrt(N),
        "prior_bpd": sum(priors) / N,
        "vb_bpd": float(vb.sum()),
        "vb_bpd_per_quartile_of_t": quartiles,
    }
