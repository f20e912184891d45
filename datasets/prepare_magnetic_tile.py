"""Magnetic-tile defects as their authors publish them -> label maps that `--dataset_mode maps` reads.

    git clone https://github.com/abin24/Magnetic-tile-defect-datasets.
    python datasets/prepare_magnetic_tile.py --source Magnetic-tile-defect-datasets. --out data/magnetic_tile

Pictures are MT_CLASS/Imgs/NAME.jpg, beside each a mask NAME.png, white where the defect is; MT_Free has none.
"""

import shutil
from pathlib import Path

import numpy as np
from PIL import Image

from stay_diffusion.data.formats.semantic_map import read_ids
from stay_diffusion.data.images import image_size
from stay_diffusion.system.command import argument_parser, run_command

CLASSES = ["Blowhole", "Break", "Crack", "Fray", "Uneven"]
WHITE = 127  # masks were saved with soft edges


def label_map(picture: Path, label: int) -> np.ndarray:
    """Ids (H, W): `label` in the mask, 0 elsewhere; ValueError for a missing mask or one of another size."""
    width, height = image_size(picture)
    if label == 0:
        return np.zeros((height, width), np.uint8)
    mask = read_ids(picture.with_suffix(".png"))
    if mask.shape != (height, width):
        raise ValueError(f"{picture}: {width}x{height} pixels, but its mask has {mask.shape[1]}x{mask.shape[0]}")
    return np.where(mask > WHITE, label, 0).astype(np.uint8)


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--source", type=Path, required=True, help="the folder that holds MT_Blowhole and the others")
    parser.add_argument("--out", type=Path, required=True, help="the folder to make")
    arguments = parser.parse_args()
    found = {name: sorted(arguments.source.glob(f"MT_{name}/Imgs/*.jpg")) for name in ("Free", *CLASSES)}
    for name, pictures in found.items():
        if not pictures:
            raise ValueError(f"{arguments.source}: no pictures in MT_{name}/Imgs")
    for name in ("images", "annotations"):
        (arguments.out / name).mkdir(parents=True, exist_ok=True)
    for label, (name, pictures) in enumerate(found.items()):
        for picture in pictures:
            stem = f"{name.lower()}_{picture.stem}"  # names repeat from class to class
            Image.fromarray(label_map(picture, label)).save(arguments.out / f"annotations/{stem}.png")
            shutil.copy(picture, arguments.out / f"images/{stem}.jpg")
    (arguments.out / "classes.txt").write_text("".join(f"{name}\n" for name in CLASSES))
    total = sum(len(pictures) for pictures in found.values())
    print(f"{total} pictures, {len(found['Free'])} of them without defects, in {arguments.out}")
    return 0


if __name__ == "__main__":
    run_command(main, continues=False)
