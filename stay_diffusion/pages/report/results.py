"""What a results folder holds, read for its report: pictures with their layouts and scores, settings, measures."""

import json
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from ...config import RunConfig
from ...data.annotations import RelativeBox, Vocabulary
from ...data.manifest import ManifestEntry, common_settings, find_manifests, read_run
from ...layouts import statistics_file as layout_statistics_file
from ...layouts.items import LayoutItem
from ...run.checkpoint import config_beside
from ..render import Corners


class Asked(NamedTuple):
    """A box that a picture was asked for, in [0, 1] of it, and what the quality gate says of it; None: not scored.

    `probability` is that of its own class, `predicted` the likeliest one; `score` is what boxes are ranked by.
    """

    label: str
    box: Corners
    score: float | None = None
    probability: float | None = None
    predicted: str | None = None
    adherence: float | None = None


class Nearest(NamedTuple):
    """The training object that box number `place` of a picture is most like; `box` in pixels of the upright `file`."""

    similarity: float
    place: int
    file: Path
    box: Corners
    label: str


@dataclass(frozen=True)
class Result:
    """One sampled picture: its file, the boxes drawn, where the layout came from, its score and nearest copy.

    `there` are the boxes that it had before, where objects were put into a picture; `anew` counts how often it or
    objects of it were drawn again.
    """

    index: int
    stem: str
    file: Path
    product: str | None
    boxes: tuple[Asked, ...]
    there: tuple[Asked, ...]
    source: str
    score: float | None
    nearest: Nearest | None
    anew: int


@dataclass(frozen=True)
class Results:
    """A results folder: `settings` are those that all its pictures share, `rejected` counts those that are not kept.

    `quality`, `adherence` are what quality.json and box_adherence.json say, `config` that of the run whose weights made
    the pictures, `training` the layouts of its training split, cut as the pictures are; each None where absent.
    """

    folder: Path
    pictures: tuple[Result, ...]
    rejected: int
    settings: dict
    scored: bool
    quality: dict | None
    adherence: dict | None
    config: RunConfig | None
    training: list[LayoutItem] | None

    @property
    def weights(self) -> Path:
        return Path(str(self.settings.get("checkpoint", "weights that are not named")))

    @property
    def layouts(self) -> list[LayoutItem]:
        return [
            LayoutItem(r.stem, r.product, tuple(RelativeBox(asked.label, *asked.box) for asked in r.boxes), r.source)
            for r in self.pictures
        ]

    @property
    def classes(self) -> tuple[str, ...]:
        """The model's in its order, or without its configuration those that there are."""
        found = sorted({asked.label for result in self.pictures for asked in (*result.boxes, *result.there)})
        known = self.config.data.classes if self.config else ()
        return (*known, *(label for label in found if label not in known))

    @property
    def products(self) -> Counter:
        return Counter(result.product for result in self.pictures if result.product is not None)

    @property
    def good_parts(self) -> list[Result]:
        return [result for result in self.pictures if not result.boxes and not result.there]

    @property
    def threshold(self) -> float | None:
        """The similarity from which a picture counts as a copy."""
        return (self.quality or {}).get("protocol", {}).get("copy_threshold")

    @property
    def value_range(self) -> tuple[float, float] | None:
        return self.config.data.black_and_white if self.config else None


def read(folder: Path) -> Results:
    """ValueError for a folder that image_sample.py has not made or not finished, and for scores of other pictures."""
    entries = read_run(folder)
    if not entries:
        runs = [path.parent.name for path in find_manifests(folder)]
        of_runs = f"; a report is of one run: {folder / runs[0]}" if runs else " (image_sample.py makes such folders)"
        raise ValueError(f"{folder}: no manifest.jsonl with samples in it{of_runs}")
    if not all(isinstance(index, int) for index in entries):
        raise ValueError(f"{folder / 'manifest.jsonl'}: an index is no whole number; sample anew")
    missing = sorted(set(range(max(entries) + 1)) - set(entries))
    if missing:
        raise ValueError(f"{folder / 'manifest.jsonl'}: lacks image {missing[0]}: let image_sample.py finish first")
    ordered = [entries[index] for index in sorted(entries) if not entries[index].rejected]
    if not ordered:
        raise ValueError(f"{folder}: no image has passed the quality gate")
    settings = common_settings(ordered)
    scores = _scores(folder / "quality.jsonl", ordered)
    weights = Path(settings.get("checkpoint", "none"))
    config = config_beside(weights)
    return Results(
        folder=folder,
        pictures=tuple(_checked_result(folder, entry, line) for entry, line in zip(ordered, scores, strict=True)),
        rejected=len(entries) - len(ordered),
        settings=settings,
        scored=any(scores),
        quality=_object(folder / "quality.json"),
        adherence=_adherence(folder / "box_adherence.json", settings),
        config=config,
        training=_training(weights.parent, config, "whole" if ordered[0].source_image else "seen"),
    )


def _checked_result(folder: Path, entry: ManifestEntry, line: dict) -> Result:
    try:
        result = _result(folder, entry, line)
        assert all(float(edge) is not None for asked in (*result.boxes, *result.there) for edge in asked.box)
    except (KeyError, TypeError, ValueError):
        raise ValueError(f"{folder / 'manifest.jsonl'}: not an entry of a sampled image; sample anew") from None
    return result


def _training(run: Path, config: RunConfig | None, kind: str) -> list[LayoutItem] | None:
    """Return the layouts of the training split, as the run folder keeps them."""
    path = run / layout_statistics_file.NAME
    if config is None or not path.exists():
        return None
    names = Vocabulary(config.data.classes, config.data.product_tags)
    return layout_statistics_file.read(path, names)[kind].items()


def _result(folder: Path, entry: ManifestEntry, line: dict) -> Result:
    objects = entry.new_objects
    scored = line.get("boxes") or [{}] * len(objects)
    boxes = tuple(
        Asked(
            label=each.label,
            box=each.edges,
            score=of.get("score"),
            probability=of.get("class_probability"),
            predicted=of.get("predicted"),
            adherence=of.get("adherence"),
        )
        for each, of in zip(objects, scored, strict=True)
    )
    copy = line.get("copy")
    nearest = copy and Nearest(
        copy["similarity"], copy["box"], Path(copy["file"]), tuple(copy["training_box"]), copy["training_label"]
    )
    return Result(
        index=entry.index,
        stem=entry.stem,
        file=folder / entry.file,
        product=entry.product,
        boxes=boxes,
        there=tuple(Asked(box.label, box.edges) for box in entry.layout.in_source),
        source=entry.source,
        score=line.get("score"),
        nearest=nearest or None,
        anew=(entry.attempt or 0) + (entry.redrawn or 0),
    )


def _scores(path: Path, entries: list[ManifestEntry]) -> list[dict]:
    """A line of quality.jsonl for each entry of the manifest, {} where it has none; ValueError if it is of others."""
    found: dict[int, dict] = {}
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines() if path.exists() else (), 1):
        try:
            line = json.loads(text)
            found[line["index"]] = line
        except (ValueError, KeyError, TypeError):
            raise ValueError(f"{path}, line {number}: not a line of scores") from None
    by_index = {entry.index: entry for entry in entries}
    for index, line in found.items():
        entry = by_index.get(index)
        told = [each["label"] for each in line.get("boxes", ())]
        drawn = None if entry is None else [box.label for box in entry.new_objects]
        if entry is None or line.get("stem") != entry.stem or told != drawn:
            raise ValueError(f"{path}: scores other samples (image {index} differs); score these anew")
    return [found.get(entry.index, {}) for entry in entries]


def _adherence(path: Path, settings: dict) -> dict | None:
    found = _object(path)
    for name, value in (found or {}).get("protocol", {}).items():
        if name in settings and name != "checkpoint" and settings[name] != value:
            raise ValueError(f"{path}: of other samples ({name} {value}, here {settings[name]}); measure these anew")
    return found


def _object(path: Path) -> dict | None:
    if not path.exists():
        return None
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: not readable as JSON: {error}") from None
    if not isinstance(found, dict):
        raise ValueError(f"{path}: expected one JSON object")
    return found
