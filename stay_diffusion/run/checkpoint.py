"""The run folder: what is saved where, atomically; which checkpoint is the latest; strict loading."""

import contextlib
import hashlib
import io
import logging
import os
import re
from collections.abc import Callable, Iterable
from pathlib import Path

import torch

from ..config import RunConfig, flags
from ..system import storage
from ..system.lock import lock

logger = logging.getLogger("stay_diffusion")


class RunFolder:
    """One training run on disk.

    config.json; modelNNNNNN.pt, ema_RATE_NNNNNN.pt, optNNNNNN.pt: flat state dicts of step N; checkpointNNNNNN.sha256:
    their checksums; stateNNNNNN.pt: the data position and all else that an exact resume needs, written last, so that a
    step counts only once it is complete; model.pt and ema_RATE.pt name the latest, ema_RATE_best.pt the best by
    --best_by. quality_gate.pt is made when samples are first scored.
    """

    def __init__(self, path: str | Path, url: str = ""):
        self.path = Path(path)
        self.url = url  # where every checkpoint is sent

    @staticmethod
    def named(logdir: str) -> "RunFolder":
        """`--logdir`, else $OPENAI_LOGDIR, else OUTPUT/stay_diffusion; of a URL the copy on this machine."""
        name = str(logdir or os.environ.get("OPENAI_LOGDIR") or Path("OUTPUT") / "stay_diffusion")
        return RunFolder(storage.working_copy(name), name if storage.is_remote(name) else "")

    def open(self) -> None:
        """Make the folder, and remove what an interrupted save left behind."""
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ValueError(f"--logdir {self.path}: cannot be made: {error.strerror}") from None
        lock(self.path)
        for leftover in self.path.glob("*.tmp"):
            leftover.unlink()

    @property
    def config_file(self) -> Path:
        return self.path / "config.json"

    def write_config(self, run: RunConfig) -> None:
        write_text(self.config_file, flags.dump(run))

    def steps(self) -> list[int]:
        """The complete checkpoints' steps, ascending."""
        return [s for s in self._with_state() if self.file("model", s).exists() and self.file("opt", s).exists()]

    def _with_state(self) -> list[int]:
        found = (re.fullmatch(r"state(\d{6,})", file.stem) for file in self.path.glob("state*.pt"))
        return sorted(int(match[1]) for match in found if match)

    def file(self, name: str, step: int | None = None) -> Path:
        """model -> model000100.pt or model.pt; ema_0.9999 -> ema_0.9999_000100.pt or ema_0.9999.pt."""
        separator = "_" if name.startswith("ema_") else ""
        return self.path / (f"{name}.pt" if step is None else f"{name}{separator}{step:06d}.pt")

    def save(self, step: int, files: dict[str, dict], keep: int) -> None:
        """Write one complete checkpoint, name it the latest, and remove all but the last `keep` (0: none).

        `files` are state dicts by name: "model", "ema_RATE", "opt" and "state", which is written last, after the
        checksums of all. A full disk raises OSError and leaves the other checkpoints intact.
        """
        state = io.BytesIO()
        torch.save(files["state"], state)
        others = [name for name in files if name != "state"]
        try:
            sums = {self.file(name, step).name: save_tensors(self.file(name, step), files[name]) for name in others}
            sums[self.file("state", step).name] = hashlib.sha256(state.getvalue()).hexdigest()
            write_text(self.sums(step), "".join(f"{digest}  {name}\n" for name, digest in sums.items()))
            atomic_write(self.file("state", step), lambda file: file.write(state.getvalue()))
        except OSError:
            for file in (*(self.file(name, step) for name in others), self.sums(step)):
                file.unlink(missing_ok=True)  # half a checkpoint would only keep the disk full
            raise
        self.point_to(step, [name for name in others if name != "opt"])
        self.prune(step, keep)
        self.send()

    def prune(self, step: int, keep: int) -> None:
        """Remove all but the last `keep` checkpoints up to `step`, and what a kill has left of others; 0: none."""
        kept = [other for other in self.steps() if other <= step][-keep:] if keep else [0]
        for old in [other for other in self._with_state() if other < kept[0]]:
            last = self.file("state", old)
            for file in (*{*self.path.glob(f"*[!0-9]{old:06d}.pt"), self.sums(old)} - {last}, last):
                file.unlink(missing_ok=True)

    def sums(self, step: int) -> Path:
        """The checksums of a checkpoint's files, as `sha256sum -c` reads them."""
        return self.path / f"checkpoint{step:06d}.sha256"

    def damaged(self, step: int) -> str:
        """Return the name of a checkpoint's file that is not as it was written, or ""."""
        sums = self.sums(step)
        if not sums.exists():  # of an earlier version
            return ""
        lines = sums.read_text(encoding="utf-8", errors="replace").splitlines()
        digests = {name: digest for digest, _, name in (line.partition("  ") for line in lines)}
        if not digests.keys() >= {self.file(name, step).name for name in ("model", "opt", "state")}:
            return sums.name
        for name, digest in digests.items():
            try:
                if sha256(self.path / name) != digest:
                    return name
            except (OSError, ValueError):  # not there, or the disk does not give it back
                return name
        return ""

    def latest(self) -> int:
        """The latest whole checkpoint's step, 0 without any; a warning names damaged ones, ValueError if all are."""
        steps = self.steps()
        for step in reversed(steps):
            if not (name := self.damaged(step)):
                return step
            logger.warning("%s: damaged; the checkpoint of step %d is not used", self.path / name, step)
        if steps:
            raise ValueError(f"{self.path}: all its checkpoints are damaged; --resume_checkpoint starts from weights")
        return 0

    def send(self) -> None:
        """Bring the copy behind `url` up to date; where that fails, a warning: all is here, and sent with the next."""
        if self.url:
            try:
                storage.push(self.path, self.url, last=lambda name: name.startswith("state"))
            except ValueError as error:
                logger.warning("%s; kept in %s and sent with the next checkpoint", error, self.path)

    def point_to(self, step: int, names: Iterable[str]) -> None:
        """Make model.pt and ema_RATE.pt name a checkpoint; again on resuming, in case a save was cut short there."""
        for name in names:
            point(self.file(name), self.file(name, step))

    def load(self, name: str, step: int) -> dict:
        return load_tensors(self.file(name, step))


def atomic_write(path: Path, write: Callable) -> None:
    """Call write(binary file) on a temporary neighbour that replaces `path` only when complete and on disk."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        with named_error(path), open(temporary, "wb") as file:
            write(file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_text(path: Path, text: str) -> None:
    """Write a text file in UTF-8, whole or not at all."""
    atomic_write(path, lambda file: file.write(text.encode()))


@contextlib.contextmanager
def named_error(path: Path):
    """Add the file's name to errors of writing it, which have none: that the disk is full, say."""
    try:
        yield
    except OSError as error:
        if error.errno and not error.filename:
            error.filename = str(path)
        raise


def save_tensors(path: Path, tensors: dict) -> str:
    """Write a file as atomic_write does; return its checksum, taken while it was written."""
    digest = hashlib.sha256()
    try:
        atomic_write(path, lambda file: torch.save(tensors, _Summed(file, digest)))  # type: ignore[arg-type]
    except RuntimeError as error:  # torch's own, where the disk is full: its zip writer hides the OSError
        raise OSError(f"{path}: cannot be written, is the disk full? ({str(error).splitlines()[0][:100]})") from None
    return digest.hexdigest()


class _Summed:
    """A file open for writing, and the checksum of what has been written: torch.save never goes back in it."""

    def __init__(self, file, digest):
        self.file, self.digest, self.flush = file, digest, file.flush

    def write(self, data) -> int:
        self.digest.update(data)
        return self.file.write(data)


def load_tensors(path: Path) -> dict:
    """Load a dict saved by torch, on the CPU, without running any code from the file."""
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file") from None
    except Exception as error:  # torch has no common class for what a torn or foreign file raises
        reason = (str(error) or type(error).__name__).splitlines()[0][:200]
        raise ValueError(f"{path}: not a readable checkpoint ({reason})") from None


def load_weights(model: torch.nn.Module, path: Path, state: dict | None = None) -> None:
    """Load weights strictly: every parameter in its shape, and nothing else; ValueError says what does not fit.

    `state` is what the file holds, where it was read already.
    """
    state, own = load_tensors(path) if state is None else state, model.state_dict()
    problems = [f"lacks {name}" for name in own if name not in state]
    problems += [f"has the unknown {name}" for name in state if name not in own]
    problems += [
        f"has {name} as {tuple(state[name].shape)} instead of {tuple(own[name].shape)}"
        for name in own
        if name in state and state[name].shape != own[name].shape
    ]
    if problems:
        more = f" and {len(problems) - 3} more" if len(problems) > 3 else ""
        raise ValueError(f"{path}: does not fit the model of these flags: it {'; it '.join(problems[:3])}{more}")
    model.load_state_dict(state)


def config_beside(weights: Path) -> RunConfig | None:
    """The config.json in the folder of a weights file, if there is one."""
    path = weights.parent / "config.json"
    return flags.load(path) if path.exists() else None


def sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def point(name: Path, target: Path) -> None:
    """Make `name` another name of `target`, atomically: a hard link where the file system has them, else a copy."""
    temporary = name.with_name(name.name + ".tmp")
    temporary.unlink(missing_ok=True)
    try:
        os.link(target, temporary)
    except OSError:
        atomic_write(temporary, lambda file: file.write(target.read_bytes()))
    os.replace(temporary, name)
    temporary.unlink(missing_ok=True)  # renaming one name of a file to another of its names does nothing at all
