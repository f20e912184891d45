"""scripts/check_data.py, and training by the same rules."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.formats import vott

CHECK, TRAIN = "scripts/check_data.py", "scripts/image_train.py"
CLASSES = ["Spots", "Scratches"]


@pytest.fixture
def folder(tmp_path):
    """A VoTT export of twelve pictures of 40 x 30, each with one box, the first with a second, tiny one."""
    records = []
    for i in range(12):
        path = tmp_path / "data" / f"p{i:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(np.full((30, 40), 20 * i, dtype=np.uint8)).save(path)
        boxes = [Box("Spots", 5, 5, 25, 20)]
        if i == 0:
            boxes.append(Box("Scratches", 1, 1, 2, 20))
        records.append(ImageRecord(path, 40, 30, tuple(boxes)))
    vott.write(tmp_path / "data/x-export.json", records, CLASSES, name="x")
    return tmp_path / "data"


def checked(run_script, folder, tmp_path, code, *flags) -> tuple[dict, str]:
    words = ["--data_dir", folder, "--json", tmp_path / "report.json", "--val_fraction", 0, *flags]
    ended = run_script(CHECK, *words, code=code)
    return json.loads((tmp_path / "report.json").read_text()), ended.output


def test_a_clean_data_set_is_counted_and_ends_with_0(run_script, folder, tmp_path):
    report, output = checked(run_script, folder, tmp_path, 0, "--image_size", 32)
    assert (report["images_kept"], report["boxes_kept"]) == (12, 13)
    assert report["classes"] == {"Spots": 12, "Scratches": 1} and report["problems"] == []
    assert "no problems" in output


def test_boxes_too_small_for_the_model_are_named(run_script, folder, tmp_path):
    report, output = checked(run_script, folder, tmp_path, 0, "--image_size", 32)
    (tiny,) = report["splits"]["train"]["under_2_pixels"]
    assert "p00.png: Scratches" in tiny and "0.8 pixels" in tiny
    assert "1 boxes under 2 pixels at 32 x 32" in output
    assert checked(run_script, folder, tmp_path, 0, "--image_size", 128)[0]["splits"]["train"]["under_2_pixels"] == []


def test_every_broken_picture_is_a_problem_with_its_file_and_the_rest_is_usable(run_script, folder, tmp_path):
    (folder / "p03.png").write_bytes((folder / "p03.png").read_bytes()[:60])  # header and little more
    Image.new("L", (10, 10)).save(folder / "p05.png")
    (folder / "p07.png").write_bytes(b"")
    report, output = checked(run_script, folder, tmp_path, 1)
    found = {problem["file"].rpartition("/")[2]: problem for problem in report["problems"]}
    assert sorted(found) == ["p03.png", "p05.png", "p07.png"] and report["images_kept"] == 9
    assert found["p05.png"]["kind"] == "images of another size than annotated"
    assert found["p05.png"]["detail"] == "annotated as 40x30, the image has 10x10 pixels"
    assert {problem["action"] for problem in report["problems"]} == {"image skipped"}
    assert "3 problems" in output


def test_a_broken_box_is_a_problem_and_the_picture_stays(run_script, folder, tmp_path):
    project = json.loads((folder / "x-export.json").read_text())
    region = next(iter(project["assets"].values()))["regions"][0]
    region["boundingBox"]["width"] = 0
    region["points"] = []
    (folder / "x-export.json").write_text(json.dumps(project))
    report, _ = checked(run_script, folder, tmp_path, 1)
    assert report["images_kept"] == 12 and report["boxes_kept"] == 12
    assert report["problems"][0]["kind"] == "RECTANGLE regions without area"
    assert report["problems"][0]["action"] == "box skipped"


def test_what_is_wrong_with_a_folder_of_both_splits_is_counted_once(run_script, folder, tmp_path):
    project = json.loads((folder / "x-export.json").read_text())
    for asset in list(project["assets"].values())[:2]:
        asset["regions"][0]["boundingBox"]["width"], asset["regions"][0]["points"] = 0, []
    (folder / "x-export.json").write_text(json.dumps(project))
    report, _ = checked(run_script, folder, tmp_path, 1, "--val_fraction", 0.5)
    assert set(report["splits"]) == {"train", "val"} and len(report["problems"]) == 2


def test_nothing_usable_ends_with_2(run_script, folder, tmp_path):
    ended = run_script(CHECK, "--data_dir", tmp_path / "nowhere", code=2)
    assert "no such folder" in ended.output
    for path in folder.glob("*.png"):
        path.write_bytes(b"")
    report, _ = checked(run_script, folder, tmp_path, 2)
    assert report["images_kept"] == 0 and len(report["problems"]) == 12


@pytest.mark.parametrize(
    "words", [("--value_range", "5"), ("--config", "nowhere.json"), ("--json", "/dev/null/x.json")]
)
def test_what_cannot_be_checked_ends_with_2_and_not_as_if_it_were_usable(run_script, folder, words):
    last = run_script(CHECK, "--data_dir", folder, *words, code=2).output.splitlines()[-1]
    assert last.startswith("error: ") and words[1] in last


def test_training_refuses_by_default_what_the_check_finds_and_names_it(run_script, folder, tiny_network, tmp_path):
    Image.new("L", (10, 10)).save(folder / "p05.png")
    words = [*tiny_network, "--data_dir", folder, "--logdir", tmp_path / "run", "--max_steps", 1, "--val_fraction", 0]
    ended = run_script(TRAIN, *words, code=1)
    assert "p05.png" in ended.output.splitlines()[-1] and "--on_bad_data skip" in ended.output.splitlines()[-1]
    ended = run_script(TRAIN, *words, "--on_bad_data", "skip")
    assert "data: 11 training" in ended.output and "images of another size than annotated" in ended.output


def test_training_and_sampling_skip_what_the_check_would_have_skipped(run_script, folder, tiny_network, tmp_path):
    (folder / "p03.png").write_bytes((folder / "p03.png").read_bytes()[:60])  # header and little more
    words = [*tiny_network, "--data_dir", folder, "--logdir", tmp_path / "run", "--batch_size", 11, "--max_steps", 1]
    words += ["--val_fraction", 0, "--val_interval", 0, "--preview_interval", 0]
    assert "p03.png" in run_script(TRAIN, *words, "--batch_size", 12, code=1).output.splitlines()[-1]
    ended = run_script(TRAIN, *words, "--on_bad_data", "skip")
    assert "data: 11 training" in ended.output and "1 times images that cannot be read: image skipped" in ended.output
    words = ["--model_path", tmp_path / "run/model.pt", "--layouts", "train", "--num_steps", 1]
    assert "11 images from 11 layouts" in run_script("scripts/image_sample.py", *words).output


def test_skipped_label_maps_are_skipped_in_training(run_script, tiny_maps, tiny_network, tmp_path):
    folder = shutil.copytree(tiny_maps, tmp_path / "maps")
    broken = sorted((folder / "annotations/training").iterdir())[0]
    Image.fromarray(np.full((40, 48), 200, dtype=np.uint8)).save(broken)
    words = [*tiny_network, "--data_dir", folder, "--dataset_mode", "ade20k", "--logdir", tmp_path / "run"]
    ended = run_script(TRAIN, *words, "--max_steps", 2, "--batch_size", 3, "--on_bad_data", "skip")
    assert "data: 3 training" in ended.output and broken.name in ended.output


def test_label_maps_are_read_whole(run_script, tiny_maps, tmp_path):
    folder = shutil.copytree(tiny_maps, tmp_path / "maps")
    broken = sorted((folder / "annotations/training").iterdir())[0]
    Image.fromarray(np.full((40, 48), 200, dtype=np.uint8)).save(broken)
    report, _ = checked(run_script, folder, tmp_path, 1, "--dataset_mode", "ade20k")
    assert report["images_kept"] == 5 and report["problems"][0]["kind"] == "label maps that cannot be used"
    assert broken.name in report["problems"][0]["detail"]
