"""The training loop: steps, averages, logging, saving, signals."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch.profiler import record_function as part

from ..config import RunConfig, TrainConfig
from ..run.checkpoint import RunFolder
from ..run.logger import Logger, duration
from ..system.distributed import sum_over_ranks
from .saving import Saver
from .state import TrainingState
from .step import train_step

SIGNALS = ("SIGTERM", "SIGINT")
# What a step consists of, by the names that a profiler shows: no two at once (profiling.py).
PARTS = (
    *("loader", "transfer", "draws", "forward", "backward", "update", "averages", "logging"),
    *("other processes", "periodic", "saving"),
)


@dataclass(frozen=True)
class Periodic:
    """Something to do every `interval` steps and at the end of training; 0: never."""

    interval: int
    action: Callable[[TrainingState, Logger], None]


def train(
    state: TrainingState, config: RunConfig, batches: Iterable, folder: RunFolder, periodic: list[Periodic]
) -> str:
    """Steps until `config.train.last_step` or a signal, logging and saving as it goes.

    Returns "finished", "SIGINT" or "SIGTERM", with the last step saved. Raises FloatingPointError after
    `max_bad_steps` steps in a row without a finite gradient.
    """
    options, logger = config.train, Logger(folder.path, state.world, since=state.step)
    saver = Saver(folder, config, state)
    bad_in_a_row = torch.zeros((), device=state.device)
    first_step, started = state.step, time.perf_counter()

    with catch_signals() as received:
        stopping = ""
        for images, layout in load_batches(batches):
            # One step
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(options, state.step)
            with part("transfer"):
                images, layout = images.to(state.device, non_blocking=True), layout.to(state.device, non_blocking=True)
            finite = train_step(state, config, images, layout, logger, before_update=saver.wait_for_copy)
            state.step += 1
            state.samples += len(images) * state.world.size
            bad_in_a_row = (bad_in_a_row + 1) * ~finite
            finished = state.step == options.last_step
            with part("other processes"):
                stopping = stop_signal(received)
            last = finished or bool(stopping)

            # Measuring and looking
            for thing in periodic:
                if thing.interval and (finished or state.step % thing.interval == 0):
                    with part("periodic"):
                        thing.action(state, logger)
            if last or state.step % options.log_interval == 0:
                seconds = (time.perf_counter() - started) / (state.step - first_step)
                with part("logging"):
                    report(state, options, logger, seconds)
                if bad_in_a_row >= options.max_bad_steps:
                    raise FloatingPointError(
                        f"{options.max_bad_steps} steps in a row without a finite gradient, at step {state.step}: "
                        f"lower --lr or use --precision fp32; the last good checkpoint is in {folder.path}"
                    )

            # Saving
            if last or state.step % options.save_interval == 0:
                with part("saving"):
                    saver.save()
            if last:
                break
        saver.wait()
    return stopping or "finished"


def load_batches(batches: Iterable) -> Iterator:
    """Yield the batches; the wait for each is the part "loader"."""
    batches = iter(batches)
    while True:
        with part("loader"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def learning_rate(options: TrainConfig, step: int) -> float:
    """Constant, or falling linearly to 0 at lr_anneal_steps."""
    return options.lr * (1 - step / options.lr_anneal_steps) if options.lr_anneal_steps else options.lr


def report(state: TrainingState, options: TrainConfig, logger: Logger, seconds_per_step: float) -> None:
    """Log one row of figures, and one line for people."""
    norms = torch._foreach_norm(list(state.model.parameters()))
    logger.set("samples", state.samples)
    logger.set("lr", state.optimizer.param_groups[0]["lr"])
    logger.set("param_norm", torch.stack(norms).norm())
    logger.set("seconds_per_step", seconds_per_step)
    row = logger.dump(state.step)

    of_all, eta = "", ""
    if options.last_step:
        of_all, eta = f"/{options.last_step}", f"  ETA {duration(seconds_per_step * (options.last_step - state.step))}"
    figures = "".join(f"  {key} {row[key]:.4g}" for key in ("loss", "grad_norm", "val_loss") if key in row)
    skipped = (
        f"  {round(row['bad_steps'] * options.log_interval)} steps skipped (not finite)" if row["bad_steps"] else ""
    )
    logger.line(f"step {state.step}{of_all}{figures}  {seconds_per_step:.2f} s/step{eta}{skipped}")


def stop_signal(received: list[str]) -> str:
    """The signal that this or another process has received, the same answer in all of them; "" for none."""
    counts = sum_over_ranks([received.count(name) for name in SIGNALS])
    return next((name for name, count in zip(SIGNALS, counts, strict=True) if count), "")


@contextlib.contextmanager
def catch_signals() -> Iterator[list[str]]:
    """Yield a list to which SIGINT and SIGTERM add their names, so that the loop can save; a second one interrupts.

    Not one within a second: launchers pass on what their processes have received already.
    """
    received: list[str] = []
    times: list[float] = []

    def note(number: int, frame: object) -> None:
        times.append(time.monotonic())
        if times[-1] - times[0] > 1:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in map(signal.Signals.__getitem__, SIGNALS)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
