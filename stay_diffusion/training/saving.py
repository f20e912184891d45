"""Checkpoints written while training goes on: the step that saves waits for a copy in memory, not for the disk."""

import threading

from ..checkpoint import RunFolder
from ..config import RunConfig
from .state import TrainingState


class Saver:
    """Writes one checkpoint at a time, on the first process alone."""

    def __init__(self, folder: RunFolder, config: RunConfig, state: TrainingState):
        self.folder, self.config, self.state = folder, config, state
        self._thread: threading.Thread | None = None
        self._files: dict | None = None  # of the last checkpoint: its memory serves the next
        self._error: BaseException | None = None

    def save(self) -> None:
        """Starts to write the state as it is now; waits for an earlier one that is still being written."""
        self.wait()
        self.state.collect()
        if self.state.world.is_main:
            self._files = self.state.snapshot(self.config, into=self._files)
            self._thread = threading.Thread(target=self._write, args=(self.state.step, self._files))
            self._thread.start()

    def wait(self) -> None:
        """Returns when all is written; raises what writing raised: OSError where the disk is full."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self, step: int, files: dict[str, dict]) -> None:
        try:
            self.folder.save(step, files, self.config.train.keep_checkpoints)
        except BaseException as error:  # raised where training can tell the user
            self._error = error
