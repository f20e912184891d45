"""model_card.md: what a run's model is, learnt from, can and cannot do, as far as the run folder says."""

from collections.abc import Sequence
from pathlib import Path

from ...run.checkpoint import write_text
from .measurement_files import MeasurementFile, find_measurements, read_measurements
from .page import page_of
from .run_facts import RunFacts

NAME = "model_card.md"
PICTURES = (".png", ".jpg", ".jpeg", ".gif", ".svg", ".webp")


def write_card(run: Path, out: Path | None = None, figures: Sequence[Path] = (), preview: Path | None = None) -> Path:
    """Write RUN/model_card.md, or `out`; what is not known is said to be so.

    `figures` are JSON files of the evaluations besides those in the run folder; without a `preview` the run's own.
    ValueError where `run` is not the folder of a run, or a file is not what it should be.
    """
    out = out or run / NAME
    facts = RunFacts.read(run)
    given = [(path, read_measurements(path)) for path in figures]
    for path, found in given:
        if found is None:
            raise ValueError(f"--figures {path}: no figures in it (evaluate.py's --json, box_adherence.json)")
    files = [MeasurementFile(path, found) for path, found in [*given, *find_measurements(run)] if found]
    if preview and not preview.is_file():
        raise ValueError(f"--preview {preview}: no such file")
    if preview and preview.suffix.lower() not in PICTURES:
        raise ValueError(f"--preview {preview}: no picture that a page shows ({', '.join(PICTURES)})")
    if out.is_dir() or not out.parent.is_dir():
        raise ValueError(f"--out {out}: {'a folder; name a file in it' if out.is_dir() else 'no such folder'}")
    page = page_of(facts, files, preview or last_preview(run), out.parent)
    write_text(out, page)
    return out


def last_preview(run: Path) -> Path | None:
    """Return samples of the latest evaluation, else of the latest preview of training."""
    sheets = [sorted(run.glob(pattern)) for pattern in ("evaluations/[0-9]*/preview.png", "previews/*.png")]
    return next((found[-1] for found in sheets if found), None)
