"""What the training data hold, as far as layout_statistics.json says, and what follows for the model's limits."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ...layouts.statistics import MOST_PICTURES, LayoutStatistics

FEW_BOXES = 100  # of a class: under it the card warns
SIZES_SHOWN = 3
PERCENTILES = (5, 50, 95)


def data_section(statistics: dict[str, LayoutStatistics] | None) -> list[str]:
    if statistics is None:
        return [
            "Not known: no layout_statistics.json in the run folder, and its data are not here (or are label maps)."
        ]
    whole, seen = statistics["whole"], statistics["seen"]
    bare = len(whole) - len(np.unique(whole.picture))
    counted = f"{len(whole):,} training pictures"
    if len(whole) == MOST_PICTURES:
        counted += " were counted, evenly spread over more"
    sizes = Counter(f"{W:.0f} x {H:.0f}" for W, H in whole.sizes.tolist())
    shown = ", ".join(f"{size} ({count:,})" for size, count in sizes.most_common(SIZES_SHOWN))
    more = f" and {len(sizes) - SIZES_SHOWN} other sizes" if len(sizes) > SIZES_SHOWN else ""
    lines = [
        f"- {counted} with {len(whole.label):,} boxes, {bare:,} of them without any box",
        f"- sizes in pixels: {shown}{more}",
    ]
    if whole.products:
        counts = np.bincount(whole.product, minlength=len(whole.products) + 1)
        named = ", ".join(f"{name} {count:,}" for name, count in zip(whole.products, counts[1:], strict=True))
        lines.append(f"- products: {named}" + (f", not known {counts[0]:,}" if counts[0] else ""))
    head = f"median ({PERCENTILES[0]} to {PERCENTILES[-1]} %)"
    lines += [
        "",
        f"| class | boxes | width in pixels, {head} | height | width as the network sees it |",
        "|---|---|---|---|---|",
    ]
    for number, name in enumerate(whole.classes, 1):
        of_class = [whole.boxes[whole.label == number], seen.boxes[seen.label == number]]
        cells = [spread(sides(of_class[0])[:, axis]) for axis in (0, 1)] + [spread(sides(of_class[1])[:, 0])]
        lines.append(f"| {name} | {whole.training_objects[number - 1]:,.0f} | {' | '.join(cells)} |")
    return lines


def data_limits(statistics: dict[str, LayoutStatistics] | None) -> list[str]:
    """What the counts make doubtful."""
    if statistics is None:
        return ["How often each class was seen is not known."]
    whole, seen = statistics["whole"], statistics["seen"]
    counts = dict(zip(whole.classes, whole.training_objects.tolist(), strict=True))
    found = []
    if never := [name for name, count in counts.items() if not count]:
        found.append(f"Never seen in the training data, though known by name: {', '.join(never)}.")
    if few := [f"{name} ({count:.0f})" for name, count in counts.items() if 0 < count < FEW_BOXES]:
        found.append(f"Under {FEW_BOXES} training boxes: {', '.join(few)}.")
    if len(np.unique(whole.picture)) == len(whole):
        found.append("Every training picture has a box: pictures without any (good parts) were not seen whole.")
    most = int(np.bincount(seen.picture).max()) if len(seen.picture) else 0
    found.append(f"At most {most} boxes in a picture were seen in training.")
    if len(seen.label):
        low, high = np.percentile(sides(seen.boxes).max(axis=1), (PERCENTILES[0], PERCENTILES[-1]))
        found.append(f"Nine of ten boxes had a longer side of {low:.3g} to {high:.3g} pixels as the network saw them.")
    return found


def sides(boxes: NDArray) -> NDArray[np.float64]:
    """Widths and heights (n, 2) of boxes (n, 4)."""
    return boxes[:, 2:] - boxes[:, :2]


def spread(values: NDArray | Sequence[float]) -> str:
    if not len(values):
        return ""
    low, median, high = np.percentile(values, PERCENTILES)
    return f"{median:.3g} ({low:.3g} to {high:.3g})"
