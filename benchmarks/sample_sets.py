"""Generated pictures between real ones and none: sets of samples side by side, each measured by evaluate.py.

    python benchmarks/sample_sets.py --model_path RUN/ema_0.998.pt --data_dir DEEPPCB --out OUTPUT/sample_sets

The validation pictures are halved. Windows of the model's size, cut from the first half as training cuts them, are what
all sets are held against. The sets, of as many windows each: real ones of the second half, the best to be had; samples
of the model at the same layouts; crops of training pictures' objects pasted onto defect-free templates of the second
half (copy_paste.py), cut in the same way; those templates themselves with the layouts of the real windows, where
nothing is what the labels say. Features, detector and quality gate learn from the training pictures alone. What an
interrupted comparison has made is kept. Prints the protocol and a table, and writes both to OUT/sample_sets.md and
all figures with their protocols to OUT/sample_sets.json.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from PIL import Image

from stay_diffusion.config import RunConfig
from stay_diffusion.data.annotations import ImageRecord, label_boxes
from stay_diffusion.data.images import to_pil
from stay_diffusion.layouts.items import LayoutItem
from stay_diffusion.quality.run_gate import NAME as GATE
from stay_diffusion.quality.run_gate import gate_of_run
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import atomic_write, sha256
from stay_diffusion.sampling.results import ResultsFolder
from stay_diffusion.system.command import run_command

ROOT = Path(__file__).resolve().parents[1]
INCOMPLETE = 3  # evaluate.py's exit code where a metric could not be had
METRICS = "fid,kid,prdc,recognised,cas,yolo_score"
SETS = {  # in the table's order
    "real": "real windows",
    "generated": "generated",
    "copy_paste": "copy-paste",
    "nothing": "templates without defects",
}
COLUMNS = {  # figures of evaluate.py, {} being the detector's name
    "FD-own": "FD-own ↓",
    "KID-own": "KID-own ↓",
    "precision-own": "precision ↑",
    "recall-own": "recall ↑",
    "density-own": "density ↑",
    "coverage-own": "coverage ↑",
    "class probability": "class probability ↑",
    "recognised boxes": "recognised boxes ↑",
    "CAS": "CAS ↑",
    "detection score ({}), mAP": "detection mAP ↑",
    "detection score ({}), AP50": "AP50 ↑",
    "detection score ({}), recall at 0.50": "recall at 0.50 ↑",
}
DECIMALS = {"FD-own": 2, "KID-own": 4}  # of the table; the others have 3


def main() -> int:
    arguments = parse_arguments()
    out = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    config = factory.trained_config(
        arguments.model_path, {"data_dir": str(arguments.data_dir.resolve())}, RunConfig(), "model_path"
    )
    reference, compared = halves(config)
    templates = {record.path: template_of(arguments.templates, record.path) for record in compared}

    # The sets
    write_set(out / "reference", reference, config, arguments.num)
    write_set(out / "real", compared, config, arguments.num)
    sampling = ["--num_steps", arguments.num_steps, "--s", arguments.s, "--precision", arguments.precision]
    layouts = ["--layouts", out / "real/manifest.jsonl", "--results_path", out / "generated"]
    run("scripts/image_sample.py", "--model_path", arguments.model_path, *layouts, *sampling)
    link_all(out / "backgrounds", templates.values())
    pasted = out / "copy_paste_pictures"
    words = ["--backgrounds", out / "backgrounds", "--num", len(compared), "--out", pasted]
    run("evaluations/copy_paste.py", "--data_dir", arguments.data_dir, *words)
    write_set(out / "copy_paste", records_of(pasted / "samples", config), config, arguments.num)
    bare = [replace(record, path=templates[record.path]) for record in compared]
    write_set(out / "nothing", bare, config, arguments.num)

    # What measures them
    features, detector, gate = out / "features.pt", out / "detector/detector.pt", arguments.model_path.parent / GATE
    gate_of_run(config, arguments.model_path.parent)
    if not features.is_file():
        words = ["--run", arguments.model_path.parent, "--data_dir", arguments.data_dir, "--out", features]
        run("evaluations/train_features.py", *words, "--steps", arguments.feature_steps)
    if not detector.is_file():
        words = ["--data_dir", arguments.data_dir, "--out", detector.parent, "--steps", arguments.detector_steps]
        run("evaluations/train_detector.py", *words, "--crop_size", config.model.image_size, "--batch_size", 32)

    # The figures
    found = {}
    for name in SETS:
        words = ["--samples", out / name, "--reference", out / "reference", "--features", f"trained:{features}"]
        words += ["--detector", detector, "--gate", gate, "--random_flip", config.data.random_flip]
        words += [
            "--cas_seeds",
            arguments.cas_seeds,
            "--cas_steps",
            arguments.cas_steps,
            "--feature_cache",
            "off",
            "--json",
            out / f"{name}.json",
        ]
        run("evaluations/evaluate.py", *words, "--metrics", METRICS, fine=(0, INCOMPLETE))
        found[name] = json.loads((out / f"{name}.json").read_text())

    # Told
    told = protocol(
        arguments, config, (reference, compared), {"features": features, "detector": detector, "gate": gate}
    )
    text = "".join(f"- {name}: {value}\n" for name, value in told.items()) + f"\n{table(found)}"
    print(f"\n{text}", end="")
    report = json.dumps({"protocol": told, "sets": found}, indent=2) + "\n"
    for file, content in (("sample_sets.md", text), ("sample_sets.json", report)):
        atomic_write(out / file, lambda opened, content=content: opened.write(content.encode()))
    print(f"written: {out / 'sample_sets.json'}")
    return 0


def run(script: str, *words, fine: Sequence[int] = (0,)) -> None:
    ended = subprocess.run([sys.executable, str(ROOT / script), *map(str, words)])
    if ended.returncode not in fine:
        raise ValueError(f"{script} ended with {ended.returncode}, see above")


def halves(config: RunConfig) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """The validation pictures in two halves, always the same, that no picture is in both of."""
    records, _ = factory.read_split(config.data, "val")
    if len(records) < 4:
        raise ValueError(f"--data_dir {config.data.data_dir}: {len(records)} validation pictures are too few to halve")
    order = np.random.default_rng(0).permutation(len(records))
    parts = order[: len(records) // 2], order[len(records) // 2 :]
    first, second = ([records[i] for i in sorted(part)] for part in parts)
    return first, second


def records_of(folder: Path, config: RunConfig) -> list[ImageRecord]:
    """All pictures of a folder with a VoTT export."""
    data = replace(config.data, data_dir=str(folder), dataset_mode="sdi", val_fraction=0.0, id_list="", class_map=())
    return factory.read_split(data, "train")[0]


def windows(records: list[ImageRecord], config: RunConfig, num: int) -> Iterator[tuple[LayoutItem, Image.Image]]:
    """`num` windows as training sees them, not mirrored: each picture once, then each once more, cut elsewhere."""
    dataset = factory.build_dataset(records, config, augment=False)
    names = dataset.vocabulary
    for number in range(num):
        look, index = divmod(number, len(records))
        image, boxes, labels, product, _ = dataset.sample(index, look)
        objects = label_boxes(boxes, labels, names.classes)
        stem = f"{records[index].stem}_{look}"
        product = names.products[product - 1] if product > 0 else None
        yield LayoutItem(stem, product, objects, str(records[index].path)), to_pil(image)


def write_set(folder: Path, records: list[ImageRecord], config: RunConfig, num: int) -> None:
    """The windows of these pictures as image_sample.py leaves samples; those that are there already stay."""
    made = list(windows(records, config, num))
    items = [item for item, _ in made]
    results, settings = ResultsFolder(folder, factory.vocabulary_of(config)), {"made_by": "benchmarks/sample_sets.py"}
    done = results.done(items, settings)
    results.open()
    for index, (item, image) in enumerate(made):
        if index not in done:
            results.add(index, item, image, settings)
    results.finish(items, save_npz=False)


def template_of(templates: Path, picture: Path) -> Path:
    found = templates / picture.name.replace("_test", "_temp")
    if not found.is_file():
        raise ValueError(f"--templates {templates}: has no {found.name}, the defect-free picture of {picture.name}")
    return found


def link_all(folder: Path, files) -> None:
    folder.mkdir(exist_ok=True)
    for file in files:
        link = folder / file.name
        if not link.is_symlink():
            link.symlink_to(file.resolve())


def protocol(arguments, config: RunConfig, parts: tuple[list, list], files: dict[str, Path]) -> dict[str, str]:
    size, channels = config.model.image_size, config.model.image_channels
    told = {
        "windows": f"{arguments.num} of {size} x {size} pixels, {channels} channels, in each set",
        "reference": f"of {len(parts[0])} validation pictures; the sets are of the other {len(parts[1])}",
        "model": f"{arguments.model_path.name}, sha256 {sha256(arguments.model_path)[:12]}",
        "sampling": f"{arguments.num_steps} steps, s {arguments.s:g}, {arguments.precision}",
        "CAS": f"{arguments.cas_seeds} classifiers of {arguments.cas_steps} steps",
    }
    return told | {name: f"sha256 {sha256(file)[:12]}" for name, file in files.items()}


def table(found: dict[str, dict]) -> str:
    """Markdown: a row for each set, a column for each figure."""
    rows = [["set", *COLUMNS.values()], ["---"] * (1 + len(COLUMNS))]
    for name, label in SETS.items():
        figures = found[name]["figures"]
        rows.append([label, *(cell(column, figures) for column in COLUMNS)])
    return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def cell(column: str, figures: dict) -> str:
    detector = next((name[name.index("(") + 1 : name.index(")")] for name in figures if "detection score" in name), "")
    figure, digits = figures.get(column.format(detector)), DECIMALS.get(column, 3)
    if figure is None:
        return "-"
    spread = "" if figure["spread"] is None else f" ± {figure['spread']:.{digits}f}"
    return f"{figure['value']:.{digits}f}{spread}"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--model_path", type=Path, required=True, help="weights in a run folder")
    parser.add_argument("--data_dir", type=Path, required=True, help="data set with train and val")
    parser.add_argument("--templates", type=Path, help="defect-free pictures; by default val/templates in the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sets and their figures")
    parser.add_argument("--num", type=int, default=300, help="windows in each set")
    parser.add_argument("--num_steps", type=int, default=20, help="of sampling")
    parser.add_argument("--s", type=float, default=1.5, help="guidance of sampling")
    parser.add_argument("--precision", default="auto", help="of sampling")
    parser.add_argument("--feature_steps", type=int, default=600, help="of train_features.py")
    parser.add_argument("--detector_steps", type=int, default=600, help="of train_detector.py")
    parser.add_argument("--cas_seeds", type=int, default=3, help="classifiers behind CAS")
    parser.add_argument("--cas_steps", type=int, default=500, help="optimizer steps of each")
    arguments = parser.parse_args()
    arguments.templates = arguments.templates or arguments.data_dir / "val/templates"
    return arguments


if __name__ == "__main__":
    run_command(main)
