"""scripts/ade20.sh in small: the old README's commands, from label maps to the last line of the measures."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SMALL = {"IMAGE_SIZE": 16, "NUM_CHANNELS": 32, "BATCH_SIZE": 2, "TRAIN_STEPS": 2, "FINETUNE_STEPS": 1}
SMALL |= {"NUM_SAMPLES": 2, "NUM_RUNS": 2, "OMP_NUM_THREADS": 1, "OPENAI_LOG_FORMAT": "stdout,log,csv"}
CHECKPOINT = ["config.json", "ema_0.9999.pt", "ema_0.9999_best.pt", "log.txt", "model.pt", "previews", "progress.csv"]


@pytest.fixture(scope="module")
def chain(tiny_maps, tmp_path_factory):
    """The folder in which everything was made, and how the script ended."""
    here = tmp_path_factory.mktemp("a place") / "with a space"
    here.mkdir()
    settings = {"PYTHON": sys.executable, "DATA_DIR": tiny_maps, "TORCH_HOME": here / "no weights", **SMALL}
    environment = {**os.environ, **{name: str(value) for name, value in settings.items()}}
    command = ["bash", str(ROOT / "scripts/ade20.sh")]
    return here, subprocess.run(command, cwd=here, env=environment, capture_output=True, text=True)


def files(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))


def test_training_and_fine_tuning_leave_the_files_that_the_commands_after_them_name(chain):
    here, ended = chain
    for name, step in (("ADE20K-STAY", 2), ("ADE20K-STAY-FINETUNE", 1)):
        numbered = [f"ema_0.9999_{step:06d}.pt", *(f"{kind}{step:06d}.pt" for kind in ("model", "opt", "state"))]
        numbered.append(f"checkpoint{step:06d}.sha256")
        assert files(here / "OUTPUT" / name) == sorted([*CHECKPOINT, *numbered]), ended.stderr
    config = json.loads((here / "OUTPUT/ADE20K-STAY-FINETUNE/config.json").read_text())
    assert (config["lr"], config["drop_rate"], config["num_classes"]) == (2e-5, 0.2, 151)
    assert "starting from OUTPUT/ADE20K-STAY/model.pt" in ended.stdout


def test_each_run_holds_exactly_one_picture_of_each_kind_per_label_map(chain):
    here, _ = chain
    stems = ["ADE_validation_0000.png", "ADE_validation_0001.png"]
    for run in ("run0", "run1"):
        folder = here / "RESULTS/ADE20K-STAY" / run
        assert files(folder / "images") == files(folder / "labels") == stems
        assert sorted(path.name for path in folder.glob("samples/*.png")) == stems
        lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
        assert [line["s"] for line in lines] == [1.5, 1.5]


def test_both_measures_end_with_a_precise_word_on_their_weights(chain):
    _, ended = chain
    fid, lpips = ended.stderr.strip().splitlines()[-2:]
    assert fid.startswith("error: Inception weights pt_inception-2015-12-05") and "download" in fid
    assert lpips.startswith("error: ImageNet weights alexnet") and "--backbone_weights FILE" in lpips
    assert ended.returncode == 1


def test_the_script_for_sdm_is_the_same_chain_with_spade():
    script = (ROOT / "scripts/ade20k.sh").read_text()
    assert "CONDITIONING=spade" in script and "ade20.sh" in script
