"""Print a script that completes commands and flags in a shell: stay-diffusion completion bash."""

import argparse
import importlib
from unittest import mock

from . import COMMANDS, PROGRAM

SHELLS = ("bash", "zsh", "tcsh")


class ParserBuilt(Exception):
    """Carries the parser of a command out of its main()."""


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("shell", choices=SHELLS, help="shell that the script is for")
    shell = parser.parse_args().shell
    try:
        import shtab
    except ModuleNotFoundError:
        raise ValueError("completion needs shtab: pip install 'stay-diffusion[completion]'") from None

    print(shtab.complete(build_parser(), shell))
    return 0


def build_parser() -> argparse.ArgumentParser:
    """Build one parser that has every command's own parser below it."""
    whole = argparse.ArgumentParser(prog=PROGRAM)
    commands = whole.add_subparsers()
    for name, command in COMMANDS.items():
        found = parser_of(name)
        commands.add_parser(
            name, help=command.help, parents=[found], add_help=False, argument_default=argparse.SUPPRESS
        )
    return whole


def parser_of(name: str) -> argparse.ArgumentParser:
    """Return the parser that a command's main() builds before it does anything else."""

    def stop(parser, *_):
        raise ParserBuilt(parser)

    module = importlib.import_module(f"{__package__}.{name.replace('-', '_')}")
    with mock.patch.object(argparse.ArgumentParser, "parse_args", stop):
        try:
            module.main()
        except ParserBuilt as built:
            return built.args[0]
    raise AssertionError(f"{name}: main() parsed no arguments")
