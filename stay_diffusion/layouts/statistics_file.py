"""The statistics of a run's training layouts as layout_statistics.json in its folder."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from ..config import DataConfig
from ..data.annotations import Vocabulary
from ..run.checkpoint import write_text
from .statistics import KINDS, LayoutStatistics, Picture

NAME = "layout_statistics.json"
FORMAT = 1


def write(folder: Path, statistics: dict[str, LayoutStatistics]) -> None:
    """Into a run folder: names, and for both kinds a line a picture, [W, H, product, [[label, x0, ...], ...]]."""
    first = statistics[KINDS[0]]
    names = {"classes": first.classes, "products": first.products, "training_objects": first.training_objects.tolist()}
    parts = [f'"{name}": {json.dumps(value)}' for name, value in {"format": FORMAT, **names}.items()]
    for kind in KINDS:
        rows = [
            json.dumps(
                [*size, product, [[label, *box] for label, box in zip(labels.tolist(), boxes.tolist(), strict=True)]]
            )
            for size, product, boxes, labels in statistics[kind].pictures()
        ]
        parts.append(f'"{kind}": [\n' + ",\n".join(rows) + "\n]")
    text = "{" + ",\n".join(parts) + "}\n"
    write_text(folder / NAME, text)


def read(path: Path, vocabulary: Vocabulary) -> dict[str, LayoutStatistics]:
    """What `write` wrote; ValueError where the file is anything else, or names what the vocabulary does not have."""
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        if values["format"] != FORMAT:
            raise ValueError(f"format {values['format']!r}, expected {FORMAT}")
        classes, products, counts = (values[name] for name in ("classes", "products", "training_objects"))
        for kind, found, known in (("class", classes, vocabulary.classes), ("product", products, vocabulary.products)):
            for name in found:
                if name not in known:
                    raise ValueError(f"has the {kind} {name!r}, which the model does not know")
        statistics = {
            kind: LayoutStatistics.of(classes, products, counts, [_picture(row) for row in values[kind]])
            for kind in KINDS
        }
        for each in statistics.values():
            _check(each)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, OverflowError, RecursionError) as error:
        reason = f"lacks {error}" if isinstance(error, KeyError) else str(error) or type(error).__name__
        raise ValueError(
            f"{path}: cannot be used as statistics of layouts ({reason.splitlines()[0][:200]}); without the file they "
            "are worked out from the training data"
        ) from None
    return statistics


def _picture(row: list) -> Picture:
    width, height, product, objects = row
    labels = [each[0] for each in objects]
    if not all(type(number) is int for number in (product, *labels)):
        raise ValueError("a label or product that is no whole number")
    boxes = np.array([each[1:] for each in objects], dtype=np.float64).reshape(len(labels), 4)
    return (width, height), product, boxes, np.array(labels, dtype=np.int64)


def _check(statistics: LayoutStatistics) -> None:
    K, P = len(statistics.classes), len(statistics.products)
    counts, sizes, boxes = statistics.training_objects, statistics.sizes, statistics.boxes
    inside = (boxes[:, :2] < sizes[statistics.picture]) & (boxes[:, 2:] > 0) & (boxes[:, :2] < boxes[:, 2:])
    for is_so, what in (
        (counts.shape == (K,) and (counts >= 0).all() and np.isfinite(counts).all(), "training_objects, one per class"),
        (np.isfinite(sizes).all() and (sizes >= 1).all(), "sizes of pictures"),
        (((statistics.product >= 0) & (statistics.product <= P)).all(), f"products in 0..{P}"),
        (((statistics.label >= 1) & (statistics.label <= K)).all(), f"labels in 1..{K}"),
        (np.isfinite(boxes).all() and inside.all(), "boxes x0 y0 x1 y1 with a part in their picture"),
    ):
        if not is_so:
            raise ValueError(f"expected {what}")


def same_data(data: DataConfig, counted: DataConfig) -> bool:
    """Whether layouts are the same under two configurations of data, which may differ in how pictures are loaded."""
    loading: dict[str, Any] = {"num_workers": 0, "cache": "off", "on_bad_data": "error", "value_range": ""}
    return replace(data, **loading) == replace(counted, **loading)
