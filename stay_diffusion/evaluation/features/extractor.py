"""Features of a set of images: extracted once, by any network, and cached by the content of the images."""

import hashlib
import itertools
import json
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from ...run.checkpoint import atomic_write
from ...system.distributed import gather, gather_shares
from ...system.launchers import ALONE, World
from ...system.versions import installed_versions
from ..image_set import ImageSet, Item, batches

OFF = "off"


@dataclass(frozen=True)
class Extractor:
    """A network as a function: (uint8 (B, C, H, W), kinds) -> {kind: (B, D)}.

    `kinds` are those that it can give, `width` the D of "pool"; `channels` and `image_size` (None: any) of the images
    that it wants; `suffix` what is added to the names of its figures; `facts` what they depend on, the digest of its
    weights among it.
    """

    measure: Callable[[Tensor, Sequence[str]], dict[str, Tensor]]
    kinds: tuple[str, ...]
    width: int
    facts: dict
    channels: int = 3
    image_size: int | None = None
    suffix: str = ""


@dataclass(frozen=True)
class Reading:
    """How images are read on the way into an extractor, and by whom."""

    batch_size: int = 32
    image_size: int | None = None
    cache: Path | None = None
    device: torch.device | str = "cpu"
    world: World = ALONE


def features_of(
    images: ImageSet, extractor: Extractor, kinds: Sequence[str], reading: Reading
) -> dict[str, NDArray[np.float32]]:
    """Return {kind: (N, D)} of images that were looked at, in their order, from the cache where they are there.

    On the first process; on others of several, nothing.
    """
    files = {kind: _file_of(images, extractor, kind, reading) for kind in kinds}
    found: dict[str, NDArray[np.float32]] = {}
    for kind, file in files.items() if reading.world.is_main else ():
        if (stored := _load(file, len(images.items))) is not None:
            found[kind] = stored
    missing = gather([kind for kind in kinds if kind not in found])[0]  # what the first process lacks
    if missing:
        parts = extract(
            lambda batch: extractor.measure(batch.to(reading.device), missing),
            images.items,
            reading.batch_size,
            reading.world,
            Path(images.path).name,
            extractor.image_size or reading.image_size,
            extractor.channels,
        )
        for kind in missing if reading.world.is_main else ():
            found[kind] = np.concatenate([part[kind] for _, part in parts])
            _store(files[kind], found[kind])
    return found


def extract(
    measure: Callable[[Tensor], dict[str, Tensor]],
    items: Sequence[Item],
    batch_size: int,
    world: World = ALONE,
    name: str = "",
    image_size: int | None = None,
    channels: int = 3,
) -> list[tuple[str, dict[str, NDArray[np.float32]]]]:
    """(size WxH, {kind: (B, D)}) of all items in their order, batch by batch, on every process.

    Batches are cut at the same items however many processes share them, in turn: features can differ in the last bit
    with their batch.
    """
    from tqdm import tqdm

    own: dict[int, list[tuple[str, dict]]] = {}  # by the first item of a batch
    starts = range(0, len(items), batch_size)[world.rank :: world.size]
    total = sum(len(items[start : start + batch_size]) for start in starts)
    quiet = None if world.is_main else True  # None: unless it is a terminal
    with torch.inference_mode(), tqdm(total=total, desc=name, disable=quiet) as progress:
        for start in starts:
            own[start] = []
            for batch in batches(items[start : start + batch_size], batch_size, image_size, channels):
                found = {kind: values.cpu().numpy() for kind, values in measure(batch).items()}
                own[start].append((f"{batch.shape[3]}x{batch.shape[2]}", found))
                progress.update(len(batch))
    return list(itertools.chain(*gather_shares(name, own)))


def cache_folder(given: str) -> Path | None:
    """Return the folder given, by default $XDG_CACHE_HOME/stay_diffusion/features; None for "off"."""
    if given == OFF:
        return None
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(given) if given else home / "stay_diffusion" / "features"


def _file_of(images: ImageSet, extractor: Extractor, kind: str, reading: Reading) -> Path | None:
    """Return the cache file, named by all that the features depend on."""
    if reading.cache is None:
        return None
    assert len(images.looks) == len(images.items)
    key = {
        "images": [look.digest for look in images.looks],
        "extractor": extractor.facts,
        "image_size": extractor.image_size or reading.image_size,
        "device": torch.device(reading.device).type,
        "versions": installed_versions(("torch", "pillow", "numpy")),
    }
    digest = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()
    return reading.cache / f"{digest}-{kind}.npy"


def _load(file: Path | None, N: int) -> NDArray[np.float32] | None:
    """Return the features of N images, unless there are none or the file is damaged."""
    if file is None or not file.is_file():
        return None
    try:
        features = np.load(file)
    except (OSError, ValueError, EOFError):
        return None
    return features if features.ndim == 2 and len(features) == N else None


def _store(file: Path | None, features: NDArray[np.float32]) -> None:
    if file is None:
        return
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--cache {file.parent}: cannot be made: {error.strerror}") from None
    atomic_write(file, lambda opened: np.save(opened, features))
