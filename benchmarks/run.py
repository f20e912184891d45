"""All that SPEED promises, measured: one table of ratios against their targets, and benchmarks/results/DEVICE.json.

    python benchmarks/run.py [--rows 1,3,12] [--doc docs/performance.md] [--small]

Each row is measured by the benchmark of its name, which says how and can be run alone; a row that needs a GPU is
measured by benchmarks/gpu.py where there is one. Of rows that are not asked for, the last figures on this device are
shown; of the others it is told which agree with these, their spreads meeting. 13 minutes on two CPU cores; leave the
machine alone meanwhile. Ends with 1 where a target is missed.
"""

import dataclasses
import gc
import json
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import command_line
import finished_image
import gpu
import growth
import inception_speed
import loader
import sampling_step
import scaling
import torch
import training_step
from document import around_section, replace_section
from measuring import Row, machine, table

from stay_diffusion.run.checkpoint import write_text
from stay_diffusion.system.command import argument_parser, run_command
from stay_diffusion.system.device import keep_freed_memory

RESULTS = Path(__file__).resolve().parent / "results"
ONE_THREAD = {"1", "3", "4", "6", "12"}

MEASURES: dict[str, Callable[[], list[Row]]] = {  # by the first row that each measures
    "1": training_step.rows,  # 2 and 5 too
    "3": sampling_step.rows,
    "4": finished_image.rows,
    "6": loader.rows,
    "7": command_line.rows,
    "8": scaling.rows,  # 9 too
    "10": inception_speed.rows,
    "12": growth.rows,
}
SMALL: dict[str, Callable[[], list[Row]]] = {  # seconds, to see that it works
    "1": partial(training_step.rows, ("tiny",), 2),
    "3": partial(sampling_step.rows, "tiny", 2),
    "6": partial(loader.rows, 2, 4),
    "7": partial(command_line.rows, 2),
    "8": partial(scaling.rows, 2, 2, "tiny"),
    "12": partial(growth.rows, 2, "tiny", 1),
}


def read_rows(kept: Sequence[dict]) -> list[Row]:
    """The rows that an earlier run has left."""
    names = {field.name for field in dataclasses.fields(Row)}
    return [Row(**{key: value for key, value in row.items() if key in names}) for row in kept]


def by_name(rows: Sequence[Row]) -> dict[tuple[str, str], Row]:
    return {(row.number, row.what): row for row in rows}


def with_earlier(found: Sequence[Row], earlier: Sequence[Row]) -> list[Row]:
    """The rows found, and others of an earlier run, all by their numbers."""
    kept = [row for name, row in by_name(earlier).items() if name not in by_name(found)]
    return sorted([*found, *kept], key=lambda row: int(row.number))


def against_earlier(found: Sequence[Row], earlier: Sequence[Row]) -> str:
    """How many of the measured rows agree with an earlier run, and which do not."""
    before, now = (by_name([row for row in rows if row.ratio is not None]) for rows in (earlier, found))
    pairs = [(before[name], row) for name, row in now.items() if name in before]
    others = [
        f"\n- {row.number}, {row.what}: {old.ratio:.3g} before, now {row.ratio:.3g}"
        for old, row in pairs
        if not row.agrees(old)
    ]
    return f"{len(pairs) - len(others)} of {len(pairs)} rows agree with the run before{''.join(others)}\n"


def as_text(about: dict, found: Sequence[Row]) -> str:
    """The machine, the table, and below it how each row was measured, said once for those that share it."""
    rows_of: dict[str, list[str]] = {}
    for row in found:
        if row.ratio is not None:
            numbers = rows_of.setdefault("; ".join(filter(None, (row.protocol, row.held))), [])
            numbers += [row.number] if row.number not in numbers else []
    protocols = "\n".join(f"- {', '.join(numbers)}: {told}" for told, numbers in rows_of.items())
    return f"{', '.join(f'{key} {value}' for key, value in about.items())}\n\n{table(found)}\n{protocols}\n"


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", default="", help=f"of {', '.join(MEASURES)}; none given: all")
    parser.add_argument("--small", action="store_true", help="tiny networks, no targets: to see that it works")
    parser.add_argument("--doc", type=Path, help="replace the section between the marks of this document")
    arguments = parser.parse_args()
    measures = SMALL if arguments.small else MEASURES
    numbers = [word for word in arguments.rows.split(",") if word] or list(measures)
    for number in numbers:
        if number not in measures:
            raise ValueError(f"--rows {number}: choose from {', '.join(measures)}")
    if arguments.doc:
        if arguments.small:
            raise ValueError("--doc: --small is no measurement")
        around_section(arguments.doc, "bench")  # before the minutes, not after them

    keep_freed_memory()
    about, cores = machine(), torch.get_num_threads()
    file = gpu.results_file(RESULTS)
    kept = json.loads(file.read_text()) if file.exists() and not arguments.small else {}
    earlier = read_rows(kept.get("rows", []))
    found: list[Row] = []
    for number in numbers:
        torch.set_num_threads(1 if number in ONE_THREAD else cores)
        started = time.perf_counter()
        found += measures[number]()
        print(f"row {number} and what goes with it: {time.perf_counter() - started:.0f} s", flush=True)
        gc.collect()
    if not arguments.small:
        found += gpu.rows(kept.get("gpu", {}))
        print(f"\n{against_earlier(found, earlier)}")
        found = with_earlier(found, earlier)

    text = as_text(about, found)
    print(f"\n{text}")
    if arguments.doc:
        replace_section(arguments.doc, "bench", text)
    if not arguments.small:
        told = kept | {"machine": about, "rows": [dataclasses.asdict(row) | {"verdict": row.verdict} for row in found]}
        RESULTS.mkdir(exist_ok=True)
        write_text(file, json.dumps(told, indent=2) + "\n")
        print(f"\nwritten: {file}")
    return 0 if arguments.small or all(row.verdict != "missed" for row in found) else 1


if __name__ == "__main__":
    run_command(main)
