"""Memory that a training run needs, estimated without running it."""

import copy

import torch
from torch import Tensor

from ..config import RunConfig
from ..data.layout import Layout
from ..diffusion.gaussian_diffusion import GaussianDiffusion

ASSUMED_OBJECTS = 8


def parameter_count(model: torch.nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def trained_count(model: torch.nn.Module) -> int:
    """Count the parameters that are not frozen."""
    return sum(p.numel() for p in model.parameters() if p.requires_grad)


def estimate_memory(config: RunConfig, model: torch.nn.Module, diffusion: GaussianDiffusion) -> dict[str, int]:
    """Estimate the bytes that training takes in float32, by use.

    Activations are counted, not guessed: one training loss on the meta device, where tensors have shapes but no
    storage, adding up what autograd keeps, with eight objects a picture.
    """
    images = config.train.microbatch if config.train.microbatch > 0 else config.train.batch_size
    weights, gradients = 4 * parameter_count(model), 4 * trained_count(model)
    return {
        "weights and gradients": weights + gradients,
        "optimizer": 2 * gradients,
        "averages": len(config.train.ema_rates) * weights,
        "activations": images * _kept_by_autograd(config, model, diffusion),
    }


def explain_out_of_memory(
    error: RuntimeError, config: RunConfig, model: torch.nn.Module, diffusion: GaussianDiffusion
) -> ValueError | None:
    """Return what to do about an error of training for want of memory; None for other errors."""
    if "DataLoader worker" in str(error):
        told = "a process that loads pictures was killed, by the system for want of memory perhaps"
        return ValueError(f"{told}: fewer --num_workers need less ({str(error).splitlines()[0][:100]})")
    if not (isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)):
        return None
    needed = sum(estimate_memory(config, model, diffusion).values()) / 2**30
    advice = "a smaller --microbatch, --use_checkpoint True or a smaller --image_size need less"
    return ValueError(f"out of memory (training takes about {needed:.1f} GiB in float32): {advice}")


def _kept_by_autograd(config: RunConfig, model: torch.nn.Module, diffusion: GaussianDiffusion) -> int:
    """Count the bytes that autograd keeps of one image."""
    meta, size = copy.deepcopy(model).to("meta").train(), config.model.image_size
    parameters = {p.untyped_storage()._cdata for p in meta.parameters()}
    kept: dict[int, Tensor] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()._cdata
        if storage not in parameters:
            kept[storage] = tensor  # a storage kept by several operations counts once
        return tensor

    with torch.device("meta"):
        labels = torch.ones(1, ASSUMED_OBJECTS, dtype=torch.long)
        product = torch.zeros(1, dtype=torch.long)
        semantic_map = torch.zeros(1, 2, size, size, dtype=torch.int16)
        layout = Layout(torch.zeros(1, ASSUMED_OBJECTS, 4), labels, labels.bool(), product, semantic_map)
        x = torch.zeros(1, config.model.image_channels, size, size)
        t = torch.zeros(1, dtype=torch.long)
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            diffusion.to("meta").training_losses(meta, x, t, x, {"layout": layout})
    return sum(tensor.untyped_storage().nbytes() for tensor in kept.values())
