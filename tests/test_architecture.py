import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "stay_diffusion"
MODULES = sorted(path.relative_to(ROOT) for path in PACKAGE.rglob("*.py"))
# What each folder outside the package may import besides the package.
OUTSIDE_IMPORTS = {
    "scripts": set(),
    "evaluations": set(),
    "datasets": set(),
    "benchmarks": {"benchmarks"},
    "studies": {"studies", "benchmarks"},
}
FOLDERS = {"stay_diffusion", "tests", *OUTSIDE_IMPORTS}
OUTSIDE = sorted(path.relative_to(ROOT) for folder in OUTSIDE_IMPORTS for path in (ROOT / folder).rglob("*.py"))
LONGEST = 250  # lines; past it a file usually holds two ideas
LONGEST_FUNCTION = 60  # lines
LONGEST_SHIM = 6

# Tiers, highest first: a module imports its own room's modules and those of tiers below it, never above or beside it.
TIERS = (
    ("commands",),
    ("pages", "evaluation"),
    ("detector",),
    ("sampling",),
    ("layouts", "quality"),
    ("training",),
    ("run",),
    ("models", "data"),
    ("diffusion", "config", "system"),
)
LEVEL = {room: level for level, rooms in enumerate(TIERS) for room in rooms}
BESIDE = {("models", "data"): "stay_diffusion.data.layout"}  # the one neighbour that may be imported
FORBIDDEN = re.compile(r"sys\.path(\.(insert|append|remove|extend)|\[.*\]? =|\s*\+?=)|runpy|spec_from_file_location")

POSIX_ONLY = re.compile(
    r"import (fcntl|resource|pwd|grp|termios)\b|/proc/|os\.(fork|getuid|killpg|sched_getaffinity|sysconf|uname)\b"
    r"|signal\.SIG(ALRM|CHLD|HUP|KILL|USR)"
)


def own_imports(path: Path) -> set[str]:
    """Return the modules of ours that a file imports, anywhere in it; a sibling's name with its folder before it."""
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
    if path in OUTSIDE:  # a script finds those beside it by their bare names
        found = {f"{path.parts[0]}.{name}" if (ROOT / path.parent / f"{name}.py").exists() else name for name in found}
    return {module for module in found if module.split(".")[0] in FOLDERS}


def is_module(name: str) -> bool:
    path = ROOT.joinpath(*name.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


def room_of(module: str) -> str:
    return module.split(".")[1] if "." in module else ""


def name_of(path: Path) -> str:
    return ".".join(path.with_suffix("").parts).removesuffix(".__init__")


def may_import(importer: str, module: str) -> bool:
    own, other = room_of(importer), room_of(module)
    if own == other or not own or not other:  # the root: __init__ and __main__
        return True
    return LEVEL[own] < LEVEL[other] or BESIDE.get((own, other)) == module


@pytest.mark.parametrize("path", [path for path in MODULES if len(path.parts) > 2], ids=str)
def test_imports_point_one_way(path):
    assert not {module for module in own_imports(path) if not may_import(name_of(path), module)}


@pytest.mark.parametrize("path", OUTSIDE, ids=str)
def test_what_lies_outside_imports_the_package_and_not_one_another(path):
    may = {"stay_diffusion", *OUTSIDE_IMPORTS[path.parts[0]]}
    assert {module.split(".")[0] for module in own_imports(path)} <= may


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_the_package_imports_nothing_from_outside(path):
    assert {module.split(".")[0] for module in own_imports(path)} <= {"stay_diffusion"}


def test_every_room_has_a_tier():
    assert {path.parts[1] for path in MODULES if len(path.parts) > 2} == set(LEVEL)


def test_no_imports_run_in_a_circle():
    graph = {name_of(path): own_imports(path) - {name_of(path)} for path in [*MODULES, *OUTSIDE]}
    seen, done = [], set()

    def visit(module: str) -> None:
        assert module not in seen, " -> ".join([*seen[seen.index(module) :], module])
        if module in done:
            return
        seen.append(module)
        for other in sorted(graph.get(module, ())):
            visit(other)
        done.add(seen.pop())

    for module in graph:
        visit(module)


def test_the_rules_see_the_imports():
    assert "stay_diffusion.models.unet" in own_imports(Path("stay_diffusion/run/factory.py"))
    assert "stay_diffusion.config.flags" in own_imports(Path("stay_diffusion/run/checkpoint.py"))
    assert "benchmarks.measuring" in own_imports(Path("benchmarks/loader.py"))
    assert not may_import("stay_diffusion.models.unet", "stay_diffusion.run.factory")
    assert not may_import("stay_diffusion.models.unet", "stay_diffusion.data.images")


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=str)
def test_nothing_is_loaded_past_the_import_system(path):
    assert not FORBIDDEN.search((ROOT / path).read_text())


@pytest.mark.parametrize("path", MODULES, ids=str)
def test_what_windows_lacks_is_used_in_one_place(path):
    assert path.name == "machine.py" or not POSIX_ONLY.search((ROOT / path).read_text())


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=str)
def test_a_file_stays_short(path):
    is_shim = path.parts[0] in ("scripts", "evaluations") and path.name != "demo.py"
    assert len((ROOT / path).read_text().splitlines()) <= (LONGEST_SHIM if is_shim else LONGEST)


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=str)
def test_its_functions_stay_short(path):
    functions = [
        node
        for node in ast.walk(ast.parse((ROOT / path).read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    ]
    lengths = {each.name: each.end_lineno - each.lineno + 1 for each in functions}
    assert {name: length for name, length in lengths.items() if length > LONGEST_FUNCTION} == {}


@pytest.mark.parametrize("path", [*MODULES, *OUTSIDE], ids=str)
def test_a_module_says_what_it_is(path):
    assert ast.get_docstring(ast.parse((ROOT / path).read_text()))


def test_the_folders_of_scripts_are_not_packages():
    # With an __init__.py they would shadow other packages, Hugging Face's datasets and evaluate among them.
    assert not [folder for folder in ("datasets", "evaluations", "scripts") if (ROOT / folder / "__init__.py").exists()]
