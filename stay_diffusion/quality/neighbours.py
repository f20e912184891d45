"""Near-copies: the training object that a crop is most alike, by its pixels and by a classifier's features."""

import itertools
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from .classifier import CropClassifier, features
from .crops import RIM, SIDE, Inside, ended_at, without_rim

BLUR = 7  # pixels over which the local mean is taken: what is left are edges, at which two objects differ
CANDIDATES = 32  # for each crop and measure, compared in detail
AT_A_TIME = 8192  # references in one matrix product
NEIGHBOURS = (-1, 0, 1)  # pixels by which a crop is moved each way to meet a reference


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
    features less their mean, with the crop at the best of nine places a pixel apart. An exact copy has 1. With `flip`
    the mirrored crop is compared too. Where the crop's picture ends, the references are compared as if theirs did.
    """
    top, left, bottom, right = inside
    P = crop.shape[-1]
    found = [_nearest(crop, inside, references, model)]
    if flip:
        found.append(_nearest(crop.flip(-1), (top, P - right, bottom, P - left), references, model))
    return max(found, key=lambda neighbour: neighbour.similarity)


def normalised(crops: Tensor) -> Tensor:
    """Grey pixels (N, S * S) less their local mean, of zero mean and unit length; of crops without contrast 0."""
    grey = crops.float().mean(1, keepdim=True)
    edges = grey - F.avg_pool2d(F.pad(grey, [BLUR // 2] * 4, mode="replicate"), BLUR, stride=1)
    edges = edges.flatten(1)
    return _unit(edges - edges.mean(1, keepdim=True), least=1.0)


@torch.no_grad()
def _nearest(crop: Tensor, inside: Inside, references: References, model: CropClassifier) -> Neighbour:
    places = list(itertools.product(NEIGHBOURS, NEIGHBOURS))
    moved = torch.stack([without_rim(crop, down, right) for down, right in places])
    own_pixels, own_features = normalised(moved), _unit(features(model, moved) - references.mean)
    centre = places.index((0, 0))
    candidates = _candidates(own_pixels[centre], own_features[centre], references)

    crops, found = references.crops[candidates], references.features[candidates]
    is_whole = inside == (0, 0, *crop.shape[1:])
    if not is_whole:
        found = _unit(features(model, ended_at(crops, _within_rim(inside))) - references.mean)
    pixels, best = normalised(crops), torch.zeros(len(candidates))
    for place, (down, right) in enumerate(places):
        if not is_whole:
            pixels = normalised(ended_at(crops, _within_rim(inside, down, right)))
        of_pixels, of_features = pixels @ own_pixels[place], found @ own_features[place]
        best = torch.maximum(best, (of_pixels.clamp(0, 1) + of_features.clamp(0, 1)) / 2)
    return Neighbour(best.max().item(), int(candidates[best.argmax()]))


def _candidates(pixels: Tensor, own: Tensor, references: References) -> Tensor:
    """The places of the most alike references by either measure, ascending; memory does not grow with their number."""
    found = []
    for query, columns in ((pixels, references.pixels), (own, references.features)):
        similarity = torch.cat([part.float() @ query for part in columns.split(AT_A_TIME)])
        found.append(similarity.topk(min(CANDIDATES, len(similarity))).indices)
    return torch.cat(found).unique()


def _within_rim(inside: Inside, down: int = 0, right: int = 0) -> Inside:
    """What `inside` is in the crop moved within its rim."""
    top, left, bottom, far = inside
    return top - RIM - down, left - RIM - right, bottom - RIM - down, far - RIM - right


def _unit(vectors: Tensor, least: float = 1e-6) -> Tensor:
    """Vectors (N, D) of length 1; those shorter than `least` become 0."""
    length = vectors.norm(dim=1, keepdim=True)
    return torch.where(length < least, torch.zeros_like(vectors), vectors / length.clamp(min=1e-12))


assert max(NEIGHBOURS) <= RIM and BLUR < SIDE
