"""DeepPCB as its authors publish it -> VoTT exports that `--dataset_mode sdi` reads.

    git clone https://github.com/tangsanli5201/DeepPCB
    python datasets/prepare_deeppcb.py --source DeepPCB/PCBData --out data/deeppcb

Lists: trainval.txt (train) and test.txt (val), lines of "group/.../ID.jpg group/..._not/ID.txt". The picture is
ID_test.jpg, the defect-free template beside it ID_temp.jpg; a label file has lines of "x0 y0 x1 y1 type".
"""

import shutil
from dataclasses import replace
from pathlib import Path

from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.formats import vott
from stay_diffusion.data.images import image_size
from stay_diffusion.system.command import argument_parser, run_command

CLASSES = ["open", "short", "mousebite", "spur", "copper", "pin-hole"]  # types 1 to 6
LISTS = {"train": "trainval.txt", "val": "test.txt"}
DRAWN_OVER = {"44000020"}  # the labels are drawn into this picture itself


def read_split(source: Path, split: str) -> list[ImageRecord]:
    """The records of a list; ValueError for a line, a label or a picture that is not as described above."""
    records = []
    for number, line in enumerate(_lines(source / LISTS[split]), 1):
        try:
            image, labels = (source / word for word in line.split())
        except ValueError:
            raise ValueError(f"{source / LISTS[split]}, line {number}: expected a picture and a label file") from None
        if image.stem in DRAWN_OVER:
            continue
        image = image.with_name(f"{image.stem}_test.jpg")
        records.append(ImageRecord(image, *image_size(image), boxes=tuple(_boxes(labels))))
    return records


def _boxes(labels: Path):
    for number, line in enumerate(_lines(labels), 1):
        try:
            x0, y0, x1, y1, kind = (int(word) for word in line.replace(",", " ").split())
            yield Box(dict(enumerate(CLASSES, 1))[kind], x0, y0, x1, y1)
        except (ValueError, KeyError):
            raise ValueError(f"{labels}, line {number}: expected x0 y0 x1 y1 and a type from 1 to 6") from None


def _lines(file: Path) -> list[str]:
    try:
        return [line for line in file.read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeError) as error:
        raise ValueError(f"{file}: cannot be read ({error})") from None


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the folder PCBData")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    arguments = parser.parse_args()
    splits = {split: read_split(arguments.source, split) for split in LISTS}  # all of it, before anything is written
    for split, records in splits.items():
        folder = arguments.out / split / "vott-json-export"
        folder.mkdir(parents=True, exist_ok=True)
        moved = [replace(record, path=Path(shutil.copy(record.path, folder))) for record in records]
        vott.write(folder / f"DeepPCB-{split}-export.json", moved, CLASSES, name=f"DeepPCB-{split}")
        print(f"{split}: {len(records)} pictures, {sum(len(record.boxes) for record in records)} boxes in {folder}")
    return 0


if __name__ == "__main__":
    run_command(main, continues=False)
