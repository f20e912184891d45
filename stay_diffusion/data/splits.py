"""Which pictures a split has: by folders, by a list of names, or by a share drawn from the names."""

import hashlib
import json
import logging
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ..system import storage
from .annotations import AnnotationError, EmptySplit, ImageRecord
from .formats.files import composed

logger = logging.getLogger("stay_diffusion.data")

FOLDERS = {"train": ("train", "training"), "val": ("val", "validation", "valid")}
PLACE = "{split}"  # in --id_list: train or val


def find_split(data_dir: Path, split: str) -> Path | None:
    """The folder of a split, "train" or "val", in `data_dir` or in its sub-folder `images`."""
    return next((folder for folder in _candidates(data_dir, split) if folder.is_dir()), None)


def annotation_folder(data_dir: Path, split: str) -> tuple[Path, bool]:
    """Where the annotations of a split are, and whether that folder holds nothing else.

    A train folder without a val folder holds both: some of it is held out.
    """
    train, val = (find_split(data_dir, name) for name in ("train", "val"))
    if train and not val:
        return train, False
    if folder := find_split(data_dir, split):
        return folder, True
    if val:
        looked_for = ", ".join(path.relative_to(data_dir).as_posix() for path in _candidates(data_dir, split))
        raise AnnotationError(f"{data_dir}: no folder for the {split} split; looked for {looked_for}")
    return data_dir, False


def held_out(records: Sequence[ImageRecord], split: str, val_fraction: float) -> list[ImageRecord]:
    """The share of the records that makes a split, `val_fraction` of them "val".

    By the names alone: the split of a picture does not change with the seed or when others are added.
    """

    def is_val(record: ImageRecord) -> bool:
        digest = hashlib.md5(record.stem.encode(errors="surrogateescape"), usedforsecurity=False)
        return int(digest.hexdigest()[:8], 16) < val_fraction * 2**32

    return [record for record in records if is_val(record) == (split == "val")]


def some_of(records: Sequence[ImageRecord], num: int, seed: int) -> list[ImageRecord]:
    """`num` of the records, sorted by their stems, drawn by the seed; of a smaller `num` always some of a larger."""
    ordered = sorted(records, key=lambda record: (record.stem, str(record.path)))
    drawn = np.random.default_rng(seed).permutation(len(ordered))[:num]
    return [ordered[i] for i in sorted(drawn)]


def local_list(id_list: str) -> str:
    """A list's name with {split} in it still, its files on this machine."""
    if not storage.is_remote(id_list):
        return id_list
    for split in FOLDERS:
        storage.local(id_list.replace(PLACE, split))
    return str(storage.copy_of(id_list))


def list_of(id_list: str, split: str) -> Path | None:
    """The file that lists a split's pictures, or those of both; AnnotationError for a name in the lists of both."""
    if not id_list:
        return None
    train, val = (Path(id_list.replace(PLACE, name)) for name in FOLDERS)
    if train != val and train.exists() and val.exists():
        twice = _read_list(train).keys() & _read_list(val).keys()
        if twice:
            raise AnnotationError(f"--id_list {id_list}: {min(twice)} is in both lists ({len(twice)} such names)")
    return train if split == "train" else val


def listed(records: Sequence[ImageRecord], file: Path) -> list[ImageRecord]:
    """The records that a file names, by the end of their path, with suffix or without; one per line, or a JSON list.

    Names without a picture are counted in a warning: the list may be of other splits too. Raises EmptySplit where no
    name has a picture, AnnotationError where the file cannot be read.
    """
    wanted = _read_list(file)
    found: set[str] = set()
    kept = []
    for record in records:
        forms = (Path(composed(str(path))).parts for path in (record.path, record.path.with_suffix("")))
        ends = ("/".join(parts[start:]) for parts in forms for start in range(len(parts)))
        names = [name for name in ends if name in wanted]
        found.update(names)
        if names:
            kept.append(record)
    if not kept:
        raise EmptySplit(f"--id_list {file}: none of its {len(wanted)} names has a picture here")
    missing = [name for name in wanted if name not in found]
    if missing:
        logger.warning(
            "%s: %d of its %d names have no picture here (first: %s)", file, len(missing), len(wanted), missing[0]
        )
    return kept


def _read_list(file: Path) -> dict[str, None]:
    try:
        text = file.read_text(encoding="utf-8-sig")
        entries = json.loads(text) if text.lstrip().startswith("[") else text.splitlines()
    except (OSError, ValueError, RecursionError) as error:
        raise AnnotationError(f"--id_list {file}: cannot be read as a list of names ({error})") from error
    return dict.fromkeys(composed(str(entry).strip().removeprefix("./")) for entry in entries if str(entry).strip())


def _candidates(data_dir: Path, split: str) -> list[Path]:
    return [parent / name for parent in (data_dir, data_dir / "images") for name in FOLDERS[split]]
