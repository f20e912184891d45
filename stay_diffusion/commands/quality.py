"""Score samples against the real training objects, and find copies of these.

    python evaluations/quality.py RESULTS [--reject_below 0.5] [--reject_copies]

RESULTS is a folder made by image_sample.py. A small classifier of crops (the classes, and "nothing there"), trained
once on the training split and kept in the run's folder as quality_gate.pt, gives each box the probability of its
label; where box_adherence.py has made the same samples as good parts, a box also has an object change, and its score is
the lesser of the two. An image's score is that of its worst box. The nearest training object of each image is found
too: whether it is a copy is decided by a threshold that hardly any real object of held-out pictures reaches.

Writes RESULTS/quality.jsonl, a line for each image, and RESULTS/quality.json, the sums and the protocol; with
--reject_below or --reject_copies also RESULTS/accepted.txt, the stems of the others, as --id_list takes them.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..system.command import argument_parser

if TYPE_CHECKING:
    from ..quality.gate import QualityGate


def show(figures: dict, gate: QualityGate) -> None:
    held = gate.protocol["held_out"]["objects"]
    right = f"right about {100 * held['accuracy']:.1f} % of" if held["accuracy"] is not None else "measured on"
    print(f"gate: {right} {held['crops']} held-out boxes, digest {gate.protocol['digest'][:12]}")
    print(f"quality: {figures['images']} images, {figures['boxes']} boxes in {figures['with_boxes']} of them;")
    print(f"  {figures['with_good_part']} have a good part to be held against (box_adherence.py makes them)")
    for name, values in figures["per_class"].items():
        print(f"    {name:16s} mean score {values['mean_score']:.3f} of {values['boxes']} boxes")
    if figures["mean_score"] is not None:
        print(f"  mean score of images with boxes {figures['mean_score']:.3f}")
        print("  below " + ", ".join(f"{t}: {100 * share:.1f} %" for t, share in figures["below"].items()))
    print(f"  near-copies (similarity of at least {gate.copy_threshold:.3f}): {figures['copies']}")
    print("  most alike  " + ", ".join(f"{stem} {similarity:.3f}" for stem, similarity in figures["most_alike"]))
    print("  best   " + ", ".join(figures["best"]))
    print("  worst  " + ", ".join(figures["worst"]))


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("results", type=Path, help="folder made by image_sample.py")
    parser.add_argument("--reject_below", type=float, default=0.0, help="least score of an image to be accepted")
    parser.add_argument("--reject_copies", action="store_true", help="near-copies of training objects are not accepted")
    parser.add_argument("--data_dir", default="", help="where the training data are, if not where they were")
    parser.add_argument("--device", default="", help="cpu, cuda, cuda:1 ...; empty: a GPU if there is one")
    arguments = parser.parse_args()
    if not 0 <= arguments.reject_below <= 1:
        raise ValueError(f"--reject_below {arguments.reject_below:g}: a score is from 0 to 1")

    # Imported only now, so that --help and mistyped flags answer at once.
    from ..data.manifest import read_run
    from ..quality.gate import summarise, write_quality
    from ..quality.results import run_of, score_all
    from ..quality.run_gate import gate_of_run
    from ..run.checkpoint import write_text
    from ..system.device import pick_device

    # The samples and the gate of their run
    folder = arguments.results
    by_index = read_run(folder)
    entries = [by_index[index] for index in sorted(by_index) if not by_index[index].rejected]
    if not entries:
        raise ValueError(f"{folder}: no manifest.jsonl with samples in it (image_sample.py makes such folders)")
    config, run_folder = run_of(folder / "manifest.jsonl", entries[0], arguments.data_dir)
    gate = gate_of_run(config, run_folder, pick_device(arguments.device))

    # Each image, then all together
    found = score_all(folder, entries, gate)
    figures = summarise(entries, found, gate)
    write_quality(folder, entries, found, gate)
    show(figures, gate)
    print(f"written: {(folder / 'quality.jsonl').resolve()}")

    # What of it to use
    if arguments.reject_below or arguments.reject_copies:
        accepted = [
            entry.stem + "\n"
            for entry, quality in zip(entries, found, strict=True)
            if quality.score >= arguments.reject_below and not (arguments.reject_copies and gate.is_copy(quality))
        ]
        write_text(folder / "accepted.txt", "".join(accepted))
        print(f"accepted: {len(accepted)} of {len(entries)}, {(folder / 'accepted.txt').resolve()}")
    return 0
