"""Pictures kept decoded and as small as their cuts need them, in memory or on disk: `--cache ram | disk`."""

import hashlib
import logging
import os
import struct
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from PIL import Image

from ..system.machine import physical_memory
from .annotations import ImageRecord
from .images import ImageError, Picture
from .samples import LayoutDataset

logger = logging.getLogger("stay_diffusion.data")

PROBED = 32  # pictures from which the memory of all is estimated
READERS = 4
MOST_OF_MEMORY = 0.7
HEADER = struct.Struct("<8s5I4d")  # magic; place in MODES; width and height as kept; the rest of the Picture
MAGIC = b"STAYPIC1"  # counted up when the same settings begin to give other pictures
MODES = ("L", "RGB", "F")
BYTES = {"L": 1, "RGB": 3, "F": 4}  # of a pixel

Read = Callable[[ImageRecord], Picture]


def cache_pictures(dataset: LayoutDataset, kind: str) -> None:
    """Makes a data set read each picture once: "ram" reads all of them now, "disk" keeps them over runs.

    What a sample shows does not change. Raises ValueError where memory cannot hold them, ImageError as reading does.
    """
    if kind == "ram":
        dataset.picture_of = partial(_from_memory, _all_in_memory(dataset))
    elif kind == "disk":
        dataset.picture_of = DiskCache(dataset.read, disk_folder(), dataset.picture_settings)
        logger.info("--cache disk: pictures are kept in %s", dataset.picture_of.folder)


def disk_folder() -> Path:
    """$XDG_CACHE_HOME/stay_diffusion/pictures, by default in ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "stay_diffusion" / "pictures"


def _from_memory(pictures: dict[tuple, Picture], record: ImageRecord) -> Picture:
    return pictures[record.path, bool(record.maps)]


def _all_in_memory(dataset: LayoutDataset) -> dict[tuple, Picture]:
    # Before workers are forked, so that they share what is read here instead of each reading its own.
    records = list({(record.path, bool(record.maps)): record for record in dataset.records}.values())
    physical = physical_memory()
    with ThreadPoolExecutor(READERS) as threads:  # decoders run outside of Python's lock
        pictures = list(threads.map(dataset.read, records[:PROBED]))
        needed = sum(size_in_bytes(picture) for picture in pictures) / max(len(pictures), 1) * len(records)
        if needed > MOST_OF_MEMORY * physical:
            raise ValueError(
                f"--cache ram: {len(records)} pictures need about {needed / 2**30:.1f} GiB of the machine's "
                f"{physical / 2**30:.1f}; --cache disk keeps them in files"
            )
        pictures += threads.map(dataset.read, records[PROBED:])
    total = sum(size_in_bytes(picture) for picture in pictures)
    logger.info("--cache ram: %d pictures, %.2f GiB", len(pictures), total / 2**30)
    return {(record.path, bool(record.maps)): picture for record, picture in zip(records, pictures, strict=True)}


def size_in_bytes(picture: Picture) -> int:
    return picture.image.width * picture.image.height * BYTES[picture.image.mode]


class DiskCache:
    """A reader of pictures that keeps what `read` gives in files named by the content read and the settings.

    Processes may share the folder: a file is there whole or not at all. What cannot be written is read afresh.
    """

    def __init__(self, read: Read, folder: Path, settings: str):
        self.read, self.folder, self.settings = read, folder, settings
        self._names: dict[tuple, str] = {}  # of files whose content has been read, by path, size and time
        self._writes = True

    def __call__(self, record: ImageRecord) -> Picture:
        file = self.folder / self._name(record)
        picture = _load(file)
        if picture is None:
            picture = self.read(record)
            if self._writes:
                self._store(file, picture)
        return picture

    def _name(self, record: ImageRecord) -> str:
        try:
            status = os.stat(record.path)
            key = (record.path, bool(record.maps), status.st_size, status.st_mtime_ns)
            if key not in self._names:
                with open(record.path, "rb") as content:
                    digest = hashlib.file_digest(content, "sha256")
                digest.update(f"{self.settings} {bool(record.maps)}".encode())
                name = digest.hexdigest()
                self._names[key] = f"{name[:2]}/{name[2:]}"
        except FileNotFoundError:
            raise ImageError(f"{record.path}: no such image") from None
        except OSError as error:
            raise ImageError(f"{record.path}: cannot be read as an image: {error.strerror}") from error
        return self._names[key]

    def _store(self, file: Path, picture: Picture) -> None:
        image, width, height, shown = picture
        header = HEADER.pack(MAGIC, MODES.index(image.mode), *image.size, width, height, *shown)
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            with tempfile.NamedTemporaryFile(dir=file.parent, prefix=".", delete=False) as partial_file:
                try:
                    partial_file.write(header + image.tobytes())
                    partial_file.close()
                    os.replace(partial_file.name, file)
                except BaseException:
                    os.unlink(partial_file.name)
                    raise
        except OSError as error:
            self._writes = False
            logger.warning("--cache disk: %s: %s; pictures are no longer kept", self.folder, error.strerror)


def _load(file: Path) -> Picture | None:
    """A kept picture; None where there is none, or no whole one."""
    try:
        content = file.read_bytes()
        magic, mode, kept_width, kept_height, width, height, *shown = HEADER.unpack_from(content)
        if magic == MAGIC and len(content) == HEADER.size + kept_width * kept_height * BYTES[MODES[mode]]:
            image = Image.frombytes(MODES[mode], (kept_width, kept_height), memoryview(content)[HEADER.size :])
            return Picture(image, width, height, tuple(shown))
    except (OSError, struct.error, IndexError):
        pass
    return None
