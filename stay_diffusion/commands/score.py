"""Score a detector on a data set: COCO's mean average precision, AP50 and recall, per class.

python evaluations/detection_score.py DATA --detector OUTPUT/detector/detector.pt

DATA is a data set, or a folder that image_sample.py has made: then the metrics say whether a detector trained on real
images recognises what was drawn, where it was asked for (as YOLOScore does). pycocotools computes them.
"""

import argparse
import json
from dataclasses import asdict
from pathlib import Path

from ..config import DataConfig
from ..config.data import DATASET_MODES
from ..system.command import argument_parser


def main() -> int:
    args = parse_arguments()

    # Imported only now, so that --help answers at once.
    from ..detector import data as detector_data
    from ..detector import networks
    from ..detector import score as scoring
    from ..run.checkpoint import sha256, write_text
    from ..system.device import pick_device
    from ..system.versions import installed_versions

    detector = networks.load(args.detector, pick_device(args.device))
    data = DataConfig(
        str(args.data),
        args.dataset_mode,
        classes=detector.classes,
        product_tags=detector.products,
        val_fraction=args.val_fraction,
    )
    records, vocabulary = detector_data.read(data, args.split)
    items = detector_data.examples(records, vocabulary, data)
    found, score = scoring.score_detector(detector, items)

    print(f"{len(items)} pictures, detector {detector.name}, sha256 {sha256(args.detector)[:12]}")
    print(scoring.table(score))
    protocol = {
        "data": str(args.data.resolve()),
        "split": args.split,
        "images": len(items),
        "detector": str(args.detector.resolve()),
        "detector_sha256": sha256(args.detector),
        "versions": installed_versions(scoring.VERSIONS),
    }
    for path, content in (
        (args.json, asdict(score) | {"protocol": protocol}),
        (args.detections, scoring.detections_json(found, items, detector.classes)),
    ):
        if path:
            write_text(path, json.dumps(content, indent=2) + "\n")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("data", type=Path, help="data set, or folder made by image_sample.py")
    parser.add_argument("--detector", type=Path, required=True, help="detector.pt, as train_detector.py writes it")
    parser.add_argument("--dataset_mode", choices=DATASET_MODES, default="sdi", help="the format of a data set")
    parser.add_argument("--split", choices=("val", "train"), default="val", help="the split of a data set to score on")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share held out where there is no val folder")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the metrics and their protocol")
    parser.add_argument("--detections", type=Path, metavar="OUT", help="also write the detections, as COCO's results")
    args = parser.parse_args()
    for name in ("json", "detections"):
        path = getattr(args, name)
        if path and not path.resolve().parent.is_dir():
            raise ValueError(f"--{name} {path}: no such folder")
    return args
