"""Key/value means -> terminal, log.txt, progress.csv and TensorBoard."""

import csv
import io
import os
import time
from pathlib import Path

from ..system.distributed import sum_over_ranks
from ..system.launchers import ALONE, World
from .checkpoint import named_error, write_text

FORMATS = ("stdout", "log", "csv", "tensorboard")


class Logger:
    """Collect means over steps and write them out at `dump`; append to what a run folder already has.

    `OPENAI_LOG_FORMAT` chooses among stdout, log, csv and tensorboard; by default all, TensorBoard if it is installed.
    Values may be tensors: they are read only at `dump`, so that a step never waits for the device. Means are over all
    processes, of which the first writes. `since` is the step that a run continues from: later rows will come again.
    """

    def __init__(self, folder: Path, world: World = ALONE, since: int | None = None):
        self.folder, self.world = folder, world
        named = os.environ.get("OPENAI_LOG_FORMAT", "")
        self.formats = [name.strip() for name in named.split(",") if name.strip()] or list(FORMATS)
        for name in self.formats:
            if name not in FORMATS:
                raise ValueError(f"OPENAI_LOG_FORMAT {named}: unknown format {name}; choose from {', '.join(FORMATS)}")
        if not world.is_main:
            self.formats = []
        if since is not None and "csv" in self.formats:
            _forget_after(folder / "progress.csv", since)
        self.board = _tensorboard(folder, required=bool(named)) if "tensorboard" in self.formats else None
        self._sums: dict = {}
        self._counts: dict = {}
        self._values: dict = {}

    def add(self, key: str, total, count) -> None:
        """Add `count` values that sum to `total` to a mean, which `dump` reports and forgets."""
        self._sums[key] = self._sums.get(key, 0) + total
        self._counts[key] = self._counts.get(key, 0) + count

    def set(self, key: str, value) -> None:
        """Set a single value for the next `dump`."""
        self._values[key] = value

    def dump(self, step: int) -> dict[str, float]:
        """Write one row of everything collected, and start afresh; return the row."""
        row = {"step": step, **{key: _number(value) for key, value in self._values.items()}}
        keys = list(self._sums)
        figures = sum_over_ranks([float(value) for key in keys for value in (self._sums[key], self._counts[key])])
        for key, total, count in zip(keys, figures[::2], figures[1::2], strict=True):
            if count:
                row[key] = _number(total / count)
        self._sums, self._counts, self._values = {}, {}, {}
        if "csv" in self.formats:
            _append_csv(self.folder / "progress.csv", row)
        if self.board:
            for key, value in row.items():
                if key != "step":
                    self.board.add_scalar(key, value, step)
            self.board.flush()
        return row

    def line(self, text: str) -> None:
        """Print a line for people, on the terminal and in log.txt."""
        if "stdout" in self.formats:
            print(text, flush=True)
        if "log" in self.formats:
            path = self.folder / "log.txt"
            with named_error(path), open(path, "a", encoding="utf-8") as log:
                log.write(f"{time.strftime('%Y-%m-%d %H:%M:%S')} {text}\n")


def duration(seconds: float) -> str:
    """45 s, 12 min 3 s, 5 h 20 min."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds} s"
    if seconds < 3600:
        return f"{seconds // 60} min {seconds % 60} s"
    return f"{seconds // 3600} h {seconds % 3600 // 60} min"


def _number(value):
    value = value.item() if hasattr(value, "item") else value
    return value if isinstance(value, int) else float(f"{value:.6g}")


def _append_csv(path: Path, row: dict) -> None:
    """Append a row; a new key becomes a new column, with the earlier rows kept."""
    rows, columns = [], []
    if path.exists():
        with open(path, newline="", encoding="utf-8") as file:
            reader = csv.DictReader(file)
            columns = list(reader.fieldnames or [])
            if not row.keys() <= set(columns):
                rows = list(reader)
    new = [key for key in row if key not in columns]
    columns += new
    if not new:
        with named_error(path), open(path, "a", newline="", encoding="utf-8") as file:
            csv.DictWriter(file, columns).writerow(row)
        return
    write_text(path, _csv_text(columns, [*rows, row]))


def _forget_after(path: Path, step: int) -> None:
    """Remove the rows of later steps, which an interrupted run wrote after its last checkpoint."""
    if not path.exists():
        return
    with open(path, newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        columns, rows = list(reader.fieldnames or []), list(reader)
    kept = [row for row in rows if (row.get("step") or "").isdecimal() and int(row["step"]) <= step]
    if len(kept) < len(rows):
        write_text(path, _csv_text(columns, kept))


def _csv_text(columns: list[str], rows: list[dict]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns)
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def _tensorboard(folder: Path, required: bool):
    try:
        from torch.utils.tensorboard import SummaryWriter  # slow to import, and optional
    except ImportError:
        if required:
            raise ValueError("OPENAI_LOG_FORMAT asks for tensorboard, which is not installed") from None
        return None
    return SummaryWriter(str(folder / "tensorboard"))
