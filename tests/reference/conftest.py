"""Finds the predecessors' numbers, in the folder that STAY_REFERENCE_DIR names, and tells what they are by content.

A test takes `network`, `guided`, `diffusion_number`, `isla` or `group`, and runs for every one of them in the folder.
Files that differ by their ending alone belong together: a group.
"""

import json
import os
import zipfile
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(os.environ.get("STAY_REFERENCE_DIR") or ROOT / "../shared/golden")
DOCUMENTS = (".md", ".txt")
# What the numbers of a diffusion were computed from; x_t is a result as well.
INPUTS = ("x0", "noise", "t", "step_noise", "loop_start")


class Numbers(dict):
    """Arrays by name; a test that needs one that the file lacks is skipped."""

    def __missing__(self, name: str):
        pytest.skip(f"the file has no {name}")


class Group(NamedTuple):
    name: str
    files: dict[str, Path]  # by ending

    @property
    def names(self) -> set[str]:
        """Of the arrays."""
        try:
            with np.load(self.files[".npz"]) as arrays:
                return set(arrays.files)
        except (KeyError, OSError, ValueError, AttributeError, zipfile.BadZipFile):
            return set()

    @property
    def kind(self) -> str | None:
        if ".pt" in self.files and {"x", "t", "out"} <= self.names:
            return "network"
        if ".json" in self.files and "betas" in self.names:
            return "diffusion"
        return "isla" if {"masks", "boxes_xywh"} <= self.names else None

    @property
    def is_guided(self) -> bool:
        state = torch.load(self.files[".pt"], map_location="cpu", weights_only=True, mmap=True)
        return not any(".in_norm.mlp_shared." in name for name in state)

    def numbers(self) -> Numbers:
        with np.load(self.files[".npz"]) as arrays:
            return Numbers({name: torch.from_numpy(arrays[name]) for name in arrays.files})

    def flags(self) -> dict:
        return json.loads(self.files[".json"].read_text()) if ".json" in self.files else {}


def groups() -> list[Group]:
    found: dict[str, dict[str, Path]] = {}
    for path in sorted(FOLDER.rglob("*")):
        if path.is_file() and path.suffix not in DOCUMENTS and not path.name.startswith("."):
            found.setdefault(str(path.relative_to(FOLDER).with_suffix("")), {})[path.suffix] = path
    return [Group(name, files) for name, files in found.items()]


def pytest_generate_tests(metafunc):
    wanted = {"network", "guided", "diffusion_number", "isla", "group"} & set(metafunc.fixturenames)
    for fixture in wanted:
        metafunc.parametrize(fixture, cases(fixture))


def cases(fixture: str) -> list:
    found = groups()
    if not found:
        named = os.environ.get("STAY_REFERENCE_DIR")
        marks = () if named and fixture == "group" else pytest.mark.skip(reason=f"no reference numbers in {FOLDER}")
        return [pytest.param(None, marks=marks, id="none")]
    if fixture == "diffusion_number":
        return [
            pytest.param((group, name), id=f"{group.name}-{name}")
            for group in found
            if group.kind == "diffusion"
            for name in sorted(group.names - set(INPUTS))
        ]
    if fixture == "guided":
        found = [group for group in found if group.kind == "network" and group.is_guided]
    elif fixture != "group":
        found = [group for group in found if group.kind == fixture]
    return [pytest.param(group, id=group.name) for group in found]
