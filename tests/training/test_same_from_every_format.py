"""A DeepPCB model trained from VOC and YOLO data equals the one from VoTT, step for step."""

import csv
from pathlib import Path

import pytest
import torch

from stay_diffusion.data.formats import voc, vott, yolo

DEEPPCB = Path(__file__).resolve().parents[2] / "../shared/data/deeppcb/train/vott-json-export"
STEPS = 3

WRITE = {
    "voc": lambda folder, records, tags: voc.write(folder, records, tags, copy_images=True),
    "yolo": lambda folder, records, tags: yolo.write(folder, records, tags, copy_images=True),
    "sdi": lambda folder, records, tags: vott.write(folder / "x-export.json", records, tags, name="x"),
}


@pytest.mark.skipif(not DEEPPCB.is_dir(), reason="needs ../shared/data/deeppcb")
def test_a_model_is_the_same_whatever_format_its_boxes_come_from(run_script, tiny_network, tmp_path):
    records, tags = vott.read(DEEPPCB)
    records = records[:24]
    ends = {}
    for mode, write in WRITE.items():
        (tmp_path / mode).mkdir()
        write(tmp_path / mode, records, tags)
        words = ["--data_dir", tmp_path / mode, "--dataset_mode", mode, "--logdir", tmp_path / "runs" / mode]
        if mode == "sdi":
            words += ["--image_dir", DEEPPCB]
        words += [*tiny_network, "--batch_size", 4, "--crop_policy", "object", "--random_flip", True]
        run_script("scripts/image_train.py", *words, "--max_steps", STEPS, "--log_interval", 1, "--val_images", 2)
        run = tmp_path / "runs" / mode
        with open(run / "progress.csv", newline="") as file:
            losses = [(row["step"], row["loss"], row["val_loss"]) for row in csv.DictReader(file)]
        ends[mode] = losses, {name: torch.load(run / f"{name}.pt", weights_only=True) for name in ("model", "ema_0.9")}
    losses, weights = ends.pop("sdi")
    assert len(losses) == STEPS
    for mode, (their_losses, their_weights) in ends.items():
        assert their_losses == losses, mode
        for name, tensors in weights.items():
            for key, tensor in tensors.items():
                assert torch.equal(tensor, their_weights[name][key]), (mode, name, key)
