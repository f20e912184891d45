"""What a layout costs a training step, against the same network without one and against SDM's SPADE.

    python benchmarks/training_step.py [--rounds 7] [--networks S,M]

One thread, float32. Every network is a whole training state, every step train_loop's own, on noise with 8 boxes in each
picture. Memory is counted: weights, averages, moments, and the most that a step has allocated at once. Without a layout
is guided-diffusion's network with its class (--conditioning none), with SPADE SDM's on the boxes as a label map.
"""

import argparse
import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from counting import peak_bytes
from measuring import AT_LEAST, AT_MOST, Row, in_turn, ratio, table
from subjects import NETWORKS, Training

from stay_diffusion.command import run_command
from stay_diffusion.config import ModelConfig
from stay_diffusion.training.profiling import profile_steps

CPU, OBJECTS = torch.device("cpu"), 8
BATCHES = {"tiny": 2, "S": 4, "M": 1}
MOST_TIME, MOST_MEMORY = 1.10, 1.10  # of a step with a layout against one without
LEAST_TIME, LEAST_MEMORY = 2.2, 1.4  # of SPADE against ISLA
MOST_TAIL = {"tiny": 1.0, "S": 0.08, "M": 0.04}
TAIL = ("update", "averages", "logging")  # parts of train_loop.train


def training(network: str, conditioning: str) -> Training:
    config = NETWORKS[network].config(BATCHES[network])
    model: ModelConfig = replace(config.model, conditioning=conditioning)
    return Training(replace(config, model=model), CPU, OBJECTS)


def kept_bytes(subject: Training) -> int:
    """Weights, averages and AdamW's moments."""
    models = [subject.state.model, *(ema.model for ema in subject.state.emas)]
    weights = sum(p.nbytes for model in models for p in model.parameters())
    moments = subject.state.optimizer.state.values()
    return weights + sum(t.nbytes for one in moments for t in one.values() if isinstance(t, torch.Tensor))


def rows(networks: Sequence[str] = ("S", "M"), rounds: int = 7) -> list[Row]:
    """Rows 1, 2 and 5 of the targets."""
    found = []
    for network in networks:
        subjects = {name: training(network, name) for name in ("isla_bg", "none", "spade")}
        seconds = in_turn({name: subject.step for name, subject in subjects.items()}, rounds)
        memory = {name: kept_bytes(each) + peak_bytes(each.step, CPU) for name, each in subjects.items()}
        millions = {
            name: sum(p.numel() for p in each.state.model.parameters()) / 1e6 for name, each in subjects.items()
        }
        protocol = (
            f"{network}: {NETWORKS[network]}, batch {BATCHES[network]}, {OBJECTS} boxes, float32, one thread, "
            f"{rounds} rounds; million parameters: " + ", ".join(f"{name} {n:.1f}" for name, n in millions.items())
        )
        details = {"seconds": seconds, "bytes": memory}

        def row(number, what, sense, target, over, under, protocol=protocol, details=details, found=found) -> None:
            time = isinstance(over, list)
            middle, low, high = ratio(over, under) if time else (over / under, None, None)
            found.append(Row(number, what, sense, target, middle, low, high, protocol, details=details))

        row(
            "1",
            f"training step, ISLA against no layout, {network}",
            AT_MOST,
            MOST_TIME,
            seconds["isla_bg"],
            seconds["none"],
        )
        row("1", f"- its peak memory, {network}", AT_MOST, MOST_MEMORY, memory["isla_bg"], memory["none"])
        row(
            "2",
            f"training step, SPADE against ISLA, {network}",
            AT_LEAST,
            LEAST_TIME,
            seconds["spade"],
            seconds["isla_bg"],
        )
        row("2", f"- its peak memory, {network}", AT_LEAST, LEAST_MEMORY, memory["spade"], memory["isla_bg"])
        found.append(tail(network, subjects["isla_bg"], rounds))
    return found


def tail(network: str, subject: Training, rounds: int) -> Row:
    """What of a step is neither forward nor backward, as a share of it, by the loop's own parts."""
    shares = []
    for _ in range(max(1, rounds // 2)):
        profile = profile_steps(
            subject.state, subject.config, iter(lambda: subject.batch, None), num_steps=3, warm_up=1
        )
        shares.append(sum(profile.parts[name].host for name in TAIL if name in profile.parts) / profile.profiled)
    return Row(
        "5",
        f"training tail, share of the step, {network}",
        AT_MOST,
        MOST_TAIL[network],
        statistics.median(shares),
        min(shares),
        max(shares),
        f"{', '.join(TAIL)} of train_loop.train under the profiler, batch {BATCHES[network]}",
    )


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    parser.add_argument("--networks", default="S,M")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(arguments.networks.split(","), arguments.rounds)
    print(table(found), *dict.fromkeys(row.protocol for row in found), sep="\n")
    return 0


if __name__ == "__main__":
    run_command(main)
