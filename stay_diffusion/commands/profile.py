"""Where the time of a training step goes: image_train.py's flags, its loop, its parts as a table and as a trace.

    python scripts/profile_step.py --data_dir DATA --batch_size 16 --trace OUTPUT/step.json

Without --data_dir the pictures are noise, with --max_objects boxes each (8 if there is no limit), and no loader is
waited for. The weights are new ones, whatever --logdir and the flags of weights to start from say: time does not depend
on them. A trace opens in chrome://tracing or Perfetto.
"""

import itertools
import statistics
from dataclasses import dataclass, replace
from pathlib import Path

from ..config import DataConfig, DiffusionConfig, ModelConfig, RunConfig, TrainConfig, option
from ..config.flags import dump, parse
from ..system.distributed import join, start_group

OBJECTS = 8


@dataclass(frozen=True)
class ProfileConfig:
    num_steps: int = option(10, "steps to look at, without the profiler and with it", least=1)
    warm_up: int = option(3, "steps before them", least=1)
    trace: str = option("", "keep the profiler's trace as this file, FILE.json or FILE.json.gz, for chrome://tracing")


@dataclass(frozen=True)
class ProfileRun:
    """What profile_step.py takes: its own options and all of image_train.py's."""

    profile: ProfileConfig = ProfileConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    train: TrainConfig = TrainConfig()


def main() -> int:
    run, _, switches = parse(ProfileRun, __doc__.partition("\n")[0])
    if switches["print_config"]:
        print(dump(run), end="")
        return 0
    options, config = run.profile, RunConfig(run.data, run.model, run.diffusion, run.train)
    trace = Path(options.trace).resolve() if options.trace else None
    if trace and not trace.parent.is_dir():
        raise ValueError(f"--trace {options.trace}: no such folder")
    if trace and (trace.is_dir() or not trace.name.endswith((".json", ".json.gz"))):
        raise ValueError(f"--trace {options.trace}: expected FILE.json or FILE.json.gz")
    world = join(config.train.dist_timeout)

    # Imported only now, so that --help and mistyped flags answer at once.
    import torch

    from ..run import factory
    from ..system.device import pick_device
    from ..training.freezing import freeze
    from ..training.profiling import profile_steps
    from ..training.state import TrainingState

    # What image_train.py would train
    device = pick_device(world=world)
    start_group(world, device, config.train.dist_timeout)
    config, batches = stream(config, device, world)
    torch.manual_seed(config.train.seed)
    model = factory.build_model(config)
    diffusion = factory.build_training_diffusion(config.diffusion)
    freeze(model, config.train.freeze)
    state = TrainingState(config, model, diffusion, device, world)
    if switches["dry_run"]:
        print(f"{device}, {state.precision}: would profile {options.num_steps} steps after {options.warm_up}")
        return 0

    # Looked at
    found = profile_steps(state, config, batches, options.num_steps, options.warm_up, trace if world.is_main else None)
    if world.is_main:
        print(f"{device}, {state.precision}, batches of {config.train.batch_size}, torch {torch.__version__}", end="")
        print(f", {torch.get_num_threads()} threads" if device.type == "cpu" else f", {torch.cuda.get_device_name()}")
        print(as_text(found, device.type == "cuda"), end="")
        if trace:
            print(f"trace: {trace}")
    return 0


def stream(config: RunConfig, device, world):
    """The configuration with the names that the data have, and batches: of the data, or the same noise for ever."""
    from ..data.datasets import NO_NAMES
    from ..data.loader import batches
    from ..data.picture_cache import cache_pictures
    from ..run import factory
    from ..training.noise_batch import noise_batch, with_made_up_names

    data, options = config.data, config.train
    if not data.data_dir:
        config = with_made_up_names(config)
        batch = noise_batch(config, options.batch_size, data.max_objects or OBJECTS, options.seed + world.rank)
        if device.type == "cuda":
            batch = tuple(part.pin_memory() for part in batch)
        return config, itertools.repeat(batch)
    split = "train" if options.is_train else "val"
    records, vocabulary = factory.read_split(data, split, select=True, known=NO_NAMES)
    config = factory.with_vocabulary(config, vocabulary)
    dataset = factory.build_dataset(factory.with_readable_pictures(records, data), config, augment=True)
    cache_pictures(dataset, data.cache)
    places = {"rank": world.rank, "world": world.size}
    loading = {"num_workers": data.num_workers, "pin_memory": device.type == "cuda"}
    return config, batches(dataset, options.batch_size, options.seed, start=0, **places, **loading)


def as_text(found, is_cuda: bool) -> str:
    """The parts of a step as a table, and what the profiler itself costs."""
    step = statistics.median(found.seconds)
    spread = f"{min(found.seconds):.4g} to {max(found.seconds):.4g}"
    lines = [f"a step takes {step:.4g} s ({spread}, {len(found.seconds)} steps); with the profiler:", ""]
    lines += [f"{'part':<16}{'ms':>10}{'share':>8}" + (f"{'GPU ms':>10}{'waits':>8}" if is_cuda else "")]
    shown = {name: part for name, part in found.parts.items() if part.host or part.device}
    for name, part in [*shown.items(), ("step", total(found.parts.values()))]:
        line = f"{name:<16}{1000 * part.host:>10.3f}{100 * part.host / found.profiled:>7.1f}%"
        lines.append(line + (f"{1000 * part.device:>10.3f}{part.syncs:>8.2f}" if is_cuda else ""))
    if is_cuda:
        busy = sum(part.device for part in found.parts.values()) / found.profiled
        lines += ["", f"the GPU works {100 * busy:.1f} % of the step; the host waits for it, times a step:"]
        lines += [f"  {number:.2f}  {where}" for where, number in found.waits.items()] or ["  nowhere"]
    return "\n".join(lines) + "\n"


def total(parts):
    """All parts as one."""
    parts = list(parts)
    sums = {name: sum(getattr(part, name) for part in parts) for name in ("host", "device", "syncs")}
    return replace(parts[0], **sums)
