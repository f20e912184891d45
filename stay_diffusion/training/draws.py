"""Random draws of a training step, made for each picture from the seed and its place in the run's order.

So a step does not depend on how many processes share it, nor a resumed run on any state of random numbers.
"""

import hashlib

import numpy as np
import torch
from torch import Tensor

STREAM = 7  # keeps these numbers apart from those of the data's order and crops


def uniform(seed: int, positions: range) -> Tensor:
    """(2, B) float64 in [0, 1): which step each picture is trained on, and whether its layout is dropped."""
    draws = [np.random.default_rng((STREAM, seed, position)).random(2) for position in positions]
    return torch.from_numpy(np.stack(draws, axis=1))


def noise(seed: int, positions: range, shape: tuple[int, ...], device: torch.device) -> Tensor:
    """(B, *shape) standard normal, on the device and by its own generator."""
    generator = torch.Generator(device)
    drawn = torch.empty(len(positions), *shape, device=device)
    for picture, position in zip(drawn, positions, strict=True):
        generator.manual_seed(_seed(seed, position, "noise"))
        picture.normal_(generator=generator)
    return drawn


def seed_network(seed: int, positions: range) -> None:
    """Seed what the network itself draws, dropout and styles, by the first of the positions."""
    torch.manual_seed(_seed(seed, positions[0], "network"))


def _seed(*parts) -> int:
    digest = hashlib.blake2b(repr(parts).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "little") >> 1
