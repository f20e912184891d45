"""Near-copies: the training object that a crop is most alike, by its pixels and by a classifier's features."""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .classifier import CropClassifier, features
from .crops import RIM, SIDE, Inside, ended_at, within_rim, without_rim

BLUR = 7  # pixels over which the local mean is taken: what is left are edges, at which two objects differ
CANDIDATES = 32  # for each crop and measure, compared in detail
AT_A_TIME = 8192  # references in one matrix product
MOST_MOVED = 1  # pixels, in halves, by which a crop is moved each way to meet a reference


class References(NamedTuple):
    """What is searched: crops (N, C, S, S) uint8, their normalised pixels (N, S * S) float16 and features (N, D).

    Features are compared by how they differ from their mean (D,), and kept so.
    """

    crops: Tensor
    pixels: Tensor
    features: Tensor
    mean: Tensor

    @classmethod
    def of(cls, crops: Tensor, model: CropClassifier) -> "References":
        found = features(model, crops)
        mean = found.mean(0)
        return cls.known(crops, _unit(found - mean), mean)

    @classmethod
    def known(cls, crops: Tensor, features: Tensor, mean: Tensor) -> "References":
        """Of crops whose features were kept."""
        pixels = torch.cat([normalised(part).half() for part in crops.split(AT_A_TIME)])
        return cls(crops, pixels, features, mean)


class Neighbour(NamedTuple):
    similarity: float
    place: int  # among the references


def nearest(crop: Tensor, inside: Inside, references: References, model: CropClassifier, flip: bool) -> Neighbour:
    """The reference that a crop with its rim (C, P, P) uint8 is most alike, and how much, in [0, 1].

    Similarity is the mean of two correlations, each 0 where negative: of the pixels less their local means, and of the
    features less their mean, with the crop at the best of 25 places half a pixel apart. An exact copy has 1. With
    `flip` the mirrored crop is compared too. Where the crop's picture ends, the references are compared as if theirs
    did, too.
    """
    top, left, bottom, right = inside
    P = crop.shape[-1]
    found = [_nearest(crop, inside, references, model)]
    if flip:
        found.append(_nearest(crop.flip(-1), (top, P - right, bottom, P - left), references, model))
    return max(found, key=lambda neighbour: neighbour.similarity)


def normalised(crops: Tensor, inside: Inside = (0, 0, SIDE, SIDE)) -> Tensor:
    """Grey pixels (N, S * S) less their local mean, of zero mean and unit length; of crops without contrast 0.

    Only of those `inside`: the others are 0.
    """
    grey = crops.float().mean(1, keepdim=True)
    edges = grey - F.avg_pool2d(F.pad(grey, [BLUR // 2] * 4, mode="replicate"), BLUR, stride=1)
    top, left, bottom, right = (max(edge, 0) for edge in inside)
    part = edges[..., top:bottom, left:right]
    part = part - part.mean((2, 3), keepdim=True)
    found = torch.zeros_like(edges)
    found[..., top:bottom, left:right] = part
    return _unit(found.flatten(1), least=1.0)


@torch.no_grad()
def _nearest(crop: Tensor, inside: Inside, references: References, model: CropClassifier) -> Neighbour:
    moved = _moved(crop)
    centre = len(moved) // 2
    own = _unit(features(model, moved) - references.mean)
    candidates = _candidates(normalised(moved)[centre], own[centre], references)
    crops = references.crops[candidates]
    compared = [(crops, references.features[candidates], (0, 0, SIDE, SIDE))]
    if inside != (0, 0, *crop.shape[1:]):  # of a training object at its picture's edge both may be right
        ended = ended_at(crops, within_rim(inside))
        compared.append((ended, _unit(features(model, ended) - references.mean), _at_all_places(within_rim(inside))))
    similarity = torch.zeros(len(candidates))
    for crops, found, part in compared:
        of_pixels, of_features = normalised(crops, part) @ normalised(moved, part).T, found @ own.T  # N places
        similarity = torch.maximum(similarity, ((of_pixels.clamp(0, 1) + of_features.clamp(0, 1)) / 2).amax(1))
    return Neighbour(similarity.max().item(), int(candidates[similarity.argmax()]))


def _moved(crop: Tensor) -> Tensor:
    """A crop (C, P, P) at the 25 places, without its rim (25, C, S, S); the 13th is where it was."""
    P = crop.shape[-1]
    steps = torch.linspace(-MOST_MOVED, MOST_MOVED, 5) * 2 / P
    places = torch.zeros(25, 2, 3)
    places[:, 0, 0] = places[:, 1, 1] = SIDE / P
    places[:, :, 2] = torch.cartesian_prod(steps, steps)
    grid = F.affine_grid(places, [25, 1, SIDE, SIDE], align_corners=False)
    many = crop.float().expand(25, *crop.shape)
    moved = F.grid_sample(many, grid, mode="bicubic", padding_mode="border", align_corners=False)
    moved[12] = without_rim(crop).float()  # exactly
    return moved.clamp(0, 255)


def _at_all_places(inside: Inside) -> Inside:
    """What a crop shows of its picture wherever it is moved to; at least a few pixels."""
    low = [min(edge + 1 if edge > 0 else 0, SIDE - 4) for edge in inside[:2]]
    high = [max(edge - 1 if edge < SIDE else SIDE, first + 4) for edge, first in zip(inside[2:], low, strict=True)]
    return low[0], low[1], min(high[0], SIDE), min(high[1], SIDE)


def _candidates(pixels: Tensor, own: Tensor, references: References) -> Tensor:
    """The places of the most alike references by either measure, ascending; memory does not grow with their number."""
    found = []
    for query, columns in ((pixels, references.pixels), (own, references.features)):
        similarity = torch.cat([part.float() @ query for part in columns.split(AT_A_TIME)])
        found.append(similarity.topk(min(CANDIDATES, len(similarity))).indices)
    return torch.cat(found).unique()


def _unit(vectors: Tensor, least: float = 1e-6) -> Tensor:
    """Vectors (N, D) of length 1; those shorter than `least` become 0."""
    length = vectors.norm(dim=1, keepdim=True)
    return torch.where(length < least, torch.zeros_like(vectors), vectors / length.clamp(min=1e-12))


assert MOST_MOVED < RIM and BLUR < SIDE
