"""Commands by name: `stay-diffusion NAME ...`, the same as `python -m stay_diffusion NAME ...`."""

import importlib
import sys
from dataclasses import dataclass
from typing import NoReturn

PROGRAM = "stay-diffusion"


@dataclass(frozen=True)
class Command:
    """One command: `main` of the module of this name in this folder, hyphens as underscores.

    `resumes`: the same command again continues what was interrupted; `failure`: exit code of a user's error.
    """

    group: str
    help: str
    resumes: bool = False
    failure: int = 1


COMMANDS = {
    "train": Command("Model", "train a layout-to-image diffusion model", resumes=True),
    "sample": Command("Model", "sample labelled images, or insert objects into good images", resumes=True),
    "nll": Command("Model", "measure bits per dimension on real images"),
    "profile": Command("Model", "profile some training steps", resumes=True),
    "import-weights": Command("Model", "convert weights of guided-diffusion or SDM into a run folder"),
    "card": Command("Model", "write a run's model card"),
    "check": Command("Data", "check a data set before training", failure=2),
    "browse": Command("Data", "write a page that shows a data set's images and boxes"),
    "merge": Command("Data", "join annotated data sets and accepted samples into one"),
    "synthetic": Command("Data", "draw the built-in synthetic data set", resumes=True),
    "copy-paste": Command("Data", "make the copy-paste baseline: boxes pasted into other images", resumes=True),
    "evaluate": Command("Evaluation", "measure generated images by many metrics"),
    "fid": Command("Evaluation", "compute FID between two image sets, as test_with_FID.py does"),
    "lpips": Command("Evaluation", "compute LPIPS diversity of several runs, as lpips.py does"),
    "box-adherence": Command(
        "Evaluation", "measure the in/out ratio: change inside boxes against outside", resumes=True
    ),
    "quality": Command("Evaluation", "score samples with the quality gate", resumes=True),
    "seams": Command("Evaluation", "measure visible edges around inserted objects", resumes=True),
    "features": Command("Evaluation", "train features of one's own for FD and KID"),
    "report": Command("Evaluation", "write report.html about a results folder"),
    "detector": Command("Detector", "train a detector on real and generated images"),
    "score": Command("Detector", "score a detector on a data set by COCO's metrics"),
    "gain": Command("Detector", "measure whether generated images help a detector", resumes=True),
    "completion": Command("Shell", "print a script that completes commands and flags in a shell"),
}


def run(name: str, **arguments: str) -> NoReturn:
    """Run one command with the words in sys.argv, its `main` with `arguments`, and exit."""
    from ..system.command import run_command

    command = COMMANDS[name]
    module = importlib.import_module(f"{__name__}.{name.replace('-', '_')}")
    run_command(lambda: module.main(**arguments), command.resumes, command.failure)


def overview() -> str:
    """The list of all commands, a line each, by group."""
    lines = [f"usage: {PROGRAM} COMMAND [--flag value ...]", "", f"{PROGRAM} COMMAND --help lists a command's flags."]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", f"{group}:"]
        lines += [f"  {name:15s} {command.help}" for name, command in COMMANDS.items() if command.group == group]
    return "\n".join(lines)


def main() -> NoReturn:
    """Run the command that the first word names."""
    words = sys.argv[1:]
    if not words or words[0] in ("-h", "--help"):
        print(overview())
        sys.exit(0 if words else 2)
    if words[0] == "--version":
        from .. import __version__

        print(__version__)
        sys.exit(0)
    if words[0] not in COMMANDS:
        from difflib import get_close_matches

        near = get_close_matches(words[0], COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else f"; {PROGRAM} --help lists them"
        print(f"{PROGRAM}: error: no command {words[0]}{hint}", file=sys.stderr)
        sys.exit(2)
    sys.argv = [f"{PROGRAM} {words[0]}", *words[1:]]
    run(words[0])
