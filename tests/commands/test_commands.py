"""The command stay-diffusion: its list, its help, its refusals, completion, and the scripts that stand for commands."""

import ast
import re
import subprocess
import sys
from pathlib import Path

import pytest

from stay_diffusion import __version__
from stay_diffusion.commands import COMMANDS, main, overview
from stay_diffusion.commands.completion import build_parser, parser_of

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {"torch", "numpy", "scipy", "torchvision", "PIL", "jinja2", "lpips", "mpi4py", "tensorboard", "yaml"}
SHIMS = sorted(
    path
    for folder in ("scripts", "evaluations", "datasets")
    for path in (ROOT / folder).glob("*.py")
    if "commands import run" in path.read_text()
)
ALL_HELP = """
import sys, stay_diffusion.commands as commands
for name in commands.COMMANDS:
    sys.argv = ["stay-diffusion", name, "--help"]
    try: commands.main()
    except SystemExit as ended: assert ended.code == 0, name
print("loaded:", *sorted({name.partition(".")[0] for name in sys.modules}))
"""


def call(monkeypatch, capsys, *words: str) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `stay-diffusion WORDS`."""
    monkeypatch.setattr(sys, "argv", ["/usr/bin/stay-diffusion", *words])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code, *capsys.readouterr()


def test_every_command_explains_itself_without_heavy_imports():
    ended = subprocess.run(
        [sys.executable, "-c", ALL_HELP],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert ended.returncode == 0, ended.stderr
    for name in COMMANDS:
        assert f"usage: stay-diffusion {name}" in ended.stdout
    assert not HEAVY & set(ended.stdout.rpartition("loaded:")[2].split())


def test_the_list_of_commands_is_that_of_the_folder():
    files = {path.stem.replace("_", "-") for path in (ROOT / "stay_diffusion/commands").glob("*.py")}
    assert files - {"--init--"} == set(COMMANDS)
    assert all(f"  {name} " in overview() for name in COMMANDS)


@pytest.mark.parametrize("words", [("--help",), ("-h",)])
def test_help_lists_the_commands(words, monkeypatch, capsys):
    assert call(monkeypatch, capsys, *words) == (0, overview() + "\n", "")


def test_no_command_at_all_is_a_mistake(monkeypatch, capsys):
    assert call(monkeypatch, capsys)[0] == 2


def test_a_mistyped_command_gets_a_suggestion(monkeypatch, capsys):
    code, _, errors = call(monkeypatch, capsys, "trian")
    assert code == 2 and errors == "stay-diffusion: error: no command trian; did you mean train?\n"


def test_the_version_stands_in_one_place(monkeypatch, capsys):
    assert call(monkeypatch, capsys, "--version") == (0, f"{__version__}\n", "")
    assert f"\nversion: {__version__}\n" in (ROOT / "CITATION.cff").read_text()
    assert __version__ not in (ROOT / "pyproject.toml").read_text()


@pytest.mark.parametrize("path", SHIMS, ids=lambda path: f"{path.parent.name}/{path.name}")
def test_a_script_is_a_shim_of_a_command(path):
    assert len(path.read_text().splitlines()) <= 6
    name = re.search(r'run\("([\w-]+)"', path.read_text())[1]
    docstring = ast.get_docstring(ast.parse(path.read_text()))
    assert name in COMMANDS and docstring.startswith(f"The same as `stay-diffusion {name}`")


@pytest.mark.parametrize(("name", "flag"), [("train", "--data_dir"), ("fid", "--compat"), ("check", "--dataset_mode")])
def test_the_parser_of_a_command_is_found_for_completion(name, flag):
    assert flag in parser_of(name)._option_string_actions


@pytest.mark.parametrize("shell", ["bash", "zsh"])
def test_completion_knows_commands_and_their_flags(shell, monkeypatch, capsys):
    pytest.importorskip("shtab")
    code, script, _ = call(monkeypatch, capsys, "completion", shell)
    assert code == 0 and all(name in script for name in COMMANDS) and "--guidance_interval" in script


def test_completion_without_shtab_says_how_to_get_it(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "shtab", None)
    code, _, errors = call(monkeypatch, capsys, "completion", "bash")
    assert code == 1 and errors == "error: completion needs shtab: pip install 'stay-diffusion[completion]'\n"


def test_one_parser_holds_all_commands():
    assert set(build_parser()._subparsers._group_actions[0].choices) == set(COMMANDS)
