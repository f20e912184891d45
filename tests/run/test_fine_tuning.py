"""--finetune_from: new classes after the old; the same command goes on; what cannot be is one line."""

import json
import os
import re
import shutil

import pytest
import torch

from stay_diffusion.config import DataConfig, RunConfig, TrainConfig
from stay_diffusion.run.checkpoint import RunFolder, load_tensors
from stay_diffusion.run.fine_tuning import find_weights, resolve_resume_flags

TRAIN = "scripts/image_train.py"
LABELS = "conditioner.object_codes.label_embedding.weight"
FINE = "--batch_size 5 --microbatch 3 --drop_rate 0.3 --random_flip True --dropout 0.2 --lr 0.001 --ema_rate 0.9 "
FINE += "--save_interval 2 --log_interval 1 --val_interval 2 --val_images 2 --preview_interval 0 --num_workers 0 "
FINE += "--freeze encoder --schedule_sampler loss-second-moment --classes Pits,Scratches"
STEPS = 4


@pytest.fixture(scope="module")
def base(run_script, tiny_data, tiny_network, tmp_path_factory):
    """The folder of a run that knows Spots and Pits."""
    folder = tmp_path_factory.mktemp("base run")
    words = [
        "--data_dir",
        tiny_data,
        *tiny_network,
        "--classes",
        "Spots,Pits",
        "--class_map",
        "Inclusions=Pits,Stains=",
    ]
    words += ["--crop_policy", "object", "--diffusion_steps", 12, "--noise_schedule", "cosine", "--num_workers", 0]
    words += ["--batch_size", 4, "--max_steps", 2, "--val_interval", 1, "--val_images", 2, "--preview_interval", 0]
    run_script(TRAIN, *words, "--lr", 0.01, "--logdir", folder)
    return folder


@pytest.fixture(scope="module")
def command(tiny_data, base):
    return ["--finetune_from", base, "--data_dir", tiny_data, *FINE.split(), "--max_steps", STEPS]


@pytest.fixture(scope="module")
def uninterrupted(run_script, command, tmp_path_factory):
    """A fine-tune's folder, and what it said."""
    folder = tmp_path_factory.mktemp("fine")
    return folder, run_script(TRAIN, *command, "--logdir", folder).output


@pytest.fixture
def finished(uninterrupted, tmp_path):
    """A copy of the finished fine-tune."""
    for file in uninterrupted[0].glob("*.*"):
        (os.link if file.suffix == ".pt" else shutil.copy)(file, tmp_path / file.name)
    return tmp_path


def config_of(folder):
    return json.loads((folder / "config.json").read_text())


def contents(folder, step):
    found = {name: load_tensors(RunFolder(folder).file(name, step)) for name in ("model", "ema_0.9", "opt", "state")}
    assert found["state"].pop("config") and found["state"].pop("versions")
    return found


def test_new_classes_come_after_the_old_and_the_old_stay_though_the_data_lack_them(base, uninterrupted):
    folder, said = uninterrupted
    config = config_of(folder)
    assert config_of(base)["classes"] == ["Spots", "Pits"]
    assert (config["classes"], config["num_classes"]) == (["Spots", "Pits", "Scratches"], 3)
    assert "new classes, after the 2 that the start knows: Scratches" in said
    assert config["product_tags"] == config_of(base)["product_tags"] and "new products" not in said


def test_the_start_is_the_runs_best_average_and_its_options_are_the_runs(base, uninterrupted):
    folder, said = uninterrupted
    start = base / "ema_0.9_best.pt"
    assert f"starting from {start}" in said and config_of(folder)["finetune_from"] == str(start)
    same = ("image_size", "num_channels", "diffusion_steps", "crop_policy")
    assert {name: config_of(folder)[name] for name in same} == {name: config_of(base)[name] for name in same}
    assert config_of(folder)["dropout"] == 0.2  # which may change


def test_tags_that_the_start_renames_are_renamed_and_those_it_left_out_are_open(uninterrupted):
    class_map = dict(entry.split("=") for entry in config_of(uninterrupted[0])["class_map"])
    assert class_map == {"Inclusions": "Pits", "Spots": "", "Stains": ""}  # Spots and Stains by --classes now


def test_rows_and_weights_that_nothing_teaches_are_the_starts_bit_for_bit(base, uninterrupted):
    start, end = load_tensors(base / "ema_0.9_best.pt"), load_tensors(uninterrupted[0] / "model.pt")
    assert torch.equal(end[LABELS][1], start[LABELS][1])  # Spots
    assert not torch.equal(end[LABELS][2], start[LABELS][2])  # Pits
    assert len(end[LABELS]) == 4
    for name, tensor in start.items():
        if name.startswith(("time_embed.", "input_blocks.")):
            assert torch.equal(end[name], tensor), name
    assert not torch.equal(end["out.2.weight"], start["out.2.weight"])


def test_a_fine_tune_in_two_processes_is_bit_for_bit_one_in_one(run_script, command, uninterrupted, tmp_path):
    for last in (3, STEPS):
        said = run_script(TRAIN, *command, "--logdir", tmp_path, "--max_steps", last).output
    assert "continuing from step 3" in said and "new classes" not in said
    torch.testing.assert_close(contents(tmp_path, STEPS), contents(uninterrupted[0], STEPS), rtol=0, atol=0)
    assert config_of(tmp_path) == {**config_of(uninterrupted[0]), "logdir": str(tmp_path)}


def test_what_is_frozen_is_counted(uninterrupted, run_script, command, tmp_path):
    said = run_script(TRAIN, *command, "--logdir", tmp_path, "--freeze", "all_but_conditioning", "--dry_run").output
    lines = [next(line for line in text.splitlines() if "model:" in line) for text in (uninterrupted[1], said)]
    counts = [float(line.split("parameters, ")[1].split(" of them trained (--freeze ")[0]) for line in lines]
    whole = sum(tensor.numel() for tensor in load_tensors(uninterrupted[0] / "model.pt").values()) / 1e6
    assert counts[1] < counts[0] < whole and "(--freeze all_but_conditioning)" in lines[1]


def test_old_and_new_classes_are_sampled_from_the_result(run_script, uninterrupted, tmp_path):
    layouts = tmp_path / "layouts.jsonl"
    boxes = [("Spots", [0.1, 0.1, 0.5, 0.5]), ("Scratches", [0.4, 0.2, 0.9, 0.4])]
    lines = [{"stem": label, "objects": [{"label": label, "box": box}]} for label, box in boxes]
    layouts.write_text("".join(json.dumps(line) + "\n" for line in lines))
    words = ["--model_path", uninterrupted[0] / "ema_0.9.pt", "--layouts", layouts, "--num_steps", 2]
    run_script("scripts/image_sample.py", *words, "--results_path", tmp_path / "out")
    assert {path.stem for path in (tmp_path / "out/samples").glob("*.png")} == {"Spots", "Scratches"}


def test_a_model_of_label_maps_learns_names_in_another_order(run_script, tiny_network, tmp_path):
    import numpy as np
    from PIL import Image

    def fill(folder, names, ids):
        for kind, values in (("images", [40, 90, 140]), ("annotations", ids)):
            (folder / kind / "training").mkdir(parents=True)
            for i in range(2):
                picture = np.repeat(np.array(values, dtype=np.uint8), 8)[None].repeat(24, axis=0)
                Image.fromarray(picture).save(folder / kind / "training" / f"{i}.png")
        (folder / "classes.txt").write_text("\n".join(names))

    fill(tmp_path / "old", ("pit", "scratch"), (0, 1, 2))
    fill(tmp_path / "new", ("dent", "pit"), (0, 1, 2))
    words = ["--dataset_mode", "maps", "--val_fraction", 0, "--batch_size", 2, "--num_workers", 0]
    model = [*tiny_network, "--conditioning", "spade", "--no_instance", True]
    run_script(TRAIN, *words, *model, "--data_dir", tmp_path / "old", "--logdir", tmp_path / "a", "--max_steps", 1)
    fine = [*words, "--finetune_from", tmp_path / "a", "--data_dir", tmp_path / "new", "--logdir", tmp_path / "b"]
    for last in (1, 2):
        said = run_script(TRAIN, *fine, "--lr", 0.01, "--max_steps", last).output
    assert "continuing from step 1" in said
    assert config_of(tmp_path / "b")["classes"] == ["pit", "scratch", "background", "dent"]
    name = "middle_block.0.in_layers.0.mlp_shared.0.weight"
    start, end = load_tensors(tmp_path / "a/model.pt")[name], load_tensors(tmp_path / "b/model.pt")[name]
    assert torch.equal(end[:, 1], start[:, 1]) and end.shape[1] == 4  # no scratch in the new data
    assert all((end[:, i] - start[:, i]).abs().max() > 1e-4 for i in (0, 2))


# What cannot be


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--freeze none", "--freeze none contradicts the run's encoder"),
        ("--classes Pits,Spots", "--classes Pits,Spots contradicts the trained model's Spots,Pits,Scratches"),
        ("--resume_checkpoint model.pt", "--finetune_from and --resume_checkpoint both say what to start from"),
    ],
)
def test_what_contradicts_a_fine_tune_that_goes_on_is_one_line(run_script, command, finished, flags, told):
    before = config_of(finished)
    output = run_script(TRAIN, *command, "--logdir", finished, *flags.split(), code=1).output
    assert told in output.splitlines()[-1] and output.splitlines()[-1].startswith("error: ")
    assert config_of(finished) == before


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--num_res_blocks 2", "--num_res_blocks 2 contradicts the trained model's 1"),
        ("--classes Dents", "--classes Dents: no such tag"),
        ("--product_tags Spots", "'Spots' is a class of the trained model, but a product of the data"),
        ("--finetune_from=", "--freeze encoder: nothing is trained yet"),
    ],
)
def test_a_start_that_cannot_be_is_one_line_and_makes_no_folder(run_script, command, tmp_path, flags, told):
    output = run_script(TRAIN, *command, "--logdir", tmp_path / "new", *flags.split(), code=1).output
    last = output.splitlines()[-1]
    assert last.startswith("error: ") and told in last and not (tmp_path / "new").exists()


def test_weights_are_found_in_the_folder_or_named(base, tmp_path):
    assert find_weights(str(base)) == base / "ema_0.9_best.pt"
    assert find_weights(str(base / "model.pt")) == base / "model.pt"
    for name in ("config.json", "ema_0.9.pt", "model.pt"):
        shutil.copy(base / name, tmp_path / name)
    assert find_weights(str(tmp_path)) == tmp_path / "ema_0.9.pt"
    (tmp_path / "ema_0.9.pt").unlink()
    assert find_weights(str(tmp_path)) == tmp_path / "model.pt"
    (tmp_path / "model.pt").unlink()
    with pytest.raises(ValueError, match="no weights in it"):
        find_weights(str(tmp_path))
    for name, told in ((tmp_path / "nowhere", "no such run folder"), (tmp_path.parent, "not the folder of a run")):
        with pytest.raises(ValueError, match=f"--finetune_from {re.escape(str(name))}: {told}"):
            find_weights(str(name))
    shutil.copy(base / "model.pt", tmp_path / "bare.pt")
    (tmp_path / "config.json").unlink()
    with pytest.raises(ValueError, match=r"bare\.pt: no config\.json beside it"):
        find_weights(str(tmp_path / "bare.pt"))


def test_a_start_given_again_is_the_same_by_its_folder_or_its_file(tmp_path, monkeypatch):
    saved = RunConfig(train=TrainConfig(finetune_from=str(tmp_path / "a/ema_0.9.pt")))
    monkeypatch.chdir(tmp_path)
    for name in ("a", "a/ema_0.9.pt", str(tmp_path / "a")):
        assert resolve_resume_flags({"finetune_from": name, "lr": 1.0}, saved) == ({"lr": 1.0}, [])
    for name in ("b", "a/model.pt", "."):
        assert resolve_resume_flags({"finetune_from": name}, saved)[1]
    assert resolve_resume_flags({"finetune_from": "a"}, RunConfig())[1]


def test_choices_given_again_count_only_against_what_the_run_left_out():
    data = DataConfig(classes=("spot", "line"), product_tags=("A",), class_map=("line=",))
    saved = RunConfig(data=data, train=TrainConfig(finetune_from="/runs/a/model.pt"))
    assert resolve_resume_flags({"classes": ["spot"]}, saved) == ({}, [])
    assert resolve_resume_flags({"classes": ["spot", "line"]}, saved)[0] == {"classes": ["spot", "line"]}
    assert resolve_resume_flags({"classes": ["spot"]}, RunConfig(data=data))[0] == {"classes": ["spot"]}
