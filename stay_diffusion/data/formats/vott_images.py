"""Finds the images of a VoTT file, whose paths belong to the computer they were labelled on."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import unquote

from stay_diffusion.data.annotations import AnnotationError

Index = dict[str, list[Path]]  # base name -> every file of that name below a folder


def base_name(asset: dict) -> str:
    return asset.get("name") or _path_parts(asset)[-1]


def find_image(file: Path, asset: dict, image_dir: Path | None, indexes: dict[Path, Index], *, required: bool) -> Path:
    """Where the image of an asset of `file` lies: in `image_dir`, else beside `file`, found by its base name.

    Among several of that name, the one whose folders agree best with the asset's path. `indexes` keeps each folder's
    listing from call to call. Raises AnnotationError where no or no single image is found, unless it is not `required`:
    then the answer is where the image belongs.
    """
    name, stated = base_name(asset), _stated_path(file, asset)
    roots = [Path(image_dir), file.parent] if image_dir else [file.parent]
    for root in roots:
        if root == file.parent and stated and stated.is_file():
            return stated
        if root not in indexes:
            indexes[root] = _index(root)
        found = indexes[root].get(name) or indexes[root].get(unquote(name)) or []
        best = _best_agreement(found, _path_parts(asset)[:-1])
        if len(best) > 1 and root == file.parent and file.suffix.lower() != ".vott":
            best = [path for path in best if path.parent == root] or best  # an export's own images lie beside it
        if len(best) == 1:
            return best[0]
        if best and required:
            raise AnnotationError(
                f"{file}: {name} could be {best[0]} or {best[1]}; pass --image_dir with a folder that holds only one"
            )
    if required:
        searched = " and ".join(map(str, roots))
        raise AnnotationError(f"{file}: image {name} not found in {searched}; pass --image_dir with the images' folder")
    return stated or roots[0] / name


def _path_parts(asset: dict) -> list[str]:
    return unquote(asset.get("path") or "").removeprefix("file:").replace("\\", "/").split("/")


def _stated_path(file: Path, asset: dict) -> Path | None:
    """The image that a relative path names, as our own exports have it; VoTT's paths are absolute (/, C:, https:)."""
    first, *rest = _path_parts(asset)
    is_relative = first and not first.endswith(":")
    return Path(os.path.normpath(file.parent.joinpath(first, *rest))) if is_relative else None


def _index(root: Path) -> Index:
    if not root.is_dir():
        raise AnnotationError(f"--image_dir {root}: no such folder")
    index: Index = defaultdict(list)
    for folder, _, names in sorted(os.walk(root)):
        for name in names:
            index[name].append(Path(folder, name))
    return index


def _best_agreement(found: Sequence[Path], folders: Sequence[str]) -> list[Path]:
    """Those of `found` that share the most innermost folders with a path's `folders`."""
    shared = [_common_tail(path.absolute().parts[:-1], folders) for path in found]
    return [path for path, agreement in zip(found, shared, strict=True) if agreement == max(shared)]


def _common_tail(a: Sequence[str], b: Sequence[str]) -> int:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
