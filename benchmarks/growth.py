"""How time and memory grow: with the resolution, the number of objects, the batch, the number of pictures, the ranks.

    python benchmarks/growth.py [--parts resolution,objects,batch,images,ranks] [--small] [--doc docs/performance.md]

A training step (AdamW, averages and all) and one call of the network as a guided sampler makes it (s = 1.5, the layout
worked out before), both with made-up boxes, in float32, in this process with one thread. Times are medians of rounds
that take turns among all points of a series, so that a slow minute meets all of them alike. Beside them what is counted
and the same everywhere: floating-point operations (torch's counter: products, convolutions, attention) and the most
bytes of tensors that a step adds to weights, moments and averages.

`images` is start_up.py's, `ranks` scaling.py's table. With --doc the section "growth" of a document is replaced and
the curves are drawn beside it, in --assets. `rows` is line 12 of the table of speed.
"""

import copy
import os
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from counting import operations, peak_bytes
from document import around_section, replace_section
from line_chart import logarithmic_panel
from measuring import AT_MOST, Row, in_turn, machine, ratio, same
from subjects import NETWORKS, Network, Sampling, Training

from stay_diffusion.pages.svg import draw
from stay_diffusion.run.checkpoint import write_text
from stay_diffusion.system.command import argument_parser, run_command

CPU = torch.device("cpu")
FEW, MANY = 8, 128  # boxes, of the target
MOST_RATIO = 1.15
# Measured by others: by which script, with which words, and with which to be quick.
OTHERS = {
    "images": ("start_up.py", ("--images 1000,10000,100000", "--images 16,64")),
    "ranks": ("scaling.py", ("--steps 4 --rounds 3", "--preset tiny --steps 2 --rounds 1")),
}
KINDS = ("training", "sampling")
TITLES = {
    "resolution": "With the resolution",
    "objects": "With the number of objects",
    "batch": "With the batch",
    "images": "With the number of pictures",
    "ranks": "With the number of processes",
}
ROOT = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Series:
    """Steps at several places x, each a network, a batch and a number of objects."""

    title: str
    what_is_x: str
    points: Mapping[int, tuple[Network, int, int]]


@dataclass(frozen=True)
class Point:
    """At x: the median, the least and the most of seconds, counted operations and bytes of a step of one kind."""

    x: int
    kind: str
    seconds: float
    low: float
    high: float
    operations: int
    peak: int


def halved(image_size: int, channels: int) -> Network:
    """A network whose lowest resolution is 8 pixels, whatever the picture's."""
    levels = image_size.bit_length() - 3
    return Network(image_size, channels, ",".join(["1", *["2"] * (levels - 1)]))


def all_series(small: bool) -> dict[str, Series]:
    tiny, S, channels = NETWORKS["tiny"], NETWORKS["S"], 32
    sizes, numbers, batches = (
        ((16, 32), (0, 8), (1, 2)) if small else ((32, 64, 128, 256), (0, 8, 32, 128), (1, 2, 4, 8))
    )
    network, batch = (tiny, 1) if small else (S, 4)
    one = tiny if small else halved(64, channels)
    return {
        "resolution": Series(
            f"{channels} channels, twice as many below the first resolution, down to 8 px; batch 1, 8 objects",
            "pixels a side",
            {size: (halved(size, channels), 1, 8) for size in sizes},
        ),
        "objects": Series(
            f"{network}; batch {batch}", "objects a picture", {number: (network, batch, number) for number in numbers}
        ),
        "batch": Series(f"{one}; 8 objects", "pictures a batch", {number: (one, number, 8) for number in batches}),
    }


def measure(series: Series, rounds: int) -> list[Point]:
    """Every point of a series, training and sampling."""
    steps: dict[tuple[int, str], Callable] = {}
    states, models = {}, {}  # one for each network
    for x, (network, batch, objects) in series.points.items():
        training = Training(network.config(batch), CPU, objects, state=states.get(network))
        sampling = Sampling(network.config(batch), CPU, objects, model=models.get(network))
        states[network], models[network] = training.state, sampling.model
        steps[x, "training"], steps[x, "sampling"] = training.step, sampling.step
    seconds = in_turn(steps, rounds)
    found = []
    for (x, kind), step in steps.items():
        middle, low, high = ratio(seconds[x, kind], [1.0] * rounds)
        found.append(Point(x, kind, middle, low, high, operations(step), peak_bytes(step, CPU)))
    return found


def as_table(series: Series, points: Sequence[Point]) -> str:
    lines = [
        f"{series.title}.\n",
        f"| {series.what_is_x} | step | ms | least to most | GFLOP | GFLOP/s | MB |",
        "|---|---|---|---|---|---|---|",
    ]
    for p in points:
        times = f"{1000 * p.seconds:.3g} | {1000 * p.low:.3g} to {1000 * p.high:.3g}"
        rate = f"{p.operations / 1e9:.3g} | {p.operations / p.seconds / 1e9:.3g}"
        lines.append(f"| {p.x} | {p.kind} | {times} | {rate} | {p.peak / 1e6:.3g} |")
    return "\n".join(lines) + "\n"


def as_chart(series: Series, points: Sequence[Point]) -> str:
    """Time, operations and memory of both kinds of step."""

    def lines(value: Callable[[Point], float]) -> dict:
        return {kind: [(p.x, value(p)) for p in points if p.kind == kind] for kind in KINDS}

    values = {
        "ms a step": lines(lambda p: 1000 * p.seconds),
        "GFLOP a step, counted": lines(lambda p: p.operations / 1e9),
        "MB a step adds": lines(lambda p: p.peak / 1e6),
    }
    return draw([logarithmic_panel(title, of_kinds, series.what_is_x) for title, of_kinds in values.items()])


def rows(rounds: int = 7, network: str = "S", batch_size: int = 4) -> list[Row]:
    """Row 12: a training step with 128 boxes in each picture against one with 8."""
    config = NETWORKS[network].config(batch_size)
    few = Training(config, CPU, FEW)
    many = Training(config, CPU, MANY, state=few.state)
    held = padding_changes_nothing(few)
    seconds = in_turn({"few": few.step, "many": many.step}, rounds)
    middle, low, high = ratio(seconds["many"], seconds["few"])
    counted = operations(many.step) / operations(few.step)
    return [
        Row(
            number="12",
            what=f"training step with {MANY} boxes a picture against {FEW} ({network})",
            sense=AT_MOST,
            target=MOST_RATIO,
            ratio=middle,
            low=low,
            high=high,
            protocol=f"{NETWORKS[network]}, batch {batch_size}, isla_bg, float32, same weights, {rounds} rounds, CPU",
            held=held,
            details={"seconds": seconds, "operations": counted},
        )
    ]


@torch.no_grad()
def padding_changes_nothing(training: Training) -> str:
    """That the number of boxes alone, more of them padding, does not change what the network says."""
    model, (images, layout) = copy.deepcopy(training.state.model), training.batch
    generator = torch.Generator().manual_seed(0)
    for parameter in model.parameters():  # a new network's last layer is zero, and its layout does nothing yet
        parameter.normal_(std=0.05, generator=generator)
    t = torch.full((len(images),), 500)
    plain, padded = (model(images, t, layout=each) for each in (layout, layout.pad(MANY)))
    return same(padded, plain, 1e-4, f"outputs with {FEW} boxes and with these padded to {MANY}")


def told_by(script: str, words: str) -> str:
    """What another benchmark prints, from a process of its own: this one's size would hide what a smaller one takes."""
    command = [sys.executable, str(Path(__file__).with_name(script)), *words.split()]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def measured_text(parts: Sequence[str], small: bool, rounds: int, charts: Callable[[str, str], str]) -> str:
    """The tables of the parts, each with the link to its curves that `charts` gives for a name and an SVG."""
    told = [", ".join(f"{key} {value}" for key, value in machine().items()) + f"; {rounds} rounds.\n"]
    kinds = all_series(small)
    for part in parts:
        told.append(f"### {TITLES[part]}\n")
        if part in kinds:
            points = measure(kinds[part], rounds)
            told += [as_table(kinds[part], points), charts(f"growth_{part}", as_chart(kinds[part], points))]
        else:
            script, words = OTHERS[part]
            told.append(told_by(script, words[small]))
        print("\n".join(told[-3:]), flush=True)
    return "\n".join(told)


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--parts", default=",".join(TITLES))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--small", action="store_true", help="tiny networks: seconds, to see that it works")
    parser.add_argument("--doc", type=Path, help="replace the section between the marks of this document")
    parser.add_argument("--assets", type=Path, default=ROOT / "assets", help="where the curves of --doc go")
    arguments = parser.parse_args()
    parts = [word for word in arguments.parts.split(",") if word]
    for part in parts:
        if part not in TITLES:
            raise ValueError(f"--parts {part}: choose from {', '.join(TITLES)}")
    if arguments.doc:
        around_section(arguments.doc, "growth")  # before the minutes, not after them
    torch.set_num_threads(1)

    def charts(name: str, drawn: str) -> str:
        if not arguments.doc:
            return ""
        file = arguments.assets / f"{name}.svg"
        write_text(file, drawn)
        place = os.path.relpath(file.resolve(), arguments.doc.resolve().parent)
        return f"![time, operations and memory]({place})\n"

    text = measured_text(parts, arguments.small, arguments.rounds, charts)
    if arguments.doc:
        replace_section(arguments.doc, "growth", text)
    return 0


if __name__ == "__main__":
    run_command(main)
