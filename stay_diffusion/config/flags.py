"""Options as flags and as JSON: the flat guided-diffusion names on both sides, the dataclasses of config/ between."""

import argparse
import csv
import dataclasses
import difflib
import functools
import json
import math
import sys
from pathlib import Path

from . import RunConfig

# A trained network's labels stand for these names: what was given is held against them and never replaces them.
VOCABULARY = ("classes", "product_tags", "num_classes")
# Options of the model that change how it trains or computes, not what it is: they may differ from run to run.
FREE = ("use_checkpoint", "dropout")


def flatten(run) -> dict:
    """A run's options by flag name, as config.json has them."""
    return {name: value for section in dataclasses.asdict(run).values() for name, value in section.items()}


def unflatten(cls, values: dict, source: str = "config"):
    """A RunConfig or SampleRun from options by flag name, the others at their defaults; unknown names are an error."""
    sections = {section.name: section.default for section in dataclasses.fields(cls)}
    known = {f.name: (name, f) for name, default in sections.items() for f in dataclasses.fields(default)}
    for name, value in values.items():
        if name not in known:
            raise ValueError(f"{source}: unknown option {name}{_did_you_mean(name, known)}")
        section, f = known[name]
        if isinstance(f.default, tuple) and isinstance(value, list) and all(isinstance(word, str) for word in value):
            value = tuple(value)
        if type(value) is int and isinstance(f.default, float):
            value = float(value)
        if type(value) is not type(f.default):
            raise ValueError(f"{source}: {name} is {value!r}; expected {_describe(f)}")
        for word in value if isinstance(value, tuple) else (value,):
            if f.metadata["choices"] and word not in f.metadata["choices"]:
                raise ValueError(f"{source}: {name} is {word!r}; choose one of {_listed(f.metadata['choices'])}")
        _check_range(name, value, f.metadata["least"], f.metadata["most"])
        sections[section] = dataclasses.replace(sections[section], **{name: value})
    return cls(**sections)


def load(path: Path, cls=RunConfig):
    """The run that a config.json (or a preset) describes."""
    return unflatten(cls, read_json(path), str(path))


def read_json(path: Path) -> dict:
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read as a configuration: {error}") from None
    if not isinstance(values, dict):
        raise ValueError(f"{path}: a configuration is one JSON object of option names and values")
    return values


def dump(run) -> str:
    return json.dumps(flatten(run), indent=2) + "\n"


def parse(cls, description: str, argv: list[str] | None = None):
    """Typed flags over `--config FILE` over defaults -> (run, what was given, the script's own switches).

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
    """What a script takes of a training run's or preset's options: those of the sections that it has.

    A script's own batch size or seed is another than training's, though the names are the same.
    """
    sections = {section.name for section in dataclasses.fields(cls)}
    own = {f.name for section in dataclasses.fields(cls) for f in dataclasses.fields(section.default)}
    of_others = {
        f.name
        for section in dataclasses.fields(RunConfig)
        if section.name not in sections
        for f in dataclasses.fields(section.default)
    }
    if not (values.keys() & of_others) - own:
        return values
    return {name: value for name, value in values.items() if name not in of_others}


def contradictions(given: dict, trained: RunConfig, free: tuple[str, ...] = ()) -> list[str]:
    """One line for each option that makes the network what it is, was given, and differs from the trained value.

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


def _parser(cls, description: str) -> argparse.ArgumentParser:
    class Parser(argparse.ArgumentParser):
        def error(self, message):
            if "unrecognized arguments" in message:
                flags = [flag.lstrip("-") for flag in self._option_string_actions]
                unknown = next(word for word in message.split() if word.startswith("--") or word == message.split()[-1])
                message = f"unknown flag {unknown}{_did_you_mean(unknown.lstrip('-').split('=')[0], flags, '--')}"
            print(f"{self.prog}: error: {message}", file=sys.stderr)
            sys.exit(2)

    parser = Parser(description=description, allow_abbrev=False, argument_default=argparse.SUPPRESS)
    parser.add_argument("--config", metavar="FILE.json", default="", help="options by name; typed flags win over them")
    parser.add_argument("--dry_run", action="store_true", default=False, help="say what would happen, then stop")
    parser.add_argument("--print_config", action="store_true", default=False, help="print all options, then stop")
    for section in dataclasses.fields(cls):
        group = parser.add_argument_group(section.name)
        for f in dataclasses.fields(section.default):
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
    return parser


def _is_empty_value(before: str, word: str) -> bool:
    """Whether a blank word is a flag's value, as in --attention_resolutions ""."""
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
    """a,b as two words; of names with commas, as in CSV files: "a, b",c."""
    line = " ".join(text.splitlines())
    words = tuple(word.strip() for word in next(csv.reader([line], skipinitialspace=True), ()) if word.strip())
    for word in words if choices else ():
        if word not in choices:
            raise argparse.ArgumentTypeError(f"invalid choice: {word!r} (choose from {_listed(choices)})")
    return words


def _describe(f) -> str:
    return {bool: "bool", int: "int", float: "float", tuple: "a,b,..."}.get(type(f.default), "str")


def text(value) -> str:
    """As it would be typed."""
    if not isinstance(value, tuple | list):
        return str(value)
    return ",".join(f'"{word}"' if "," in word else word for word in value)


def _listed(values) -> str:
    return ", ".join(str(value) for value in values)


def _did_you_mean(name: str, known, prefix: str = "") -> str:
    close = difflib.get_close_matches(name, list(known), n=1)
    return f"; did you mean {prefix}{close[0]}?" if close else ""
