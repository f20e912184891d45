"""Checkpoints made while training goes on: neither the copy in memory nor the disk is waited for."""

import contextlib
import threading

import torch

from ..config import RunConfig
from ..run.checkpoint import RunFolder
from .state import TrainingState, copy_to_cpu


class Saver:
    """Write one checkpoint at a time, on the first process alone.

    The step after a save runs forward and backward while another thread copies weights and moments; before it updates
    them, it calls `wait_for_copy`.
    """

    def __init__(self, folder: RunFolder, config: RunConfig, state: TrainingState):
        self.folder, self.config, self.state = folder, config, state
        self._thread: threading.Thread | None = None
        self._is_copied = threading.Event()
        self.files: dict | None = None  # of the last checkpoint: its memory serves the next
        self._error: BaseException | None = None

    def save(self) -> None:
        """Start to save the state as it is now; wait for an earlier save that has not ended."""
        self.wait()
        self.state.collect()
        if self.state.world.is_main:
            self._is_copied.clear()
            now = self.state.step, self.state.contents(self.config), copying_stream(self.state.device)
            self._thread = threading.Thread(target=self._save, args=now)
            self._thread.start()

    def wait_for_copy(self) -> None:
        """Wait until the state may change."""
        if self._thread is not None:
            self._is_copied.wait()

    def wait(self) -> None:
        """Wait until all is written; raise what writing raised: OSError where the disk is full."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _save(self, step: int, contents: dict[str, dict], stream) -> None:
        try:
            with stream:
                self.files = copy_to_cpu(contents, into=self.files)
            self._is_copied.set()
            self.folder.save(step, self.files, self.config.train.keep_checkpoints)
        except BaseException as error:  # raised where training can tell the user
            self._error = error
        finally:
            self._is_copied.set()


def copying_stream(device: torch.device):
    """The context in which a GPU copies while it trains, after all that it has been told so far."""
    if device.type != "cuda":
        return contextlib.nullcontext()
    stream = torch.cuda.Stream(device)
    stream.wait_stream(torch.cuda.current_stream(device))
    return torch.cuda.stream(stream)
