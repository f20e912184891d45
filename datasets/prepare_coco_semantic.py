"""COCO 2017 with COCO-Stuff's label maps -> the folders of SPADE that `--dataset_mode coco_semantic` reads.

    python datasets/prepare_coco_semantic.py --source coco --out data/coco_semantic

--source holds images/{train,val}2017, stuffthingmaps/{train,val}2017 and annotations/instances_{train,val}2017.json.
Instance maps are made as those are that SPADE publishes: the label map, over it each picture's things but crowds, in
the order of the annotation file, numbered through all classes from 0. Pictures that are in --out already are kept.
"""

import json
from collections import defaultdict
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from stay_diffusion.data.annotations import MapFiles
from stay_diffusion.data.codings import CODINGS
from stay_diffusion.data.formats import semantic_map
from stay_diffusion.data.formats.files import copy_image
from stay_diffusion.data.images import find_pictures, image_size
from stay_diffusion.system.command import argument_parser, run_command

SPLITS = ("train", "val")
CODING = CODINGS["coco_semantic"]
NUMBERS = 256  # that a map of 8 bits holds

Outline = np.ndarray  # (N, 2) of x, y


class Picture(NamedTuple):
    """A picture, its label map and its things in their order, each of one or more outlines."""

    image: Path
    labels: Path
    things: list[list[Outline]]


def read_split(source: Path, split: str) -> list[Picture]:
    """Every picture of a split; ValueError for annotations, pictures and maps that are not as described above."""
    file = source / f"annotations/instances_{split}2017.json"
    try:
        content = json.loads(file.read_text(encoding="utf-8"), object_hook=_compact)
        images, annotations = content["images"], content["annotations"]
        things: dict[int, list] = defaultdict(list)
        for annotation in annotations:
            if not annotation.get("iscrowd"):
                things[annotation["image_id"]].append(annotation["segmentation"])
        pictures = [
            _picture(source, split, image["file_name"], things.pop(image["id"], []), (image["width"], image["height"]))
            for image in images
        ]
    except OSError as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{file}: not COCO's annotations of instances ({type(error).__name__}: {error})") from None
    except _Outlines as error:
        raise ValueError(f"{file}: {error}") from None
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ValueError(f"{file}: cannot be read as JSON ({error})") from None
    if things:
        raise ValueError(f"{file}: has annotations of image {min(things)}, but no such image")
    if not pictures:
        raise ValueError(f"{file}: no pictures in it")
    return pictures


class _Outlines(ValueError):
    """What an annotation has for outlines is none."""


def _compact(entry: dict) -> dict:
    """An entry of the file with arrays for outlines: as lists of numbers COCO's would take gigabytes."""
    if "segmentation" not in entry:
        return entry
    outlines, entry["segmentation"] = entry["segmentation"], None
    if entry.get("iscrowd"):
        return entry
    what = f"annotation {entry.get('id')}"
    if not isinstance(outlines, list) or not outlines:
        raise _Outlines(f"{what}: its segmentation is no list of polygons, as those of all but crowds are")
    try:
        entry["segmentation"] = [np.array(outline, dtype=np.float64).reshape(-1, 2) for outline in outlines]
    except (ValueError, TypeError):
        raise _Outlines(f"{what}: a polygon in its segmentation is no list of x, y, x, y ...") from None
    if not all(np.isfinite(outline).all() for outline in entry["segmentation"]):
        raise _Outlines(f"{what}: a polygon in its segmentation is not finite")
    return entry


def _picture(source: Path, split: str, name: str, things: list[list[Outline]], stated: tuple[int, int]) -> Picture:
    if Path(name).name != name:
        raise ValueError(
            f"{source}/annotations/instances_{split}2017.json: file_name {name!r}: expected no folder in it"
        )
    image = source / f"images/{split}2017" / name
    labels = source / f"stuffthingmaps/{split}2017" / f"{image.stem}.png"
    for path in (image, labels):
        if (size := image_size(path)) != stated:
            raise ValueError(f"{path}: annotated as {stated[0]}x{stated[1]} pixels but has {size[0]}x{size[1]}")
    if len(things) > NUMBERS:
        raise ValueError(f"{image}: {len(things)} things, but a map of 8 bits has numbers for {NUMBERS}")
    return Picture(image, labels, things)


def instance_map(labels: np.ndarray, things: list[list[Outline]]) -> np.ndarray:
    """The label map's ids (H, W) with the things drawn over them, the later ones on top."""
    found = labels.copy()
    for number, outlines in enumerate(things):
        for outline in outlines:
            draw(found, outline - 1, number)  # a pixel out of place, as the published maps are
    return found


def draw(ids: np.ndarray, outline: Outline, number: int) -> None:
    """Sets the pixels of ids (H, W) that are in an outline: those from whose middle a ray to the right leaves it.

    The middle of the first pixel is at 0, 0. An edge to the left of a pixel or above it has the pixel inside, one to
    the right or below has not: the published maps never have things in the last column and row.
    """
    if not len(outline):
        return
    x, y = outline.T
    next_x, next_y = np.roll(outline, -1, axis=0).T
    height, width = ids.shape
    rows = np.arange(max(0, int(np.floor(y.min()))), min(height - 1, int(np.ceil(y.max()))) + 1)
    edge, row = np.nonzero((y[:, None] <= rows) != (next_y[:, None] <= rows))
    crossing = x[edge] + (next_x - x)[edge] * (rows[row] - y[edge]) / (next_y - y)[edge]
    crossings = np.zeros((len(rows), width + 1), dtype=np.int64)  # of the rays, by the first pixel right of them
    np.add.at(crossings, (row, np.clip(np.ceil(crossing), 0, width).astype(int)), 1)
    to_the_right = crossings[:, ::-1].cumsum(axis=1)[:, -2::-1]
    ids[rows] = np.where(to_the_right % 2 == 1, number, ids[rows])


def write(picture: Picture, folder: Path, split: str) -> None:
    """The three files of a picture, each complete or not at all; nothing where all are there."""
    name = f"{picture.image.stem}.png"
    instances = folder / f"{split}_inst" / name
    places = (folder / f"{split}_img" / picture.image.name, folder / f"{split}_label" / name, instances)
    if all(path.exists() for path in places):
        return
    maps = semantic_map.read(MapFiles(picture.labels, None, CODING))
    drawn = instance_map(np.array(semantic_map.to_image(maps.labels, CODING)), picture.things)
    copy_image(picture.image, folder / f"{split}_img")
    copy_image(picture.labels, folder / f"{split}_label")
    partial = instances.with_name(f".{name}.tmp")
    Image.fromarray(drawn).save(partial, format="PNG")
    partial.replace(instances)


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the folder that holds images and the others")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    arguments = parser.parse_args()
    splits = {split: read_split(arguments.source, split) for split in SPLITS}  # all of it, before anything is written
    for split, pictures in splits.items():
        there = {path.stem for path in find_pictures(arguments.out / f"{split}_img")}
        if others := there - {picture.image.stem for picture in pictures}:
            raise ValueError(
                f"{arguments.out}/{split}_img: has other pictures already, such as {min(others)}; remove them"
            )
    for split, pictures in splits.items():
        (arguments.out / f"{split}_inst").mkdir(parents=True, exist_ok=True)
        for picture in pictures:
            write(picture, arguments.out, split)
        things = sum(len(picture.things) for picture in pictures)
        print(f"{split}: {len(pictures)} pictures, {things} things in {arguments.out}/{split}_inst")
    return 0


if __name__ == "__main__":
    run_command(main)
