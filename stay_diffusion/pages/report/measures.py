"""Measures in a report: the figures that a reader wants first, and box adherence."""

import numpy as np

from .results import Results


def tiles(results: Results) -> list[tuple[str, str]]:
    """Return the figures that a reader wants first: (figure, what it is)."""
    boxes = [asked for result in results.pictures for asked in result.boxes]
    labels = {asked.label for asked in boxes}
    found = [(f"{len(results.pictures):,}", "picture" + "s" * (len(results.pictures) != 1))]
    if results.rejected:
        found.append((f"{results.rejected:,}", "more that never passed the gate"))
    found.append((f"{len(boxes):,}", "labelled boxes" if len(boxes) != 1 else "labelled box"))
    found.append((f"{len(labels)}", "classes" if len(labels) != 1 else "class"))
    if boxes:
        found.append((f"{len(results.good_parts):,}", "good parts"))
    if there := sum(len(result.there) for result in results.pictures):
        found.append((f"{there:,}", "more boxes, which the pictures had before"))
    if scores := [asked.score for asked in boxes if asked.score is not None]:
        found.append((f"{np.median(scores):.2f}", "median score of a box"))
    if judged := [asked for asked in boxes if asked.predicted is not None]:
        right = sum(asked.predicted == asked.label for asked in judged)
        found.append((f"{100 * right / len(judged):.0f} %", "boxes seen as their own class"))
    if results.threshold is not None:
        copies = sum(r.nearest.similarity >= results.threshold for r in results.pictures if r.nearest)
        found.append((f"{copies:,}", "near-copies of training pictures" if copies != 1 else "near-copy of training"))
    if results.adherence:
        ratio, empty = results.adherence["ratio"], results.adherence["empty_rate"]
        found.append(("none" if ratio is None else f"{ratio:.1f}", "change inside over outside the boxes"))
        found.append((f"{100 * empty:.1f} %", "boxes left empty"))
    return found


def adherence_rows(found: dict) -> dict[str, object]:
    """Return names and values of box_adherence.json in words."""
    return {
        "Mean change inside boxes": f"{found['inside']:.2f} grey levels",
        "Mean change outside boxes": f"{found['outside']:.2f} grey levels",
        "Inside over outside": "none, as nothing outside differs"
        if found["ratio"] is None
        else f"{found['ratio']:.2f}",
        "Boxes in which nothing happened": f"{found['empty_boxes']:,} of {found['boxes']:,}",
        "Layouts measured": f"{found['layouts']:,}",
    }
