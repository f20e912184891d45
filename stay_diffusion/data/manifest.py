"""The manifest of a results folder: one line of JSON for each image that was made, and where manifests are found."""

import json
from collections.abc import Iterable
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from .annotations import RelativeBox

NAME = "manifest.jsonl"


@dataclass(frozen=True)
class ManifestLayout:
    """The objects of one image: those that its source had before, then those that were drawn."""

    product: str | None = None
    in_source: tuple[RelativeBox, ...] = ()
    new_objects: tuple[RelativeBox, ...] = ()

    @property
    def objects(self) -> tuple[RelativeBox, ...]:
        return self.in_source + self.new_objects

    @classmethod
    def from_json(cls, line: dict) -> "ManifestLayout":
        """Read {"product": ..., "objects": [...]}; raises ValueError, TypeError, KeyError or AttributeError."""
        parts: dict[bool, list[RelativeBox]] = {True: [], False: []}
        for each in line["objects"]:
            x0, y0, x1, y1 = (float(edge) for edge in each["box"])
            parts[bool(each.get("in_source"))].append(RelativeBox(each["label"], x0, y0, x1, y1))
        return cls(line.get("product"), tuple(parts[True]), tuple(parts[False]))

    def as_json(self) -> dict[str, Any]:
        there = [{"label": b.label, "box": [*b.edges], "in_source": True} for b in self.in_source]
        new = [{"label": b.label, "box": [*b.edges]} for b in self.new_objects]
        return {"product": self.product, "objects": there + new}


@dataclass(frozen=True)
class ManifestEntry:
    """One line of a manifest.

    `file`, `mask` and `source_image` (into which objects were put) are paths, `source` names where the layout comes
    from, `settings` how all images of the folder were made. Of a layout that was not drawn whole, `asked` is the whole.
    `masks` holds a mask of each object, `quality` what the quality gate found. `attempt` counts how often the image
    was drawn before, `redrawn` how often its objects were; `rejected` images did not pass the gate.
    """

    index: int
    stem: str
    file: str
    layout: ManifestLayout
    source: str
    source_image: str | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    asked: ManifestLayout | None = None
    mask: str | None = None
    masks: list[dict] | None = None
    attempt: int | None = None
    redrawn: int | None = None
    quality: dict | None = None
    rejected: bool = False

    @property
    def product(self) -> str | None:
        return self.layout.product

    @property
    def new_objects(self) -> tuple[RelativeBox, ...]:
        """The objects that were drawn, not those that the source image had before."""
        return self.layout.new_objects

    @property
    def weights(self) -> Path | None:
        """The checkpoint that made the image; None where no model did."""
        return Path(self.settings["checkpoint"]) if "checkpoint" in self.settings else None

    @classmethod
    def from_json(cls, line: dict, number: int = 1) -> "ManifestEntry":
        """Read line `number` of a manifest; raises ValueError, TypeError, KeyError or AttributeError."""
        own = {key: line[key] for key in line if key in OWN}
        own |= {key: ManifestLayout.from_json(own[key]) for key in ("layout", "asked") if key in own}
        settings = {key: value for key, value in line.items() if key not in OWN}
        return cls(**{"index": number - 1, **own, "settings": settings})

    def as_json(self) -> dict[str, Any]:
        line: dict[str, Any] = {}
        for each in fields(self):
            value = getattr(self, each.name)
            if each.name == "settings":
                line |= value
            elif isinstance(value, ManifestLayout):
                line[each.name] = value.as_json()
            elif value is not None and value is not False:
                line[each.name] = value
        return line

    def as_line(self) -> str:
        return json.dumps(self.as_json()) + "\n"


OWN = {each.name for each in fields(ManifestEntry)} - {"settings"}


def find_manifests(folder: Path) -> list[Path]:
    """The manifests of a results folder and of its runs (run0, run1 ...); none where it is no results folder."""
    return sorted([*folder.glob(NAME), *folder.glob(f"run*/{NAME}")])


def find_parts(folder: Path) -> list[Path]:
    """The manifest of one run, and those that its other processes have added to."""
    return [path for path in (folder / NAME, *sorted(folder.glob("manifest.*.jsonl"))) if path.exists()]


def read_manifest(path: Path, allow_torn: bool = False) -> list[ManifestEntry]:
    """Read all lines of one manifest.

    With `allow_torn` a last line that a stopped process left unfinished is skipped. Raises ValueError, with file and
    line, for one that is no line of a manifest.
    """
    entries = []
    lines = path.read_text(encoding="utf-8").splitlines()
    for number, line in enumerate(lines, 1):
        try:
            entries.append(ManifestEntry.from_json(json.loads(line), number))
        except (ValueError, TypeError, KeyError, AttributeError):
            if not (allow_torn and number == len(lines)):
                raise ValueError(f"{path}, line {number}: not a line of a manifest") from None
    return entries


def read_run(folder: Path) -> dict[int, ManifestEntry]:
    """Read the entries of one run by image index, those of all its processes; a torn last line is skipped."""
    return {entry.index: entry for part in find_parts(folder) for entry in read_manifest(part, allow_torn=True)}


def common_settings(entries: Iterable[ManifestEntry]) -> dict[str, Any]:
    """The settings that all entries share."""
    first, *others = (entry.settings for entry in entries)
    return {key: value for key, value in first.items() if all(other.get(key) == value for other in others)}
