"""The images of each layout: by the manifests of a results folder, or by the images' names in several runs."""

from collections.abc import Sequence
from pathlib import Path

from ..data.images import IMAGE_SUFFIXES
from ..data.manifest import ManifestLayout, find_manifests, read_manifest

MOST_OF_A_LAYOUT = 64  # images of one layout that are compared: all pairs of thousands of good parts would take days

Group = tuple[str, dict[int, Path]]  # a layout's name and its images, by the number of their run


def find_groups(folder: Path) -> list[Group]:
    """Find the images of each layout that has several, by the manifests of a results folder or by their names in runs.

    ValueError where no layout has two images.
    """
    groups = [(name, images) for name, images in all_groups(folder) if len(images) > 1]
    if not groups:
        raise ValueError(
            f"{folder}: no layout has two images, which diversity is the difference of; image_sample.py --num_runs 10 "
            "makes runs, or give a folder with samples* folders, */samples folders or folders of images"
        )
    return groups


def all_groups(folder: Path) -> list[Group]:
    """Find the images of each layout, also of those with a single image where there is a manifest."""
    manifests = find_manifests(folder)
    return by_layout(manifests) if manifests else by_name(find_runs(folder))


def by_layout(manifests: Sequence[Path]) -> list[Group]:
    """Group the images of manifests by layout and where it comes from, each group named by its first stem."""
    groups: dict[tuple[ManifestLayout, str], tuple[str, list[Path]]] = {}
    for manifest in manifests:
        for entry in read_manifest(manifest):
            if entry.rejected:  # by the quality gate: in no labelled set
                continue
            key = entry.layout, entry.source
            groups.setdefault(key, (entry.stem, []))[1].append(manifest.parent / entry.file)
    return [(stem, dict(enumerate(images[:MOST_OF_A_LAYOUT]))) for stem, images in groups.values()]


def by_name(runs: Sequence[Path]) -> list[Group]:
    """Group the images of several runs by their file names, those that more than one run has."""
    names = [{path.name for path in images_in(run)} for run in runs]
    shared = sorted(name for name in set().union(*names) if sum(name in run for run in names) > 1)
    return [(name, {i: runs[i] / name for i, run in enumerate(names) if name in run}) for name in shared]


def find_runs(folder: Path) -> list[Path]:
    """Find the runs inside: samples* folders, or */samples folders, or folders of images, or the folder itself."""
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder")
    inside = sorted(path for path in folder.iterdir() if path.is_dir())
    layouts = (
        [path for path in inside if path.name.startswith("samples")],
        [path / "samples" for path in inside],
        inside,
        [folder],
    )
    found = [[path for path in layout if images_in(path)] for layout in layouts]
    several = (runs for runs in found if len(runs) > 1)
    return next(several, next((runs for runs in found if runs), []))


def images_in(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    return sorted(path for path in folder.iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
