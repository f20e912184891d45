"""Pictures per second of one loader worker, against open, convert, halve, resize, crop as the predecessors do it.

    python benchmarks/loader.py [--data_dir DATA --dataset_mode sdi] [--num_images 200] [--rounds 5]

Without --data_dir the pictures are grey JPEGs of 640 x 640 drawn for the purpose. Both routes make a float tensor of
three channels, in this process, with one thread; rounds alternate between them and the median of the rounds counts.
The file system's own cache is warm for both. Ours also reads the boxes, cuts them and builds the sample.
"""

import os
import platform
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import PIL
import torch
from measuring import AT_LEAST, Row, ratio
from PIL import Image

from stay_diffusion.config import DataConfig, ModelConfig
from stay_diffusion.data.annotations import Box, ImageRecord, Vocabulary
from stay_diffusion.data.picture_cache import cache_pictures
from stay_diffusion.data.samples import LayoutDataset
from stay_diffusion.data.transforms import CROP_POLICIES
from stay_diffusion.run.factory import read_split
from stay_diffusion.system.command import argument_parser

SIDE, QUALITY, BOXES = 640, 90, 7
SIZES = (64, 128)
CACHES = ("off", "ram", "disk")


def predecessors(path: Path, size: int, rng: np.random.Generator | None) -> torch.Tensor:
    """guided-diffusion's route to (3, size, size): the middle square, or with `rng` 0.8 to 1 of the short side."""
    with open(path, "rb") as file:
        image = Image.open(file)
        image.load()
    image = image.convert("RGB")
    short = size if rng is None else int(rng.integers(size, int(np.ceil(size / 0.8)), endpoint=True))
    while min(image.size) >= 2 * short:
        image = image.resize((image.width // 2, image.height // 2), Image.Resampling.BOX)
    scale = short / min(image.size)
    image = image.resize((round(image.width * scale), round(image.height * scale)), Image.Resampling.BICUBIC)
    values = np.array(image)
    spare = [length - size for length in values.shape[:2]]
    top, left = (each // 2 if rng is None else int(rng.integers(each, endpoint=True)) for each in spare)
    values = values[top : top + size, left : left + size].astype(np.float32) / 127.5 - 1
    return torch.from_numpy(values.transpose(2, 0, 1))


def draw_pictures(folder: Path, num: int, noise: float = 6.0) -> list[ImageRecord]:
    """Grey textures with noise (a deviation in grey levels) and bright boxes: JPEGs of 640 x 640, 125 kB with 6."""
    records = []
    for i in range(num):
        rng = np.random.default_rng(i)
        coarse = Image.fromarray(rng.integers(60, 190, (40, 40), dtype=np.uint8)).resize((SIDE, SIDE), Image.BICUBIC)
        values = np.asarray(coarse, dtype=np.float32) + rng.normal(0, noise, (SIDE, SIDE))
        corners = rng.integers(0, SIDE - 60, (BOXES, 2)).tolist()
        for x, y in corners:
            values[y : y + 40, x : x + 40] += 50
        path = folder / f"{i:04d}.jpg"
        Image.fromarray(values.clip(0, 255).astype(np.uint8)).save(path, quality=QUALITY)
        records.append(ImageRecord(path, SIDE, SIDE, tuple(Box("spot", x, y, x + 40, y + 40) for x, y in corners)))
    return records


@dataclass
class Figures:
    """Pictures per second: the median over rounds, and the median, the least and the most of the rounds' own ratios."""

    ours: float
    theirs: float
    ratio: float
    low: float
    high: float
    first: float  # of the pass that fills a cache


def compare(dataset: LayoutDataset, cache: str, rounds: int) -> Figures:
    size, random = dataset.image_size, dataset.data.crop_policy == "random"
    rng = np.random.default_rng(0) if random else None
    num = len(dataset)
    started = time.perf_counter()
    cache_pictures(dataset, cache)
    if cache != "ram":
        for index in range(num):
            dataset.sample(index, 0)
    first = num / (time.perf_counter() - started)
    ours, theirs = [], []
    for epoch in range(rounds):
        started = time.perf_counter()
        for record in dataset.records:
            predecessors(record.path, size, rng)
        between = time.perf_counter()
        for index in range(num):
            dataset.sample(index, epoch)
        theirs.append(num / (between - started))
        ours.append(num / (time.perf_counter() - between))
    return Figures(statistics.median(ours), statistics.median(theirs), *ratio(ours, theirs), first)


def rows(rounds: int = 5, num_images: int = 60, noise: float = 0.5, size: int = 64) -> list[Row]:
    """Row 6 of the targets: whole pictures resized, decoded anew and from the cache in memory."""
    torch.set_num_threads(1)
    found = []
    with tempfile.TemporaryDirectory() as place:
        records = draw_pictures(Path(place), num_images, noise)
        weight = statistics.mean(record.path.stat().st_size for record in records) / 1000
        protocol = f"{num_images} drawn grey JPEGs of {SIDE} px, {weight:.0f} kB each, to {size} px; {rounds} rounds"
        for cache, target in (("off", 3.0), ("ram", 10.0)):
            dataset = LayoutDataset(records, Vocabulary(("spot",)), model=ModelConfig(image_size=size))
            measured = compare(dataset, cache, rounds)
            what = "loader, pictures a second of a worker against open, convert, halve, resize, crop"
            what = what if cache == "off" else "- from the cache"
            found.append(Row("6", what, AT_LEAST, target, measured.ratio, measured.low, measured.high, protocol))
    return found


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--data_dir", default="")
    parser.add_argument("--dataset_mode", default="sdi")
    parser.add_argument("--num_images", type=int, default=200)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()

    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as place:
        os.environ["XDG_CACHE_HOME"] = str(Path(place) / "cache")
        if arguments.data_dir:
            data = DataConfig(data_dir=arguments.data_dir, dataset_mode=arguments.dataset_mode)
            records, vocabulary = read_split(data, "train")
            records = records[: arguments.num_images]
        else:
            records, vocabulary = draw_pictures(Path(place), arguments.num_images), Vocabulary(("spot",))
        size = statistics.mean(record.path.stat().st_size for record in records)
        print(f"{len(records)} pictures ({arguments.data_dir or 'drawn'}), {size / 1000:.0f} kB each on average;")
        print(f"medians of {arguments.rounds} rounds, one thread; Pillow {PIL.__version__}, {platform.machine()}\n")
        print("| size | policy | cache | pictures/s | predecessors' | ratio | first pass |")
        print("|---|---|---|---|---|---|---|")
        for image_size in SIZES:
            for policy in CROP_POLICIES:
                for cache in CACHES:
                    dataset = LayoutDataset(
                        records, vocabulary, DataConfig(crop_policy=policy), ModelConfig(image_size=image_size)
                    )
                    found = compare(dataset, cache, arguments.rounds)
                    figures = f"{found.ours:.0f} | {found.theirs:.0f} | {found.ratio:.1f} | {found.first:.0f}"
                    print(f"| {image_size} | {policy} | {cache} | {figures} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
