"""Run the package's commands and write reports, for all studies."""

import json
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from stay_diffusion.run.checkpoint import write_text

ROOT = Path(__file__).resolve().parents[1]
SCALE = 1.5  # of guidance


def run(command: str, *words: Any, fine: Sequence[int] = (0,)) -> None:
    """Run `stay-diffusion COMMAND ...`; ValueError for exit codes that are not `fine`."""
    ended = subprocess.run([sys.executable, "-m", "stay_diffusion", command, *map(str, words)])
    if ended.returncode not in fine:
        raise ValueError(f"stay-diffusion {command} ended with {ended.returncode}, see above")


def write_json(file: Path, report: Any) -> None:
    write_text(file, json.dumps(report, indent=2) + "\n")


def write_report(out: Path, name: str, protocol: Mapping[str, str], results: str, report: Mapping[str, Any]) -> None:
    """Print the protocol and the results, and write OUT/NAME.md and OUT/NAME.json."""
    text = "".join(f"- {key}: {value}\n" for key, value in protocol.items()) + f"\n{results}"
    print(f"\n{text}", end="")
    write_text(out / f"{name}.md", text)
    write_json(out / f"{name}.json", {"protocol": protocol, **report})
    print(f"written: {out / name}.json")


def cell(figure: Mapping[str, Any] | None, digits: int) -> str:
    """Return a figure of evaluate.py with its spread; a dash where there is none."""
    if figure is None:
        return "-"
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.{digits}f}"
    return f"{figure['value']:.{digits}f}{spread}"


def measure_adherence(results: Path) -> dict[str, Any]:
    """Measure change inside boxes against outside in a results folder."""
    run("box-adherence", results)
    adherence = json.loads((results / "box_adherence.json").read_text())
    return {key: adherence[key] for key in ("inside", "outside", "ratio", "empty_boxes", "boxes")}
