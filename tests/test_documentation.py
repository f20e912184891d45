import ast
import re
import shlex
from pathlib import Path

import pytest

from stay_diffusion import commands
from stay_diffusion.commands import (
    browse,
    check,
    evaluate,
    features,
    import_weights,
    merge,
    nll,
    profile,
)
from stay_diffusion.commands.completion import parser_of
from stay_diffusion.config import RunConfig, SampleRun, flags
from stay_diffusion.detector.options import DetectorGain, TrainDetector

ROOT = Path(__file__).resolve().parents[1]
PAGES = [page for page in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))) if page.exists()]
PAGES += sorted((ROOT / "datasets").glob("*.md"))
OF_LAUNCHERS = {"--nodes", "--nnodes", "--node", "--nproc", "--master", "--rdzv", "--gpus", "--gpu"}
OF_LAUNCHERS |= {"--signal", "--requeue", "--shutdown"}  # each up to its second hyphen
CONFIGS = {
    "train": RunConfig,
    "sample": SampleRun,
    "nll": nll.NllRun,
    "evaluate": evaluate.EvaluateRun,
    "features": features.FeaturesRun,
    "detector": TrainDetector,
    "gain": DetectorGain,
    "import-weights": import_weights.ImportRun,
    "check": check.CheckRun,
    "browse": browse.BrowseRun,
    "merge": merge.MergeRun,
    "profile": profile.ProfileRun,
}


def code_of(page: Path) -> str:
    """The fenced and the indented code blocks of a page, continued lines joined."""
    text = page.read_text()
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, flags=re.MULTILINE | re.DOTALL)
    indented = re.findall(r"^ {4}(.*)$", re.sub(r"^```.*?^```", "", text, flags=re.M | re.S), flags=re.MULTILINE)
    return re.sub(r"\\\n\s*", " ", "\n".join([*fenced, *indented]))


def commands_of(page: Path) -> list[list[str]]:
    """The words after `python` of every line that runs a script; `stay-diffusion NAME` stays as it is."""
    interpreter = r"(?:(?:(?:mpiexec|srun) .*?)?python3? (?!-)|torchrun .*?(?=\w+/\w+\.py ))"
    found = re.findall(rf"^(?:\$ )?(?:\w+=\S+ )*{interpreter}(.+)$", code_of(page), flags=re.MULTILINE)
    found += re.findall(r"^(?:\$ )?(?:mpiexec .*?)?(stay-diffusion .+)$", code_of(page), flags=re.MULTILINE)
    return [shlex.split(line, comments=True) for line in found]


COMMANDS = [
    pytest.param(words, id=f"{page.name}: {' '.join(words)[:60]}") for page in PAGES for words in commands_of(page)
]


def command_of(script: Path) -> str | None:
    """The name of the command that a script stands for."""
    found = re.search(r'__main__":\n    run\("([\w-]+)"', script.read_text())
    return found[1] if found else None


def own_flags(script: Path) -> set[str]:
    """The flags that a script, or the command it stands for, declares by itself."""
    if name := command_of(script):
        return set(parser_of(name)._option_string_actions)
    return {
        node.args[0].value
        for node in ast.walk(ast.parse(script.read_text()))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "add_argument"
    }


@pytest.mark.parametrize("words", COMMANDS)
def test_a_documented_command_parses(words, monkeypatch):
    monkeypatch.chdir(ROOT)
    first, *arguments = words
    if first == "stay-diffusion":
        name, *arguments = arguments
        assert name in ("--help", *commands.COMMANDS)
    else:
        assert Path(first).is_file()
        name = command_of(Path(first))
    if name in CONFIGS:
        if "--help" not in arguments:
            flags.parse(CONFIGS[name], "", arguments)
    elif name != "--help":
        known = set(parser_of(name)._option_string_actions) if name else own_flags(Path(first))
        assert {word.split("=")[0] for word in arguments if word.startswith("--")} <= known


def test_the_documentation_shows_how_to_train_and_to_sample():
    shown = {parameters.values[0][0] for parameters in COMMANDS}
    assert {"scripts/image_train.py", "scripts/image_sample.py"} <= shown


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_flag_that_is_named_exists(page):
    known = {f"--{f}" for cls in CONFIGS.values() for f in flags.flatten(cls())} | {"--config", "--dry_run"}
    known |= {"--print_config", "--help", "--flag"} | OF_LAUNCHERS  # --flag stands for any
    for script in (
        path for folder in ("benchmarks", "datasets", "evaluations", "studies") for path in ROOT.glob(f"{folder}/*.py")
    ):
        known |= own_flags(script)
    assert set(re.findall(r"(?<![\w-])--\w\w+", page.read_text())) <= known


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_somewhere(page):
    links = re.findall(r"\]\((?!\w+:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []


# The model zoo

ZOO = ROOT / "docs/model_zoo.md"
PRESETS = sorted(path.stem for path in (ROOT / "scripts/configs").glob("*.json"))


def zoo_rows() -> list[list[str]]:
    """The cells of the zoo's table, below its head."""
    rows = [line.strip("|").split("|") for line in ZOO.read_text().splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in row] for row in rows[1:]]


def test_the_model_zoo_names_every_preset_and_no_other():
    assert PRESETS and set(re.findall(r"^`(\w+)`", "\n".join(row[0] for row in zoo_rows()), re.M)) == set(PRESETS)


@pytest.mark.parametrize("preset", PRESETS)
def test_the_model_zoo_has_the_commands_that_train_and_measure_a_preset(preset):
    commands = commands_of(ZOO)
    folders = {words[words.index("--logdir") + 1] for words in commands if f"scripts/configs/{preset}.json" in words}
    sampled = {
        words[words.index("--results_path") + 1]
        for words in commands
        if words[0] == "scripts/image_sample.py"
        and any(words[words.index("--model_path") + 1].startswith(f"{folder}/") for folder in folders)
    }
    for script in ("evaluations/box_adherence.py", "evaluations/evaluate.py"):
        assert any(words[0] == script and any(word.startswith(tuple(sampled)) for word in words) for words in commands)


def test_figures_that_stand_together_in_the_model_zoo_do_so_in_the_results():
    lines = [
        set(re.findall(r"\d+ of \d+|\d[\d,.]*\d", line)) for line in (ROOT / "docs/results.md").read_text().splitlines()
    ]
    checked = 0
    for row in zoo_rows():
        of_seeds = [cell.split(", ") for cell in row[3:] if cell]
        for seed in range(max(map(len, of_seeds), default=0)):
            figures = {of_one[min(seed, len(of_one) - 1)] for of_one in of_seeds}
            assert any(figures <= line for line in lines), figures
            checked += 1
    assert checked >= 8
