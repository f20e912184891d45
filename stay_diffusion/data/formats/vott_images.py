"""Finds the images of a VoTT file, whose paths belong to the computer they were labelled on."""

import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from urllib.parse import unquote

from .files import check_image_dir, composed, leads_out, visible_files

Index = dict[str, list[Path]]  # base name -> every file of that name below a folder


class NotFound(ValueError):
    """There is no image of an asset, or it could be several."""


class Places(NamedTuple):
    """Where images are looked for; `indexes` keeps each folder's listing from image to image."""

    data_dir: Path
    image_dir: Path | None
    indexes: dict[Path, Index]

    @classmethod
    def of(cls, folder: Path, image_dir: Path | None) -> "Places":
        """Those of an annotation file or a folder of them."""
        check_image_dir(image_dir)
        folder = Path(folder)
        return cls(folder if folder.is_dir() else folder.parent, image_dir and Path(image_dir), {})


def base_name(asset: dict) -> str:
    name = asset.get("name") or _path_parts(asset)[-1]
    if not isinstance(name, str):
        raise TypeError(f"the name {name!r:.80}")
    return name


def find_image(file: Path, asset: dict, places: Places, *, required: bool) -> Path:
    """Where the image of an asset of `file` lies: in `image_dir`, else beside `file`, found by its base name.

    Among several of that name, the one whose folders agree best with the asset's path; paths that lead out of the data
    set's folder are not followed. Raises NotFound where no or no single image is found, unless it is not `required`:
    then the answer is where the image belongs.
    """
    name, parts = base_name(asset), _path_parts(asset)
    stated = _stated_path(file, parts)
    # The file itself is in the data set's folder: only .. leads out.
    outside = stated is not None and ".." in parts and leads_out(stated, places.data_dir, places.image_dir)
    beside = file.parent
    roots = [places.image_dir, beside] if places.image_dir else [beside]
    for root in roots:
        if root == beside and stated and not outside and os.path.isfile(stated):
            return Path(stated)
        if root not in places.indexes:
            places.indexes[root] = _index(root)
        index = places.indexes[root]
        found = index.get(composed(name)) or index.get(composed(unquote(name))) or []
        best = _best_agreement(found, parts[:-1])
        if len(best) > 1 and root == beside and file.suffix.lower() != ".vott":
            best = [path for path in best if path.parent == root] or best  # an export's own images lie beside it
        if len(best) == 1:
            return best[0]
        if best and required:
            raise NotFound(
                f"{name} could be {best[0]} or {best[1]}; pass --image_dir with a folder that holds only one"
            )
    if required:
        searched = " and ".join(map(str, roots))
        where = f"; its path leads out of {places.data_dir}" if outside else ""
        raise NotFound(f"image {name} not found in {searched}{where}; pass --image_dir with the images' folder")
    return roots[0] / name if stated is None or outside else Path(stated)


def _path_parts(asset: dict) -> list[str]:
    return unquote(asset.get("path") or "").removeprefix("file:").replace("\\", "/").split("/")


def _stated_path(file: Path, parts: Sequence[str]) -> str | None:
    """The image that a relative path names, as our own exports have it; VoTT's paths are absolute (/, C:, https:)."""
    first, *rest = parts
    is_relative = first and not first.endswith(":")
    return os.path.normpath(os.path.join(os.path.dirname(file), first, *rest)) if is_relative else None


def _index(root: Path) -> Index:
    index: Index = defaultdict(list)
    for path in visible_files(root):
        index[composed(path.name)].append(path)
    return index


def _best_agreement(found: Sequence[Path], folders: Sequence[str]) -> list[Path]:
    """Those of `found` that share the most innermost folders with a path's `folders`."""
    shared = [_common_tail(path.absolute().parts[:-1], folders) for path in found]
    return [path for path, agreement in zip(found, shared, strict=True) if agreement == max(shared)]


def _common_tail(a: Sequence[str], b: Sequence[str]) -> int:
    pairs = zip(reversed(a), reversed(b), strict=False)
    return next((i for i, (x, y) in enumerate(pairs) if x != y), min(len(a), len(b)))
