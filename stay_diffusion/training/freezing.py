"""Weights that a fine-tune leaves as they are."""

from collections.abc import Callable

from torch import nn

from ..models.conditioning import LayoutConditioner, MaskRefinement
from ..models.isla_norm import IslaNorm
from ..models.spade_norm import SpadeNorm
from ..models.unet import UNet

# What a layout goes through on its way into the picture: codes and masks, the norms' projections, the product.
CONDITIONING = (LayoutConditioner, MaskRefinement, IslaNorm, SpadeNorm, nn.Embedding)


def _encoder(model: UNet) -> list[nn.Module]:
    """Return the encoder and the timestep's embedding, which its output depends on."""
    return [model.time_embed, model.input_blocks]


# By --freeze: the modules whose weights stay, but for those of `CONDITIONING` in them.
FREEZES: dict[str, Callable[[UNet], list[nn.Module]]] = {
    "none": lambda model: [],
    "encoder": _encoder,
    "all_but_conditioning": lambda model: [model],
}


def freeze(model: UNet, name: str) -> None:
    """Leave weights out of training, by a key of FREEZES: no gradient reaches them, and no optimizer holds them.

    ValueError where nothing is left to train.
    """
    for module in FREEZES[name](model):
        module.requires_grad_(False)
    for module in model.modules():
        if isinstance(module, CONDITIONING):
            module.requires_grad_(True)
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise ValueError(f"--freeze {name}: this model has no conditioning to train")
