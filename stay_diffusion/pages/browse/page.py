"""A page of looked-at pictures: index.html with index_files/ beside it, nothing fetched from elsewhere."""

import re
from collections.abc import Sequence
from pathlib import Path

from PIL import Image

from ...data.annotations import Vocabulary
from ...data.problems import Problem
from ...data.samples import LayoutDataset, Sample
from ..markup import colour_rules, count, text
from .browse import Entry, Tally, picture_of, picture_of_map
from .card import FILES, card, file_of
from .style import SCRIPT, STYLE

PIXELATED = 160  # model sizes up to which the page shows every pixel as a square
MARK = '<meta name="generator" content="stay_diffusion browse_data">'
OURS = re.compile(r"\d{6,}(_\d+(_map)?)?\.(png|jpg)")


def clear(folder: Path) -> None:
    """Makes the folder and empties it of an earlier page; ValueError where there is a page of someone else."""
    index, files = folder / "index.html", folder / FILES
    if index.exists() and MARK.encode() not in index.read_bytes()[:1000]:
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
    """An entry's original and, of every draw, what the network sees."""
    original.save(folder / file_of(entry.index, ".jpg"), quality=88)
    for epoch, sample in enumerate(samples):
        picture_of(sample).save(folder / file_of(entry.index, f"_{epoch}.png"))
        if dataset.layout_kind == "map":
            picture_of_map(sample, dataset.vocabulary.classes).save(folder / file_of(entry.index, f"_{epoch}_map.png"))


def page(
    entries: Sequence[Entry], dataset: LayoutDataset, title: str, facts: Sequence[str], left_out: Sequence[Problem] = ()
) -> str:
    """The whole page, as HTML; `facts` say how its pictures were made, `left_out` what it lacks."""
    names, tally = dataset.vocabulary, Tally.of(entries)
    kind, enlarged = dataset.layout_kind, dataset.image_size <= PIXELATED
    cards = "\n".join(card(entry, names, kind == "map") for entry in entries)
    lines = "".join(f"<li>{text(line)}</li>" for line in facts)
    numbers = "".join(f"<li>{text(line)}</li>" for line in tally.lines(dataset.max_objects))
    figures = 1 + len(entries[0].views) * (1 + (kind == "map")) if entries else 1
    return f"""<!DOCTYPE html>
<html lang="en" style="--n: {min(figures, 4)}">
<head>
<meta charset="utf-8">
{MARK}
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{text(title)}</title>
<style>{STYLE}{colour_rules(tally.labels, names.classes)}</style>
</head>
<body{' class="enlarged"' * enlarged}>
<header class="top">
<h1>{text(title)}</h1>
<ul class="facts">{lines}</ul>
<ul class="facts numbers">{numbers}</ul>
{_classes(tally, names.classes)}
{_left_out(left_out)}
</header>
{_controls(tally, names, kind == "map")}
<main>
{cards}
<p id="none" hidden>No picture fits the filter.</p>
</main>
<script>{SCRIPT}</script>
</body>
</html>
"""


def _controls(tally: Tally, names: Vocabulary, is_map: bool) -> str:
    classes = "".join(
        f'<option value="{label}">{text(name)}</option>'
        for label, name in enumerate(names.classes, 1)
        if tally.with_label[label]
    )
    products = "".join(f'<option value="{i}">{text(name)}</option>' for i, name in enumerate(names.products, 1))
    products = f'<select name="product" aria-label="product"><option value="">every product</option>{products}</select>'
    states = {"": "with and without boxes", "empty": "without boxes", "lost": "boxes lost", "tiny": "under 2 pixels"}
    states = "".join(f'<option value="{value}">{text}</option>' for value, text in states.items())
    states = f'<select name="state" aria-label="boxes"> {states}</select>'
    shown = '<label><input type="checkbox" id="boxes" checked> boxes</label>'
    shown += '<label><input type="checkbox" id="names" checked> names</label>'
    return f"""<form class="controls" autocomplete="off">
<input type="search" name="text" placeholder="file name" aria-label="file name">
<select name="label" aria-label="class"><option value="">every class</option>{classes}</select>
{products if names.products else ""}
{"" if is_map else states}
{"" if is_map else shown}
<label>size <input type="range" name="side" min="96" max="640" step="16" value="224"></label>
<output name="count">{tally.pictures} pictures</output>
</form>"""


def _classes(tally: Tally, classes: Sequence[str]) -> str:
    """A button per class that is there, and the names of those that are not."""
    buttons, absent = [], []
    for label, name in enumerate(classes, 1):
        if not tally.with_label[label]:
            absent.append(text(name))
            continue
        objects, pictures = tally.objects[label], tally.with_label[label]
        found = f"{count(objects, 'box', 'boxes')} in " * bool(objects) + count(pictures, "picture")
        buttons.append(
            f'<button type="button" class="c{label}" value="{label}" data-objects="{objects}" '
            f'data-pictures="{pictures}"><bdi>{text(name)}</bdi> <span>{found}</span></button>'
        )
    missing = f"<details><summary>{count(len(absent), 'class', 'classes')} not seen here</summary>"
    missing += f"<p>{', '.join(absent)}</p></details>"
    return f'<div class="classes">{"".join(buttons)}</div>{missing if absent else ""}'


def _left_out(problems: Sequence[Problem]) -> str:
    lines = "".join(f"<li><bdi>{text(p.file)}</bdi>: {text(p.kind)}: {text(p.detail)}</li>" for p in problems)
    what = f"<summary>{count(len(problems), 'picture')} left out: cannot be read</summary>"
    return f'<details class="problems" open>{what}<ul>{lines}</ul></details>' if problems else ""
