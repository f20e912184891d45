"""What only a GPU can show: shares of its measured rate, waits of the host, precisions, compilation.

    python benchmarks/gpu.py [--parts rate,train,sample,syncs,precision,compile] [--budget 460]

rate        operations a second of matrix products in each precision, bytes a second of copies, from the host too
train       the training step of network L (256 px, 256 channels) in bf16, batch 32: counted operations over the step's
            time, as a share of the measured rate; the floor worked out first; the spread of 20 steps; most memory
sample      the same of a guided call of the network at batch 64
syncs       the training loop under the profiler: how often the host waits for the GPU in a step, and where; the trace
            is kept beside the results
precision   losses of network S on the synthetic data set over --steps steps in fp32, bf16, fp16: same weights, pictures
            and noise
compile     the training step with and without --compile True, which takes minutes at first

Where a batch does not fit, a step is made of pieces, halved until they do; the table says so. Each call is bounded by
--budget seconds, each part by its share of them, and what an earlier call has measured stays in the results: the parts
may be spread over calls, `rate` first. Results go to benchmarks/results/DEVICE.json under "gpu", and the table is
printed; --doc puts it into the section "gpu" of a document. --tiny runs everything on a CPU in seconds, but for
the compiler's minutes.
"""

import json
import os
import re
import signal
import time
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import torch
from document import around_section, replace_section
from measuring import AT_LEAST, AT_MOST, Row, machine, table
from subjects import NETWORKS

from stay_diffusion.run.checkpoint import write_text
from stay_diffusion.system.command import argument_parser, run_command

ROOT = Path(__file__).resolve().parents[1]
LEAST_SHARE, MOST_SPREAD = 0.45, 0.05  # of row 11


@dataclass(frozen=True)
class Plan:
    """What is measured, and on what."""

    device: torch.device
    folder: Path  # of results
    network: str = "L"
    batch_size: int = 32
    sample_batch: int = 64
    num_objects: int = 8
    timed_steps: int = 20
    matrix: int = 8192
    copied: int = 2**30  # bytes
    rate_seconds: float = 5.0  # of each rate
    steps: int = 500  # of the precisions
    small_network: str = "S"
    small_batch: int = 16


def tiny(plan: Plan) -> Plan:
    """The same in a few seconds of a CPU."""
    sizes = {"network": "tiny", "batch_size": 2, "sample_batch": 2, "timed_steps": 3, "matrix": 64, "copied": 2**16}
    sizes["rate_seconds"] = 0.05
    return Plan(plan.device, plan.folder, **sizes, num_objects=2, steps=6, small_network="tiny", small_batch=2)


def measure(plan: Plan, parts: list[str], budget: float, found: dict, keep: Callable[[dict], None]) -> dict:
    """Adds the parts to what is `found`, keeping it after each; a part that takes too long leaves a note instead."""
    from gpu_parts import PARTS

    end = time.perf_counter() + budget
    for place, part in enumerate(parts):
        share = (end - time.perf_counter()) / (len(parts) - place)
        print(f"{part}: at most {share:.0f} s", flush=True)
        started = time.perf_counter()
        try:
            with time_limit(share):
                found = {**found, part: PARTS[part](plan, found, 0.8 * share)}
        except (OutOfTime, RuntimeError, ValueError) as error:
            found = {
                **found,
                part: {"note": f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else part}"},
            }
        found[part]["took_seconds"] = round(time.perf_counter() - started, 1)
        keep(found)
        if plan.device.type == "cuda":
            torch.cuda.empty_cache()
    return found


def rows(found: dict) -> list[Row]:
    """Row 11 of what is found: shares of the rate, spread, waits."""
    lines = []
    for part, what in (("train", "training"), ("sample", "sampling")):
        one = found.get(part, {})
        name, note = f"{what}, share of the measured matrix rate", one.get("note", "not measured: benchmarks/gpu.py")
        lines.append(
            Row("11", name, AT_LEAST, LEAST_SHARE, one.get("share"), protocol=one.get("protocol", ""), note=note)
        )
    train, syncs = found.get("train", {}), found.get("syncs", {})
    note = "not measured: benchmarks/gpu.py"
    lines.append(Row("11", "spread of the training step", AT_MOST, MOST_SPREAD, train.get("spread"), note=note))
    waits = syncs.get("waits_a_step") if syncs.get("on_gpu") else None
    return [*lines, Row("11", "waits of the host a training step", AT_MOST, 0, waits, note=syncs.get("note", note))]


def as_text(found: dict) -> str:
    """Row 11 and everything found, as Markdown."""
    parts = [f"{', '.join(f'{key} {value}' for key, value in found.get('machine', {}).items())}\n", table(rows(found))]
    for part, figures in found.items():
        if part != "machine":
            parts.append(f"\n{part}:\n")
            parts += [f"- {name.replace('_', ' ')}: {_shown(value)}" for name, value in figures.items()]
    return "\n".join(parts) + "\n"


def _shown(value) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, dict):
        return "; ".join(f"{name} {_shown(each)}" for name, each in value.items()) or "none"
    return ", ".join(_shown(each) for each in value) if isinstance(value, list) else str(value)


class OutOfTime(Exception):
    """A part has had its share of the time."""


@contextmanager
def time_limit(seconds: float):
    """OutOfTime in the body once it has taken so long; within a call into the device, as soon as that returns."""

    def stop(number, frame):
        raise OutOfTime(f"stopped after {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 0.01))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def results_file(folder: Path) -> Path:
    return folder / f"{re.sub('[^A-Za-z0-9]+', '_', machine()['device']).strip('_')}.json"


def main() -> int:
    from gpu_parts import PARTS

    parser = argument_parser(__doc__)
    parser.add_argument("--parts", default=",".join(PARTS))
    parser.add_argument("--budget", type=float, default=460, help="seconds of this call")
    parser.add_argument("--steps", type=int, default=500, help="of each precision")
    parser.add_argument("--tiny", action="store_true", help="everything on a CPU in seconds, to see that it works")
    parser.add_argument("--results", type=Path, default=ROOT / "benchmarks/results")
    parser.add_argument("--doc", type=Path, help="replace the section between the marks of this document")
    arguments = parser.parse_args()
    parts = [word for word in arguments.parts.split(",") if word]
    for part in parts:
        if part not in PARTS:
            raise ValueError(f"--parts {part}: choose from {', '.join(PARTS)}")
    if arguments.doc:
        around_section(arguments.doc, "gpu")  # before the minutes, not after them
    if not torch.cuda.is_available() and not arguments.tiny:
        raise ValueError("no GPU here; --tiny runs everything on the CPU in tiny sizes")

    device = torch.device("cpu" if arguments.tiny else "cuda")
    plan = Plan(device, arguments.results, steps=arguments.steps)
    plan = tiny(plan) if arguments.tiny else plan
    assert plan.network in NETWORKS
    arguments.results.mkdir(parents=True, exist_ok=True)
    file = results_file(arguments.results)
    kept = json.loads(file.read_text()) if file.exists() else {}

    def keep(found: dict) -> None:
        text = json.dumps({**kept, "gpu": found}, indent=2) + "\n"
        write_text(file, text)

    found = measure(plan, parts, arguments.budget, {**kept.get("gpu", {}), "machine": machine()}, keep)
    text = as_text(found)
    print(text)
    if arguments.doc:
        replace_section(arguments.doc, "gpu", text)
    print(f"written: {file.resolve()}")
    return 0


if __name__ == "__main__":
    os.environ.setdefault("PYTORCH_CUDA_ALLOC_CONF", "expandable_segments:True")
    run_command(main)
