"""Measure the in/out ratio of one results folder: whether defects are drawn inside the boxes, and nowhere else.

    python evaluations/box_adherence.py RESULTS

RESULTS is a folder made by image_sample.py. Every layout is sampled once more with the same seed as a good part, the
product alone, and both images are compared. Reported, in grey levels of 255: the mean absolute difference over all
pixels inside boxes, over all outside, their ratio, the mean over each class's boxes, and the share of empty boxes: the
box's mean difference is under twice that outside the boxes of its image, or under 2 grey levels. The numbers are those
of `evaluate --metrics in_out_ratio`.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from ..system.command import argument_parser

if TYPE_CHECKING:
    from ..evaluation.metrics.in_out_ratio import InOut


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("results", type=Path, help="folder made by image_sample.py")
    parser.add_argument("--batch_size", type=int, default=16, help="good parts at a time (does not change them)")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    arguments = parser.parse_args()
    if arguments.batch_size < 1:
        raise ValueError(f"--batch_size {arguments.batch_size}: must be 1 or more")

    from ..evaluation.good_parts import pair_with_good_parts
    from ..evaluation.metrics.in_out_ratio import measure
    from ..run.checkpoint import write_text
    from ..system.device import pick_device

    pairs, settings = pair_with_good_parts(arguments.results, arguments.batch_size, pick_device(arguments.device))
    found = measure(pairs)
    show(found, settings)
    report = {
        "inside": found.inside,
        "outside": found.outside,
        "ratio": found.ratio,
        "empty_boxes": found.empty,
        "boxes": found.boxes,
        "empty_rate": found.empty_rate,
        "layouts": found.pictures,
        "per_class": found.per_class,
        "protocol": settings,
    }
    out = arguments.results / "box_adherence.json"
    write_text(out, json.dumps(report, indent=2) + "\n")
    print(f"written: {out.resolve()}")
    return 0


def show(found: "InOut", settings: dict) -> None:
    """Print the figures."""
    print(
        f"box adherence: {found.pictures} layouts, {found.boxes} boxes, {settings['sampler']} "
        f"{settings['timestep_respacing']}, s {settings['s']}, seed {settings['seed']}, "
        f"weights sha256 {settings['checkpoint_sha256'][:12]}"
    )
    print(f"  inside boxes   {found.inside:7.2f} grey levels")
    print(f"  outside boxes  {found.outside:7.2f} grey levels")
    print(f"  in/out ratio   {'none' if found.ratio is None else format(found.ratio, '.2f'):>7}")
    print(f"  empty boxes    {found.empty:4d} of {found.boxes} ({100 * found.empty_rate:.1f} %)")
    for label, figures in found.per_class.items():
        counts = f"in {figures['boxes']} boxes, {figures['empty']} empty"
        print(f"    {label:16s} {figures['difference']:7.2f} grey levels {counts}")
