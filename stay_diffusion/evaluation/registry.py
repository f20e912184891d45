"""The metrics by name, without importing them: every list of metric names comes from here."""

import logging
from collections.abc import Iterable

# The module in metrics/ of each; its METRIC is what evaluate computes.
METRICS = {
    "fid": "fid",
    "kid": "kid",
    "is": "inception_score",
    "sfid": "sfid",
    "prdc": "prdc",
    "scene_fid": "scene_fid",
    "lpips": "lpips",
    "cas": "cas",
    "recognised": "recognised",
    "yolo_score": "yolo_score",
    "in_out_ratio": "in_out_ratio",
    "nll": "nll",
}
OLD_NAMES = {"adherence": "in_out_ratio"}


def resolve_names(names: Iterable[str], flag: str) -> tuple[str, ...]:
    """Return each metric once under its present name; ValueError for an unknown one."""
    found = []
    for name in names:
        if name in OLD_NAMES:
            logging.getLogger("stay_diffusion").warning("--%s %s: now called %s", flag, name, OLD_NAMES[name])
        elif name not in METRICS:
            raise ValueError(f"--{flag} {name}: choose from {', '.join(METRICS)}")
        found.append(OLD_NAMES.get(name, name))
    return tuple(dict.fromkeys(found))
