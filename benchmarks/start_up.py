"""How long a run takes to start with many annotated pictures, and what each of their annotations takes in memory.

    python benchmarks/start_up.py [--images 1000,10000,100000] [--boxes 4]

For each number two data sets, a VoTT export and a COCO JSON, of blank pictures of 32 x 32 that share their files by
hard links, with boxes drawn at random. Measured are

    start-up    the whole command image_train.py of one step with a tiny network, less the same command with 16
                pictures: as the clock says, and the processor's seconds, which other work on the machine changes less
    peak        the most memory of that command, less that of the one with 16 pictures
    held        what the training records are in memory, every object counted once, by box and by picture
"""

import contextlib
import gc
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from stay_diffusion.config import DataConfig
from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.formats import coco, vott
from stay_diffusion.run import factory
from stay_diffusion.system.command import argument_parser

ROOT = Path(__file__).resolve().parents[1]
SIDE, CLASSES = 32, tuple(f"class {i}" for i in range(6))
LINKS = 30_000  # names that one file may have; file systems allow some more
BASE = 16  # pictures of the command that the others are compared with
WRITERS = {"sdi": (vott.write, "all-export.json"), "coco_json": (coco.write, "annotations.json")}
NETWORK = "--image_size 16 --image_channels 1 --num_channels 32 --channel_mult 1,1 --num_res_blocks 1 --num_heads 1"
ONE_STEP = "--batch_size 4 --max_steps 1 --log_interval 1 --preview_interval 0 --attention_resolutions="


@dataclass(frozen=True)
class Started:
    """A data set, the command, and bytes of its records by box and by picture."""

    mode: str
    images: int
    boxes: int  # in each picture
    more: "Command"  # than the one with few pictures takes
    whole: "Command"
    by_box: float
    by_image: float


@dataclass(frozen=True)
class Command:
    """Seconds by the clock and of the processor, and the most bytes of a command."""

    seconds: float
    busy: float
    peak: int

    def __sub__(self, other: "Command") -> "Command":
        return Command(self.seconds - other.seconds, self.busy - other.busy, self.peak - other.peak)


def make_data(folder: Path, mode: str, images: int, boxes: int) -> None:
    """A data set of `images` pictures with `boxes` boxes in each."""
    folder.mkdir(parents=True)
    rng, records, source = random.Random(0), [], folder
    for i in range(images):
        path = folder / f"{i:06d}.png"
        if i % LINKS:
            os.link(source, path)
        else:
            source = path
            Image.new("L", (SIDE, SIDE), 128).save(path)
        drawn = []
        for _ in range(boxes):
            x, y = rng.uniform(0, SIDE - 8), rng.uniform(0, SIDE - 8)
            drawn.append(Box(rng.choice(CLASSES), x, y, x + rng.uniform(2, 8), y + rng.uniform(2, 8)))
        records.append(ImageRecord(path, SIDE, SIDE, tuple(drawn)))
    write, name = WRITERS[mode]
    write(folder / name, records, CLASSES, name="many")


def one_step(data: Path, mode: str, logdir: Path) -> Command:
    """What image_train.py takes from its start to its end after one step."""
    words = [str(ROOT / "scripts/image_train.py"), "--data_dir", str(data), "--dataset_mode", mode]
    environment = {**os.environ, "OPENAI_LOG_FORMAT": "log", "OMP_NUM_THREADS": "1"}
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, *words, "--logdir", str(logdir), *NETWORK.split(), *ONE_STEP.split()],
        env=environment,
        stdout=subprocess.DEVNULL,
    )
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        raise RuntimeError(f"image_train.py ended with {process.returncode}")
    return Command(time.perf_counter() - started, used.ru_utime + used.ru_stime, 1024 * used.ru_maxrss)


def held_bytes(records: Sequence[ImageRecord]) -> int:
    """Bytes of all that the records refer to, every object once, by sys.getsizeof."""
    seen: set[int] = set()
    total, left = 0, [records]
    while left:
        thing = left.pop()
        if id(thing) not in seen and not isinstance(thing, type | types.ModuleType | types.FunctionType):
            seen.add(id(thing))
            total += sys.getsizeof(thing)
            left.extend(gc.get_referents(thing))
    return total


def held(data: Path, mode: str) -> tuple[float, float]:
    """Bytes of the training records by box and by picture."""
    records, _ = factory.read_split(DataConfig(data_dir=str(data), dataset_mode=mode), "train", select=True)
    total = held_bytes(records)
    return total / sum(len(record.boxes) for record in records), total / len(records)


def measure(modes: Sequence[str], numbers: Sequence[int], boxes: int) -> list[Started]:
    """What each mode and number takes; in processes of their own, whose sizes a large one here would hide."""
    found = []
    with tempfile.TemporaryDirectory() as place, in_own_process() as run:
        for mode in modes:
            folder = Path(place) / mode
            run(make_data, folder / "base", mode, BASE, boxes)
            base = one_step(folder / "base", mode, folder / "run")
            for images in numbers:
                data = folder / str(images)
                run(make_data, data, mode, images, boxes)
                whole = one_step(data, mode, folder / f"run {images}")
                found.append(Started(mode, images, boxes, whole - base, whole, *run(held, data, mode)))
    return found


@contextlib.contextmanager
def in_own_process():
    """run(function, *arguments) -> its result, computed by another process, a new one each time."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), max_tasks_per_child=1) as processes:
        yield lambda function, *arguments: processes.submit(function, *arguments).result()


def as_table(found: Sequence[Started]) -> str:
    lines = [
        "| data | pictures | start-up, s | processor, s | whole command, s | peak, MB | bytes a box | a picture |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for each in found:
        times = f"{each.more.seconds:.1f} | {each.more.busy:.1f} | {each.whole.seconds:.1f}"
        memory = f"{each.more.peak / 1e6:+.0f} | {each.by_box:.0f} | {each.by_image:.0f}"
        lines.append(f"| {each.mode} | {each.images:,} | {times} | {memory} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--images", default="1000,10000,100000")
    parser.add_argument("--boxes", type=int, default=4, help="in each picture")
    arguments = parser.parse_args()
    print(f"{arguments.boxes} boxes a picture\n")
    print(as_table(measure(list(WRITERS), [int(word) for word in arguments.images.split(",")], arguments.boxes)))
    return 0


if __name__ == "__main__":
    sys.exit(main())
