"""Write a run's model card: what the model is, learnt from, can and cannot do, as far as the run folder says.

python scripts/model_card.py RUN

Reads config.json, layout_statistics.json, progress.csv, the latest checkpoint, and figures of the evaluations in RUN.
"""

import argparse
from pathlib import Path


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument("run", type=Path, help="run folder of image_train.py")
    parser.add_argument("--out", type=Path, help="file to write instead of RUN/model_card.md")
    parser.add_argument(
        "--figures", type=Path, nargs="+", default=[], metavar="FILE", help="JSON files of evaluations, besides RUN's"
    )
    parser.add_argument("--preview", type=Path, help="a picture of samples to show instead of RUN's latest")
    arguments = parser.parse_args()

    from ..pages.model_card import write_card

    card = write_card(arguments.run, arguments.out, arguments.figures, arguments.preview)
    print(f"written: {card.resolve()}")
    return 0
