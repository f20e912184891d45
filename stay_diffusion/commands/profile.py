"""Where the time of a training step goes: image_train.py's flags, its loop, its parts as a table and as a trace.

    python scripts/profile_step.py --data_dir DATA --batch_size 16 --trace OUTPUT/step.json

Without --data_dir the pictures are noise, with --max_objects boxes each (8 if there is no limit), and no loader is
waited for. The weights are new ones, whatever --logdir and the flags of weights to start from say: time does not depend
on them. A trace opens in chrome://tracing or Perfetto.
"""

import itertools
import statistics
from dataclasses import astuple, dataclass
from pathlib import Path

from ..config import RunConfig, option
from ..config.flags import dump, parse
from ..system.distributed import join, start_group

OBJECTS = 8
WARM_UP = 3  # steps


@dataclass(frozen=True)
class ProfileConfig:
    num_steps: int = option(10, "steps to look at, without the profiler and with it", least=1)
    trace: str = option("", "keep the profiler's trace as this file, FILE.json or FILE.json.gz, for chrome://tracing")


@dataclass(frozen=True)
class ProfileRun(RunConfig):
    """Options of profile_step.py: its own and all of image_train.py's."""

    profile: ProfileConfig = ProfileConfig()


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
    config, batches = endless_batches(config, device, world)
    torch.manual_seed(config.train.seed)
    model = factory.build_model(config)
    diffusion = factory.build_training_diffusion(config.diffusion)
    freeze(model, config.train.freeze)
    state = TrainingState(config, model, diffusion, device, world)
    if switches["dry_run"]:
        print(f"{device}, {state.precision}: would profile {options.num_steps} steps after {WARM_UP}")
        return 0

    # Looked at
    found = profile_steps(state, config, batches, options.num_steps, WARM_UP, trace if world.is_main else None)
    if world.is_main:
        print(f"{device}, {state.precision}, batches of {config.train.batch_size}, torch {torch.__version__}", end="")
        print(f", {torch.get_num_threads()} threads" if device.type == "cpu" else f", {torch.cuda.get_device_name()}")
        print(as_text(found, device.type == "cuda"), end="")
        if trace:
            print(f"trace: {trace}")
    return 0


def endless_batches(config: RunConfig, device, world):
    """Return the configuration with the names of the data, and batches: of the data, or the same noise for ever."""
    from ..data.datasets import NO_NAMES
    from ..data.picture_cache import cache_pictures
    from ..run import factory
    from ..training.data_sets import read_training_split, stream_batches
    from ..training.noise_batch import noise_batch, with_made_up_names

    data, options = config.data, config.train
    if not data.data_dir:
        config = with_made_up_names(config)
        images, layout = noise_batch(config, options.batch_size, data.max_objects or OBJECTS, options.seed + world.rank)
        if device.type == "cuda":
            images, layout = images.pin_memory(), layout.pin_memory()
        return config, itertools.repeat((images, layout))
    config, records = read_training_split(config, NO_NAMES)
    dataset = factory.build_dataset(records, config, augment=True)
    cache_pictures(dataset, data.cache)
    return config, stream_batches(dataset, config, device, world)


def as_text(found, is_cuda: bool) -> str:
    """Return the parts of a step as a table, and what the profiler itself costs."""
    from ..training.step_trace import Part

    step = statistics.median(found.seconds)
    spread = f"{min(found.seconds):.4g} to {max(found.seconds):.4g}"
    lines = [f"a step takes {step:.4g} s ({spread}, {len(found.seconds)} steps); with the profiler:", ""]
    lines += [f"{'part':<16}{'ms':>10}{'share':>8}" + (f"{'GPU ms':>10}{'waits':>8}" if is_cuda else "")]
    whole = Part(*map(sum, zip(*map(astuple, found.parts.values()), strict=True)))
    shown = {name: part for name, part in found.parts.items() if part.host or part.device}
    for name, part in [*shown.items(), ("step", whole)]:
        line = f"{name:<16}{1000 * part.host:>10.3f}{100 * part.host / found.profiled:>7.1f}%"
        lines.append(line + (f"{1000 * part.device:>10.3f}{part.syncs:>8.2f}" if is_cuda else ""))
    if is_cuda:
        busy = sum(part.device for part in found.parts.values()) / found.profiled
        lines += ["", f"the GPU works {100 * busy:.1f} % of the step; the host waits for it, times a step:"]
        lines += [f"  {number:.2f}  {where}" for where, number in found.waits.items()] or ["  nowhere"]
    return "\n".join(lines) + "\n"
