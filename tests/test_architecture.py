import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stay_diffusion"
MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))
LONGEST = 250  # lines; past it a file usually holds two ideas

# Which of our modules a module may import, by the longest matching prefix. Whoever needs more belongs elsewhere.
BASE = ["stay_diffusion.config", "stay_diffusion.flags", "stay_diffusion.checkpoint", "stay_diffusion.logger"]
BASE += ["stay_diffusion.storage", "stay_diffusion.device", "stay_diffusion.data", "stay_diffusion.diffusion"]
BASE += ["stay_diffusion.models", "stay_diffusion.distributed", "stay_diffusion.launchers"]
BASE += ["stay_diffusion.compilation"]
ALLOWED = {
    "stay_diffusion": [],
    "stay_diffusion.compilation": ["stay_diffusion.data.layout"],
    "stay_diffusion.config": ["stay_diffusion.config"],
    "stay_diffusion.device": ["stay_diffusion.distributed", "stay_diffusion.launchers"],
    "stay_diffusion.flags": ["stay_diffusion.config"],
    "stay_diffusion.lock": [],
    "stay_diffusion.storage": ["stay_diffusion.lock"],
    "stay_diffusion.launchers": [],
    "stay_diffusion.distributed": ["stay_diffusion.launchers"],
    "stay_diffusion.command": ["stay_diffusion.distributed"],
    "stay_diffusion.checkpoint": [f"stay_diffusion.{name}" for name in ("config", "flags", "lock", "storage")],
    "stay_diffusion.logger": ["stay_diffusion.checkpoint", "stay_diffusion.distributed", "stay_diffusion.launchers"],
    "stay_diffusion.data": ["stay_diffusion.data"],
    "stay_diffusion.diffusion": ["stay_diffusion.diffusion"],
    "stay_diffusion.models": ["stay_diffusion.models", "stay_diffusion.data.layout"],
    "stay_diffusion.training": [*BASE, "stay_diffusion.training"],
    "stay_diffusion.sampling": [*BASE, "stay_diffusion.sampling"],
    "stay_diffusion.quality": [
        *("stay_diffusion.config", "stay_diffusion.checkpoint", "stay_diffusion.storage", "stay_diffusion.data"),
        *("stay_diffusion.quality", "stay_diffusion.factory"),
    ],
    "stay_diffusion.factory": BASE,
    "stay_diffusion.import_weights": [*BASE, "stay_diffusion.factory"],
    "stay_diffusion.fine_tuning": [*BASE, "stay_diffusion.factory"],
    "stay_diffusion.model_card": [
        *(*BASE, "stay_diffusion.model_card", "stay_diffusion.factory"),
        *("stay_diffusion.sampling.layout_statistics", "stay_diffusion.sampling.layout_statistics_file"),
    ],
    "stay_diffusion.sample_gate": [*BASE, "stay_diffusion.quality", "stay_diffusion.sampling"],
    "stay_diffusion.sample_items": [*BASE, "stay_diffusion.factory", "stay_diffusion.sampling"],
}


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def is_within(module: str, prefix: str) -> bool:
    return module == prefix or module.startswith(f"{prefix}.")


def own_imports(path: Path) -> set[str]:
    """The modules of ours that a file imports, anywhere in it."""
    package = list(path.parent.parts)
    found = set()
    for node in ast.walk(ast.parse((ROOT / path).read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            module = ".".join([*base, *(node.module.split(".") if node.module else [])])
            found |= {
                f"{module}.{alias.name}" if is_module(f"{module}.{alias.name}") else module for alias in node.names
            }
    return {module for module in found if is_within(module, "stay_diffusion")}


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_imports_point_one_way(path):
    name = name_of(path)
    rule = max((prefix for prefix in ALLOWED if is_within(name, prefix)), key=len)
    forbidden = {
        module for module in own_imports(path) if not any(is_within(module, allowed) for allowed in ALLOWED[rule])
    }
    assert not forbidden


def test_the_rules_see_the_imports():
    assert "stay_diffusion.models.unet" in own_imports(Path("stay_diffusion/factory.py"))
    assert "stay_diffusion.flags" in own_imports(Path("stay_diffusion/checkpoint.py"))  # from . import flags


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_file_stays_short(path):
    assert len((ROOT / path).read_text().splitlines()) <= LONGEST


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_a_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_text()))


def test_the_folders_of_scripts_are_not_packages():
    # With an __init__.py they would shadow other packages, Hugging Face's datasets and evaluate among them.
    assert not [folder for folder in ("datasets", "evaluations", "scripts") if (ROOT / folder / "__init__.py").exists()]
