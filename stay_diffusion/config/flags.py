"""Options as flags and as JSON: the flat guided-diffusion names on both sides, the dataclasses of config/ between."""

import argparse
import csv
import dataclasses
import difflib
import functools
import json
import logging
import math
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from . import RunConfig

logger = logging.getLogger("stay_diffusion")
Run = TypeVar("Run")  # RunConfig, SampleRun or another dataclass of sections

# A trained network's labels stand for these names: what was given is held against them and never replaces them.
VOCABULARY = ("classes", "product_tags", "num_classes")
# Options of the model that change how it trains or computes, not what it is: they may differ from run to run.
FREE = ("use_checkpoint", "dropout")
# Options that older runs' config.json have, with the values that they are fixed at now.
RETIRED = {"fp16_scale_growth": 1e-3}


def options_of(cls) -> dict[str, list[dataclasses.Field]]:
    """Return the options of a run's sections by the section's name: its own first, then those of its base classes."""
    return {name: _own_first(type(default)) for name, default in _defaults(cls).items()}


def _defaults(cls) -> dict[str, Any]:
    """Return the default of each section of a run by the section's name: its own first, then those of its base."""
    return {section.name: section.default for section in _own_first(cls)}


def _own_first(cls) -> list[dataclasses.Field]:
    """Return the fields of a dataclass, those of its base classes last."""
    return sorted(dataclasses.fields(cls), key=lambda f: f.name not in cls.__annotations__)


def flatten(run) -> dict:
    """Return a run's options by flag name, as config.json has them."""
    return {name: value for section in dataclasses.asdict(run).values() for name, value in section.items()}


def unflatten(cls: type[Run], values: dict, source: str = "config") -> Run:
    """Return a RunConfig or SampleRun with options by flag name, the others at their defaults.

    Raises ValueError for unknown names and for values that cannot be.
    """
    known = {f.name: (section, f) for section, options in options_of(cls).items() for f in options}
    sections: dict[str, dict] = {section: {} for section in _defaults(cls)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{source}: unknown option {name}{_did_you_mean(name, known)}")
        section, f = known[name]
        sections[section][name] = _checked(f, value, source)
    return cls(**{name: dataclasses.replace(default, **sections[name]) for name, default in _defaults(cls).items()})


def _checked(f: dataclasses.Field, value, source: str):
    """Return a value from flags or JSON in the type of its option; ValueError where it cannot be."""
    name, choices = f.name, f.metadata["choices"]
    if isinstance(f.default, tuple) and isinstance(value, list) and all(isinstance(word, str) for word in value):
        value = tuple(value)
    if type(value) is int and isinstance(f.default, float):
        value = float(value)
    if type(value) is not type(f.default):
        raise ValueError(f"{source}: {name} is {value!r}; expected {_describe(f)}")
    for word in value if isinstance(value, tuple) else (value,):
        if choices and word not in choices:
            raise ValueError(f"{source}: {name} is {word!r}; choose one of {_listed(choices)}")
    _check_range(name, value, f.metadata["least"], f.metadata["most"])
    return value


def load(path: Path) -> RunConfig:
    """Return the run that a config.json (or a preset) describes."""
    return unflatten(RunConfig, read_json(path), str(path))


def read_json(path: Path) -> dict:
    """Return the options of a JSON file by name, without the retired ones; a warning names one that was set."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a configuration: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a configuration is one JSON object of option names and values")
    for name in RETIRED.keys() & values.keys():
        if values.pop(name) != RETIRED[name]:
            logger.warning("%s: the option %s was retired; it is %g now", path, name, RETIRED[name])
    return values


def dump(run) -> str:
    return json.dumps(flatten(run), indent=2) + "\n"


def parse(cls: type[Run], description: str | None, argv: list[str] | None = None) -> tuple[Run, dict, dict]:
    """Merge typed flags over `--config FILE` over defaults -> (run, what was given, the script's own switches).

    Exits with usage on a mistyped flag; ValueError for values that cannot be.
    """
    argv = sys.argv[1:] if argv is None else argv
    words = [
        word for before, word in zip(["", *argv], argv, strict=False) if word.strip() or _is_empty_value(before, word)
    ]
    if len(words) < len(argv):
        print("note: a blank argument was dropped (a space after a line's back-slash?)", file=sys.stderr)
    parser = _parser(cls, description)
    given = vars(parser.parse_args(words))
    switches = {name: given.pop(name) for name in ("config", "dry_run", "print_config")}
    values = _for_script(cls, read_json(Path(switches["config"]))) if switches["config"] else {}
    values = {**values, **given}
    return unflatten(cls, values, switches["config"] or "flags"), values, switches


def _for_script(cls, values: dict) -> dict:
    """Return the options of a training run or preset that a script takes: those of the sections that it has.

    A script's own batch size or seed is another than training's, though the names are the same.
    """
    sections = options_of(cls)
    own = {f.name for options in sections.values() for f in options}
    of_others = {f.name for name, options in options_of(RunConfig).items() if name not in sections for f in options}
    if not (values.keys() & of_others) - own:
        return values
    return {name: value for name, value in values.items() if name not in of_others}


def contradictions(given: dict, trained: RunConfig, free: tuple[str, ...] = ()) -> list[str]:
    """Return one line for each option that makes the network what it is, was given, and differs from the trained value.

    Those are the model's, the diffusion's and the vocabulary, less `free`; an empty vocabulary claims nothing.
    """
    fixed = {f.name for section in (trained.model, trained.diffusion) for f in dataclasses.fields(section)}
    fixed -= {*free, *FREE}
    have = flatten(trained)
    return [
        f"--{name} {text(given[name])} contradicts the trained model's {text(have[name])}"
        for name in sorted((fixed | {name for name in VOCABULARY if given.get(name)}) & given.keys())
        if (tuple(given[name]) if isinstance(have[name], tuple) else given[name]) != have[name]
    ]


def _parser(cls, description: str | None) -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        def error(self, message):
            if "unrecognized arguments" in message:
                flags = [flag.lstrip("-") for flag in self._option_string_actions]
                unknown = next(word for word in message.split() if word.startswith("--") or word == message.split()[-1])
                message = f"unknown flag {unknown}{_did_you_mean(unknown.lstrip('-').split('=')[0], flags, '--')}"
            print(f"{self.prog}: error: {message}", file=sys.stderr)
            sys.exit(2)

    usage = "%(prog)s [--flag value ...]"
    parser = Parser(usage=usage, description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config", metavar="FILE.json", default="", help="options by name; typed flags win over them")
    parser.add_argument("--dry_run", action="store_true", default=False, help="say what would happen, then stop")
    parser.add_argument("--print_config", action="store_true", default=False, help="print all options, then stop")
    sections = options_of(cls)
    for name, options in sections.items():
        _add_flags(parser.add_argument_group(name), [f for f in options if not f.metadata["compat"]])
    older = [f for options in sections.values() for f in options if f.metadata["compat"]]
    if older:
        _add_flags(parser.add_argument_group("compatibility", "names that guided-diffusion and SDM users know"), older)
    return parser


def _add_flags(group, options: Sequence[dataclasses.Field]) -> None:
    """Add a flag for each option to a group of a parser."""
    for f in options:
        default, choices = text(f.default) or "empty", f.metadata["choices"] or None
        several = choices and isinstance(f.default, tuple)
        any_of = f"any of {_listed(choices)}; " if several else ""
        group.add_argument(
            f"--{f.name}",
            type=_reader(f),
            choices=None if several else choices,
            metavar=_describe(f).upper() if several or not choices else None,
            help=f"{f.metadata['help']} ({any_of}default: {default})".replace("%", "%%"),
        )


def _is_empty_value(before: str, word: str) -> bool:
    """Tell whether a blank word is a flag's value, as in --attention_resolutions ""."""
    return not word and before.startswith("--") and "=" not in before


def _check_range(name: str, value, least: float | None, most: float | None) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise ValueError(f"--{name} {value}: must be a finite number")
    if least is not None and value < least:
        raise ValueError(f"--{name} {value}: must be at least {least}")
    if most is not None and value > most:
        raise ValueError(f"--{name} {value}: must be at most {most}")


def _reader(f):
    if isinstance(f.default, bool):
        return _boolean
    if isinstance(f.default, tuple):
        return functools.partial(_words, choices=f.metadata["choices"])
    return type(f.default)


def _boolean(text: str) -> bool:
    if text.lower() not in ("true", "false", "1", "0", "yes", "no", "t", "f", "y", "n"):
        raise argparse.ArgumentTypeError(f"expected True or False, not {text!r}")
    return text.lower()[0] in "t1y"


def _words(text: str, choices: tuple[str, ...] = ()) -> tuple[str, ...]:
    """Read a,b as two words; of names with commas, as in CSV files: "a, b",c."""
    line = " ".join(text.splitlines())
    words = tuple(word.strip() for word in next(csv.reader([line], skipinitialspace=True), ()) if word.strip())
    for word in words if choices else ():
        if word not in choices:
            raise argparse.ArgumentTypeError(f"invalid choice: {word!r} (choose from {_listed(choices)})")
    return words


def _describe(f) -> str:
    return {bool: "bool", int: "int", float: "float", tuple: "a,b,..."}.get(type(f.default), "str")


def text(value) -> str:
    """Return a value as it would be typed."""
    if not isinstance(value, tuple | list):
        return str(value)
    return ",".join(f'"{word}"' if "," in word else word for word in value)


def _listed(values) -> str:
    return ", ".join(str(value) for value in values)


def _did_you_mean(name: str, known, prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
