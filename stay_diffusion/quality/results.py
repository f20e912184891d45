"""Score the images of a results folder."""

from dataclasses import replace
from pathlib import Path

from PIL import Image, ImageOps

from ..config import RunConfig
from ..data.manifest import ManifestEntry
from ..run.checkpoint import config_beside
from .gate import QualityGate
from .scores import ImageQuality


def run_of(manifest: Path, entry: ManifestEntry, data_dir: str) -> tuple[RunConfig, Path]:
    """Return the configuration and folder of the run that made a sample."""
    weights = entry.weights
    config = weights and config_beside(weights)
    if not (weights and config):
        raise ValueError(f"{manifest}: made with {weights}, beside which there is no config.json any more")
    if data_dir:
        config = replace(config, data=replace(config.data, data_dir=data_dir))
    return config, weights.parent


def score_all(folder: Path, entries: list[ManifestEntry], gate: QualityGate) -> list[ImageQuality]:
    """Score each image, with its good part where there is one."""
    found = []
    for entry in entries:
        twin = twin_of(folder, entry)
        found.append(gate.score(open_image(folder / entry.file), entry.new_objects, open_image(twin) if twin else None))
    return found


def twin_of(folder: Path, entry: ManifestEntry) -> Path | None:
    """Find the image without its objects: sampled as a good part, or the one that they were inserted into."""
    twins = [folder / "good_parts" / entry.file, folder / (entry.source_image or "")]
    return next((twin for twin in twins if twin.is_file()), None)


def open_image(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            return ImageOps.exif_transpose(image)
    except (OSError, SyntaxError) as error:  # the latter for a broken PNG
        raise ValueError(f"{path}: cannot be read: {error}") from None
