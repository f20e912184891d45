"""Find training images that are test images, or were made from them."""

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from ..data.manifest import read_run
from .data import Example, runs_of


def find_shared_image(
    items: Sequence[Example], digests: Sequence[str], test: Sequence[Example], of_test: Sequence[str]
):
    """Return the first image that is also a test image, as (its path, the test image's), or None."""
    known = dict(zip(of_test, test, strict=True))
    found = ((item, known[digest]) for item, digest in zip(items, digests, strict=True) if digest in known)
    return next(((item.path, other.path) for item, other in found), None)


def count_made_from(folder: Path, test: Sequence[Example], test_folder: Path | None) -> tuple[int, str]:
    """Count the samples of a results folder that were made from test images or drawn on their layouts; name the first.

    `test_folder` holds nothing but the test split and what belongs to it, templates say; None: there is no such folder.
    """
    paths = {os.path.realpath(item.path) for item in test}
    inside = os.path.realpath(test_folder) if test_folder else None
    found: dict[str, str] = {}
    for stem, name, source in _sources(folder):
        if source in paths or (inside and Path(source).is_relative_to(inside)):
            found.setdefault(stem, f"{stem}: {name} {source}")
    return len(found), next(iter(found.values()), "")


def _sources(folder: Path) -> Iterator[tuple[str, str, str]]:
    """Yield (stem, key, path) of the files that each sample was inserted into, cut from or laid out by."""
    for run in runs_of(folder):
        for entry in read_run(run).values():
            origins = {
                "source_image": [entry.source_image] if entry.source_image else [],
                "pasted_from": entry.settings.get("pasted_from", []),
                "source": [entry.source],
            }
            for name, files in origins.items():
                for file in files:
                    yield entry.stem, name, os.path.realpath(file)
