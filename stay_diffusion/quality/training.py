"""From a training split to a quality gate: its classifier, its references, and what held-out pictures say of both."""

import logging

import numpy as np
import torch
from torch import Tensor

from ..data.samples import LayoutDataset
from .classifier import STEPS, CropClassifier, accuracy, train_classifier
from .crops import RIM, SIDE, without_rim
from .examples import Examples, examples
from .gate import DIGITS, QualityGate
from .neighbours import References, nearest

logger = logging.getLogger("stay_diffusion.quality")

HELD_OUT = 0.1  # share of the pictures that the classifier is measured on and the threshold taken from
COPY_QUANTILE = 0.99  # of held-out objects so many are less alike any training object than the threshold
FALLBACK_THRESHOLD = 0.98  # where no picture can be held out
HIGHEST_THRESHOLD = 0.999  # an exact copy is one even where the data hold copies of themselves
MOST_COMPARED = 500  # held-out crops, for the threshold


def train_gate(
    dataset: LayoutDataset, seed: int, flip: bool, device: torch.device | str = "cpu", steps: int = STEPS
) -> QualityGate:
    """A gate of a training split, not augmented; with `flip` a mirrored object is as good as it is.

    The same for the same data and seed.

    Raises ValueError where the split has no boxes.
    """
    classes = dataset.vocabulary.classes
    found = examples(dataset, seed)
    K = len(classes)
    apart = held_out(found, K, seed)
    learned, unseen = found.where(~apart), found.where(apart)
    objects = found.where(found.whole & (found.labels < K))
    logger.info("quality gate: learning from %d boxes of %d pictures", len(objects.labels), len(dataset))
    missing = [name for label, name in enumerate(classes) if not (objects.labels == label).any()]
    if missing:
        logger.warning("quality gate: no training box of %s: such boxes score near 0", ", ".join(missing))

    model = train_classifier(learned.crops, learned.labels, K + 1, seed, flip, steps, device)
    measured = _measured(model, unseen, K)
    known = learned.where(learned.whole & (learned.labels < K))
    threshold = _copy_threshold(model, known, unseen.where(unseen.labels < K), flip)
    _tell(measured, threshold)

    used = objects.pictures.unique()
    return QualityGate(
        classes=classes,
        channels=dataset.image_channels,
        flip=flip,
        value_range=dataset.value_range,
        model=model,
        references=References.of(without_rim(objects.crops).contiguous(), model),
        labels=objects.labels,
        boxes=objects.boxes,
        files=tuple(str(dataset.records[i].path) for i in used.tolist()),
        file_of=torch.searchsorted(used, objects.pictures),
        copy_threshold=threshold,
        protocol={
            "seed": seed,
            "steps": steps,
            "crop": {"side": SIDE, "rim": RIM},
            "training": {"pictures": len(dataset), "objects": len(objects.labels)},
            "held_out": measured,
            "copy_quantile": COPY_QUANTILE,
            "copy_threshold": threshold,
        },
    )


def held_out(found: Examples, num_classes: int, seed: int) -> Tensor:
    """Which examples (N,) are of pictures to be held out: a tenth of the pictures, none with a class's last box."""
    pictures, place = found.pictures.unique(return_inverse=True)
    objects = found.labels < num_classes
    cells = place[objects] * num_classes + found.labels[objects]
    counts = torch.bincount(cells, minlength=len(pictures) * num_classes).view(-1, num_classes).numpy()
    left, chosen = counts.sum(axis=0), np.zeros(len(pictures), dtype=bool)
    wanted = max(1, round(HELD_OUT * len(pictures)))
    for picture in np.random.default_rng(seed).permutation(len(pictures)):
        if chosen.sum() < wanted and not ((counts[picture] > 0) & (left == counts[picture])).any():
            chosen[picture], left = True, left - counts[picture]
    return torch.from_numpy(chosen)[place]


def _measured(model: CropClassifier, unseen: Examples, num_classes: int) -> dict:
    """How often the classifier is right about held-out boxes, and about held-out places with nothing."""
    figures: dict = {"pictures": len(unseen.pictures.unique())}
    for name, which in (("objects", unseen.labels < num_classes), ("nothing", unseen.labels == num_classes)):
        part = unseen.where(which)
        right = round(accuracy(model, part.crops, part.labels), DIGITS) if len(part.labels) else None
        figures[name] = {"crops": len(part.labels), "accuracy": right}
    return figures


def _copy_threshold(model: CropClassifier, known: Examples, unseen: Examples, flip: bool) -> float:
    if not len(unseen.labels) or not len(known.labels):
        return FALLBACK_THRESHOLD
    references = References.of(without_rim(known.crops), model)
    compared = np.unique(np.linspace(0, len(unseen.labels) - 1, MOST_COMPARED).round().astype(int))
    similar = [
        nearest(unseen.crops[i], tuple(unseen.inside[i].tolist()), references, model, flip).similarity for i in compared
    ]
    return round(min(float(np.quantile(similar, COPY_QUANTILE)), HIGHEST_THRESHOLD), DIGITS)


def _tell(measured: dict, threshold: float) -> None:
    said = [
        f"{100 * measured[name]['accuracy']:.1f} % of {measured[name]['crops']} {what}"
        for name, what in (("objects", "boxes"), ("nothing", "places with nothing"))
        if measured[name]["accuracy"] is not None
    ]
    held = f"right about {' and '.join(said)} of {measured['pictures']} held-out pictures" if said else "none held out"
    logger.info("quality gate: %s; copies from a similarity of %.3f on", held, threshold)
