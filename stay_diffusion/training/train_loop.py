"""The training loop: steps, averages, logging, saving, signals."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.profiler import record_function as part

from ..config import RunConfig, TrainConfig
from ..data.loader import positions
from ..run.checkpoint import RunFolder
from ..run.logger import Logger, duration
from ..system.device import autocast
from ..system.distributed import gather, sum_over_ranks
from .draws import noise as draw_noise
from .draws import seed_network, uniform
from .saving import Saver
from .state import TrainingState

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

    with signals_caught() as received:
        stopping = ""
        for images, layout in waited_for(batches):
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


def train_step(
    state: TrainingState,
    config: RunConfig,
    images: Tensor,
    layout,
    logger: Logger,
    before_update: Callable[[], None] = lambda: None,
) -> Tensor:
    """One optimizer step on images (B, C, H, W) in pieces of `microbatch`; returns, unread, whether it was finite.

    Everything random is drawn for the whole batch, so that the pieces add up to it. A step whose gradient is not
    finite changes no weight. Weights, averages and moments are changed after `before_update` alone.
    """
    options, B = config.train, len(images)
    with part("draws"):
        places = positions(state.samples, B, state.world.rank, state.world.size)
        for_steps, for_dropping = uniform(options.seed, places)
        t, weights = state.timestep_sampler.sample(for_steps)
        # Never without any object, though it be none: then every weight has a gradient, on every process.
        layout = layout.drop(options.drop_rate, for_dropping).pad(max(1, layout.num_objects))
        t, weights = t.to(state.device), weights.to(state.device)
        noise = draw_noise(options.seed, places, images.shape[1:], state.device)
        seed_network(options.seed, places)
    size = options.microbatch if 0 < options.microbatch < B else B

    # Forward and backward
    state.optimizer.zero_grad(set_to_none=True)
    for start in range(0, B, size):
        piece = slice(start, start + size)
        # Gradients are averaged over the processes with the last piece.
        whole = state.world.size == 1 or start + size >= B
        with contextlib.nullcontext() if whole else state.network.no_sync():
            with part("forward"):
                with autocast(state.device, state.precision):
                    terms = state.diffusion.training_losses(
                        state.network, images[piece], t[piece], noise[piece], {"layout": layout[piece]}
                    )
                loss = state.scaler.scale((terms["loss"] * weights[piece]).sum() / B)
            with part("backward"):
                loss.backward()
        with part("logging"):
            terms = {key: value.detach() for key, value in terms.items()}
            state.timestep_sampler.update(*of_all_ranks(state, t[piece], terms["loss"]))
            log_terms(logger, terms, t[piece], weights[piece], state.diffusion.num_timesteps)

    # Clip and update
    with part("saving"):
        before_update()
    with part("update"):
        state.scaler.unscale_(state.optimizer)
        gradients = [p.grad for p in state.model.parameters() if p.grad is not None]
        norm = torch.nn.utils.get_total_norm(gradients)
        finite = norm.isfinite()
        if not state.scaler.is_enabled():
            # Fused AdamW divides the gradients as it reads them, and skips the step on the device, without a wait.
            state.own_optimizer.grad_scale = (norm / (options.grad_clip or torch.inf)).clamp(min=1.0)
            state.own_optimizer.found_inf = (~finite).float()
        elif options.grad_clip:
            torch.nn.utils.clip_grads_with_norm_(state.model.parameters(), options.grad_clip, norm)
        state.scaler.step(state.optimizer)
        state.scaler.update()
    with part("averages"):
        for ema in state.emas:
            ema.update(state.model, state.step)
    with part("logging"):
        logger.add("grad_norm", norm.nan_to_num(0.0, 0.0, 0.0), finite)
        logger.add("bad_steps", ~finite, 1)
    return finite


def waited_for(batches: Iterable) -> Iterator:
    """The same batches; the wait for each is the part "loader"."""
    batches = iter(batches)
    while True:
        with part("loader"):
            batch = next(batches, None)
        if batch is None:
            return
        yield batch


def of_all_ranks(state: TrainingState, t: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Steps and losses of all processes, in the order of the pictures, for samplers that learn from them."""
    if state.world.size == 1 or not state.timestep_sampler.learns:
        return t, losses
    gathered = gather((t.cpu(), losses.float().cpu()))
    first = state.samples % state.world.size  # whose picture is the earliest
    gathered = gathered[first:] + gathered[:first]
    t, losses = (torch.stack(parts, dim=1).flatten() for parts in zip(*gathered, strict=True))
    return t, losses


def learning_rate(options: TrainConfig, step: int) -> float:
    """Constant, or falling linearly to 0 at lr_anneal_steps."""
    return options.lr * (1 - step / options.lr_anneal_steps) if options.lr_anneal_steps else options.lr


def log_terms(logger: Logger, terms: dict[str, Tensor], t: Tensor, weights: Tensor, num_timesteps: int) -> None:
    """Means of the loss and its terms, and of the loss per quartile of t."""
    for key, value in terms.items():
        logger.add(key, (value * weights).sum(), len(t))
    quartile = 4 * t // num_timesteps
    for q in range(4):
        chosen = quartile == q
        logger.add(f"loss_q{q}", (terms["loss"] * weights * chosen).sum(), chosen.sum())


def report(state: TrainingState, options: TrainConfig, logger: Logger, seconds_per_step: float) -> None:
    """One row of figures, and one line for people."""
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
def signals_caught():
    """Yields a list to which SIGINT and SIGTERM add their names, so that the loop can save; a second one interrupts.

    Not one within a second: launchers pass on what their processes have received already.
    """
    received: list[str] = []
    times: list[float] = []

    def note(number, frame):
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
