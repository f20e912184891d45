"""What was measured, in a report: the figures that a reader wants first, scores, box adherence."""

import numpy as np

from .charts import histogram
from .listing import flattened, listed
from .results import Results

BINS = 20  # of scores


def tiles(results: Results) -> list[tuple[str, str]]:
    """The figures that a reader wants first: (figure, what it is)."""
    boxes = [asked for result in results.pictures for asked in result.boxes]
    labels = {asked.label for asked in boxes}
    found = [
        (f"{len(results.pictures):,}", "picture" + "s" * (len(results.pictures) != 1)),
        (f"{len(boxes):,}", "labelled boxes" if len(boxes) != 1 else "labelled box"),
        (f"{len(labels)}", "classes" if len(labels) != 1 else "class"),
    ]
    if results.rejected:
        found.insert(1, (f"{results.rejected:,}", "more that never passed the gate"))
    if boxes:
        found.append((f"{len(results.good_parts):,}", "good parts"))
    there = sum(len(result.there) for result in results.pictures)
    if there:
        found.append((f"{there:,}", "more boxes, which the pictures had before"))
    scores = [asked.score for asked in boxes if asked.score is not None]
    if scores:
        found.append((f"{np.median(scores):.2f}", "median score of a box"))
    judged = [asked for asked in boxes if asked.predicted is not None]
    if judged:
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


def scores(results: Results) -> str:
    """How many boxes, and how many pictures, have which score."""
    edges, ticks = np.linspace(0, 1, BINS + 1), [(share, f"{share:g}") for share in (0, 0.2, 0.4, 0.6, 0.8, 1)]
    with_boxes = [result for result in results.pictures if result.boxes and result.score is not None]
    values = {
        "Score of boxes": [a.score for r in with_boxes for a in r.boxes if a.score is not None],
        "Score of pictures: their worst box's": [result.score for result in with_boxes],
    }
    charts = [
        histogram(title, np.histogram(np.clip(found, 0, 1), edges)[0], None, ticks) for title, found in values.items()
    ]
    told = "A box's score is the probability that a small classifier of real crops gives its class"
    told = f'<p class="told">{told}, or its adherence where that is less; 1 is best, and 0 worst.</p>'
    gate = flattened((results.quality or {}).get("protocol", {}))
    about = f'<p class="told after">The classifier that scored them:</p>{listed(gate)}' if gate else ""
    return f'{told}<div class="charts">{"".join(charts)}</div>{about}'


def adherence(found: dict) -> str:
    ratio = "none, as nothing outside differs" if found["ratio"] is None else f"{found['ratio']:.2f}"
    rows = {
        "Mean change inside boxes": f"{found['inside']:.2f} grey levels",
        "Mean change outside boxes": f"{found['outside']:.2f} grey levels",
        "Inside over outside": ratio,
        "Boxes in which nothing happened": f"{found['empty_boxes']:,} of {found['boxes']:,}",
        "Layouts measured": f"{found['layouts']:,}",
    }
    told = (
        "Each layout was sampled once more without its objects, from the same noise: where the two differ, the boxes "
    )
    return f'<p class="told">{told}made the difference.</p>{listed(rows)}'
