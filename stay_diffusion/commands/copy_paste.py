"""Make the copy-paste baseline for synthetic images: real defects pasted onto other real images.

python evaluations/copy_paste.py --data_dir DATA --out OUTPUT/copy_paste --num 300

Each image is a training image with its own defects, or a defect-free one (--backgrounds). Crops of other training
images' defects are pasted onto it, their edges feathered, clear of the objects that are there. The folder is one as
image_sample.py makes it: samples/ with their annotations, manifest.jsonl, preview.png. After an interruption the same
command continues.
"""

import argparse
from pathlib import Path

from ..config import DataConfig
from ..config.data import DATASET_MODES
from ..system.command import argument_parser


def main() -> int:
    args = parse_arguments()

    # Imported only now, so that --help answers at once.
    from tqdm import tqdm

    from ..data.images import to_pil, to_tensor
    from ..detector import copy_paste
    from ..detector import data as detector_data
    from ..sampling.results import ResultsFolder

    data = DataConfig(str(args.data_dir), args.dataset_mode, val_fraction=args.val_fraction)
    records, vocabulary = detector_data.read(data, "train")
    donors = copy_paste.hosts_of(detector_data.choose(records, args.num_real), vocabulary, data)
    if not any(len(donor.example.labels) for donor in donors):
        raise ValueError(f"--data_dir {args.data_dir}: no training picture has an object to paste")
    hosts = copy_paste.backgrounds(args.backgrounds) if args.backgrounds else donors

    plans = [
        copy_paste.plan(hosts, donors, args.feather, args.most, copy_paste.rng_of(args.seed, index))
        for index in range(args.num)
    ]
    items = [plan.item(index, vocabulary) for index, plan in enumerate(plans)]
    settings = {name: getattr(args, name) for name in ("seed", "feather", "most", "num_real")}
    results = ResultsFolder(args.out, vocabulary)
    done = results.done(items, settings)
    results.open()
    for index in tqdm(sorted(set(range(args.num)) - done), unit="picture", disable=None):
        plan = plans[index]
        pasted = copy_paste.paste_all(plan, args.feather)
        image = to_pil(to_tensor(pasted, copy_paste.channels_of(plan.host)))
        results.add(index, items[index], image, settings, extra=copy_paste.provenance(plan, settings))
    results.finish(items, save_npz=False)
    objects = sum(len(plan.pastes) for plan in plans)
    print(f"{args.num} pictures with {objects} pasted objects: {args.out.resolve()}")
    return 0


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--data_dir", type=Path, required=True, help="data set: its train split alone is used")
    parser.add_argument("--dataset_mode", choices=DATASET_MODES, default="sdi", help="its format")
    parser.add_argument("--val_fraction", type=float, default=0.1, help="share held out where it has no val folder")
    parser.add_argument("--num_real", type=int, default=0, help="use so many of the images, always the same; 0: all")
    parser.add_argument("--backgrounds", type=Path, help="folder of defect-free images to paste onto instead")
    parser.add_argument("--out", type=Path, required=True, help="the folder to write")
    parser.add_argument("--num", type=int, required=True, help="images to make")
    parser.add_argument("--most", type=int, default=0, help="most pasted objects in an image; 0: no limit")
    parser.add_argument("--feather", type=int, default=4, help="pixels around a box over which its crop fades")
    parser.add_argument("--seed", type=int, default=0, help="image i is drawn from (seed, i)")
    args = parser.parse_args()
    for name, least in (("num", 1), ("num_real", 0), ("most", 0), ("feather", 0), ("seed", 0)):
        if getattr(args, name) < least:
            raise ValueError(f"--{name} {getattr(args, name)}: must be {least} or more")
    return args
