"""Bits per dimension of real images under a trained model, a bound on their negative log-likelihood: lower is better.

python evaluations/nll.py --model_path RUN/ema_0.9999.pt

The number is that of `evaluate --reference val --metrics nll` with the same seed. Several processes (mpiexec,
torchrun, srun) share the images; it is the same to the last bit.
"""

import json
import math
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DataConfig, DiffusionConfig, ModelConfig, RunConfig
from ..config.flags import dump, parse
from ..evaluation.options import NllConfig
from ..system.distributed import join, start_group


@dataclass(frozen=True)
class NllRun:
    """The sections of nll: data flags override, model and diffusion flags are compared with the trained ones."""

    nll: NllConfig = NllConfig()
    data: DataConfig = RunConfig.data
    model: ModelConfig = RunConfig.model
    diffusion: DiffusionConfig = RunConfig.diffusion


def main() -> int:
    run, given, switches = parse(NllRun, __doc__.partition("\n")[0])
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    if not run.nll.model_path:
        raise ValueError("--model_path: needed, the weights to measure")
    world = join(run.nll.dist_timeout)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..diffusion.gaussian_diffusion import respace
    from ..evaluation.metrics import nll as metric
    from ..run import factory
    from ..run.checkpoint import config_beside
    from ..system import storage
    from ..system.device import pick_device, resolve_precision

    # The trained model, and the images
    nll, weights = run.nll, storage.weights(run.nll.model_path)
    fallback = RunConfig(data=run.data, model=run.model, diffusion=run.diffusion)
    config = factory.trained_config(weights, given, fallback, "model_path", free=("timestep_respacing",))
    respacing = given.get("timestep_respacing", config.diffusion.timestep_respacing)
    config = replace(config, diffusion=replace(config.diffusion, timestep_respacing=respacing))
    device = pick_device(nll.device, world)
    start_group(world, torch.device("cpu"), nll.dist_timeout)  # the terms meet in the processes' own memory
    nll = replace(nll, precision=resolve_precision(nll.precision, nll.use_fp16, device))
    if config_beside(weights) is None:
        print(f"note: no config.json beside {weights}: the model is what the flags say")
    records, _ = factory.read_split(config.data, nll.split)
    dataset = factory.build_dataset(records[: nll.num_samples or None], config, augment=False)
    diffusion = respace(factory.build_diffusion(config.diffusion), respacing).to(device)
    model = factory.load_trained(config, weights, device)

    protocol = describe(weights, config, nll) | {"images": len(dataset), "steps": diffusion.num_timesteps}
    protocol["device"] = device.type
    for name, value in protocol.items():
        if value != "":
            print(f"  {name:20s} {value[:12] if name == 'weights_sha256' else value}")
    if switches["dry_run"]:
        return 0

    # The measurement
    out = storage.make_folder("out", nll.out) if nll.out and world.is_main else None
    bounds = metric.measure(model, config.model, diffusion, len(dataset), metric.read_split(dataset, world), nll, world)
    if not world.is_main:
        return 0
    if not math.isfinite(sum(bounds.totals)):
        raise FloatingPointError(f"{weights}: the bound is not finite; is it with --precision fp32?")
    report = metric.summarise(bounds)
    show(report, diffusion.num_timesteps)
    if out:
        write(out, report | {"protocol": protocol}, bounds.terms)
        print(f"written: {out.resolve()}")
    return 0


def describe(weights: Path, config: RunConfig, nll: NllConfig) -> dict:
    """Return what the number depends on, besides the images' number and the device."""
    from ..run.checkpoint import sha256

    return {
        "weights": str(weights.resolve()),
        "weights_sha256": sha256(weights),
        "data_dir": str(Path(config.data.data_dir).resolve()),
        "split": nll.split,
        "image_size": config.model.image_size,
        "image_channels": config.model.image_channels,
        "crop_policy": config.data.crop_policy,
        "timestep_respacing": config.diffusion.timestep_respacing,
        "clip_denoised": nll.clip_denoised,
        "precision": nll.precision,
        "seed": nll.seed,
    }


def show(report: dict, T: int) -> None:
    """Print the figures of T steps."""
    error = report["standard_error"]
    spread = "a single image: no standard error" if error is None else f"+- {error:.4f}, standard error over the images"
    print(f"bits per dimension: {report['bpd']:.4f} ({spread})")
    print(f"  prior                {report['prior_bpd']:9.4f}")
    print(f"  vb, sum over steps   {report['vb_bpd']:9.4f}")
    for q, value in enumerate(report["vb_bpd_per_quartile_of_t"]):
        first, end = (math.ceil(k * T / 4) for k in (q, q + 1))
        steps = f"t {first} to {end - 1}" if first < end else "no step"
        print(f"    {steps:18s} {value:9.4f}")


def write(folder: Path, report: dict, terms: dict) -> None:
    """Write nll.json, and each term's means over the images as arr_0 (T,) of its own npz, from t = T - 1 down to 0."""
    import numpy as np

    from ..evaluation.metrics.nll import TERMS
    from ..run.checkpoint import atomic_write, write_text

    for name, values in terms.items():
        atomic_write(folder / TERMS[name], lambda file, values=values: np.savez(file, values))
    text = json.dumps(report, indent=2) + "\n"
    write_text(folder / "nll.json", text)
