"""What is installed: the wheel holds the package, whole, and nothing else; the version is said in one place."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest
import yaml

import stay_diffusion
from stay_diffusion.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


# Not built in the checkout, where a left-over build/ would end in the wheel.
SOURCES = ("stay_diffusion", "pyproject.toml", "setup.py", "README.md", "LICENSE")


EXPLAIN_ALL = """
import sys
from stay_diffusion import commands
assert commands.__file__.startswith(sys.argv[1])
for name in commands.COMMANDS:
    sys.argv = ["stay-diffusion", name, "--help"]
    try:
        commands.main()
    except SystemExit as ended:
        assert ended.code == 0, name
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The path of a wheel, built without a network."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in SOURCES:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, folder / "source" / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(ROOT / name, folder / "source" / name)
    words = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", folder]
    subprocess.run([*words, folder / "source"], check=True, cwd=folder)
    [found] = folder.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def contents(wheel):
    with zipfile.ZipFile(wheel) as file:
        return {name: file.read(name) for name in file.namelist()}


@pytest.mark.slow
def test_the_wheel_holds_the_package_with_all_its_files(contents):
    package = {path.relative_to(ROOT).as_posix() for path in (ROOT / "stay_diffusion").rglob("*") if path.is_file()}
    expected = {name for name in package if "__pycache__" not in name}
    assert {name for name in contents if ".dist-info/" not in name} == expected
    assert "stay_diffusion/py.typed" in expected


@pytest.mark.slow
def test_the_wheel_brings_the_command(contents):
    [name] = [name for name in contents if name.endswith("entry_points.txt")]
    assert b"stay-diffusion = stay_diffusion.commands:main" in contents[name]


@pytest.mark.slow
def test_the_installed_command_explains_every_command_from_another_directory(wheel, tmp_path):
    """The wheel's files alone, with this environment's libraries."""
    site = tmp_path / "site"
    words = [sys.executable, "-m", "pip", "install", "-q", "--no-deps", "--no-index", "--target", site, wheel]
    subprocess.run(words, check=True)
    environment = {**os.environ, "PYTHONPATH": str(site)}
    listed = subprocess.run(
        [sys.executable, site / "bin/stay-diffusion", "--help"], cwd=tmp_path, env=environment, capture_output=True
    )
    assert listed.returncode == 0 and all(name in listed.stdout.decode() for name in COMMANDS)
    words = [sys.executable, "-c", EXPLAIN_ALL, site]
    subprocess.run(words, cwd=tmp_path, env=environment, check=True, stdout=subprocess.DEVNULL)


def test_the_version_is_the_same_wherever_it_stands():
    assert PYPROJECT["project"]["dynamic"] == ["version"]
    assert yaml.safe_load((ROOT / "CITATION.cff").read_text())["version"] == stay_diffusion.__version__
    assert f"\n## {stay_diffusion.__version__} " in (ROOT / "CHANGELOG.md").read_text()


def test_every_dependency_of_continuous_integration_is_pinned():
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines()[1:])
    project = PYPROJECT["project"]
    named = [*project["dependencies"], *(each for extra in project["optional-dependencies"].values() for each in extra)]
    normal = {re.sub(r"[-_.]+", "-", name).lower() for name in pins}
    assert {re.sub(r"[-_.]+", "-", re.match(r"[\w.-]+", each)[0]).lower() for each in named} <= normal


# Continuous integration

WORKFLOWS = sorted((ROOT / ".github/workflows").glob("*.yml"))


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_parses_and_calls_what_exists(path):
    workflow = yaml.safe_load(path.read_text())
    assert workflow["name"] and workflow[True] and workflow["jobs"]  # YAML 1.1 reads `on` as true
    steps = [step for job in workflow["jobs"].values() for step in job["steps"]]
    assert all(("run" in step) != ("uses" in step) for step in steps)
    script = "\n".join(step.get("run", "") for step in steps)
    targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
    assert set(re.findall(r"\bmake (\w+)", script)) <= set(targets)
    for name in re.findall(r"\btests(?:/\w+)+(?:\.py)?", script):
        assert (ROOT / name).exists(), name


def test_the_oldest_versions_tried_are_those_that_the_package_names():
    tested = (ROOT / ".github/workflows/tests.yml").read_text()
    oldest = dict(re.findall(r"([\w-]+)>=([\d.]+)", " ".join(PYPROJECT["project"]["dependencies"])))
    for name, version in oldest.items():
        assert re.search(rf"\b{name}=={re.escape(version)}(?![\d])", tested), f"{name}=={version}"


def test_the_hooks_run_the_tools_of_make_style_in_the_same_versions():
    hooks = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    entries = [hook["entry"] for repo in hooks for hook in repo["hooks"]]
    assert {entry.split()[0] for entry in entries} == {"ruff", "mypy"}


def test_issue_and_pull_request_templates_parse():
    for path in (ROOT / ".github/ISSUE_TEMPLATE").glob("*.yml"):
        form = yaml.safe_load(path.read_text())
        assert path.name == "config.yml" or (form["name"] and form["description"] and form["body"])
    assert (ROOT / ".github/PULL_REQUEST_TEMPLATE.md").read_text().strip()
