"""COCO-Stuff as the layout-to-image literature filters it: things and stuff as boxes, few and large ones only."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from ..config import DataConfig
from .annotations import AnnotationError, Box, EmptySplit, ImageRecord
from .class_names import COCO_STUFF
from .formats.coco_entries import (
    Id,
    Unusable,
    annotations_of,
    box_bounds,
    box_problem,
    category_names,
    find_image,
    image_problem,
    images_by_id,
    is_crowd,
    load,
    stated_size,
)
from .formats.files import read_json, read_text
from .formats.plain_boxes import reading
from .problems import Problem

THINGS, STUFF, OTHER = range(1, 91), range(92, 183), 183  # category ids; "other" is where the things are

Sizes = dict[Id, tuple[int, int]]  # image -> width and height


@dataclass(frozen=True, slots=True)
class Stage:
    """How many images and objects are left after one step of the filter."""

    name: str
    images: int
    objects: int


@dataclass(frozen=True, slots=True)
class _Kept:
    """What one of the two files has: the large boxes of each image that it mentions, and how many each step left."""

    boxes: dict[Id, list[Box]]
    listed: int
    chosen: int
    single: int  # no crowds
    named: int  # not "other"

    @property
    def large(self) -> int:
        return _count(self.boxes.values())


def read(
    data_dir: Path,
    split: str,
    data: DataConfig = DataConfig(),
    id_list: Path | None = None,
    problems: list[Problem] | None = None,
) -> tuple[list[ImageRecord], tuple[str, ...], list[Stage]]:
    """Read the records of a split, "train" or "val", the names of all 182 ids, and what each step of the filter left.

    Name i has label i + 1, which so is COCO's own id: 1..90 things, 92..182 stuff; 91 and ten others never occur, and
    183 ("other") is left out. The literature's 184 classes count 0 and 183 too.

    An object is kept if its w * h is more than --coco_min_object_size of the image and it is neither a crowd nor
    "other"; an image if its id is in `id_list` (one per line, or a JSON list), if it has any stuff annotation, also one
    that is not kept, and --coco_min_objects to --coco_max_objects kept objects: none are cut off. Annotations are in
    annotations/{instances,stuff}_<split>2017.json, images in images/<split>2017 or <split>2017. Broken entries go to
    `problems`, or without it to one warning per kind. Raises AnnotationError for broken files and where no image is
    found, EmptySplit where the filter leaves nothing or there is no val split.
    """
    _check_options(data)
    with reading(data_dir, problems) as found:
        files = [_annotation_file(data_dir, f"{kind}_{split}2017.json", split) for kind in ("instances", "stuff")]
        ids = None if id_list is None else _read_ids(id_list)

        content = load(files[0])
        images = images_by_id(files[0], content["images"], found)
        sizes = {key: size for key, image in images.items() if (size := stated_size(image))}
        chosen = {key: size for key, size in sizes.items() if ids is None or key in ids}
        if ids is not None and not chosen:
            raise EmptySplit(f"{id_list}: none of its {len(ids)} ids is in {files[0]}")
        parts = [_filter(files[0], content, THINGS, images, sizes, chosen, data.coco_min_object_size, found)]
        del content  # COCO's own are large: not both at once
        parts.append(_filter(files[1], load(files[1]), STUFF, images, sizes, chosen, data.coco_min_object_size, found))

        things, stuff = (part.boxes for part in parts)
        boxes = {key: things.get(key, []) + stuff[key] for key in chosen if key in stuff}
        least, most = data.coco_min_objects, data.coco_max_objects
        few = {key: boxes[key] for key in boxes if least <= len(boxes[key]) <= most}
        found += [
            image_problem(files[0], images[key], "images without width and height")
            for key in images
            if key not in sizes
        ]
        folders = [data_dir / "images" / f"{split}2017", data_dir / f"{split}2017"]
        records = _records(files[0], {key: images[key] for key in few}, chosen, few, folders, found)
        stages = _first_stages(parts, len(sizes), len(chosen), data.coco_min_object_size)
        stages += [
            Stage("with stuff annotations", len(boxes), _count(boxes.values())),
            Stage(f"{least} to {most} objects", len(few), _count(few.values())),
            Stage("image found", len(records), _count(record.boxes for record in records)),
        ]
        if ids is not None and id_list is not None:
            name = f"in {id_list.name} ({len(chosen)} of its {len(ids)} ids found)"
            stages.insert(1, Stage(name, len(chosen), sum(part.chosen for part in parts)))
        if not records:
            steps = ", ".join(f"{stage.name}: {stage.images}" for stage in stages)
            raise EmptySplit(f"{files[0]}: the filter leaves no images ({steps})")
        return records, COCO_STUFF, stages


def _first_stages(parts: Sequence[_Kept], num_listed: int, num_chosen: int, min_object_size: float) -> list[Stage]:
    return [
        Stage("listed", num_listed, sum(part.listed for part in parts)),
        Stage("without crowds", num_chosen, sum(part.single for part in parts)),
        Stage('without "other"', num_chosen, sum(part.named for part in parts)),
        Stage(f"larger than {min_object_size:g} of the image", num_chosen, sum(part.large for part in parts)),
    ]


def _check_options(data: DataConfig) -> None:
    size, least, most = data.coco_min_object_size, data.coco_min_objects, data.coco_max_objects
    if not 0 <= size < 1:
        raise ValueError(f"--coco_min_object_size {size}: a share of the image's area, 0 to below 1")
    if least < 0:
        raise ValueError(f"--coco_min_objects {least}: must be 0 or more")
    if most < max(least, 1):
        raise ValueError(f"--coco_max_objects {most}: must be at least 1 and --coco_min_objects {least}")


def _annotation_file(data_dir: Path, name: str, split: str) -> Path:
    if not data_dir.is_dir():
        raise AnnotationError(f"--data_dir {data_dir}: no such folder")
    file = data_dir / "annotations" / name
    if not file.is_file():
        expected = "--dataset_mode coco reads COCO's annotations of 2017 there"
        raise (EmptySplit if split == "val" else AnnotationError)(f"{file}: no such file; {expected}")
    return file


def _read_ids(file: Path) -> set[int]:
    """The ids of a list: a JSON list of numbers, or one per line; leading zeros are those of COCO's file names."""
    text = read_text(file).strip()
    entries = read_json(file) if text.startswith("[") else text.split()
    assert isinstance(entries, list)
    ids = set()
    for i, entry in enumerate(entries, start=1):
        words = str(entry).strip()
        if not (words.isdecimal() and len(words) < 20):
            raise AnnotationError(f"{file}: entry {i}, {words!r:.40}, is not an image id")
        ids.add(int(words))
    if not ids:
        raise AnnotationError(f"{file}: no image ids in it")
    return ids


def _filter(
    file: Path,
    content: dict,
    categories: range,
    images: dict[Id, dict],
    sizes: Sizes,
    chosen: Sizes,
    min_object_size: float,
    problems: list[Problem],
) -> _Kept:
    """Goes through the annotations of one file, leaving out whole groups one after the other to count them."""
    for key, name in category_names(file, content["categories"]).items():
        if key != OTHER and not (type(key) is int and key in categories and name == COCO_STUFF[key - 1]):
            raise AnnotationError(
                f"{file}: category {key!r} {name!r} is not COCO-Stuff's; --dataset_mode coco_json reads other data sets"
            )
    listed = [entry for entry in annotations_of(file, content["annotations"], images, problems) if entry[0] in sizes]
    in_chosen = [entry for entry in listed if entry[0] in chosen]
    single = [entry for entry in in_chosen if not is_crowd(entry[1])]
    named = [entry for entry in single if entry[1].get("category_id") != OTHER]
    boxes: dict[Id, list[Box]] = {key: [] for key, _ in in_chosen}
    for key, annotation in named:
        try:
            category, (width, height) = annotation.get("category_id"), chosen[key]
            if type(category) is not int or category not in categories:
                raise Unusable("boxes of an unknown category_id")
            bounds = box_bounds(annotation, width, height)
        except Unusable as error:
            problems.append(box_problem(file, annotation, str(error)))
            continue
        # From the stated width and height, not from the edges: the borderline is where the literature has it.
        if annotation["bbox"][2] * annotation["bbox"][3] / (width * height) > min_object_size:
            boxes[key].append(Box(COCO_STUFF[category - 1], *bounds))
    return _Kept(boxes, len(listed), len(in_chosen), len(single), len(named))


def _records(
    file: Path,
    images: dict[Id, dict],
    sizes: Sizes,
    boxes: dict[Id, list[Box]],
    folders: Sequence[Path],
    problems: list[Problem],
) -> list[ImageRecord]:
    """The images whose file is there; AnnotationError where that is none of them."""
    records = []
    for key, image in images.items():
        try:
            path = find_image(folders, image.get("file_name"))
        except Unusable as error:
            problems.append(image_problem(file, image, str(error)))
        else:
            records.append(ImageRecord(path, *sizes[key], tuple(boxes[key])))
    if images and not records:
        raise AnnotationError(f"{file}: none of {len(images)} images found in {' or '.join(map(str, folders))}")
    return records


def _count(groups: Iterable[Sequence[Box]]) -> int:
    return sum(map(len, groups))
