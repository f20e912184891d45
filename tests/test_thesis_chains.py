"""scripts/coco.sh and scripts/sdi.sh in small, and the recipe that their presets hold."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.config import flags
from stay_diffusion.data.class_names import COCO_STUFF

ROOT = Path(__file__).resolve().parents[1]
SCRIPTS = sorted(ROOT.glob("scripts/*.sh"))
PRESETS = [ROOT / f"scripts/configs/{name}.json" for name in ("coco_128", "coco_256", "sdi_128")]
SMALL = {"IMAGE_SIZE": 16, "NUM_CHANNELS": 32, "NUM_RES_BLOCKS": 1, "CHANNEL_MULT": "1,1", "BATCH_SIZE": 2}
SMALL |= {"TRAIN_STEPS": 2, "FINETUNE_STEPS": 1, "NUM_SAMPLES": 2, "LPIPS_SIZE": 32}
SMALL |= {"OMP_NUM_THREADS": 1, "OPENAI_LOG_FORMAT": "stdout,log,csv"}
CHECKPOINT = ["config.json", "ema_0.9999.pt", "ema_0.9999_best.pt", "layout_statistics.json", "log.txt", "model.pt"]
CHECKPOINT += ["previews", "progress.csv"]
RUNS = [f"run{i}" for i in range(5)]


class Chain(NamedTuple):
    here: Path  # everything was made below it
    name: str
    stems: list[str]  # of the layouts that were sampled
    ended: subprocess.CompletedProcess

    def config(self) -> dict:
        return json.loads((self.here / f"OUTPUT/{self.name}-FINETUNE/config.json").read_text())


def run(script: str, here: Path, **settings) -> subprocess.CompletedProcess:
    settings = {"PYTHON": sys.executable, "TORCH_HOME": here / "no weights", **SMALL, **settings}
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    command = ["bash", str(ROOT / "scripts" / script)]
    return subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module")
def here(tmp_path_factory):
    folder = tmp_path_factory.mktemp("a place") / "with a space"
    folder.mkdir()
    return folder


@pytest.fixture(scope="module")
def coco_data(tmp_path_factory):
    """COCO-Stuff's layout with 4 training and 3 validation pictures of 48 x 40, each with two people and grass."""
    folder = tmp_path_factory.mktemp("coco") / "coco"
    (folder / "annotations").mkdir(parents=True)
    boxes = {"instances": [(1, [2, 3, 20, 30]), (1, [25, 5, 18, 32])], "stuff": [(124, [0, 20, 48, 20])]}
    for split, ids in (("train", range(1, 5)), ("val", range(11, 14))):
        pictures = folder / f"images/{split}2017"
        pictures.mkdir(parents=True)
        for key in ids:
            noise = np.random.default_rng(key).integers(0, 256, (40, 48, 3), dtype=np.uint8)
            Image.fromarray(noise).save(pictures / f"{key:012}.jpg")
        images = [{"id": key, "file_name": f"{key:012}.jpg", "width": 48, "height": 40} for key in ids]
        for kind, objects in boxes.items():
            categories = [{"id": label, "name": COCO_STUFF[label - 1]} for label in {label for label, _ in objects}]
            annotations = [
                {"id": 10 * key + i, "image_id": key, "category_id": label, "bbox": bbox, "iscrowd": 0}
                for key in ids
                for i, (label, bbox) in enumerate(objects)
            ]
            content = {"images": images, "annotations": annotations, "categories": categories}
            (folder / f"annotations/{kind}_{split}2017.json").write_text(json.dumps(content))
    return folder


@pytest.fixture(scope="module")
def coco(here, coco_data):
    """coco.sh on a list of ids without the first validation picture."""
    (here / "ids.txt").write_text("\n".join(map(str, (1, 2, 3, 4, 12, 13))))
    ended = run("coco.sh", here, DATA_DIR=coco_data, ID_LIST="ids.txt")
    return Chain(here, "COCO-STAY-16", ["000000000012", "000000000013"], ended)


@pytest.fixture(scope="module")
def sdi(here, tiny_data):
    ended = run("sdi.sh", here, DATA_DIR=tiny_data, CROP_POLICY="object")
    return Chain(here, "SDI-STAY-16", ["val_00000", "val_00001"], ended)


@pytest.fixture(params=["coco", pytest.param("sdi", marks=pytest.mark.slow)])
def chain(request):
    return request.getfixturevalue(request.param)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_training_and_fine_tuning_leave_the_files_that_the_commands_after_them_name(chain):
    for name, step in ((chain.name, 2), (f"{chain.name}-FINETUNE", 1)):
        numbered = [f"ema_0.9999_{step:06d}.pt", *(f"{kind}{step:06d}.pt" for kind in ("model", "opt", "state"))]
        numbered.append(f"checkpoint{step:06d}.sha256")
        assert files(chain.here / "OUTPUT" / name) == sorted([*CHECKPOINT, *numbered]), chain.ended.stderr
    assert f"starting from OUTPUT/{chain.name}/model.pt" in chain.ended.stdout


def test_the_fine_tune_is_slower_and_drops_layouts(chain):
    config = chain.config()
    assert (config["lr"], config["drop_rate"], config["weight_decay"], config["ema_rate"]) == (2e-5, 0.2, 0, "0.9999")
    trained = json.loads((chain.here / f"OUTPUT/{chain.name}/config.json").read_text())
    assert (trained["lr"], trained["drop_rate"]) == (1e-4, 0)


@pytest.mark.slow
def test_the_variables_reach_the_run_over_the_presets(coco, sdi):
    for chain in (coco, sdi):
        config = chain.config()
        sizes = {name: config[name] for name in ("image_size", "num_channels", "num_head_channels", "batch_size")}
        assert sizes == {"image_size": 16, "num_channels": 32, "num_head_channels": 32, "batch_size": 2}
    assert coco.config()["id_list"] == str(coco.here / "ids.txt")
    assert sdi.config()["crop_policy"] == "object"


def test_exactly_five_images_per_layout_are_sampled_each_from_other_noise(chain):
    results = chain.here / "RESULTS" / chain.name
    assert files(results) == RUNS
    for stem in chain.stems:
        assert len({(results / name / f"samples/{stem}.png").read_bytes() for name in RUNS}) == 5
    for name in RUNS:
        assert [path.stem for path in sorted(results.glob(f"{name}/samples/*.png"))] == chain.stems
        assert files(results / name / "images") == [f"{stem}.png" for stem in chain.stems]
        lines = [json.loads(line) for line in (results / name / "manifest.jsonl").read_text().splitlines()]
        assert [line["s"] for line in lines] == [1.5, 1.5]


def test_both_measures_end_with_a_precise_word_on_their_weights(chain):
    fid, lpips = chain.ended.stderr.strip().splitlines()[-2:]
    assert fid.startswith("error: Inception weights pt_inception-2015-12-05") and "download" in fid
    assert lpips.startswith("error: ImageNet weights alexnet") and "--backbone_weights FILE" in lpips
    assert chain.ended.returncode == 1


@pytest.mark.parametrize(("size", "batch"), [(64, 64), (256, 32)])
def test_a_dry_run_tells_of_the_training_and_stops_before_it(here, size, batch):
    # A stand-in for Python: what matters is the one command.
    (here / "echo.sh").write_text('#!/bin/sh\nshift\necho "$@"\n')
    (here / "echo.sh").chmod(0o755)
    settings = {"DRY_RUN": 1, "IMAGE_SIZE": size, "BATCH_SIZE": "", "NUM_CHANNELS": "", "DATA_DIR": "a b"}
    ended = run("coco.sh", here, PYTHON=here / "echo.sh", **settings)
    [line] = ended.stdout.splitlines()
    preset = 256 if size >= 256 else 128
    assert ended.returncode == 0 and line.endswith(" --dry_run") and f"/coco_{preset}.json --" in line
    assert line.startswith("--data_dir a b ") and f"--image_size {size} " in line and f"--batch_size {batch} " in line
    assert "--num_channels" not in line


def test_a_training_that_was_asked_to_stop_is_not_fine_tuned(here):
    (here / "stopped.sh").write_text('#!/bin/sh\nmkdir -p "$OPENAI_LOGDIR"; touch "$OPENAI_LOGDIR/state000001.pt"\n')
    (here / "stopped.sh").chmod(0o755)
    ended = run("sdi.sh", here, PYTHON=here / "stopped.sh", NAME="stopped")
    assert ended.stderr == "OUTPUT/stopped: stopped at step 1 of 2; the same command continues\n"
    assert ended.returncode != 0 and not (here / "OUTPUT/stopped-FINETUNE").exists()


def test_several_processes_share_the_measures_too(here):
    (here / "mpiexec").write_text('#!/bin/sh\necho mpiexec "$@"\n')
    (here / "mpiexec").chmod(0o755)
    settings = {"NAME": "shared", "PROCESSES": "3", "PYTHON": "py", "FIRST": "first", "RESULTS": "results"}
    words = ["bash", "-c", f'. "{ROOT}/scripts/chain.sh"; measure generated --flag 1']
    environment = {**os.environ, **settings, "PATH": f"{here}:{os.environ['PATH']}"}
    ended = subprocess.run(words, cwd=here, env=environment, capture_output=True, text=True)
    fid, lpips = ended.stdout.splitlines()
    assert fid == f"mpiexec -n 3 py {ROOT}/evaluations/test_with_FID.py first/images generated"
    assert lpips == f"mpiexec -n 3 py {ROOT}/evaluations/lpips.py results --flag 1" and ended.returncode == 0


@pytest.mark.parametrize("preset", PRESETS, ids=lambda path: path.stem)
def test_a_preset_holds_the_recipe(preset):
    dataset, size = preset.stem.split("_")
    run = flags.load(preset)
    train, model, diffusion = run.train, run.model, run.diffusion
    assert (train.lr, train.weight_decay, train.ema_rate, train.schedule_sampler) == (1e-4, 0, "0.9999", "uniform")
    assert (train.drop_rate, train.use_fp16, train.lr_anneal_steps, model.dropout) == (0, True, 0, 0)
    assert (diffusion.diffusion_steps, diffusion.noise_schedule, diffusion.learn_sigma) == (1000, "linear", True)
    assert (diffusion.prediction, model.resblock_updown, model.use_scale_shift_norm) == ("eps", True, True)
    assert (model.attention_resolutions, model.num_res_blocks, model.num_head_channels) == ("32,16,8", 2, 64)
    assert (run.data.dataset_mode, model.image_size, run.data.crop_policy) == (dataset, int(size), "resize")
    assert (model.num_channels, model.image_channels) == ((256, 3) if dataset == "coco" else (128, 1))
    assert run.data.random_flip is (dataset == "coco")
    model.check()


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_clean(script):
    text = script.read_text()
    subprocess.run(["bash", "-n", str(script)], check=True)
    assert not any(line.endswith("\\ ") for line in text.splitlines())  # a space there cuts a command
    if script.name != "chain.sh":  # which the others source
        assert os.access(script, os.X_OK) and text.startswith("#!/usr/bin/env bash\n")
    assert script.name in ("chain.sh", "ade20k.sh") or "\nset -euo pipefail\n" in text
