"""The metric of images of one layout among themselves."""

from pathlib import Path

import numpy as np

from .comparison import Comparison, file_facts
from .features.lpips_network import find_backbone, find_linear, load_model
from .figures import Figure
from .metric import Metric
from .metrics import diversity


def check_lpips(comparison: Comparison) -> None:
    comparison.groups  # noqa: B018, said where there are none
    lpips_files(comparison)


def lpips_files(comparison: Comparison) -> tuple[Path, Path]:
    """The linear layers and the backbone."""
    options = comparison.options
    given = [Path(name) if name else None for name in (options.lpips_weights, options.backbone_weights)]
    return find_linear(options.lpips_net, given[0]), find_backbone(options.lpips_net, given[1])


def measure_lpips(comparison: Comparison) -> list[diversity.Distances]:
    options, device = comparison.options, comparison.reading.device
    model = load_model(options.lpips_net, *lpips_files(comparison)).to(device)
    compat = options.lpips_compat or None
    return diversity.measure(model, comparison.groups, options.lpips_size, compat, device, comparison.world)


def lpips(comparison: Comparison, distances: list[diversity.Distances]) -> list[Figure]:
    """DS; identical images of one layout are warned of by the 0 that they give."""
    options, groups = comparison.options, comparison.groups
    found = diversity.summarise(groups, distances)
    linear, backbone = lpips_files(comparison)
    images = sorted({len(images) for _, images in groups})
    told = comparison.facts(with_reference=False) | {
        "layouts": len(groups),
        "images_per_layout": ", ".join(map(str, images)),
        "net": f"{options.lpips_net} v0.1",
        **file_facts(linear=linear, backbone=backbone),
        "resize": diversity.resize_rule(options.lpips_size, options.lpips_compat or None),
    }
    spread = found["ds_std_over_layouts"] / np.sqrt(len(groups))
    return [Figure("DS (LPIPS)", found["ds"], "higher", float(spread), "standard error over layouts", told, found)]


DIVERSITY_METRICS: dict[str, Metric] = {"lpips": Metric(check_lpips, measure_lpips, lpips)}
