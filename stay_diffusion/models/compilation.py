"""torch.compile around a network where the machine can do it, and the network as it is where it cannot."""

import contextlib
import logging
from collections.abc import Callable

import torch
from torch import Tensor, nn

from ..data.layout import Layout

BACKEND = "inductor"
LEAST_ROWS = 16  # as models/conditioning.py pads them
USED_ROWS = 2  # of background and of ones, besides the objects
MOST_SHAPES = 64  # compiled one by one; torch would leave the ninth to the plain network

logger = logging.getLogger("stay_diffusion")


class Compiled(nn.Module):
    """A U-Net's forward pass, compiled once for each shape; called as the network is, with its weights and draws.

    Layouts are padded to a few numbers of objects, so that shapes repeat. Every shape is compiled by itself: what a
    kernel rounds does not depend on the shapes before it, and a continued run remains the same run. Where a
    compilation fails, one warning says so and the network itself goes on.
    """

    def __init__(self, model: nn.Module, backend: str | None = None):
        super().__init__()
        self.model, self.is_compiled = model, True
        backend = backend or BACKEND
        from torch._functorch import config as functorch_config

        # Dropout and styles as the plain network draws them.
        options: dict[str, str | int | bool | Callable] | None = (
            {"fallback_random": True} if backend == "inductor" else None
        )
        try:
            if not hasattr(functorch_config, "force_non_lazy_backward_lowering"):
                raise RuntimeError(f"torch {torch.__version__} is too old for it")
            self._compiled = torch.compile(model.forward, dynamic=False, backend=backend, options=options)
        except RuntimeError as error:  # Python or platform are unknown to it
            self._give_up(error)

    def forward(self, x: Tensor, timesteps: Tensor, layout=None) -> Tensor:
        if isinstance(layout, Layout):
            layout = padded(layout)
        if self.is_compiled:
            from torch._dynamo.exc import TorchDynamoException

            try:
                with _settings():
                    return self._compiled(x, timesteps, layout)
            except TorchDynamoException as error:
                self._give_up(error)
        return self.model(x, timesteps, layout)

    def _give_up(self, error: Exception) -> None:
        self.is_compiled = False
        lines = [line for line in str(error).splitlines() if line.strip()] or [""]
        logger.warning("--compile True: not here, so the network runs as it is (%s)", lines[0].strip()[:200])


def compiled(model: nn.Module, wanted: bool) -> nn.Module:
    """Compile the network, if --compile says so."""
    return Compiled(model) if wanted else model


def padded(layout: Layout) -> Layout:
    """Pad the layout with objects that count for nothing, up to 14, 30, 62, 126 ...

    Where each object has a code of its own, these make with background and ones 16, 32, 64, 128 rows in the norms'
    products, none of them for nothing.
    """
    rows = LEAST_ROWS
    while layout.num_objects > rows - USED_ROWS:
        rows *= 2
    return layout.pad(rows - USED_ROWS)


def padded_number(images: int, most: int) -> int:
    """The number of images to draw in place of `images`, so that shapes repeat: the next power of two up to `most`."""
    return min(1 << (images - 1).bit_length(), max(most, images))


@contextlib.contextmanager
def _settings():
    """Compile the backward pass with the forward pass, so that both fail before anything has run."""
    from torch._dynamo import config as dynamo
    from torch._functorch import config as functorch

    with (
        dynamo.patch(recompile_limit=MOST_SHAPES),
        functorch.patch(force_non_lazy_backward_lowering=True),
    ):
        yield
