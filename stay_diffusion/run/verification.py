"""Imported weights held against an example of their original: its inputs and the output that it gave."""

import zipfile
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from ..config import RunConfig
from ..data.layout import UNKNOWN_PRODUCT, Layout
from ..models.spade_norm import SemanticConditioning

LARGEST_ERROR = 1e-3  # of the largest value of the output


def verify(model: nn.Module, config: RunConfig, path: Path, needed: tuple[str, ...]) -> None:
    """Compare a model with the original's output, for every layout of `conditions`; ValueError where it differs."""
    try:
        with np.load(path) as arrays:
            numbers = {name: torch.from_numpy(arrays[name]) for name in needed if name in arrays.files}
    except (OSError, ValueError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise ValueError(f"--verify {path}: cannot be read as an npz: {error}") from None
    for name in needed:
        if name not in numbers:
            raise ValueError(f"--verify {path}: has no {name}; needed are {', '.join(needed)}")
    expected = numbers["out"].float()
    for what, layout in conditions(config, numbers).items():
        try:
            with torch.no_grad():
                output = model(numbers["x"].float(), numbers["t"], layout)
        except (RuntimeError, IndexError) as error:  # torch's, of shapes and of classes that there are not
            shapes = ", ".join(f"{name} {tuple(array.shape)}" for name, array in numbers.items())
            raise ValueError(f"--verify {path}: {shapes} do not fit the model: {str(error).splitlines()[0]}") from None
        if output.shape != expected.shape:
            raise ValueError(f"--verify {path}: out is {tuple(expected.shape)}, the model gives {tuple(output.shape)}")
        absolute = (output - expected).abs().max().item()
        relative = absolute / max(expected.abs().max().item(), 1e-30)  # an untrained network's output is zero
        print(f"verified against {path}{what}: largest error {absolute:.2e}, {relative:.2e} of the largest output")
        if not relative <= LARGEST_ERROR:
            raise ValueError(
                f"--verify {path}{what}: differs by {relative:.2e} of the largest output, more than {LARGEST_ERROR:g}; "
                "is a flag wrong that no shape reveals (see above)?"
            )


def conditions(config: RunConfig, numbers: dict[str, Tensor]) -> dict[str, Layout | SemanticConditioning | None]:
    """Return conditions of the network by a name for each: y as this model takes it; for a layout model any boxes."""
    if config.model.conditioning == "spade":
        return {"": SemanticConditioning(numbers["y"].float())}
    if not config.model.class_cond:
        return {"": None}
    B, K = len(numbers["x"]), len(config.data.classes)
    products = (numbers["y"] + 1).tolist() if "y" in numbers else [UNKNOWN_PRODUCT] * B

    def layout(num_objects: int) -> Layout:
        drawn = torch.Generator().manual_seed(0)
        corners = torch.rand(B, num_objects, 2, 2, generator=drawn).sort(dim=2).values.flatten(2)  # x0 y0 x1 y1
        labels = torch.randint(1, K + 1, (B, num_objects), generator=drawn) if num_objects else torch.zeros(B, 0).long()
        return Layout.collate(list(zip(corners, labels, products, strict=True)))

    if config.model.conditioning == "none":
        return {"": layout(0)}
    return {", without objects": layout(0), **({", with random boxes": layout(5)} if K else {})}
