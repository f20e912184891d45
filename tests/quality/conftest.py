"""Pictures of two kinds of defects that a small network learns in a second, as VoTT exports, and a gate of them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.config import DataConfig, ModelConfig, RunConfig
from stay_diffusion.data.annotations import Box, ImageRecord, RelativeBox
from stay_diffusion.data.formats import vott
from stay_diffusion.quality import classifier
from stay_diffusion.quality.run_gate import gate_of_run
from stay_diffusion.run import factory

CLASSES = ("bar", "hole")
STEPS = 60


@pytest.fixture(scope="module", autouse=True)
def small_network():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(classifier, "WIDTH", 8)
        patch.setattr(classifier, "BATCH", 24)
        yield


def paint(values: np.ndarray, label: str, x: int, y: int, side: int) -> None:
    """A bright bar across a box of (height, width) values, or a dark hole with a bright rim."""
    part = values[y : y + side, x : x + side]
    v, u = np.mgrid[-1 : 1 : side * 1j, -1 : 1 : side * 1j]
    if label == "bar":
        part[np.abs(u - v) < 0.5] = 235
    else:
        part[np.hypot(u, v) < 1] = 230
        part[np.hypot(u, v) < 0.6] = 15


def draw(path: Path, index: int, channels: int, side: int = 96) -> ImageRecord:
    """A noisy grey ground with two defects that do not meet."""
    rng = np.random.default_rng(index)
    values = 120 + 25 * np.sin(np.arange(side) / rng.uniform(4, 9))[None] + rng.normal(0, 4, (side, side))
    boxes = []
    for half, label in enumerate(rng.permutation(CLASSES).tolist()):
        size = int(rng.integers(14, 22))
        x, y = half * side // 2 + rng.integers(2, side // 2 - size - 2), rng.integers(2, side - size - 2)
        paint(values, label, int(x), int(y), size)
        boxes.append(Box(label, float(x), float(y), float(x + size), float(y + size)))
    picture = Image.fromarray(values.round().clip(0, 255).astype(np.uint8))
    if channels == 3:
        tinted = values[..., None] * [1.0, 0.8, 0.6]
        picture = Image.fromarray(tinted.round().clip(0, 255).astype(np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)
    return ImageRecord(path, side, side, tuple(boxes))


@pytest.fixture(scope="module")
def write_data():
    """write(folder, channels=1, num_train=24, num_val=8) -> the folder, with two splits."""

    def write(folder: Path, channels: int = 1, num_train: int = 24, num_val: int = 8) -> Path:
        for split, start, num in (("train", 0, num_train), ("val", 1000, num_val)):
            records = [draw(folder / split / f"{split}_{i:03d}.png", start + i, channels) for i in range(num)]
            vott.write(folder / split / "drawn-export.json", records, CLASSES, name=split)
        return folder

    return write


@pytest.fixture(scope="module")
def run_config():
    """config(data_dir, crop_policy="object", channels=1, **data options) -> RunConfig."""

    def config(data_dir: Path, crop_policy: str = "object", channels: int = 1, **options) -> RunConfig:
        data = DataConfig(**{"data_dir": str(data_dir), "classes": CLASSES, "crop_policy": crop_policy, **options})
        return RunConfig(data, ModelConfig(image_size=48, image_channels=channels))

    return config


@pytest.fixture(scope="module")
def run(tmp_path_factory, write_data, run_config):
    """(configuration, folder) of a run with a gate in it."""
    folder = tmp_path_factory.mktemp("a run")
    config = run_config(write_data(folder / "data"))
    gate_of_run(config, folder, steps=STEPS)
    return config, folder


@pytest.fixture(scope="module")
def gate(run):
    return gate_of_run(*run)


@pytest.fixture(scope="module")
def split(run):
    """split(name) -> [(picture, boxes in [0, 1])]."""

    def pictures(name: str) -> list[tuple[Image.Image, list[RelativeBox]]]:
        records, _ = factory.read_split(run[0].data, name)
        return [(Image.open(record.path), shares(record)) for record in records]

    return pictures


def shares(record: ImageRecord) -> list[RelativeBox]:
    return list(record.relative_boxes)
