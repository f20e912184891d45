"""The parts of gpu.py: each takes the plan, what other parts have found, and its seconds, and returns its figures."""

import itertools
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import torch
from counting import peak_bytes
from floors import DTYPES, bandwidth, best_seconds, matrix_rate, sampling_work, training_work
from subjects import NETWORKS, Sampling, Training

from stay_diffusion.config import RunConfig
from stay_diffusion.data import synthetic
from stay_diffusion.data.loader import batches
from stay_diffusion.data.picture_cache import cache_pictures
from stay_diffusion.run import factory
from stay_diffusion.run.logger import Logger
from stay_diffusion.training.noise_batch import noise_batch
from stay_diffusion.training.profiling import profile_steps
from stay_diffusion.training.state import TrainingState
from stay_diffusion.training.train_loop import train_step

ROOT = Path(__file__).resolve().parents[1]
PRECISION, WIDTH = "bf16", 2  # bytes of it
LAST = 5  # losses are means of this share of the steps: a fifth


def rate(plan, found: dict, seconds: float) -> dict:
    """TFLOP/s of matrix products by precision, GB/s of copies."""
    each = min(seconds / 6, plan.rate_seconds)
    rates = {name: matrix_rate(plan.device, dtype, plan.matrix, each) / 1e12 for name, dtype in DTYPES.items()}
    figures = {"matrix_tflops": rates, "matrix_side": plan.matrix}
    figures["copy_gb_a_second"] = bandwidth(plan.device, plan.copied, each) / 1e9
    if plan.device.type == "cuda":
        source = torch.empty(plan.copied, dtype=torch.uint8).pin_memory()
        target = torch.empty_like(source, device=plan.device)
        moved = best_seconds(lambda: target.copy_(source, non_blocking=True), plan.device, each)
        figures["from_host_gb_a_second"] = plan.copied / moved / 1e9
    return figures


def train(plan, found: dict, seconds: float) -> dict:
    """The training step against its floor."""
    config = NETWORKS[plan.network].config(plan.batch_size, PRECISION)
    work = training_work(config, plan.num_objects, WIDTH)

    def prepare(piece: int) -> Callable:
        options = replace(config.train, microbatch=piece)
        return Training(replace(config, train=options), plan.device, plan.num_objects).step

    return _against_floor(plan, found, seconds, work, plan.batch_size, prepare)


def sample(plan, found: dict, seconds: float) -> dict:
    """A guided call of the network against its floor."""
    config = NETWORKS[plan.network].config(plan.sample_batch, PRECISION)
    work = sampling_work(config, plan.num_objects, WIDTH)
    model = factory.build_model(config)

    def prepare(piece: int) -> Callable:
        one = replace(config, train=replace(config.train, batch_size=piece))
        step = Sampling(one, plan.device, plan.num_objects, model=model).step

        def pieces() -> None:
            for _ in range(plan.sample_batch // piece):
                step()

        return pieces

    return _against_floor(plan, found, seconds, work, plan.sample_batch, prepare)


def syncs(plan, found: dict, seconds: float) -> dict:
    """The loop under the profiler: parts of a step, waits of the host, the trace."""
    piece = found.get("train", {}).get("pieces_of", plan.batch_size)
    config = NETWORKS[plan.network].config(plan.batch_size, PRECISION, microbatch=piece)
    torch.manual_seed(0)
    model, diffusion = factory.build_model(config), factory.build_diffusion(config.diffusion)
    state = TrainingState(config, model, diffusion, plan.device)
    batch = noise_batch(config, plan.batch_size, plan.num_objects)
    if plan.device.type == "cuda":
        batch = tuple(part.pin_memory() for part in batch)
    trace = plan.folder / f"step_{plan.network}.json.gz"
    profile = profile_steps(state, config, itertools.repeat(batch), num_steps=3, warm_up=2, trace=trace)
    # What the profiler itself does between steps is not the loop's.
    parts = {name: part for name, part in profile.parts.items() if name != "periodic"}
    return {
        "waits_a_step": sum(part.syncs for part in parts.values()),
        "waits_by_part": {name: part.syncs for name, part in parts.items() if part.syncs},
        "where": profile.waits,
        "host_ms": {name: 1000 * part.host for name, part in parts.items()},
        "device_ms": {name: 1000 * part.device for name, part in parts.items() if part.device},
        "on_gpu": plan.device.type == "cuda",
        "trace": trace.name,
    }


def precision(plan, found: dict, seconds: float) -> dict:
    """Mean losses of the last fifth of the steps in each precision, and how far they are from fp32's."""
    names = [name for name in DTYPES if name != "fp16" or plan.device.type == "cuda"]
    end, losses = time.perf_counter() + seconds, {}
    with tempfile.TemporaryDirectory() as place:
        synthetic.generate(Path(place) / "data", num_train=max(64, plan.small_batch), num_val=4)
        for i, name in enumerate(names):
            limit = time.perf_counter() + (end - time.perf_counter()) / (len(names) - i)
            losses[name] = _losses(plan, Path(place), name, limit)
    steps = min(map(len, losses.values()))
    last = max(1, steps // LAST)
    means = {name: statistics.mean(values[steps - last : steps]) for name, values in losses.items()}
    return {
        "network": str(NETWORKS[plan.small_network]),
        "steps": steps,
        "batch": plan.small_batch,
        "loss_of_last_fifth": means,
        "against_fp32": {name: value / means["fp32"] - 1 for name, value in means.items() if name != "fp32"},
        "most_different_step": {
            name: max(abs(a / b - 1) for a, b in zip(values, losses["fp32"], strict=False))
            for name, values in losses.items()
            if name != "fp32"
        },
        "first_and_last": {name: [values[0], values[-1]] for name, values in losses.items()},
    }


def compiled(plan, found: dict, seconds: float) -> dict:
    """Seconds of a training step without and with --compile True, and of the first step, which compiles."""
    figures = {}
    piece = found.get("train", {}).get("pieces_of", plan.batch_size)
    for on in (False, True):
        config = NETWORKS[plan.network].config(plan.batch_size, PRECISION, microbatch=piece, compile=on)
        training = Training(config, plan.device, plan.num_objects)
        started = time.perf_counter()
        training.step()
        first = time.perf_counter() - started
        if on and not training.state.network.is_compiled:
            return {**figures, "note": "not compiled: the warning says why"}
        times = _timed(training.step, plan.timed_steps, seconds / 3)
        figures |= {f"{'on' if on else 'off'}_step_seconds": statistics.median(times)}
        figures |= {f"{'on' if on else 'off'}_first_step_seconds": first}
        del training
    return {**figures, "speed_up": figures["off_step_seconds"] / figures["on_step_seconds"]}


PARTS: dict[str, Callable] = {
    "rate": rate,
    "train": train,
    "sample": sample,
    "syncs": syncs,
    "precision": precision,
    "compile": compiled,
}


def _against_floor(plan, found: dict, seconds: float, work, batch: int, prepare: Callable[[int], Callable]) -> dict:
    """Times a step made of the largest pieces that fit, and holds it against the device's rates."""
    rates = found.get("rate", {})
    if "matrix_tflops" not in rates:
        raise ValueError("needs the part rate, now or in an earlier call")
    top, copies = rates["matrix_tflops"][PRECISION] * 1e12, rates["copy_gb_a_second"] * 1e9
    floor = work.floor(top, copies)
    print(f"  {work.operations / 1e12:.4g} TFLOP, {work.bytes / 1e9:.4g} GB: at least {floor:.4g} s", flush=True)
    piece = batch
    while True:
        try:
            step = prepare(piece)
            step(), step()
            break
        except torch.OutOfMemoryError:
            step = None
            torch.cuda.empty_cache()
            if piece == 1:
                raise
            piece //= 2
    times = _timed(step, plan.timed_steps, 0.6 * seconds)
    middle = statistics.median(times)
    ordered = sorted(times)
    low, high = ordered[len(ordered) // 20], ordered[-1 - len(ordered) // 20]
    return {
        "protocol": f"{NETWORKS[plan.network]}; {PRECISION}, batch {batch}, {plan.num_objects} boxes, "
        f"{len(times)} steps, each waited for",
        "pieces_of": piece,
        "tflop": work.operations / 1e12,
        "floor_seconds": floor,
        "floor_of_operations": work.operations / top,
        "floor_of_bytes": work.bytes / copies,
        "step_seconds": middle,
        "share": work.operations / middle / top,
        "spread": (high - low) / middle,
        "peak_gib": peak_bytes(step, plan.device) / 2**30,
    }


def _timed(step: Callable, number: int, budget: float) -> list[float]:
    """Seconds of so many steps, fewer where they take longer than the budget."""
    end, times = time.perf_counter() + budget, []
    while len(times) < number and (len(times) < 2 or time.perf_counter() < end):
        started = time.perf_counter()
        step()
        times.append(time.perf_counter() - started)
    return times


def _losses(plan, place: Path, name: str, limit: float) -> list[float]:
    """Each step's loss, of the same weights, pictures and noise whatever the precision."""
    own = NETWORKS[plan.small_network].config(plan.small_batch, name)
    data = replace(own.data, data_dir=str(place / "data"), classes=(), product_tags=())
    records, vocabulary = factory.read_split(data, "train")
    config: RunConfig = factory.with_vocabulary(replace(own, data=data), vocabulary)
    dataset = factory.build_dataset(records, config, augment=True)
    cache_pictures(dataset, "ram")
    torch.manual_seed(0)
    model, diffusion = factory.build_model(config), factory.build_diffusion(config.diffusion)
    state, logger, losses = TrainingState(config, model, diffusion, plan.device), Logger(place), []
    for images, layout in batches(dataset, plan.small_batch, 0, start=0):
        train_step(state, config, images.to(plan.device), layout.to(plan.device), logger)
        state.step += 1
        state.samples += len(images)
        losses.append(logger.dump(state.step)["loss"])
        if len(losses) == plan.steps or time.perf_counter() > limit:
            return losses
    raise AssertionError("batches are endless")
