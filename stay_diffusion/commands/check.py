"""What is wrong with a data set, and what is in it, before training: reads every image and every box.

    python scripts/check_data.py --data_dir DATA --dataset_mode sdi --image_size 128

Exit status 0: clean; 1: problems, what is kept is still usable (--on_bad_data skip); 2: nothing can be used.
"""

import json
import sys
from collections import Counter
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ..config import DataConfig, ModelConfig, option
from ..config.flags import dump, parse

SHOWN = 3


@dataclass(frozen=True)
class CheckConfig:
    json: str = option("", "also write everything, every problem with its file, to this file")


@dataclass(frozen=True)
class CheckRun:
    """What check_data.py takes: where the data are, and for which model."""

    check: CheckConfig = CheckConfig()
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()


def main() -> int:
    run, _, switches = parse(CheckRun, __doc__)
    if switches["print_config"]:
        print(dump(run), end="")
        return 0

    from ..data.annotations import EmptySplit
    from ..data.checks import statistics, usable
    from ..data.problems import LEFT_OUT, Problem
    from ..run import factory
    from ..run.checkpoint import write_text
    from ..system import storage

    storage.check_writable_here("json", run.check.json)

    # Every split that there is
    found_wrong: dict[str, list[Problem]] = {}
    report: dict[str, Any] = {"images_kept": 0, "boxes_kept": 0, "problems": [], "classes": {}, "splits": {}}
    data = run.data
    for split in ("train", "val"):
        found_wrong[split] = []
        try:
            records, vocabulary = factory.read_split(data, split, found_wrong[split], select=data is run.data)
        except EmptySplit as error:
            print(f"{split}: {error}")
            continue
        except ValueError as error:
            print(f"error: {error}", file=sys.stderr)
            return 2
        # The validation split is read in the training split's names, as training reads it.
        data = factory.with_names(data, vocabulary)
        kept = usable(records, found_wrong[split], decode=True, value_range=data.black_and_white)
        found = statistics(kept, vocabulary, run.model.image_size, not run.model.no_instance)
        show_split(split, found, len(records), vocabulary, run.model.image_size)
        report["images_kept"] += found.images
        report["boxes_kept"] += found.boxes
        report["classes"] = dict(Counter(report["classes"]) + found.per_class)
        report["splits"][split] = {
            "images": found.images,
            "without_boxes": found.empty,
            "boxes": found.boxes,
            "classes": dict(found.per_class),
            "shorter_side": found.quantiles(),
            "under_2_pixels": found.tiny,
        }

    # What is wrong with them, once: where one folder holds both splits, its annotations were read twice
    problems = list((Counter(found_wrong["train"]) | Counter(found_wrong["val"])).elements())
    report["problems"] = [asdict(problem) for problem in problems]
    show_problems(problems)
    if run.check.json:
        text = json.dumps(report, indent=2) + "\n"
        write_text(Path(run.check.json), text)
        print(f"written: {Path(run.check.json).resolve()}")
    if not report["images_kept"]:
        return 2
    return int(any(problem.action != LEFT_OUT for problem in problems))


def show_split(split: str, found, num_records: int, vocabulary, image_size: int) -> None:
    print(f"{split}: {found.images} of {num_records} images, {found.empty} without boxes, {found.boxes} boxes")
    if products := ", ".join(vocabulary.products):
        print(f"  products: {products}")
    for name in vocabulary.classes:
        if found.per_class[name]:
            print(f"  {name:24s} {found.per_class[name]:7d}")
    if sides := found.quantiles():
        least, median, most = (100 * side for side in sides)
        print(f"  shorter side of a box, of the image's: {least:.1f} % to {most:.1f} %, median {median:.1f} %")
    if found.tiny:
        print(f"  {len(found.tiny)} boxes under 2 pixels at {image_size} x {image_size}, such as {found.tiny[0]}")


def show_problems(problems: list) -> None:
    counts = Counter((problem.kind, problem.action) for problem in problems)
    print(f"{len(problems)} problems" if problems else "no problems")
    for (kind, action), count in counts.most_common():
        print(f"  {count:6d}  {kind} ({action})")
        same = [problem for problem in problems if (problem.kind, problem.action) == (kind, action)]
        for problem in same[:SHOWN]:
            print(f"            {problem.file}: {problem.detail}")
