"""What a layout costs a training step, against the same network without one and against SDM's SPADE.

    python benchmarks/training_step.py [--rounds 7] [--networks S,M]

One thread, float32. Every network is a whole training state, every step train_loop's own, on noise with 8 boxes in each
picture. Memory is counted: weights, averages, moments, and the most that a step has allocated at once. Without a layout
is guided-diffusion's network with its class (--conditioning none), with SPADE SDM's on the boxes as a label map. Data
with 5 classes, as defects have; against SPADE with ADE20K's 150, whose label map SDM was made for.
"""

import statistics
from collections.abc import Sequence
from dataclasses import replace

import torch
from counting import peak_bytes
from measuring import AT_LEAST, AT_MOST, Row, in_turn, ratio, table
from subjects import NETWORKS, Training

from stay_diffusion.system.command import argument_parser, run_command
from stay_diffusion.training.profiling import profile_steps

CPU, OBJECTS = torch.device("cpu"), 8
FEW_CLASSES, MANY_CLASSES = 5, 150
BATCHES = {"tiny": 2, "S": 4, "M": 1}
MOST_TIME, MOST_MEMORY = 1.10, 1.10  # of a step with a layout against one without
LEAST_TIME, LEAST_MEMORY = 2.2, 1.4  # of SPADE against ISLA
MOST_TAIL = {"tiny": 1.0, "S": 0.08, "M": 0.04}
TAIL = ("update", "averages", "logging")  # parts of train_loop.train


def training(network: str, conditioning: str, num_classes: int = FEW_CLASSES) -> Training:
    config = NETWORKS[network].config(BATCHES[network])
    model = replace(config.model, conditioning=conditioning)
    data = replace(config.data, classes=tuple(f"class {i}" for i in range(1, num_classes + 1)))
    return Training(replace(config, model=model, data=data), CPU, OBJECTS)


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
        subjects = {
            "ISLA": training(network, "isla_bg"),
            "no layout": training(network, "none"),
            "ISLA, 150": training(network, "isla_bg", MANY_CLASSES),
            "SPADE, 150": training(network, "spade", MANY_CLASSES),
        }
        seconds = in_turn({name: subject.step for name, subject in subjects.items()}, rounds)
        memory = {name: kept_bytes(each) + peak_bytes(each.step, CPU) for name, each in subjects.items()}
        weights = {name: sum(p.numel() for p in each.state.model.parameters()) for name, each in subjects.items()}
        protocol = (
            f"{network}: {NETWORKS[network]}, batch {BATCHES[network]}, {OBJECTS} boxes, float32, one thread, "
            f"{rounds} rounds; million parameters: " + ", ".join(f"{k} {n / 1e6:.1f}" for k, n in weights.items())
        )
        details = {"seconds": seconds, "bytes": memory}
        for number, what, sense, (time, space), over, under in (
            ("1", "training step, ISLA against no layout", AT_MOST, (MOST_TIME, MOST_MEMORY), "ISLA", "no layout"),
            ("2", "training step, SPADE against ISLA", AT_LEAST, (LEAST_TIME, LEAST_MEMORY), "SPADE, 150", "ISLA, 150"),
        ):
            times = ratio(seconds[over], seconds[under])
            bytes_ = memory[over] / memory[under]
            found.append(Row(number, f"{what}, {network}", sense, time, *times, protocol, details=details))
            found.append(Row(number, f"- its peak memory, {network}", sense, space, bytes_, protocol=protocol))
        found.append(tail(network, subjects["ISLA"], rounds))
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
    parser = argument_parser(__doc__)
    parser.add_argument("--networks", default="S,M")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(arguments.networks.split(","), arguments.rounds)
    print(table(found), *dict.fromkeys(row.protocol for row in found), sep="\n")
    return 0


if __name__ == "__main__":
    run_command(main)
