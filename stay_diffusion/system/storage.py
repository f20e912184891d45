"""Files behind URLs (gs://, az://): worked on as local copies, brought up to date by fetch and sent back by push.

Local paths pass through as they are, and nothing here is imported for them.
"""

import contextlib
import json
import logging
import os
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from .lock import one_at_a_time

logger = logging.getLogger("stay_diffusion")

CONNECTIONS = 16
RETRIES = 8  # of a request, over some ten seconds; blobfile by itself goes on for ever
INDEX = ".fetched.json"  # beside a copy: what each file was there when it was fetched or pushed


@cache
def _blobfile():
    import blobfile

    return blobfile.create_context(retry_limit=RETRIES, log_callback=logger.debug)


# Scheme -> who knows it, with blobfile's isdir, exists, stat, scandir, copy and remove.
STORES: dict[str, Callable] = {"gs": _blobfile, "az": _blobfile}


class There(NamedTuple):
    """A file in a store: its URL, its path below the folder that was asked for, its size and what it is there."""

    url: str
    name: str
    size: int
    version: str


def is_remote(name: str) -> bool:
    return "://" in str(name)


def check_writable_here(flag: str, name: str) -> None:
    """ValueError for a URL where only a place on this machine can be written to."""
    if is_remote(name):
        raise ValueError(f"--{flag} {name}: needs a place on this machine")


def make_folder(flag: str, name: str | Path) -> Path:
    """Create a folder where it is missing; ValueError that names the flag where that fails."""
    folder = Path(name)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"--{flag} {name}: cannot be made: {error.strerror}") from None
    return folder


def local(name: str) -> Path:
    """The path itself, or of a URL, file or folder, its copy on this machine, brought up to date.

    Copies are in $XDG_CACHE_HOME/stay_diffusion/remote. What has not changed there is not fetched again, nor by several
    processes at once; what is only here stays. Raises ValueError for URLs of unknown schemes, of nothing, and where the
    store does not answer.
    """
    if not is_remote(name):
        return Path(name)
    copy, store = copy_of(name), _store(name)
    with _named(name, "cannot be read"):
        if store.isdir(name):
            return _fetch(store, list(_walk(store, name.rstrip("/"))), copy)
        if store.exists(name):
            status = store.stat(name)
            return _fetch(store, [There(name, copy.name, status.size, _version(status))], copy.parent) / copy.name
    raise ValueError(f"{name}: nothing is there")


def weights(name: str) -> Path:
    """A file of weights as `local` gives it, with the JSON files of a run folder beside it if they are there."""
    for beside in ("config.json", "layout_statistics.json") if is_remote(name) else ():
        with contextlib.suppress(ValueError):
            local(f"{name.rpartition('/')[0]}/{beside}")
    return local(name)


def working_copy(name: str) -> Path:
    """As `local`, for a folder that need not be there yet."""
    if not is_remote(name):
        return Path(name)
    store = _store(name)
    with _named(name, "cannot be read"):
        there = store.isdir(name)
    return local(name) if there else copy_of(name)


def push(folder: Path, name: str, last: Callable[[str], bool]) -> None:
    """Makes the URL `name` hold what a folder holds, without hidden files: what changed is sent, what went is removed.

    Files of which `last` is true of their names are sent after all others: those that say that others are complete.
    """
    store, index = _store(name), _read_index(folder)
    names = {
        path.relative_to(folder).as_posix(): path
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not path.name.startswith(".") and path.suffix != ".tmp"
    }

    def url_of(each: str) -> str:
        return f"{name.rstrip('/')}/{each}"

    with _named(name, "cannot be written"):
        for each in sorted(names, key=lambda each: (last(Path(each).name), each)):
            state = _state(names[each])
            if index.get(each, [None, None])[1] != state:
                store.copy(str(names[each]), url_of(each), overwrite=True)
                index[each] = [_version(store.stat(url_of(each))), state]
                _write_index(folder, index)
        for each in [each for each in index if each not in names]:
            if store.exists(url_of(each)):
                store.remove(url_of(each))
            del index[each]
            _write_index(folder, index)


def copy_of(name: str) -> Path:
    """Where the copy of a URL is, or will be."""
    scheme, _, rest = name.partition("://")
    parts = PurePosixPath(rest.strip("/")).parts
    if not parts or ".." in parts:
        raise ValueError(f"{name}: not the address of a file or folder")
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return home.joinpath("stay_diffusion", "remote", scheme, *parts)


def _store(name: str):
    scheme = name.partition("://")[0]
    if scheme not in STORES:
        known = ", ".join(f"{each}://" for each in STORES)
        raise ValueError(f"{name}: {scheme}:// is not known; {known} and local paths are")
    return STORES[scheme]()


def _walk(store, url: str, below: str = "") -> Iterator[There]:
    """The files of a folder and its sub-folders, but for hidden ones."""
    for entry in store.scandir(url):
        name = entry.name.rstrip("/")
        if name.startswith("."):
            continue
        if entry.is_dir:
            yield from _walk(store, f"{url}/{name}", f"{below}{name}/")
        else:
            yield There(f"{url}/{name}", below + name, entry.stat.size, _version(entry.stat))


def _version(status) -> str:
    return str(status.version or status.md5 or status.mtime)


def _fetch(store, found: list[There], folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with one_at_a_time(folder):
        _fetch_missing(store, found, folder)
    return folder


def _fetch_missing(store, found: list[There], folder: Path) -> None:
    index = _read_index(folder)

    def is_here(each: There) -> bool:
        version, state = index.get(each.name, [None, None])
        path = folder / each.name
        return path.is_file() and version == each.version and state == _state(path)

    def fetch(each: There) -> None:
        path = folder / each.name
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            store.copy(each.url, str(part), overwrite=True)
            os.replace(part, path)
        finally:
            part.unlink(missing_ok=True)
        index[each.name] = [each.version, _state(path)]

    for each in found:
        if ".." in PurePosixPath(each.name).parts:
            raise ValueError(f"{each.url}: a name that leads out of its folder")
    wanted = [each for each in found if not is_here(each)]
    if wanted:
        size = sum(each.size for each in wanted)
        logger.info("fetching %d files, %.1f MB, to %s", len(wanted), size / 1e6, folder)
        try:
            with ThreadPoolExecutor(CONNECTIONS) as threads:
                list(threads.map(fetch, wanted))
        finally:
            _write_index(folder, index)


def _state(path: Path) -> list[int]:
    status = path.stat()
    return [status.st_size, status.st_mtime_ns]


def _read_index(folder: Path) -> dict:
    try:
        return json.loads((folder / INDEX).read_text())
    except (OSError, ValueError):
        return {}


def _write_index(folder: Path, index: dict) -> None:
    part = folder / f"{INDEX}.{os.getpid()}.tmp"
    part.write_text(json.dumps(index))
    os.replace(part, folder / INDEX)


@contextlib.contextmanager
def _named(name: str, what: str):
    """Whatever a store raises, as one line for the user."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:  # stores have no common class of errors
        reason = str(error).strip().splitlines() or [type(error).__name__]
        raise ValueError(f"{name}: {what}: {reason[0][:200]}") from None
