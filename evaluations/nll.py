"""Bits per dimension of real images under a trained model, a bound on their negative log-likelihood: lower is better.

python evaluations/nll.py --model_path RUN/ema_0.9999.pt

Several processes (mpiexec, torchrun, srun) share the images; the number is the same to the last bit.
"""

import itertools
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from stay_diffusion.command import run_command
from stay_diffusion.config import DataConfig, DiffusionConfig, ModelConfig, RunConfig, option
from stay_diffusion.distributed import gather_shares, join, start_group
from stay_diffusion.flags import dump, parse
from stay_diffusion.launchers import ALONE, World

TERMS = {"vb": "vb_terms.npz", "x_start_mse": "xstart_mse_terms.npz", "mse": "mse_terms.npz"}


@dataclass(frozen=True)
class NllConfig:
    model_path: str = option("", "weights, such as RUN/ema_0.9999.pt; config.json beside them describes the model")
    split: str = option("val", "whose images to measure", ("val", "train"))
    num_samples: int = option(1000, "measure the first of the split's images, at most so many; 0: all", least=0)
    batch_size: int = option(16, "images at a time (does not change the result)", least=1)
    clip_denoised: bool = option(True, "clamp each step's clean image to [-1, 1]")
    seed: int = option(0, "image i's noise is drawn from (seed, i), whatever the batch size", least=0, most=2**63 - 1)
    precision: str = option("auto", "auto: bf16 on GPUs that have it, else fp32", ("auto", "fp32", "bf16", "fp16"))
    use_fp16: bool = option(False, "the tradition's name for --precision fp16")
    out: str = option("", "folder for nll.json and the terms of each step (npz); empty: print only")
    dist_timeout: int = option(600, "seconds that processes wait for one another", least=1)
    device: str = option("", "cpu, cuda, cuda:1 ...; empty: a GPU if there is one")


@dataclass(frozen=True)
class NllRun:
    """What nll.py takes: data flags override, model and diffusion flags are held against the trained ones."""

    nll: NllConfig = NllConfig()
    data: DataConfig = RunConfig.data
    model: ModelConfig = RunConfig.model
    diffusion: DiffusionConfig = RunConfig.diffusion


def main() -> int:
    run, given, switches = parse(NllRun, __doc__.partition("\n")[0])
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    nll = run.nll
    if not nll.model_path:
        raise ValueError("--model_path: needed, the weights to measure")
    world = join(nll.dist_timeout)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from stay_diffusion import factory, storage
    from stay_diffusion.checkpoint import config_beside, sha256
    from stay_diffusion.data.loader import in_order
    from stay_diffusion.device import pick_device, resolve_precision
    from stay_diffusion.diffusion.gaussian_diffusion import respace

    # The trained model, and the images
    weights = storage.weights(nll.model_path)
    fallback = RunConfig(data=run.data, model=run.model, diffusion=run.diffusion)
    config = factory.trained_config(weights, given, fallback, "model_path", free=("timestep_respacing",))
    respacing = given.get("timestep_respacing", config.diffusion.timestep_respacing)
    device = pick_device(nll.device, world)
    start_group(world, torch.device("cpu"), nll.dist_timeout)  # the terms meet in the processes' own memory
    precision = resolve_precision(nll.precision, nll.use_fp16, device)
    if config_beside(weights) is None:
        print(f"note: no config.json beside {weights}: the model is what the flags say")
    records, _ = factory.read_split(config.data, nll.split)
    dataset = factory.build_dataset(records[: nll.num_samples or None], config, augment=False)
    diffusion = respace(factory.build_diffusion(config.diffusion), respacing).to(device)
    model = factory.load_trained(config, weights, device)

    # What the number depends on
    protocol = {
        "weights": str(weights.resolve()),
        "weights_sha256": sha256(weights),
        "data_dir": str(Path(config.data.data_dir).resolve()),
        "split": nll.split,
        "images": len(dataset),
        "image_size": config.model.image_size,
        "image_channels": config.model.image_channels,
        "crop_policy": config.data.crop_policy,
        "steps": diffusion.num_timesteps,
        "timestep_respacing": respacing,
        "clip_denoised": nll.clip_denoised,
        "precision": precision,
        "seed": nll.seed,
        "device": device.type,
    }
    for name, value in protocol.items():
        if value != "":
            print(f"  {name:20s} {value[:12] if name == 'weights_sha256' else value}")
    if switches["dry_run"]:
        return 0
    out = opened(nll.out) if nll.out and world.is_main else None

    # The measurement
    z_mode = config.model.z_mode if config.model.class_cond else "off"
    batches = in_order(dataset, nll.batch_size, config.data.num_workers)
    totals, priors, terms = measure(model, diffusion, batches, len(dataset), nll, precision, z_mode, world)
    if not world.is_main:
        return 0
    if not math.isfinite(sum(totals)):
        raise FloatingPointError(f"{weights}: the bound is not finite; is it with --precision fp32?")
    report = summarise(totals, priors, terms["vb"])
    show(report, diffusion.num_timesteps)
    if out:
        write(out, report | {"protocol": protocol}, terms)
        print(f"written: {out.resolve()}")
    return 0


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
    import torch
    from tqdm import tqdm

    from stay_diffusion.device import autocast
    from stay_diffusion.diffusion.likelihood import bits_per_dim
    from stay_diffusion.sampling.generate import image_generators, object_styles

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


def show(report: dict, T: int) -> None:
    error = report["standard_error"]
    spread = "a single image: no standard error" if error is None else f"+- {error:.4f}, standard error over the images"
    print(f"bits per dimension: {report['bpd']:.4f} ({spread})")
    print(f"  prior                {report['prior_bpd']:9.4f}")
    print(f"  vb, sum over steps   {report['vb_bpd']:9.4f}")
    for q, value in enumerate(report["vb_bpd_per_quartile_of_t"]):
        first, end = (math.ceil(k * T / 4) for k in (q, q + 1))
        steps = f"t {first} to {end - 1}" if first < end else "no step"
        print(f"    {steps:18s} {value:9.4f}")


def opened(out: str) -> Path:
    folder = Path(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {out}: cannot be made: {error.strerror}") from None
    return folder


def write(folder: Path, report: dict, terms: dict) -> None:
    """nll.json, and each term's means over the images as arr_0 (T,) of its own npz, from t = T - 1 down to 0."""
    import numpy as np

    from stay_diffusion.checkpoint import atomic_write

    for name, values in terms.items():
        atomic_write(folder / TERMS[name], lambda file, values=values: np.savez(file, values))
    text = json.dumps(report, indent=2) + "\n"
    atomic_write(folder / "nll.json", lambda file: file.write(text.encode()))


if __name__ == "__main__":
    run_command(main, continues=False)
