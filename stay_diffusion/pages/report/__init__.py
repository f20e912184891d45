"""report.html: what a results folder holds, to be looked at and handed on; one file, nothing fetched from elsewhere."""

from pathlib import Path

from ...run.checkpoint import atomic_write
from .gallery import gallery_of
from .page import page_of
from .results import read
from .sheets import GOOD_PARTS, nearest_pairs, sheets_of, spread

PER_GROUP = 6  # crops of a class among the best, the middle and the worst


def write_report(folder: Path, out: Path | None = None, per_group: int = PER_GROUP) -> Path:
    """Write RESULTS/report.html, or `out`, of what is there: scores and measures that are not there are named.

    Raises ValueError where the folder is not of image_sample.py or not finished, and where scores or pictures cannot be
    read.
    """
    out = out or folder / "report.html"
    results = read(folder)
    shown, pairs = sheets_of(results, per_group), nearest_pairs(results)
    without = spread(results.good_parts, GOOD_PARTS if shown else 3 * GOOD_PARTS)
    pictures = gallery_of(results, shown, pairs, without)
    html = page_of(results, shown, pairs, without, pictures)
    # File names need not be UTF-8.
    atomic_write(out, lambda file: file.write(html.encode(errors="replace")))
    return out
