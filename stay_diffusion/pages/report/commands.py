"""What a user would type to make the same pictures again, and to measure them."""

import dataclasses
import shlex
from pathlib import Path

from ...config import SampleConfig
from ...config.flags import text
from ...data.splits import FOLDERS
from .results import Results

QUALITY, ADHERENCE, REPORT = "evaluations/quality.py", "evaluations/box_adherence.py", "evaluations/report.py"
OWN = ("model_path", "results_path", "layouts", "num_samples", "num_runs", "num_steps")  # settled here


def sampling_command(results: Results) -> str:
    """Makes the same pictures into a folder beside: of the same layouts, drawn anew or read from the manifest."""
    folder, settings = results.folder.resolve(), results.settings
    again = folder.with_name(f"{folder.name}_again")
    words = ["--model_path", settings.get("checkpoint", "WEIGHTS"), "--results_path", again, *_layouts(results)]
    run = settings.get("run", 0)
    words += ["--num_runs", run + 1] if run else []
    for option in dataclasses.fields(SampleConfig):
        value = settings.get(option.name, option.default)
        value = tuple(value) if isinstance(value, list) else value
        of_insertion = option.name == "sampler" and value == "repaint"  # which has its own
        if option.name not in OWN and value != option.default and not of_insertion:
            words += [f"--{option.name}", text(value)]
    words += ["--masks", True] if "mask_kind" in settings else []
    respacing = settings.get("timestep_respacing", "")
    steps = respacing.removeprefix("logsnr")
    words += ["--num_steps", steps] if steps != respacing else ["--timestep_respacing", respacing] if respacing else []
    return command("scripts/image_sample.py", *words)


def command(script: str, *words: object) -> str:
    """A line for a shell."""
    return shlex.join(["python", script, *map(str, words)])


def folded(line: str) -> str:
    """A long line over several, each but the first starting with a flag."""
    return line.replace(" --", " \\\n    --")


def _layouts(results: Results) -> list:
    """As they were chosen where that is known; else boxes come from the manifest, label maps from their split."""
    number = len(results.pictures) + results.rejected
    if "layouts" in results.settings:
        return ["--layouts", results.settings["layouts"], "--num_samples", number]
    if results.config is None or results.config.model.layout_kind != "map":
        return ["--layouts", results.folder.resolve() / "manifest.jsonl"]
    parts = set(Path(results.pictures[0].source).parts[:-1])
    return ["--layouts", "train" if parts & set(FOLDERS["train"]) else "val", "--num_samples", number]
