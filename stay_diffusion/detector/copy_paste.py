"""Copy-paste augmentation, the baseline for synthetic pictures: real defects pasted onto other real pictures.

python evaluations/copy_paste.py --data_dir DATA --out OUTPUT/copy_paste --num 300

Each picture is a training picture with its own defects, or a defect-free one (--backgrounds), onto which crops of other
training pictures' defects are pasted, their edges feathered, clear of what is drawn there. Written is a folder as
image_sample.py makes it: samples/ with their annotations, manifest.jsonl, preview.png. Interrupted, the same command
continues.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from tqdm import tqdm

from ..config import DataConfig
from ..data.annotations import ImageRecord, Vocabulary, label_boxes
from ..data.datasets import DATASETS
from ..data.images import find_pictures, to_pil, to_tensor
from ..layouts.items import LayoutItem
from ..sampling.results import ResultsFolder
from . import data as detector_data
from .data import Example

TRIES = 50  # places drawn for a crop before it is given up
NO_BOXES, NO_LABELS = np.zeros((0, 4), dtype=np.float32), np.zeros(0, dtype=np.int64)


@dataclass(frozen=True, eq=False)
class Host:
    """A picture to cut from or to paste onto, with what is drawn on it; no `product` goes with any."""

    example: Example
    product: str | None = None


@dataclass(frozen=True, eq=False)
class Paste:
    """One object of a donor, and by how many whole pixels (x, y) it is moved."""

    donor: Host
    place: int
    shift: NDArray[np.int64]

    @property
    def box(self) -> NDArray[np.float32]:
        """x0 y0 x1 y1 where it is pasted."""
        return self.donor.example.boxes[self.place] + np.tile(self.shift, 2)


@dataclass(frozen=True, eq=False)
class Plan:
    """One picture to make."""

    host: Host
    pastes: tuple[Paste, ...]

    def item(self, index: int, vocabulary: Vocabulary) -> LayoutItem:
        """Its name and layout: the host's own objects, then the pasted ones."""
        own, width_height = self.host.example, self.host.example.picture().size
        boxes = np.concatenate([own.boxes, *(paste.box[None] for paste in self.pastes)]) / np.tile(width_height, 2)
        labels = [*own.labels, *(paste.donor.example.labels[paste.place] for paste in self.pastes)]
        objects = label_boxes(boxes, labels, vocabulary.classes)
        return LayoutItem(f"copy_paste_{index:05d}", self.host.product, objects, "copy_paste")


def main() -> int:
    args = parse_arguments()
    data = DataConfig(str(args.data_dir), args.dataset_mode, val_fraction=args.val_fraction)
    records, vocabulary = detector_data.read(data, "train")
    donors = hosts_of(detector_data.choose(records, args.num_real), vocabulary, data)
    if not any(len(donor.example.labels) for donor in donors):
        raise ValueError(f"--data_dir {args.data_dir}: no training picture has an object to paste")
    hosts = backgrounds(args.backgrounds) if args.backgrounds else donors

    plans = [plan(hosts, donors, args.feather, args.most, rng_of(args.seed, i)) for i in range(args.num)]
    items = [one.item(index, vocabulary) for index, one in enumerate(plans)]
    settings = {name: getattr(args, name) for name in ("seed", "feather", "most", "num_real")}
    results = ResultsFolder(args.out, vocabulary)
    done = results.done(items, settings)
    results.open()
    for index in tqdm(sorted(set(range(args.num)) - done), unit="picture", disable=None):
        image = to_pil(to_tensor(paste_all(plans[index], args.feather), channels_of(plans[index].host)))
        results.add(index, items[index], image, settings | provenance(plans[index]))
    results.finish(items, save_npz=False)
    objects = sum(len(one.pastes) for one in plans)
    print(f"{args.num} pictures with {objects} pasted objects: {args.out.resolve()}")
    return 0


def rng_of(seed: int, index: int) -> np.random.Generator:
    return np.random.default_rng((seed, index))


def hosts_of(records: Sequence[ImageRecord], vocabulary: Vocabulary, data: DataConfig) -> list[Host]:
    found = detector_data.examples(records, vocabulary, data)
    return [Host(example, record.product) for example, record in zip(found, records, strict=True)]


def backgrounds(folder: Path) -> list[Host]:
    """Defect-free pictures, of no known product."""
    paths = find_pictures(folder)
    if not paths:
        raise ValueError(f"--backgrounds {folder}: no pictures in it")
    return [Host(Example(path, True, NO_BOXES, NO_LABELS)) for path in paths]


def plan(hosts: Sequence[Host], donors: Sequence[Host], feather: int, most: int, rng: np.random.Generator) -> Plan:
    """As many pasted objects as a donor drawn at random has, `most` at most (0: no limit), where there is room."""
    host = hosts[rng.integers(len(hosts))]
    fitting = [
        donor
        for donor in donors
        if donor is not host and len(donor.example.labels) and (host.product is None or donor.product == host.product)
    ]
    if not fitting:
        return Plan(host, ())
    count = len(fitting[rng.integers(len(fitting))].example.labels)
    size, taken, pastes = np.array(host.example.picture().size), host.example.boxes, []
    for _ in range(min(count, most or count)):
        donor = fitting[rng.integers(len(fitting))]
        place = int(rng.integers(len(donor.example.labels)))
        shift = find_room(donor.example.boxes[place], size, taken, 2 * feather, rng)
        if shift is not None:
            pastes.append(Paste(donor, place, shift))
            taken = np.concatenate([taken, pastes[-1].box[None]])
    return Plan(host, tuple(pastes))


def find_room(box: NDArray, size: NDArray, taken: NDArray, distance: int, rng: np.random.Generator) -> NDArray | None:
    """A move (x, y) that brings a box into the picture, `distance` pixels clear of others; None where none is found."""
    low, high = np.ceil(-box[:2]), np.floor(size - box[2:])
    if (low > high).any():
        return None
    for _ in range(TRIES):
        shift = rng.integers(low, high, endpoint=True)
        moved = box + np.tile(shift, 2)
        apart = (moved[:2] >= taken[:, 2:] + distance) | (moved[2:] <= taken[:, :2] - distance)
        if apart.any(axis=1).all():
            return shift
    return None


def paste_all(one: Plan, feather: int) -> Image.Image:
    """The host with all crops pasted, in its mode."""
    picture = one.host.example.picture()
    canvas = np.array(picture, dtype=np.float32)
    for paste in one.pastes:
        donor = paste.donor.example.picture()
        donor = donor if donor.mode == picture.mode else donor.convert(picture.mode)
        blend(canvas, np.asarray(donor, dtype=np.float32), paste, feather)
    return Image.fromarray(canvas if picture.mode == "F" else canvas.round().astype(np.uint8), picture.mode)


def blend(canvas: NDArray, donor: NDArray, paste: Paste, feather: int) -> None:
    """Pastes one object: wholly within its box, fading over `feather` pixels outside it."""
    x0, y0, x1, y1 = paste.donor.example.boxes[paste.place]
    dx, dy = paste.shift
    (H, W), (h, w) = canvas.shape[:2], donor.shape[:2]
    # pixels of the donor that lie in both pictures
    rows = np.arange(max(int(y0) - feather, 0, -dy), min(int(np.ceil(y1)) + feather, h, H - dy))
    columns = np.arange(max(int(x0) - feather, 0, -dx), min(int(np.ceil(x1)) + feather, w, W - dx))
    away = np.maximum(_outside(rows, y0, y1)[:, None], _outside(columns, x0, x1)[None])  # pixels from the box
    opacity = (1 - away / (feather + 1)).clip(0, 1).astype(np.float32)
    opacity = opacity if canvas.ndim == 2 else opacity[..., None]
    there, here = np.ix_(rows, columns), np.ix_(rows + dy, columns + dx)
    canvas[here] = opacity * donor[there] + (1 - opacity) * canvas[here]


def _outside(pixels: NDArray, low: float, high: float) -> NDArray:
    """How many whole pixels each lies outside of low..high; 0 for those that it touches."""
    return np.maximum(np.floor(low) - pixels, pixels - np.ceil(high) + 1).clip(0)


def channels_of(host: Host) -> int:
    return 3 if host.example.picture().mode == "RGB" else 1


def provenance(one: Plan) -> dict:
    """The files that a picture was made from."""
    pasted = [str(paste.donor.example.path.resolve()) for paste in one.pastes]
    return {"source_image": str(one.host.example.path.resolve()), "pasted_from": pasted}


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--data_dir", type=Path, required=True, help="data set: its train split alone is used")
    parser.add_argument("--dataset_mode", choices=DATASETS, default="sdi", help="its format")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share held out where it has no val folder")
    parser.add_argument("--num_real", type=int, default=0, help="use so many of the pictures, always the same; 0: all")
    parser.add_argument("--backgrounds", type=Path, help="folder of defect-free pictures to paste onto instead")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--num", type=int, required=True, help="pictures to make")
    parser.add_argument("--most", type=int, default=0, help="most pasted objects in a picture; 0: no limit")
    parser.add_argument("--feather", type=int, default=4, help="pixels around a box over which its crop fades")
    parser.add_argument("--seed", type=int, default=0, help="picture i is drawn from (seed, i)")
    args = parser.parse_args()
    for name, least in (("num", 1), ("num_real", 0), ("most", 0), ("feather", 0), ("seed", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} {getattr(args, name)}: must be {least} or more")
    return args
