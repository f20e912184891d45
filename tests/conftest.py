"""What tests of whole runs share: a tiny data set, a tiny network, and a quick way to run a script."""

import itertools
import multiprocessing
import os
import runpy
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.config import DataConfig, DiffusionConfig, ModelConfig, RunConfig, TrainConfig

ROOT = Path(__file__).resolve().parents[1]

# The networks here are tiny: more threads only wait for one another, on a busy machine for minutes.
torch.set_num_threads(1)
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["TORCH_CPP_LOG_LEVEL"] = "FATAL"  # as a command sets it before importing torch, which the server has by then

PRELOADED = ["torch", "stay_diffusion.run.factory", "stay_diffusion.training.validation"]
PRELOADED += ["stay_diffusion.sampling.training_preview", "torch._dynamo"]
PRELOADED += ["torch._meta_registrations", "torch.nn.parallel.distributed", "torch.distributed.optim"]


# Whole runs, with few tests for their time: workers start with these, so that none is left with one at the end.
LONGEST = ("test_thesis_chains", "test_distributed", "test_during_training", "test_ade20_chain", "test_end_to_end")


def pytest_collection_modifyitems(items):
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


@pytest.fixture(autouse=True)
def gradients():
    """Every test starts with gradients, whatever an unfinished generator of an earlier one has left behind."""
    with torch.inference_mode(False), torch.enable_grad():
        yield


class Ended(NamedTuple):
    code: int
    output: str


class Started(NamedTuple):
    process: multiprocessing.Process
    log: Path

    def end(self, within=120) -> Ended:
        """Waits until the process has ended, and kills it where that takes longer."""
        self.process.join(within)
        if self.process.exitcode is None:
            self.process.kill()
        return Ended(self.process.exitcode, self.log.read_text() if self.log.exists() else "")


@pytest.fixture(scope="session")
def start_script(tmp_path_factory):
    """start(path below the repository, *arguments) -> Started(process, log).

    A new process, but without the seconds that importing torch takes. `prelude` is Python to run in it first.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    logs, number = tmp_path_factory.mktemp("logs"), itertools.count()

    def start(script, *arguments, prelude="", cwd=logs, environment=None) -> Started:
        log = logs / f"{next(number)}.txt"
        job = {
            "SCRIPT": str(ROOT / script),
            "ARGUMENTS": [str(word) for word in arguments],
            "CWD": str(cwd),
            "OUTPUT": str(log),
            "PRELUDE": prelude,
            "ENVIRONMENT": environment or {},
        }
        process = context.Process(target=runpy.run_path, args=(str(ROOT / "tests/forked_script.py"), job, "__main__"))
        process.start()
        return Started(process, log)

    return start


@pytest.fixture(scope="session")
def run_script(start_script):
    """As start_script, until its end -> Ended(code, output); fails where the code is not as expected."""

    def run(script, *arguments, code=0, **options) -> Ended:
        ended = start_script(script, *arguments, **options).end()
        assert ended.code == code, ended.output
        return ended

    return run


@pytest.fixture(scope="session")
def start_ranks(start_script):
    """start(size, script, *arguments, preludes={rank: Python}) -> [Started], as a launcher would; `only` some ranks."""

    def start(size, *arguments, preludes=None, only=None, environment=None) -> list[Started]:
        started = []
        for rank in range(size) if only is None else only:
            names = {"RANK": rank, "WORLD_SIZE": size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
            variables = {**{name: str(value) for name, value in names.items()}, **(environment or {})}
            started.append(start_script(*arguments, prelude=(preludes or {}).get(rank, ""), environment=variables))
        return started

    return start


@pytest.fixture(scope="session")
def run_ranks(run_script):
    """run(number, path below the repository, *arguments) -> one Ended per rank; named options go to run_script."""

    def run(number: int, script: str, *arguments, **options) -> list:
        def run_rank(rank: int):
            environment = {"PMI_RANK": str(rank), "PMI_SIZE": str(number), **options.get("environment", {})}
            return run_script(script, *arguments, **{**options, "environment": environment})

        with ThreadPoolExecutor(number) as threads:
            return list(threads.map(run_rank, range(number)))

    return run


@pytest.fixture(scope="session")
def synthetic_sdi():
    from stay_diffusion.data import synthetic

    return synthetic


@pytest.fixture(scope="session")
def tiny_data(tmp_path_factory, synthetic_sdi):
    """A folder of 12 training and 4 validation images."""
    folder = tmp_path_factory.mktemp("tiny") / "data"
    synthetic_sdi.generate(folder, num_train=12, num_val=4)
    return folder


@pytest.fixture(scope="session")
def tiny_maps(tmp_path_factory):
    """A folder like ADE20K's, of 4 training and 2 validation pictures of 48 x 40, with ids 0, 3, 20 and 150."""
    folder, rng = tmp_path_factory.mktemp("tiny maps") / "ade", np.random.default_rng(0)
    for split, num in (("training", 4), ("validation", 2)):
        for kind in ("images", "annotations"):
            (folder / kind / split).mkdir(parents=True)
        for i in range(num):
            ids = np.full((40, 48), 3, dtype=np.uint8)
            ids[:8], ids[20:35, 5 + i : 25 + i], ids[22:38, 30:44] = 0, 20, 150
            picture = np.stack([ids, 255 - ids, ids // 2], axis=-1) + rng.integers(0, 9, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(picture).save(folder / "images" / split / f"ADE_{split}_{i:04d}.jpg")
            Image.fromarray(ids).save(folder / "annotations" / split / f"ADE_{split}_{i:04d}.png")
    return folder


@pytest.fixture(scope="session")
def tiny_network():
    """Flags of the smallest sensible network."""
    flags = "--image_size 16 --image_channels 1 --num_channels 32 --channel_mult 1,1 --num_res_blocks 1 --num_heads 1"
    return [*flags.split(), "--attention_resolutions", "", "--ema_rate", "0.9"]


@pytest.fixture(scope="session")
def tiny_run():
    """tiny_run(**training options) -> RunConfig of two classes, one product, grey images of 8 pixels, 40 steps."""

    def build(data=None, model=None, diffusion=None, **train) -> RunConfig:
        network = {"image_size": 8, "image_channels": 1, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1"}
        return RunConfig(
            DataConfig(**{"classes": ("spot", "line"), "product_tags": ("A",), **(data or {})}),
            ModelConfig(**{**network, "num_heads": 1, "attention_resolutions": "", **(model or {})}),
            DiffusionConfig(**{"diffusion_steps": 40, "noise_schedule": "cosine", **(diffusion or {})}),
            TrainConfig(**{"ema_rate": "0.9", "log_interval": 1, **train}),
        )

    return build
