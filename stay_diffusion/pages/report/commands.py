"""Commands: what a user would type to make the same pictures again, and to measure them."""

import dataclasses
import shlex
from pathlib import Path

from ...config import SampleConfig
from ...config.flags import text
from ...data.splits import FOLDERS
from .results import Results

QUALITY, ADHERENCE, REPORT = "evaluations/quality.py", "evaluations/box_adherence.py", "evaluations/report.py"
OWN = ("model_path", "results_path", "layouts", "num_samples", "num_runs", "num_steps")  # decided here


def sampling_command(results: Results) -> str:
    """Make the same pictures into a folder beside: of the same layouts, drawn anew or read from the manifest."""
    folder, settings = results.folder.resolve(), results.settings
    again = folder.with_name(f"{folder.name}_again")
    words: list[object] = ["--model_path", settings.get("checkpoint", "WEIGHTS"), "--results_path", again]
    words += _layouts(results)
    run = settings.get("run", 0)
    words += ["--num_runs", run + 1] if run and isinstance(run, int) else []
    for option in dataclasses.fields(SampleConfig):
        value = settings.get(option.name, option.default)
        value = tuple(value) if isinstance(value, list) else value
        of_insertion = option.name == "sampler" and value == "repaint"  # which has its own
        if option.name not in OWN and value != option.default and not of_insertion:
            words += [f"--{option.name}", text(value)]
    words += ["--masks", True] if "mask_kind" in settings else []
    respacing = str(settings.get("timestep_respacing", ""))
    steps = respacing.removeprefix("logsnr")
    words += ["--num_steps", steps] if steps != respacing else ["--timestep_respacing", respacing] if respacing else []
    return command("scripts/image_sample.py", *words)


def commands(results: Results) -> dict[str, str]:
    """Return the lines for a shell by what they bring."""
    folder = results.folder.resolve()
    return {
        "The same pictures again, into a folder beside this one": sampling_command(results),
        "Scores and near-copies": command(QUALITY, folder),
        "Box adherence": command(ADHERENCE, folder),
        "This page": command(REPORT, folder),
    }


def missing_commands(results: Results) -> list[tuple[str, str]]:
    """Return what is not there, with the command that brings it."""
    folder = results.folder.resolve()
    found = [] if results.scored else [("scores and near-copies", command(QUALITY, folder))]
    return found if results.adherence else [*found, ("box adherence", command(ADHERENCE, folder))]


def command(script: str, *words: object) -> str:
    """Return a line for a shell."""
    return shlex.join(["python", script, *map(str, words)])


def _layouts(results: Results) -> list[object]:
    """Name layouts as they were chosen if that is known; else boxes come from the manifest, label maps from a split."""
    number = len(results.pictures) + results.rejected
    if "layouts" in results.settings:
        return ["--layouts", results.settings["layouts"], "--num_samples", number]
    if results.config is None or results.config.model.layout_kind != "map":
        return ["--layouts", results.folder.resolve() / "manifest.jsonl"]
    parts = set(Path(results.pictures[0].source).parts[:-1])
    return ["--layouts", "train" if parts & set(FOLDERS["train"]) else "val", "--num_samples", number]
