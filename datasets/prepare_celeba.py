"""CelebAMask-HQ as its authors publish it -> the folders that `--dataset_mode celeba` reads.

    python datasets/prepare_celeba.py --source CelebAMask-HQ --out data/celeba

Pictures are CelebA-HQ-img/N.jpg, 1024 x 1024; masks CelebAMask-HQ-mask-anno/.../NNNNN_PART.png, 512 x 512, one for
each part of a face, not black where it is. Label maps need pictures of their size: the pictures are reduced to that of
the masks (Lanczos, JPEG of quality 95). The last pictures are for testing, or with --partition those that CelebA tests
with. Pictures that are in --out already are kept.
"""

import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from stay_diffusion.data.formats.semantic_map import read_ids
from stay_diffusion.data.images import find_pictures
from stay_diffusion.system.command import argument_parser, run_command

# In the order of their ids, from 1, which is that of drawing: where masks overlap, the later part is seen. It is the
# order of the authors' own script, face_parsing/Data_preprocessing/g_mask.py, and that of class_names.CELEBA.
PARTS = ("skin", "nose", "eye_g", "l_eye", "r_eye", "l_brow", "r_brow", "l_ear", "r_ear", "mouth", "u_lip", "l_lip")
PARTS += ("hair", "hat", "ear_r", "neck_l", "neck", "cloth")
PICTURES, MASKS, MAPPING = "CelebA-HQ-img", "CelebAMask-HQ-mask-anno", "CelebA-HQ-to-CelebA-mapping.txt"
TRAIN, TEST = "0", "2"  # in CelebA's partition; 1 is its validation part
NUM_TEST = 2000

Masks = dict[str, Path]  # by part
Splits = dict[str, list[int]]  # numbers of pictures


def find_numbered(folder: Path) -> dict[int, Path]:
    """The pictures N.jpg by their numbers, in order; ValueError for another name and where there are none."""
    found = {}
    for path in find_pictures(folder):
        if not re.fullmatch(r"\d+\.jpg", path.name):
            raise ValueError(f"{path}: expected a name like 0.jpg")
        found[int(path.stem)] = path
    if not found:
        raise ValueError(f"{folder}: no pictures in it")
    return dict(sorted(found.items()))


def find_masks(folder: Path) -> dict[int, Masks]:
    """The masks of each picture by its number; ValueError for another name, an unknown part and a mask twice."""
    found: dict[int, Masks] = defaultdict(dict)
    for path in find_pictures(folder):
        match = re.fullmatch(r"(\d{5})_(\w+)\.png", path.name)
        if not match or match[2] not in PARTS:
            raise ValueError(f"{path}: expected a name like 00000_PART.png, PART one of {', '.join(PARTS)}")
        masks = found[int(match[1])]
        if match[2] in masks:
            raise ValueError(f"{path}: {masks[match[2]]} has the same name; remove one of them")
        masks[match[2]] = path
    return found


def split_by_number(numbers: list[int], num_test: int) -> Splits:
    if not 1 <= num_test < len(numbers):
        raise ValueError(f"--num_test {num_test}: expected at least 1 and fewer than the {len(numbers)} pictures")
    return {"train": numbers[:-num_test], "test": numbers[-num_test:]}


def split_by_partition(numbers: list[int], mapping: Path, partition: Path) -> Splits:
    """As CelebA's pictures, of which these are copies, are split; those it validates with are in neither."""
    originals = {}
    for number, words in _rows(mapping):
        if number > 1:  # the first line is "idx orig_idx orig_file"
            if len(words) != 3 or not words[0].isdecimal():
                raise ValueError(
                    f"{mapping}, line {number}: expected two numbers and a name, such as 0 119613 119614.jpg"
                )
            originals[int(words[0])] = words[2]
    parts = {}
    for number, words in _rows(partition):
        if len(words) != 2 or words[1] not in ("0", "1", "2"):
            raise ValueError(f"{partition}, line {number}: expected a name and 0, 1 or 2, such as 000001.jpg 0")
        parts[words[0]] = words[1]
    found: Splits = {"train": [], "test": []}
    for number in numbers:
        if number not in originals:
            raise ValueError(f"{mapping}: no line for picture {number}")
        if originals[number] not in parts:
            raise ValueError(f"{partition}: no line for {originals[number]}, which picture {number} is")
        for name, part in (("train", TRAIN), ("test", TEST)):
            if parts[originals[number]] == part:
                found[name].append(number)
    return found


def label_map(masks: Masks) -> np.ndarray:
    """Ids (H, W), 0 where there is no part; ValueError for masks of different sizes."""
    ids, first = None, next(iter(masks.values()))
    for label, part in enumerate(PARTS, 1):
        if part not in masks:
            continue
        mask = read_ids(masks[part])
        ids = np.zeros(mask.shape, np.uint8) if ids is None else ids
        if mask.shape != ids.shape:
            raise ValueError(f"{masks[part]}: {_size(mask)} pixels, but others such as {first} have {_size(ids)}")
        ids[mask != 0] = label
    return ids


def write(picture: Path, masks: Masks, folder: Path) -> None:
    """images/N.jpg and labels/N.png below `folder`, each complete or not at all; nothing where both are there."""
    image, label = folder / "images" / picture.name, folder / "labels" / f"{picture.stem}.png"
    if image.exists() and label.exists():
        return
    ids = label_map(masks)
    try:
        with Image.open(picture) as opened:
            width, height = opened.size
            reduced = opened.convert("RGB").resize(ids.shape[::-1], Image.Resampling.LANCZOS)
    except OSError as error:
        raise ValueError(f"{picture}: cannot be read ({error})") from error
    if width * ids.shape[0] != height * ids.shape[1]:
        raise ValueError(f"{picture}: {width}x{height} pixels, which is another shape than its masks' {_size(ids)}")
    _save(reduced, image, format="JPEG", quality=95)
    _save(Image.fromarray(ids), label, format="PNG")


def _rows(file: Path) -> Iterator[tuple[int, list[str]]]:
    """The words of each line that has any, with its number."""
    try:
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None
    return ((number, line.split()) for number, line in enumerate(lines, 1) if line.strip())


def _save(image: Image.Image, path: Path, **options) -> None:
    partial = path.with_name(f".{path.name}.tmp")
    image.save(partial, **options)
    partial.replace(path)


def _size(ids: np.ndarray) -> str:
    return f"{ids.shape[1]}x{ids.shape[0]}"


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help=f"the folder that holds {PICTURES} and {MASKS}")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    split = parser.add_mutually_exclusive_group()
    split.add_argument("--num_test", type=int, default=NUM_TEST, help=f"how many, {NUM_TEST} unless given")
    split.add_argument(
        "--partition", type=Path, help="CelebA's list_eval_partition.txt; without it the last are tested"
    )
    arguments = parser.parse_args()
    pictures, masks = find_numbered(arguments.source / PICTURES), find_masks(arguments.source / MASKS)
    for number, picture in pictures.items():
        if number not in masks:
            raise ValueError(f"{picture}: no masks {number:05d}_PART.png in {arguments.source / MASKS}")
    if arguments.partition:
        splits = split_by_partition([*pictures], arguments.source / MAPPING, arguments.partition)
    else:
        splits = split_by_number([*pictures], arguments.num_test)
    for name, numbers in splits.items():
        others = {path.stem for path in find_pictures(arguments.out / name)} - {str(number) for number in numbers}
        if others:
            raise ValueError(f"{arguments.out / name}: has other pictures already, such as {min(others)}; remove them")
    for name, numbers in splits.items():
        for kind in ("images", "labels"):
            (arguments.out / name / kind).mkdir(parents=True, exist_ok=True)
        for number in numbers:
            write(pictures[number], masks[number], arguments.out / name)
        print(f"{name}: {len(numbers)} pictures in {arguments.out / name}")
    if left := len(pictures) - sum(map(len, splits.values())):
        print(f"{left} pictures left out: CelebA validates with them")
    return 0


if __name__ == "__main__":
    run_command(main)
