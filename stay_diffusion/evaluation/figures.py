"""Figures, each with what it depends on, as one JSON object and one Markdown table."""

import math
import platform
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from ..system.versions import installed_versions

VERSIONS = ("torch", "torchvision", "torch-fidelity", "lpips", "pycocotools", "numpy", "pillow")
BETTER = {"lower": "↓", "higher": "↑", "": ""}


class Estimate(NamedTuple):
    """A number and its standard error, None where there is none."""

    value: float
    standard_error: float | None


@dataclass(frozen=True)
class Figure:
    """A number; `spread` is its uncertainty, `spread_of` the kind of that; `protocol` is all that it depends on.

    `details` are further numbers behind it, for the JSON alone.
    """

    name: str
    value: float
    better: str = "lower"
    spread: float | None = None
    spread_of: str = ""
    protocol: dict = field(default_factory=dict)
    details: dict = field(default_factory=dict)

    def __post_init__(self):
        assert self.better in BETTER
        if not math.isfinite(self.value):
            raise ValueError(f"{self.name} is {self.value}: the images' features are not finite")

    @property
    def text(self) -> str:
        return f"{self.value:.4f}" if self.spread is None else f"{self.value:.4f} ± {self.spread:.4f}"


def add_versions(figures: Sequence[Figure]) -> list[Figure]:
    """Add the versions of the libraries to the figures' protocols."""
    versions = {"python": platform.python_version()} | installed_versions(VERSIONS)
    return [replace(figure, protocol=figure.protocol | {"versions": versions}) for figure in figures]


def as_json(figures: Sequence[Figure], common: dict) -> dict:
    """Return {"figures": {name: ...}, ...}: each figure stands alone, with its whole protocol."""
    told = {
        figure.name: {
            "value": figure.value,
            "spread": figure.spread,
            "spread_of": figure.spread_of or None,
            "better": figure.better or None,
            "protocol": figure.protocol,
            **({"details": figure.details} if figure.details else {}),
        }
        for figure in figures
    }
    return {"figures": told, **common}


def as_markdown(figures: Sequence[Figure], common: dict) -> str:
    """Return a table of the figures, with the protocol of each beside it, and the shared protocol below."""
    shared = _shared([figure.protocol for figure in figures])
    lines = ["| figure | | value | ± | protocol |", "|---|---|---|---|---|"]
    for figure in figures:
        own = "; ".join(
            f"{name} {_text(value)}"
            for name, value in figure.protocol.items()
            if name not in shared and value is not None
        )
        lines.append(f"| {figure.name} | {BETTER[figure.better]} | {figure.text} | {figure.spread_of} | {own} |")
    lines += ["", *(f"- {name}: {_text(value)}" for name, value in shared.items() if value is not None)]
    lines += [f"- not computed, {name}: {reason}" for name, reason in common.get("not_computed", {}).items()]
    lines += [f"- warning: {warning}" for warning in common.get("warnings", [])]
    return "\n".join(lines) + "\n"


def _shared(protocols: Sequence[dict]) -> dict:
    """Return the entries that several protocols share and none contradicts; of a single one all."""
    said: dict[str, list] = {}
    for protocol in protocols:
        for name, value in protocol.items():
            said.setdefault(name, []).append(value)
    several = min(2, len(protocols))
    return {
        name: values[0]
        for name, values in said.items()
        if len(values) >= several and all(value == values[0] for value in values)
    }


def _text(value) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {inner}" for name, inner in value.items())
    return str(value).replace("|", "\\|")
