"""Draw the built-in data set: grey surfaces of two products with five kinds of defects, as two VoTT exports.

python datasets/synthetic_sdi.py --out DIR    writes DIR/{train,val}/vott-json-export/ (PNGs beside the JSON)
"""

import argparse
from pathlib import Path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], allow_abbrev=False)
    parser.add_argument("--out", type=Path, required=True, help="folder to fill; created where missing")
    parser.add_argument("--num_train", type=int, default=600, help="training images")
    parser.add_argument("--num_val", type=int, default=64, help="validation images")
    parser.add_argument("--seed", type=int, default=0, help="the same seed gives the same bytes")
    parser.add_argument("--workers", type=int, default=2, help="threads; the images do not depend on it")
    args = parser.parse_args()

    # Imported only now, so that --help answers at once.
    from ..data.synthetic import generate

    generate(**vars(args))
