"""The state of training: its contents for a checkpoint, and how to resume from one."""

import logging
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch.nn.parallel import DistributedDataParallel

from ..config import RunConfig, flags
from ..diffusion.gaussian_diffusion import GaussianDiffusion
from ..diffusion.timestep_sampler import TIMESTEP_SAMPLERS
from ..models.compilation import compiled
from ..run.checkpoint import RunFolder
from ..system.device import resolve_precision
from ..system.launchers import ALONE, World
from .best import Best
from .ema import Ema

logger = logging.getLogger("stay_diffusion")

FP16_SCALE_GROWTH = 1e-3  # of the loss scale's log2, each step


class TrainingState:
    """Contents of a checkpoint: model, averages, optimizer, loss scale, timestep history, position.

    No state of random numbers: a step's follow from the seed and the position (draws.py).
    """

    def __init__(
        self, config: RunConfig, model, diffusion: GaussianDiffusion, device: torch.device, world: World = ALONE
    ):
        train = config.train
        self.device, self.diffusion, self.world = device, diffusion.to(device), world
        self.model = model.to(device)
        # What a step calls. Compiled within what averages, as torch advises; weights and their names stay the model's.
        network = compiled(self.model, train.compile)
        self.network = average_gradients(network, config, device) if world.size > 1 else network
        self.emas = [Ema(self.model, rate) for rate in train.ema_rates]
        self.precision = resolve_precision(train.precision, train.use_fp16, device)
        self.optimizer = build_optimizer(self.model, config, world)
        # guided-diffusion's rule in GradScaler's words: log2 of the scale grows by a constant each step.
        self.scaler = torch.amp.GradScaler(
            device.type,
            init_scale=2.0**16,
            growth_factor=2.0**FP16_SCALE_GROWTH,
            growth_interval=1,
            enabled=self.precision == "fp16",
        )
        self.timestep_sampler = TIMESTEP_SAMPLERS[train.schedule_sampler](diffusion.num_timesteps)
        self.step, self.samples, self.best = 0, 0, Best()

    @property
    def own_optimizer(self) -> torch.optim.Optimizer:
        """The optimizer of this process's share of the weights, all of them unless --shard_optimizer."""
        return getattr(self.optimizer, "optim", self.optimizer)

    def backward_pass(self, is_last: bool) -> AbstractContextManager:
        """Return the context of one of a step's passes; processes average their gradients with the last one."""
        if is_last or not isinstance(self.network, DistributedDataParallel):
            return nullcontext()
        return self.network.no_sync()

    def collect(self) -> None:
        """Bring the shares of a sharded optimizer to the first process, for `contents`; all processes call it."""
        if self.own_optimizer is not self.optimizer:
            self.optimizer.consolidate_state_dict(to=0)  # type: ignore[attr-defined]  # ZeroRedundancyOptimizer's

    def contents(self, config: RunConfig) -> dict[str, dict]:
        """Contents of a checkpoint by the name of its file: weights and moments themselves, which the next update
        changes, and copies of the little that changes before it.
        """
        weights = {"model": self.model.state_dict(), **{ema.name: ema.model.state_dict() for ema in self.emas}}
        state = {
            "step": self.step,
            "samples": self.samples,
            "best": {self.best.by: [self.best.value, self.best.step]},
            "timestep_sampler": self.timestep_sampler.state_dict(),
            "scaler": self.scaler.state_dict(),
            "config": flags.flatten(config),
            "world_size": self.world.size,
            "versions": {"torch": str(torch.__version__)},
        }
        return {**weights, "opt": self.optimizer.state_dict(), "state": state}

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
        self.step, self.samples = state["step"], state["samples"]
        # Earlier versions knew the validation loss alone.
        best = state.get("best") or {"val_loss": [state["best_val_loss"], 0]}
        self.best = next(Best(by, *value_and_step) for by, value_and_step in best.items())
        began = state.get("world_size", self.world.size)
        if began != self.world.size:
            drawn = config.model.dropout or config.model.z_mode != "off"
            what = "sums are rounded differently" + (", dropout and styles are drawn differently" if drawn else "")
            logger.warning(
                "%d processes continue what %d began: same data and noise, but %s", self.world.size, began, what
            )
        # Another --schedule_sampler or --precision than before starts afresh.
        if state["timestep_sampler"].keys() == self.timestep_sampler.state_dict().keys():
            self.timestep_sampler.load_state_dict(state["timestep_sampler"])
        if state["scaler"].keys() == self.scaler.state_dict().keys():
            self.scaler.load_state_dict(state["scaler"])
        if self.world.is_main:
            folder.point_to(step, ["model", *(ema.name for ema in self.emas)])
            folder.prune(step, config.train.keep_checkpoints)


def build_optimizer(model: torch.nn.Module, config: RunConfig, world: World) -> torch.optim.Optimizer:
    """AdamW; with --shard_optimizer each of several processes keeps the moments of its share of the weights alone.

    What a checkpoint holds is the same either way, whatever the number of processes (ZeRO-1, arXiv 1910.02054).
    """
    options: dict[str, Any] = {"lr": config.train.lr, "weight_decay": config.train.weight_decay, "fused": True}
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    if not (config.train.shard_optimizer and world.size > 1):
        return torch.optim.AdamW(trained, **options)
    from torch.distributed.optim import ZeroRedundancyOptimizer

    return ZeroRedundancyOptimizer(trained, optimizer_class=torch.optim.AdamW, **options)


def average_gradients(model: torch.nn.Module, config: RunConfig, device: torch.device) -> torch.nn.Module:
    """The model whose backward pass averages its gradients over all processes.

    Every step uses every weight, as a static graph wants; but torch 2.13 stops with an internal error where a static
    graph begins with a pass that is not averaged, as the pieces of a batch do. The gradients are views of what is sent,
    which saves a copy of them. Processes on CPUs send all at once: the backward pass, which has every core busy, gains
    nothing from sending meanwhile.
    """
    whole = not 0 < config.train.microbatch < config.train.batch_size
    places: dict[str, Any] = {"device_ids": [device]} if device.type == "cuda" else {"bucket_cap_mb": 2**20}
    return DistributedDataParallel(model, **places, static_graph=whole, gradient_as_bucket_view=True)


def copy_to_cpu(value, into=None):
    """Return the tree with its tensors copied to the CPU, where they fit into those at the same places of `into`.

    An earlier copy given as `into` lends its memory, which is quicker than fresh one.
    """
    if isinstance(value, torch.Tensor):
        if isinstance(into, torch.Tensor) and (into.shape, into.dtype) == (value.shape, value.dtype):
            return into.copy_(value.detach())
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        into = into if isinstance(into, dict) else {}
        return {key: copy_to_cpu(each, into.get(key)) for key, each in value.items()}
    return [copy_to_cpu(each) for each in value] if isinstance(value, list) else value
