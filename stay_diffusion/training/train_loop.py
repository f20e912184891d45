"""The training loop: steps, averages, logging, saving, signals."""

import contextlib
import signal
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from ..checkpoint import RunFolder
from ..config import RunConfig, TrainConfig
from ..device import autocast, resolve_precision
from ..diffusion.gaussian_diffusion import GaussianDiffusion
from ..diffusion.timestep_sampler import TIMESTEP_SAMPLERS
from ..logger import Logger, duration
from .ema import Ema


class TrainingState:
    """Everything that a checkpoint holds: model, averages, optimizer, loss scale, timestep history, RNG, position."""

    def __init__(self, config: RunConfig, model, diffusion: GaussianDiffusion, device: torch.device):
        train = config.train
        self.device, self.diffusion = device, diffusion.to(device)
        self.model = model.to(device)
        self.emas = [Ema(self.model, rate) for rate in train.ema_rates]
        self.precision = resolve_precision(train.precision, train.use_fp16, device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), lr=train.lr, weight_decay=train.weight_decay, fused=True
        )
        # guided-diffusion's rule in GradScaler's words: log2 of the scale grows by fp16_scale_growth each step.
        self.scaler = torch.amp.GradScaler(
            device.type,
            init_scale=2.0**16,
            growth_factor=2.0**train.fp16_scale_growth,
            growth_interval=1,
            enabled=self.precision == "fp16",
        )
        self.timestep_sampler = TIMESTEP_SAMPLERS[train.schedule_sampler](diffusion.num_timesteps)
        self.step, self.samples, self.best_val_loss = 0, 0, float("inf")

    def save(self, folder: RunFolder, keep: int) -> None:
        weights = {"model": self.model.state_dict(), **{ema.name: ema.model.state_dict() for ema in self.emas}}
        state = {
            "step": self.step,
            "samples": self.samples,
            "best_val_loss": self.best_val_loss,
            "rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state_all() if self.device.type == "cuda" else [],
            "timestep_sampler": self.timestep_sampler.state_dict(),
            "scaler": self.scaler.state_dict(),
        }
        folder.save(self.step, weights, self.optimizer.state_dict(), state, keep)

    def restore(self, folder: RunFolder, step: int, config: RunConfig) -> None:
        """The state at a checkpoint; learning rate and weight decay are those of the configuration, not the file's."""
        self.model.load_state_dict(folder.load("model", step))
        for ema in self.emas:
            if not folder.file(ema.name, step).exists():
                raise ValueError(f"--ema_rate {config.train.ema_rate}: {folder.file(ema.name, step)} is not there")
            ema.model.load_state_dict(folder.load(ema.name, step))
        self.optimizer.load_state_dict(folder.load("opt", step))
        for group in self.optimizer.param_groups:
            group["weight_decay"] = config.train.weight_decay  # the rate is set at every step
        state = folder.load("state", step)
        self.step, self.samples, self.best_val_loss = state["step"], state["samples"], state["best_val_loss"]
        torch.set_rng_state(state["rng"])
        if state["cuda_rng"] and self.device.type == "cuda":
            torch.cuda.set_rng_state_all(state["cuda_rng"])
        # Another --schedule_sampler or --precision than before starts afresh.
        if state["timestep_sampler"].keys() == self.timestep_sampler.state_dict().keys():
            self.timestep_sampler.load_state_dict(state["timestep_sampler"])
        if state["scaler"].keys() == self.scaler.state_dict().keys():
            self.scaler.load_state_dict(state["scaler"])
        folder.point_to(step, ["model", *(ema.name for ema in self.emas)])


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
    options, logger = config.train, Logger(folder.path)
    bad_in_a_row = torch.zeros((), device=state.device)
    first_step, started = state.step, time.perf_counter()

    with signals_caught() as received:
        for images, layout in batches:
            # One step
            for group in state.optimizer.param_groups:
                group["lr"] = learning_rate(options, state.step)
            images, layout = images.to(state.device, non_blocking=True), layout.to(state.device, non_blocking=True)
            finite = train_step(state, config, images, layout, logger)
            state.step += 1
            state.samples += len(images)
            bad_in_a_row = (bad_in_a_row + 1) * ~finite
            finished = state.step == options.last_step
            last = finished or bool(received)

            # Measuring and looking
            for thing in periodic:
                if thing.interval and (finished or state.step % thing.interval == 0):
                    thing.action(state, logger)
            if last or state.step % options.log_interval == 0:
                seconds = (time.perf_counter() - started) / (state.step - first_step)
                report(state, options, logger, seconds)
                if bad_in_a_row >= options.max_bad_steps:
                    raise FloatingPointError(
                        f"{options.max_bad_steps} steps in a row without a finite gradient, at step {state.step}: "
                        f"lower --lr or use --precision fp32; the last good checkpoint is in {folder.path}"
                    )

            # Saving
            if last or state.step % options.save_interval == 0:
                state.save(folder, options.keep_checkpoints)
            if last:
                break
    return received[0] if received else "finished"


def train_step(state: TrainingState, config: RunConfig, images: Tensor, layout, logger: Logger) -> Tensor:
    """One optimizer step on images (B, C, H, W) in pieces of `microbatch`; returns, unread, whether it was finite.

    Everything random is drawn for the whole batch, so that the pieces add up to it. A step whose gradient is not
    finite changes no weight.
    """
    options, B = config.train, len(images)
    layout = layout.drop(options.drop_rate)
    t, weights = state.timestep_sampler.sample(B, state.device)
    noise = torch.randn_like(images)
    size = options.microbatch if 0 < options.microbatch < B else B

    # Forward and backward
    state.optimizer.zero_grad(set_to_none=True)
    for start in range(0, B, size):
        piece = slice(start, start + size)
        with autocast(state.device, state.precision):
            terms = state.diffusion.training_losses(
                state.model, images[piece], t[piece], noise[piece], {"layout": layout[piece]}
            )
        state.scaler.scale((terms["loss"] * weights[piece]).sum() / B).backward()
        terms = {key: value.detach() for key, value in terms.items()}
        state.timestep_sampler.update(t[piece], terms["loss"])
        log_terms(logger, terms, t[piece], weights[piece], state.diffusion.num_timesteps)

    # Clip and update
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.clip_grad_norm_(state.model.parameters(), options.grad_clip or torch.inf)
    finite = norm.isfinite()
    if not state.scaler.is_enabled():
        state.optimizer.found_inf = (~finite).float()  # fused AdamW then skips the step on the device, without a wait
    state.scaler.step(state.optimizer)
    state.scaler.update()
    for ema in state.emas:
        ema.update(state.model, state.step)
    logger.add("grad_norm", norm.nan_to_num(0.0, 0.0, 0.0), finite)
    logger.add("bad_steps", ~finite, 1)
    return finite


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


@contextlib.contextmanager
def signals_caught():
    """Yields a list to which SIGINT and SIGTERM add their names, so that the loop can save; a second one interrupts."""
    received: list[str] = []

    def note(number, frame):
        if received:
            raise KeyboardInterrupt
        received.append(signal.Signals(number).name)

    before = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
