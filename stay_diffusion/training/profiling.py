"""The training loop under torch's profiler, and where its steps wait for the device."""

import contextlib
import os
import tempfile
import time
import warnings
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import torch
from torch.profiler import ProfilerActivity

from ..config import RunConfig
from ..run.checkpoint import RunFolder
from .state import TrainingState
from .step_trace import Part, parts_of, read_trace
from .train_loop import Periodic, train

NEVER = 10**9  # steps


def quiet_profiler(**options) -> torch.profiler.profile:
    """torch's profiler, which by itself writes to stderr that it starts and stops."""
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")
    return torch.profiler.profile(**options)


@dataclass(frozen=True)
class Profile:
    """Seconds of each step by itself; the parts of a step under the profiler, which add up to it; waits by place.

    `waits` counts, for one step, what torch's own watch for synchronisations reports; it is empty without a GPU.
    """

    seconds: list[float]
    parts: dict[str, Part]
    waits: dict[str, float] = field(default_factory=dict)

    @property
    def profiled(self) -> float:
        """Seconds of a step under the profiler."""
        return sum(part.host for part in self.parts.values())


def profile_steps(
    state: TrainingState,
    config: RunConfig,
    batches: Iterable,
    num_steps: int,
    warm_up: int,
    trace: Path | None = None,
) -> Profile:
    """`num_steps` of the loop by themselves, as many under the profiler, after `warm_up`; on a GPU as many watched.

    Logging is part of them as often as the configuration says; saves, validation and previews are not. The weights
    change; nothing is kept but the trace, in Chrome's format.
    """
    is_cuda = state.device.type == "cuda"
    activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if is_cuda else [])]
    times: list[float] = []
    options = replace(config.train, max_steps=0, lr_anneal_steps=0, save_interval=NEVER)
    config, batches = replace(config, train=options), iter(batches)
    with tempfile.TemporaryDirectory() as place:
        folder, path = RunFolder(Path(place) / "run"), trace or Path(place) / "trace.json"
        if state.world.is_main:
            folder.open()

        def run(steps: int, after=lambda: None) -> None:
            """Train so many steps, each followed by `after`, without the end of a run, which saves."""
            last = state.step + steps

            def action(*_) -> None:
                after()
                if state.step == last:
                    raise _Enough

            with contextlib.suppress(_Enough):
                train(state, config, batches, folder, [Periodic(1, action)])

        def note_time() -> None:
            if is_cuda:
                torch.cuda.synchronize(state.device)
            times.append(time.perf_counter())

        run(max(1, warm_up))
        run(num_steps + 1, note_time)
        steps_of_profiler = {"skip_first": 1, "wait": 0, "warmup": 1, "active": num_steps, "repeat": 1}
        with quiet_profiler(
            activities=activities,
            schedule=torch.profiler.schedule(**steps_of_profiler),
            on_trace_ready=lambda profiler: profiler.export_chrome_trace(str(path)),
        ) as profiler:
            run(num_steps + 2, profiler.step)
        parts = parts_of(read_trace(path))
        waits: Counter[str] = Counter()
        if is_cuda:
            with _watch_waits(waits):
                run(num_steps)
    seconds = [after - before for before, after in pairwise(times)]
    return Profile(seconds, parts, {where: number / num_steps for where, number in waits.most_common()})


class _Enough(Exception):
    """The end of the steps that are looked at."""


@contextlib.contextmanager
def _watch_waits(waits: Counter):
    """Count the places in the code where the host waits for the GPU."""
    mode = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode(mode)
            waits.update(
                f"{Path(each.filename).name}:{each.lineno}" for each in said if "synchronizing" in str(each.message)
            )
