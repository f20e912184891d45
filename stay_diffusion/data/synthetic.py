"""Draw the built-in data set: grey surfaces of two products with five kinds of defects, as two VoTT exports."""

import json
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from .annotations import Box, ImageRecord
from .formats import vott

VERSION = 1  # raised whenever the same seed would draw other pictures
SETTINGS = "synthetic-sdi.json"
SPLITS = ("train", "val")
PRODUCTS = ("A", "C")
SIDES = (96, 400)  # pixels
MAX_ASPECT = 2
GOOD_PART_EVERY = 8  # one picture in so many has no defect
NUM_DEFECTS = {1: 0.33, 2: 0.27, 3: 0.20, 4: 0.12, 5: 0.08}  # probability of so many in one of the others
SMALLEST, LARGEST = 0.03, 0.36  # of the side

Array = np.ndarray
Rng = np.random.Generator
Layer = tuple[Array, Array | float]  # opacity 0..1 and grey 0..1


class Sample(NamedTuple):
    surface: Array  # (H, W) uint8, without the defects
    picture: Array  # (H, W) uint8, with them
    product: str
    boxes: tuple[Box, ...]


def smooth_noise(rng: Rng, height: int, width: int, rows: int, columns: int) -> Array:
    """(H, W) noise of unit deviation that varies over rows x columns cells."""
    cells = Image.fromarray(rng.standard_normal((rows, columns), dtype=np.float32))
    noise = np.asarray(cells.resize((width, height), Image.Resampling.BICUBIC))
    return (noise - noise.mean()) / noise.std()


def brushed_metal(rng: Rng, height: int, width: int) -> Array:
    """Product A: dark grey, horizontal streaks, lit from one side."""
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
    light = rng.uniform(-0.05, 0.05) * x + rng.uniform(-0.05, 0.05) * y
    broad = smooth_noise(rng, height, width, int(rng.integers(19, 27)), 2)
    fine = smooth_noise(rng, height, width, height, max(2, width // 24))
    return 0.42 + rng.uniform(-0.03, 0.03) + light + 0.045 * broad + 0.025 * fine


def woven_fabric(rng: Rng, height: int, width: int) -> Array:
    """Product C: light grey, threads that pass over and under each other, slightly mottled."""
    threads = rng.uniform(8.5, 11.5)  # pairs of threads across each side
    phase_x, phase_y = rng.uniform(0, 2 * np.pi, size=2)
    y, x = np.mgrid[0 : 1 : height * 1j, 0 : 1 : width * 1j] * (2 * np.pi * threads)
    weave = np.tanh(2 * np.sin(x + phase_x) * np.sin(y + phase_y))
    mottle = smooth_noise(rng, height, width, 5, 5)
    fine = smooth_noise(rng, height, width, height // 2, width // 2)
    return 0.63 + rng.uniform(-0.03, 0.03) + 0.085 * weave + 0.015 * mottle + 0.02 * fine


SURFACES: dict[str, Callable[[Rng, int, int], Array]] = {"A": brushed_metal, "C": woven_fabric}

# A defect takes coordinates u, v (H, W) that reach from -1 to 1 over it, and the width of a pixel in them.


def edge(inside: Array, softness: float) -> Array:
    """1 where `inside` is well above 0, 0 where it is well below, rising over a width of `softness`."""
    return np.clip(inside / softness + 0.5, 0, 1)


def spot(rng: Rng, u: Array, v: Array, pixel: float) -> Layer:
    """A dark round blob."""
    radius = np.hypot(u, v / rng.uniform(0.85, 1))
    return 0.95 * edge(1 - radius, max(pixel, 0.25)), rng.uniform(0.08, 0.16)


def scratch(rng: Rng, u: Array, v: Array, pixel: float) -> Layer:
    """A thin bright line, slightly bent."""
    bend = rng.choice([-1, 1]) * rng.uniform(0.05, 0.2)
    half_width = max(rng.uniform(0.075, 0.1), 0.75 * pixel)
    across = np.abs(v - bend * (u**2 - 0.5))
    return edge(half_width * (1.1 - u**2) - across, pixel) * edge(1 - np.abs(u), pixel), rng.uniform(0.95, 1)


def stain(rng: Rng, u: Array, v: Array, pixel: float) -> Layer:
    """A soft dark area with an irregular outline, through which the surface still shows."""
    angle, outline = np.arctan2(v, u), np.full_like(u, 0.9)
    for k in range(2, 7):
        outline += rng.uniform(0.1, 0.35) / k * np.cos(k * angle + rng.uniform(0, 2 * np.pi))
    opacity = edge(outline - np.hypot(u, v), max(pixel, 0.3))
    return rng.uniform(0.62, 0.72) * opacity, rng.uniform(0.06, 0.12)


def pit(rng: Rng, u: Array, v: Array, pixel: float) -> Layer:
    """A black hole with a bright rim."""
    radius = np.hypot(u, v)
    hole = edge(rng.uniform(0.55, 0.65) - radius, pixel)
    return edge(1 - radius, pixel), 0.98 * (1 - hole)


def inclusion(rng: Rng, u: Array, v: Array, pixel: float) -> Layer:
    """A bright patch with straight edges and sharp corners."""
    corners = rng.integers(4, 7)
    angles = (np.arange(corners) + rng.uniform(-0.25, 0.25, corners)) * (2 * np.pi / corners)
    inside = np.min([rng.uniform(0.6, 0.9) - u * np.cos(a) - v * np.sin(a) for a in angles], axis=0)
    return edge(inside, pixel), rng.uniform(0.9, 0.96) + 0.04 * u


class Kind(NamedTuple):
    draw: Callable[[Rng, Array, Array, float], Layer]
    sizes: tuple[float, float]  # largest extent, of the side


KINDS: dict[str, Kind] = {
    "Spots": Kind(spot, (0.05, 0.20)),
    "Scratches": Kind(scratch, (0.14, 0.36)),
    "Stains": Kind(stain, (0.18, 0.36)),
    "Pits": Kind(pit, (0.03, 0.14)),
    "Inclusions": Kind(inclusion, (0.08, 0.28)),
}


def paint_defect(rng: Rng, canvas: Array, label: str) -> tuple[Array, Box] | None:
    """A copy of `canvas` (H, W) with one more defect and its tight box; None where too little of it would show."""
    height, width = canvas.shape
    size = np.exp(rng.uniform(*np.log(KINDS[label].sizes))) * np.sqrt(width * height)
    half = np.clip(size, SMALLEST * max(width, height), LARGEST * min(width, height)) / 2
    y, x = np.mgrid[:height, :width] + 0.5
    y, x = (y - rng.uniform(0, height)) / half, (x - rng.uniform(0, width)) / half
    turn = rng.uniform(0, np.pi)
    u, v = x * np.cos(turn) + y * np.sin(turn), y * np.cos(turn) - x * np.sin(turn)
    opacity, grey = KINDS[label].draw(rng, u, v, 1 / half)
    rows, columns = (np.flatnonzero((opacity > 0.4 * opacity.max()).any(axis=axis)) for axis in (1, 0))
    if len(rows) < SMALLEST * height or len(columns) < SMALLEST * width:
        return None
    box = Box(label, int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
    return canvas * (1 - opacity) + grey * opacity, box


def is_crowded(box: Box, others: list[Box]) -> bool:
    """Whether the box hides most of another one or lies mostly on it."""

    def shared(other: Box) -> float:
        w, h = min(box.x1, other.x1) - max(box.x0, other.x0), min(box.y1, other.y1) - max(box.y0, other.y0)
        return max(w, 0) * max(h, 0) / min((b.x1 - b.x0) * (b.y1 - b.y0) for b in (box, other))

    return any(shared(other) > 0.5 for other in others)


def draw_sample(seed: int, split: str, index: int) -> Sample:
    """The picture that belongs to (seed, split, index), whatever else is drawn."""
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    shortest, longest = np.log(SIDES)
    while True:
        width, height = (round(float(np.exp(x))) for x in rng.uniform(shortest, longest, size=2))
        if max(width, height) <= MAX_ASPECT * min(width, height):
            break
    product = PRODUCTS[rng.integers(len(PRODUCTS))]
    surface = SURFACES[product](rng, height, width)
    sensor_noise = rng.normal(0, 0.008, size=surface.shape)
    is_good = index % GOOD_PART_EVERY == GOOD_PART_EVERY - 1
    num_defects = 0 if is_good else rng.choice(list(NUM_DEFECTS), p=list(NUM_DEFECTS.values()))
    painted = surface
    boxes: list[Box] = []
    while len(boxes) < num_defects:
        label = rng.choice(list(KINDS)).item()
        attempt = paint_defect(rng, painted, label)
        if attempt and not is_crowded(attempt[1], boxes):
            painted = attempt[0]
            boxes.append(attempt[1])

    def to_greys(greys: Array) -> Array:
        return (np.clip(greys + sensor_noise, 0, 1) * 255 + 0.5).astype(np.uint8)

    return Sample(to_greys(surface), to_greys(painted), product, tuple(boxes))


def write_split(out: Path, split: str, count: int, seed: int, workers: int) -> list[ImageRecord]:
    """Writes the PNGs and then, as the sign that they are complete, the export; gives back its records."""
    folder = export_path(out, split).parent
    folder.mkdir(parents=True, exist_ok=True)

    def draw(index: int) -> ImageRecord:
        sample = draw_sample(seed, split, index)
        path = folder / f"{split}_{index:05d}.png"
        image = Image.fromarray(sample.picture)
        image.save(path)
        return ImageRecord(path, *image.size, sample.boxes, sample.product)

    with ThreadPoolExecutor(workers) as pool:  # threads are enough: NumPy and PNG compression release the lock
        records = list(pool.map(draw, range(count)))
    vott.write(export_path(out, split), records, (*KINDS, *PRODUCTS), name=f"synthetic-sdi {split}")
    return records


def export_path(out: Path, split: str) -> Path:
    return out / split / "vott-json-export" / f"synthetic-sdi-{split}-export.json"


def is_complete(out: Path) -> bool:
    try:
        return all(vott.read(export_path(out, split))[0] for split in SPLITS)
    except ValueError:
        return False


def generate(out: Path, num_train: int = 600, num_val: int = 64, seed: int = 0, workers: int = 2) -> None:
    """Fills `out` with the data set and prints what is in it; does nothing where it is there already.

    Raises ValueError where `out` holds anything else, other settings included.
    """
    if min(num_train, num_val, workers, seed + 1) < 1:
        raise ValueError("--num_train, --num_val and --workers must be at least 1, --seed at least 0")
    settings = json.dumps({"version": VERSION, "seed": seed, "num_train": num_train, "num_val": num_val})
    if (out / SETTINGS).is_file():
        found = (out / SETTINGS).read_text()
        if found != settings:
            raise ValueError(f"--out {out}: made with {found}, not {settings}; delete it or choose another folder")
        if is_complete(out):
            print(f"{out}: already complete, nothing to do")
            return
    elif out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise ValueError(f"--out {out}: holds something else than the synthetic data set; choose a new or empty folder")
    out.mkdir(parents=True, exist_ok=True)
    (out / SETTINGS).write_text(settings)
    for split, count in zip(SPLITS, (num_train, num_val), strict=True):
        records = write_split(out, split, count, seed, workers)
        names = Counter(name for r in records for name in (f"product {r.product}", *(box.label for box in r.boxes)))
        counts = ", ".join(f"{name} {names[name]}" for name in sorted(names))
        print(f"{split}: {count} images, {sum(not r.boxes for r in records)} of them good parts; {counts}")
