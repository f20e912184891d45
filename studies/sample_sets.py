"""Generated pictures between real ones and none: sets of samples side by side, each measured by evaluate.py.

    python studies/sample_sets.py --model_path RUN/ema_0.998.pt --data_dir DEEPPCB --out OUTPUT/sample_sets

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
import re
from dataclasses import replace
from pathlib import Path

from reporting import SCALE, cell, run, write_report
from windows import halves, write_set

from stay_diffusion.config import RunConfig
from stay_diffusion.data.annotations import ImageRecord
from stay_diffusion.quality.run_gate import NAME as GATE
from stay_diffusion.quality.run_gate import gate_of_run
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import sha256
from stay_diffusion.system.command import argument_parser, run_command
from stay_diffusion.system.tables import markdown_table

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
    make_sets(out, reference, compared, config, arguments)
    files = train_judges(out, config, arguments)
    found = {name: measure(out, name, files, config, arguments) for name in SETS}
    write_report(
        out, "sample_sets", protocol(arguments, config, (reference, compared), files), table(found), {"sets": found}
    )
    return 0


def make_sets(
    out: Path, reference: list[ImageRecord], compared: list[ImageRecord], config: RunConfig, arguments
) -> None:
    """Write the reference and the compared sets; existing samples are kept."""
    templates = {record.path: template_of(arguments.templates, record.path) for record in compared}
    write_set(out / "reference", reference, config, arguments.num)
    write_set(out / "real", compared, config, arguments.num)
    sampling = ["--num_steps", arguments.num_steps, "--s", arguments.s, "--precision", arguments.precision]
    layouts = ["--layouts", out / "real/manifest.jsonl", "--results_path", out / "generated"]
    run("sample", "--model_path", arguments.model_path, *layouts, *sampling)
    link_all(out / "backgrounds", templates.values())
    pasted = out / "copy_paste_pictures"
    words = ["--backgrounds", out / "backgrounds", "--num", len(compared), "--out", pasted]
    run("copy-paste", "--data_dir", arguments.data_dir, *words)
    write_set(out / "copy_paste", records_of(pasted / "samples", config), config, arguments.num)
    bare = [replace(record, path=templates[record.path]) for record in compared]
    write_set(out / "nothing", bare, config, arguments.num)


def train_judges(out: Path, config: RunConfig, arguments) -> dict[str, Path]:
    """Return the files of features, detector and gate; missing ones are trained on the training images."""
    run_folder = arguments.model_path.parent
    files = {"features": out / "features.pt", "detector": out / "detector/detector.pt", "gate": run_folder / GATE}
    gate_of_run(config, run_folder)
    if not files["features"].is_file():
        words = ["--run", run_folder, "--data_dir", arguments.data_dir, "--out", files["features"]]
        run("features", *words, "--steps", arguments.feature_steps)
    if not files["detector"].is_file():
        words = ["--data_dir", arguments.data_dir, "--out", out / "detector", "--steps", arguments.detector_steps]
        run("detector", *words, "--crop_size", config.model.image_size, "--batch_size", 32)
    return files


def measure(out: Path, name: str, files: dict[str, Path], config: RunConfig, arguments) -> dict:
    """Return evaluate's report of a set against the reference."""
    words = ["--samples", out / name, "--reference", out / "reference", "--features", f"trained:{files['features']}"]
    words += ["--detector", files["detector"], "--gate", files["gate"], "--random_flip", config.data.random_flip]
    words += ["--cas_seeds", arguments.cas_seeds, "--cas_steps", arguments.cas_steps, "--feature_cache", "off"]
    report = out / f"{name}.json"
    run("evaluate", *words, "--json", report, "--metrics", METRICS, fine=(0, INCOMPLETE))
    return json.loads(report.read_text())


def records_of(folder: Path, config: RunConfig) -> list[ImageRecord]:
    """All pictures of a folder with a VoTT export."""
    data = replace(config.data, data_dir=str(folder), dataset_mode="sdi", val_fraction=0.0, id_list="", class_map=())
    return factory.read_split(data, "train")[0]


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
    facts = {
        "windows": f"{arguments.num} of {size} x {size} pixels, {channels} channels, in each set",
        "reference": f"of {len(parts[0])} validation pictures; the sets are of the other {len(parts[1])}",
        "model": f"{arguments.model_path.name}, sha256 {sha256(arguments.model_path)[:12]}",
        "sampling": f"{arguments.num_steps} steps, s {arguments.s:g}, {arguments.precision}",
        "CAS": f"{arguments.cas_seeds} classifiers of {arguments.cas_steps} steps",
    }
    return facts | {name: f"sha256 {sha256(file)[:12]}" for name, file in files.items()}


def table(found: dict[str, dict]) -> str:
    """Return a Markdown table: a row for each set, a column for each figure."""
    rows = []
    for name, label in SETS.items():
        figures = found[name]["figures"]
        words = (re.search(r"detection score \((.*?)\)", figure) for figure in figures)
        detector = next((word[1] for word in words if word), "")
        rows.append([label, *(cell(figures.get(key.format(detector)), DECIMALS.get(key, 3)) for key in COLUMNS)])
    return markdown_table(["set", *COLUMNS.values()], rows)


def parse_arguments() -> argparse.Namespace:
    parser = argument_parser(__doc__)
    parser.add_argument("--model_path", type=Path, required=True, help="weights in a run folder")
    parser.add_argument("--data_dir", type=Path, required=True, help="data set with train and val")
    parser.add_argument("--templates", type=Path, help="defect-free pictures; by default val/templates in the data set")
    parser.add_argument("--out", type=Path, required=True, help="folder for the sets and their figures")
    parser.add_argument("--num", type=int, default=300, help="windows in each set")
    parser.add_argument("--num_steps", type=int, default=20, help="of sampling")
    parser.add_argument("--s", type=float, default=SCALE, help="guidance of sampling")
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
