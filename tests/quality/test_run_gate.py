"""The gate in a run's folder: used again where it fits, trained anew where it does not, refused where it is broken."""

import logging
import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.quality import run_gate
from stay_diffusion.quality.classifier import probabilities
from stay_diffusion.quality.examples import Examples, examples, meets
from stay_diffusion.quality.run_gate import gate_of_run, training_split
from stay_diffusion.quality.training import held_out


class TrainedError(Exception):
    pass


@pytest.fixture
def no_training(monkeypatch):
    def train(*arguments):
        raise TrainedError

    monkeypatch.setattr(run_gate, "train_gate", train)


@pytest.fixture
def copied(run, tmp_path):
    """(configuration, another folder with the run's gate)."""
    (tmp_path / "quality_gate.pt").write_bytes((run[1] / "quality_gate.pt").read_bytes())
    return run[0], tmp_path


def with_data(config, **options):
    return replace(config, data=replace(config.data, **options))


def test_a_gate_that_fits_is_used_again(copied, no_training, gate):
    again = gate_of_run(*copied)
    assert again.protocol == gate.protocol and torch.equal(again.references.crops, gate.references.crops)
    crops = gate.references.crops[:5]
    assert torch.equal(probabilities(again.model, crops), probabilities(gate.model, crops))


def test_the_gate_is_the_same_trained_as_read_and_trained_again(tmp_path, run, write_data, run_config):
    config = run_config(write_data(tmp_path / "data", num_train=4, num_val=1))
    trained, read = gate_of_run(config, tmp_path, steps=2), gate_of_run(config, tmp_path, steps=2)
    (tmp_path / "quality_gate.pt").unlink()
    assert trained.protocol == read.protocol == gate_of_run(config, tmp_path, steps=2).protocol
    assert torch.equal(trained.references.pixels, read.references.pixels)
    assert len(trained.protocol["digest"]) == 64 and trained.protocol["made_for"]["classes"] == ["bar", "hole"]
    other = gate_of_run(replace(config, train=replace(config.train, seed=1)), tmp_path, steps=2)
    assert other.protocol["digest"] != trained.protocol["digest"]


def test_mirrored_objects_count_as_copies_where_the_data_are_mirrored(tmp_path, write_data, run_config):
    config = run_config(write_data(tmp_path / "data", num_train=4, num_val=1), random_flip=True)
    gate = gate_of_run(config, tmp_path, steps=1)
    with Image.open(tmp_path / "data/train/train_002.png") as image:
        mirrored = ImageOps.mirror(image)
    objects = [
        RelativeBox(gate.classes[gate.labels[i]], 1 - x1 / 96, y0 / 96, 1 - x0 / 96, y1 / 96)
        for i, (x0, y0, x1, y1) in enumerate(gate.boxes.tolist())
        if gate.files[gate.file_of[i]].endswith("train_002.png")
    ]
    assert gate.score(mirrored, objects).copy.similarity == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    ("options", "changed"),
    [
        ({"classes": ("hole", "bar")}, "classes"),
        ({"crop_policy": "resize"}, "crops"),
        ({"random_flip": True}, "flips"),
        ({"class_map": ("bar=hole",)}, "data"),
    ],
)
def test_a_gate_made_for_something_else_is_trained_anew(copied, no_training, caplog, options, changed):
    with pytest.raises(TrainedError), caplog.at_level(logging.INFO):
        gate_of_run(with_data(copied[0], **options), copied[1])
    assert f"made for other {changed}; trained anew" in caplog.text


def test_a_picture_that_was_replaced_makes_another_gate(tmp_path, write_data, run_config):
    folder = write_data(tmp_path / "data", num_train=4, num_val=1)
    config = run_config(folder)
    before = run_gate.made_for(training_split(config), config)
    assert run_gate.made_for(training_split(config), config) == before
    picture = folder / "train/train_001.png"
    picture.write_bytes(picture.read_bytes() + b"\0")
    assert run_gate.made_for(training_split(config), config)["data"] != before["data"]


def test_without_its_data_a_gate_of_the_same_classes_is_used(copied, no_training, caplog):
    gate = gate_of_run(with_data(copied[0], data_dir="/gone"), copied[1])
    assert gate.classes == ("bar", "hole") and "used as it is, its data are not there: /gone" in caplog.text


def test_without_its_data_a_gate_of_other_classes_is_refused(copied):
    with pytest.raises(ValueError, match=r"knows the classes bar, hole, the run dent, and its data are not there"):
        gate_of_run(with_data(copied[0], data_dir="", classes=("dent",)), copied[1])


def test_without_gate_and_data_there_is_nothing(run, tmp_path):
    with pytest.raises(ValueError, match=r"quality_gate\.pt: not there, and neither are the data .*\(/gone\)"):
        gate_of_run(with_data(run[0], data_dir="/gone"), tmp_path)


class Hostile:
    def __reduce__(self):
        return print, ("code from a file",)


def test_files_that_are_no_gates_are_refused_in_one_line(copied, no_training, capsys):
    config, folder = copied
    path = folder / "quality_gate.pt"
    whole = path.read_bytes()
    content = torch.load(path, weights_only=True)
    flipped = {**content, "model.head.bias": content["model.head.bias"] + 1e-3}
    broken = {
        "torn": lambda: path.write_bytes(whole[: len(whole) // 2]),
        "empty": lambda: path.write_bytes(b""),
        "code": lambda: path.write_bytes(pickle.dumps(Hostile(), protocol=2)),
        "other tensors": lambda: torch.save({"weight": torch.zeros(3)}, path),
        "a list": lambda: torch.save([1, 2], path),
        "numbered": lambda: torch.save({1: 2, "a": 3}, path),
        "changed": lambda: torch.save(flipped, path),
        "without about": lambda: torch.save({k: v for k, v in content.items() if k != "about"}, path),
    }
    for breaking in broken.values():
        breaking()
        with pytest.raises(ValueError) as refused:
            gate_of_run(config, folder)
        message = str(refused.value)
        assert message.startswith(f"{path}: not a") and "\n" not in message
        assert message.endswith("delete it, and the next use trains another")
    assert "code from a file" not in capsys.readouterr().out


def test_a_folder_that_cannot_be_written_to_does_not_stop_it(tmp_path, write_data, run_config, monkeypatch, caplog):
    def full(path, content):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(run_gate, "save_tensors", full)
    gate = gate_of_run(run_config(write_data(tmp_path / "data", num_train=3, num_val=1)), tmp_path, steps=1)
    assert gate.classes == ("bar", "hole") and "cannot be kept: No space left on device" in caplog.text
    assert not (tmp_path / "quality_gate.pt").exists()


def test_data_without_boxes_have_no_gate(tmp_path, write_data, run_config):
    config = with_data(run_config(write_data(tmp_path / "data", num_train=3, num_val=1)), class_map=("bar=", "hole="))
    with pytest.raises(ValueError, match="no boxes"):
        gate_of_run(config, tmp_path)


def test_a_tenth_of_the_pictures_is_held_out_and_no_class_loses_its_last_box():
    pictures = torch.arange(40).repeat_interleave(3)
    labels = torch.tensor([0, 1, 2]).repeat(40)  # 2: nothing there
    labels[labels == 1] = 0
    labels[3 * 11] = 1  # the only one
    empty = torch.zeros(120)
    for seed in range(20):
        apart = held_out(Examples(empty, labels, pictures, empty, empty, empty), 2, seed)
        assert len(pictures[apart].unique()) == 4 and 11 not in pictures[apart]
        assert not set(pictures[apart].tolist()) & set(pictures[~apart].tolist())


@pytest.mark.parametrize("policy", ["object", "resize", "center", "random"])
def test_examples_have_every_visible_object_once_whole_and_empty_places_without_any(run, policy):
    dataset = training_split(with_data(run[0], crop_policy=policy))
    found = examples(dataset, seed=0)
    objects = found.where(found.whole & (found.labels < 2))
    seen = {(p, *box) for p, box in zip(objects.pictures.tolist(), objects.boxes.tolist(), strict=True)}
    assert len(seen) == len(objects.labels)
    drawn = {(i, b.x0, b.y0, b.x1, b.y1) for i, record in enumerate(dataset.records) for b in record.boxes}
    assert seen <= drawn and len(seen) >= 0.9 * len(drawn)
    assert (len(seen) == len(drawn)) or policy == "random"
    assert 1.5 < (found.whole & (found.labels == 2)).sum() / len(seen) <= 2
    assert (~found.whole).sum() == (found.whole.sum() if policy == "object" else 0)


def test_a_crop_through_a_window_shows_what_the_whole_one_does_as_far_as_it_reaches(run):
    found = examples(training_split(run[0]), seed=0)
    for i in torch.where(~found.whole)[0][:20].tolist():
        assert found.whole[i - 1] and found.labels[i - 1] == found.labels[i]
        top, left, bottom, right = (
            edge + inwards for edge, inwards in zip(found.inside[i], (1, 1, -1, -1), strict=True)
        )
        whole, window = (found.crops[k, 0, top:bottom, left:right].float() for k in (i - 1, i))
        assert (whole - window).abs().max() <= 2 and whole.std() > 5
    assert (found.inside[found.whole][:, 2:] - found.inside[found.whole][:, :2]).float().mean() > (
        found.inside[~found.whole][:, 2:] - found.inside[~found.whole][:, :2]
    ).float().mean() + 1


def test_the_same_seed_draws_the_same_examples(run):
    dataset = training_split(run[0])
    first, again, other = (examples(dataset, seed) for seed in (0, 0, 1))
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first.crops, other.crops)


def test_empty_places_meet_no_object(run):
    dataset = training_split(run[0])
    found = examples(dataset, seed=0)
    nothing = found.where(found.whole & (found.labels == 2))
    for picture, place in zip(nothing.pictures.tolist(), nothing.boxes.double().numpy(), strict=True):
        drawn = np.array([[b.x0, b.y0, b.x1, b.y1] for b in dataset.records[picture].boxes])
        assert not meets(place + np.array([1e-3, 1e-3, -1e-3, -1e-3]), drawn).any()
        assert (place >= -1e-3).all() and (place <= 96 + 1e-3).all()
