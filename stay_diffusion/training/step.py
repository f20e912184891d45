"""One optimizer step: random draws, forward and backward passes by pieces, the update of weights and averages."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.profiler import record_function as part

from ..config import RunConfig, TrainConfig
from ..data.layout import Layout
from ..data.loader import positions
from ..run.logger import Logger
from ..system.device import autocast
from ..system.distributed import gather
from .draws import noise as draw_noise
from .draws import seed_network, uniform
from .state import TrainingState


class Batch(NamedTuple):
    """A batch with everything that is drawn for it, in pieces by slicing its members alike."""

    images: Tensor  # (B, C, H, W)
    layout: Layout
    noise: Tensor  # (B, C, H, W)
    t: Tensor  # (B,)
    weights: Tensor  # (B,) of the losses

    def piece(self, which: slice) -> "Batch":
        return Batch(self.images[which], self.layout[which], self.noise[which], self.t[which], self.weights[which])


def train_step(
    state: TrainingState,
    config: RunConfig,
    images: Tensor,
    layout: Layout,
    logger: Logger,
    before_update: Callable[[], None] = lambda: None,
) -> Tensor:
    """Take one optimizer step on images (B, C, H, W) in pieces of `microbatch`; return, unread, whether it was finite.

    Everything random is drawn for the whole batch, so that the pieces add up to it. A step whose gradient is not
    finite changes no weight. Weights, averages and moments are changed after `before_update` alone.
    """
    with part("draws"):
        batch = draw(state, config.train, images, layout)
    accumulate_gradients(state, batch, config.train.microbatch, logger)
    with part("saving"):
        before_update()
    with part("update"):
        norm, finite = update_weights(state, config.train.grad_clip)
    with part("averages"):
        for ema in state.emas:
            ema.update(state.model, state.step)
    with part("logging"):
        logger.add("grad_norm", norm.nan_to_num(0.0, 0.0, 0.0), finite)
        logger.add("bad_steps", ~finite, 1)
    return finite


def draw(state: TrainingState, options: TrainConfig, images: Tensor, layout: Layout) -> Batch:
    """Draw steps, dropped layouts and noise for a batch, and seed what the network draws itself."""
    places = positions(state.samples, len(images), state.world.rank, state.world.size)
    for_steps, for_dropping = uniform(options.seed, places)
    t, weights = state.timestep_sampler.sample(for_steps)
    # Pad to at least one (invalid) object, so that every parameter gets a gradient on every rank.
    layout = layout.drop(options.drop_rate, for_dropping).pad(max(1, layout.num_objects))
    t, weights = t.to(state.device), weights.to(state.device)
    noise = draw_noise(options.seed, places, images.shape[1:], state.device)
    seed_network(options.seed, places)
    return Batch(images, layout, noise, t, weights)


def accumulate_gradients(state: TrainingState, batch: Batch, microbatch: int, logger: Logger) -> None:
    """Run forward and backward passes by pieces of `microbatch` images; log and learn from their losses."""
    B = len(batch.images)
    size = microbatch if 0 < microbatch < B else B
    state.optimizer.zero_grad(set_to_none=True)
    for start in range(0, B, size):
        images, layout, noise, t, weights = batch.piece(slice(start, start + size))
        with state.backward_pass(is_last=start + size >= B):
            with part("forward"):
                with autocast(state.device, state.precision):
                    terms = state.diffusion.training_losses(state.network, images, t, noise, {"layout": layout})
                loss = state.scaler.scale((terms["loss"] * weights).sum() / B)
            with part("backward"):
                loss.backward()
        with part("logging"):
            terms = {key: value.detach() for key, value in terms.items()}
            state.timestep_sampler.update(*of_all_ranks(state, t, terms["loss"]))
            log_terms(logger, terms, t, weights, state.diffusion.num_timesteps)


def update_weights(state: TrainingState, grad_clip: float) -> tuple[Tensor, Tensor]:
    """Clip the gradients and update the weights; return, unread, the norm that they had and whether it is finite."""
    state.scaler.unscale_(state.optimizer)
    norm = torch.nn.utils.get_total_norm([p.grad for p in state.model.parameters() if p.grad is not None])
    finite = norm.isfinite()
    if not state.scaler.is_enabled():
        # Fused AdamW divides the gradients as it reads them, and skips the step on the device, without a wait.
        fused = state.own_optimizer
        fused.grad_scale = (norm / (grad_clip or torch.inf)).clamp(min=1.0)  # type: ignore[attr-defined]
        fused.found_inf = (~finite).float()  # type: ignore[attr-defined]
    elif grad_clip:
        torch.nn.utils.clip_grads_with_norm_(state.model.parameters(), grad_clip, norm)
    state.scaler.step(state.optimizer)
    state.scaler.update()
    return norm, finite


def of_all_ranks(state: TrainingState, t: Tensor, losses: Tensor) -> tuple[Tensor, Tensor]:
    """Gather steps and losses of all processes, in the order of the pictures, for samplers that learn from them."""
    if state.world.size == 1 or not state.timestep_sampler.learns:
        return t, losses
    gathered = gather((t.cpu(), losses.float().cpu()))
    first = state.samples % state.world.size  # whose picture is the earliest
    gathered = gathered[first:] + gathered[:first]
    t, losses = (torch.stack(parts, dim=1).flatten() for parts in zip(*gathered, strict=True))
    return t, losses


def log_terms(logger: Logger, terms: dict[str, Tensor], t: Tensor, weights: Tensor, num_timesteps: int) -> None:
    """Log means of the loss and its terms, and of the loss per quartile of t."""
    for key, value in terms.items():
        logger.add(key, (value * weights).sum(), len(t))
    quartile = 4 * t // num_timesteps
    for q in range(4):
        chosen = quartile == q
        logger.add(f"loss_q{q}", (terms["loss"] * weights * chosen).sum(), chosen.sum())
