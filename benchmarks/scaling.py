"""What a second process brings, and what a save costs the step that makes it.

    python benchmarks/scaling.py [--preset S] [--ranks 2] [--steps 8] [--rounds 5]

One process with one thread against `--ranks` processes with one thread each. Every process has the preset's batch, so
that twice the processes train on twice the pictures a step (weak scaling, as --batch_size means it). Processes start
once; then rounds alternate: rank 0 trains alone while the others sleep, then all train together, then all train at
once, each for itself. Figures of a round are medians over its steps, of the table over rounds:

    throughput       pictures a second of all together, against one alone
    communication    by how much a step together is longer than one for itself, as a share of the former: waiting too
    waiting          in a barrier after each step for itself, for the slowest, as a share of the step together

Throughput without averaging is what the cores and the memory give processes that do not know of one another.

Then saves, all of one state: while training waits; while it waits for the copy in memory alone; and as it does it,
where it waits for the call that starts the save and, before the next update, for what is then left of the copying. The
memory of the copy is there from an earlier save, as in training from the second on. The pictures are noise, the weights
change, nothing is kept.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = "1"

import torch
import torch.distributed as dist
from measuring import AT_LEAST, AT_MOST, Row, ratio

from stay_diffusion.config import DataConfig, DiffusionConfig, ModelConfig, RunConfig, TrainConfig
from stay_diffusion.data.layout import Layout
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder
from stay_diffusion.run.logger import Logger
from stay_diffusion.system.command import argument_parser
from stay_diffusion.system.distributed import gather, join, leave, start_group, wait_for_all
from stay_diffusion.system.launchers import ALONE, World
from stay_diffusion.training.saving import Saver
from stay_diffusion.training.state import TrainingState, copy_to_cpu
from stay_diffusion.training.train_loop import stop_signal, train_step

PRESETS = {  # image size, channels, multipliers, pictures per process
    "tiny": (16, 32, "1,1", 4),
    "S": (64, 64, "1,2,3,4", 4),
}
OBJECTS, CLASSES, TIMEOUT = 8, 5, 600


def build(preset: str, world: World) -> tuple[TrainingState, RunConfig]:
    size, channels, multipliers, batch = PRESETS[preset]
    config = RunConfig(
        DataConfig(classes=tuple(f"class {i}" for i in range(CLASSES)), product_tags=("A",)),
        ModelConfig(image_size=size, num_channels=channels, channel_mult=multipliers, num_res_blocks=1),
        DiffusionConfig(noise_schedule="cosine"),
        TrainConfig(batch_size=batch, log_interval=10**9),
    )
    torch.manual_seed(0)
    model = factory.build_model(config)
    device = torch.device("cpu")
    return TrainingState(config, model, factory.build_diffusion(config.diffusion), device, world), config


def pictures(config: RunConfig, rank: int):
    """Noise (B, 3, S, S) and a layout of boxes, others on each rank."""
    generator = torch.Generator().manual_seed(rank)
    B, S = config.train.batch_size, config.model.image_size
    corners = 0.6 * torch.rand(B, OBJECTS, 2, generator=generator)
    sizes = 0.1 + 0.2 * torch.rand(B, OBJECTS, 2, generator=generator)
    labels = torch.randint(1, CLASSES + 1, (B, OBJECTS), generator=generator)
    layout = Layout.collate(
        [(torch.cat([c, c + s], dim=1), l, torch.tensor(1)) for c, s, l in zip(corners, sizes, labels, strict=True)]
    )
    return torch.randn(B, 3, S, S, generator=generator), layout


class Trainer:
    """A training state and its batch; one step at a time, timed."""

    def __init__(self, preset: str, world: World, rank: int, folder: Path):
        self.state, self.config = build(preset, world)
        self.batch = pictures(self.config, rank)
        self.logger = Logger(folder, world)

    def step(self, before_update=lambda: None) -> float:
        """Seconds of one training step, with the all-reduce by which processes hear of each other's signals."""
        started = time.perf_counter()
        train_step(self.state, self.config, *self.batch, self.logger, before_update)
        self.state.step += 1
        self.state.samples += len(self.batch[0]) * self.state.world.size
        if self.state.world.size > 1:
            stop_signal([])
        return time.perf_counter() - started


def round_of_ranks(alone: Trainer, together: Trainer, world: World, steps: int, name: str) -> dict[str, float]:
    """Medians of one round, in seconds: the three kinds of step, and the barrier after a step without averaging."""
    found = {"alone": 0.0}
    wait_for_all(f"{name} alone")
    if world.is_main:
        found["alone"] = statistics.median(alone.step() for _ in range(steps))
    wait_for_all(f"{name} together")
    found["together"] = statistics.median(together.step() for _ in range(steps))
    own, waits = [], []
    for _ in range(steps):
        dist.barrier()
        own.append(alone.step())
        started = time.perf_counter()
        dist.barrier()
        waits.append(time.perf_counter() - started)
    found |= {"apart": statistics.median(own), "waiting": statistics.median(waits)}
    of_all = gather(found)
    means = {key: statistics.mean(each[key] for each in of_all) for key in ("together", "apart", "waiting")}
    return {"alone": of_all[0]["alone"], **means}


def round_of_saves(trainer: Trainer, saver: Saver, steps: int) -> dict[str, float]:
    """Seconds that each kind of save takes from training, and by which the last kind slows the steps after it."""
    state, contents = trainer.state, trainer.state.contents(trainer.config)
    plain = sum(trainer.step() for _ in range(steps))
    copying = seconds(lambda: copy_to_cpu(contents, into=saver.files))
    synchronous = copying + seconds(lambda: saver.folder.save(state.step, saver.files, keep=1))
    waits = [seconds(saver.save)]
    busy = sum(trainer.step(lambda: waits.append(seconds(saver.wait_for_copy))) for _ in range(steps))
    left = seconds(saver.wait)  # nothing where the steps took longer than the writing
    delay = waits[0] + busy - plain
    return {"synchronous": synchronous, "copying": copying, "waits": sum(waits), "delay": delay, "left": left}


def seconds(action) -> float:
    started = time.perf_counter()
    action()
    return time.perf_counter() - started


def median_of(rounds: list[dict[str, float]], value) -> float:
    return statistics.median(value(found) for found in rounds)


def measure(arguments: argparse.Namespace, world: World) -> None:
    start_group(world, torch.device("cpu"), TIMEOUT)
    with tempfile.TemporaryDirectory() as place:
        folder = RunFolder(Path(place) / "run")
        folder.open()
        alone = Trainer(arguments.preset, ALONE, world.rank, folder.path)
        together = Trainer(arguments.preset, world, world.rank, folder.path)
        for trainer in (alone, together):  # warm-up
            trainer.step(), trainer.step()
        ranks = [round_of_ranks(alone, together, world, arguments.steps, f"round {i}") for i in range(arguments.rounds)]
        saves = []
        wait_for_all("ranks measured")
        if world.is_main:
            saver = Saver(folder, alone.config, alone.state)
            saver.save(), saver.wait()  # warm-up
            saves = [round_of_saves(alone, saver, arguments.steps) for _ in range(arguments.rounds)]
            size = sum(file.stat().st_size for file in folder.path.glob("*[0-9].pt"))
        wait_for_all("saves measured")
    if world.is_main:
        report(arguments, world.size, ranks, saves, size)


def report(arguments: argparse.Namespace, N: int, ranks: list[dict], saves: list[dict], size: int) -> None:
    image_size, channels, multipliers, batch = PRESETS[arguments.preset]
    print(
        f"preset {arguments.preset}: {image_size} px, {channels} channels x {multipliers}, isla_bg, {batch} pictures a"
    )
    print(f"process and step, float32; {N} processes, one thread each, {len(os.sched_getaffinity(0))} cores, gloo;")
    print(
        f"medians of {arguments.rounds} alternating rounds of {arguments.steps} steps; load {os.getloadavg()[0]:.1f};"
    )
    print(f"torch {torch.__version__}, {platform.machine()}\n")
    throughputs = [N * found["alone"] / found["together"] for found in ranks]
    rows = {
        "step of one process alone, s": median_of(ranks, lambda found: found["alone"]),
        f"step of {N} together, s": median_of(ranks, lambda found: found["together"]),
        "throughput, ratio": statistics.median(throughputs),
        "- least and most of the rounds": f"{min(throughputs):.2f} to {max(throughputs):.2f}",
        "- without averaging (what the machine gives)": median_of(ranks, lambda f: N * f["alone"] / f["apart"]),
        "communication, % of the step": median_of(ranks, lambda f: 100 * (1 - f["apart"] / f["together"])),
        "waiting, % of the step": median_of(ranks, lambda f: 100 * f["waiting"] / f["together"]),
        f"synchronous save ({size / 1e6:.0f} MB), s": median_of(saves, lambda f: f["synchronous"]),
        "save in the background: what training waits, s": median_of(saves, lambda f: f["waits"]),
        "- % of the synchronous": median_of(saves, lambda f: 100 * f["waits"] / f["synchronous"]),
        "- where it waits for the copy, %": median_of(saves, lambda f: 100 * f["copying"] / f["synchronous"]),
        f"- with what it slows {arguments.steps} steps, %": median_of(
            saves, lambda f: 100 * f["delay"] / f["synchronous"]
        ),
        "- still being written after them, s": median_of(saves, lambda f: f["left"]),
    }
    if arguments.json:
        told = {"throughputs": throughputs, "saves": saves, "ranks": ranks, "bytes": size}
        arguments.json.write_text(json.dumps(told) + "\n", encoding="utf-8")
    print("| | |\n|---|---|")
    for name, value in rows.items():
        print(f"| {name} | {value if isinstance(value, str) else format(value, '.3g')} |")


def rows(rounds: int = 5, steps: int = 8, preset: str = "S") -> list[Row]:
    """Rows 8 and 9 of the targets, by processes of their own."""
    with tempfile.TemporaryDirectory() as place:
        file = Path(place) / "scaling.json"
        words = ["--preset", preset, "--rounds", rounds, "--steps", steps, "--json", file]
        command = [sys.executable, __file__, *map(str, words)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
        found = json.loads(file.read_text())
    protocol = f"scaling.py, preset {preset}, one thread a process, {rounds} rounds of {steps} steps"
    saved = [one["waits"] for one in found["saves"]], [one["synchronous"] for one in found["saves"]]
    told = f"{found['bytes'] / 1e6:.0f} MB; {protocol}"
    speeds = found["throughputs"], [1.0] * len(found["throughputs"])
    return [
        Row("8", "what training waits for a save, of a synchronous one", AT_MOST, 0.05, *ratio(*saved), told),
        Row("9", "throughput of 2 ranks with a thread each, of 1", AT_LEAST, 1.8, *ratio(*speeds), protocol),
    ]


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--preset", choices=list(PRESETS), default="S")
    parser.add_argument("--ranks", type=int, default=2, help="processes to start, where no launcher has")
    parser.add_argument("--steps", type=int, default=8)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", type=Path, help="write what the table is made of to this file")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    world = join(TIMEOUT)
    if world.size > 1:
        measure(arguments, world)
        leave()
        return 0
    own = [{**os.environ, "PMI_RANK": str(rank), "PMI_SIZE": str(arguments.ranks)} for rank in range(arguments.ranks)]
    started = [subprocess.Popen([sys.executable, *sys.argv], env=environment) for environment in own]
    return max(process.wait() for process in started)


if __name__ == "__main__":
    sys.exit(main())
