"""A page of a data set's pictures: index.html with index_files/ beside it, nothing fetched from elsewhere."""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...data.problems import Problem
from ...data.samples import LayoutDataset, Sample
from ..render import render
from .browse import LOST, Entry, Tally, picture_of, picture_of_map

FILES = "index_files"
PIXELATED = 160  # model sizes up to which the page shows every pixel as a square
GENERATOR = "stay_diffusion browse_data"  # marks our own pages, which may be overwritten
OURS = re.compile(r"\d{6,}(_\d+(_map)?)?\.(png|jpg)")


def file_of(index: int, ending: str) -> str:
    """Return where a picture lies beside the page: named by numbers alone, so that addresses need no escaping."""
    return f"{FILES}/{index:06d}{ending}"


def clear(folder: Path) -> None:
    """Make the folder and empty it of an earlier page; ValueError where there is a page of someone else."""
    index, files = folder / "index.html", folder / FILES
    if index.exists() and f'content="{GENERATOR}"'.encode() not in index.read_bytes()[:1000]:
        raise ValueError(f"--out {folder}: holds an index.html that is not of this script")
    index.unlink(missing_ok=True)
    try:
        files.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--out {folder}: cannot be made: {error.strerror}") from None
    for file in files.iterdir():
        if OURS.fullmatch(file.name):
            file.unlink()


def save_pictures(
    folder: Path, entry: Entry, samples: Sequence[Sample], original: Image.Image, dataset: LayoutDataset
) -> None:
    """Save an entry's original and, of every draw, what the network sees."""
    original.save(folder / file_of(entry.index, ".jpg"), quality=88)
    for epoch, sample in enumerate(samples):
        picture_of(sample).save(folder / file_of(entry.index, f"_{epoch}.png"))
        if dataset.layout_kind == "map":
            picture_of_map(sample, dataset.vocabulary.classes).save(folder / file_of(entry.index, f"_{epoch}_map.png"))


def page(
    entries: Sequence[Entry], dataset: LayoutDataset, title: str, facts: Sequence[str], left_out: Sequence[Problem] = ()
) -> str:
    """Return the whole page, as HTML; `facts` say how its pictures were made, `left_out` what it lacks."""
    tally = Tally.of(entries)
    figures = 1 + len(entries[0].views) * (1 + (dataset.layout_kind == "map")) if entries else 1
    return render(
        "browse.html.jinja",
        title=title,
        generator=GENERATOR,
        columns=min(figures, 4),
        is_enlarged=dataset.image_size <= PIXELATED,
        dataset=dataset,
        entries=entries,
        tally=tally,
        absent=[name for label, name in enumerate(dataset.vocabulary.classes, 1) if not tally.with_label[label]],
        facts=facts,
        left_out=left_out,
        file_of=file_of,
        lost_names=LOST,
    )
