"""scripts/browse_data.py: its files, its switches, and what it does with bad data."""

import json
import re

import numpy as np
import pytest
import torch
from markupsafe import escape
from PIL import Image

from stay_diffusion.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.formats import vott
from stay_diffusion.run import factory

BROWSE = "scripts/browse_data.py"
SMALL = ["--image_size", 32, "--image_channels", 1]


def boxes_by_picture(page: str) -> dict[str, list[list[list[float]]]]:
    """Of every card by its file's name: the boxes of each draw."""
    found = {}
    for name, card in re.findall(r'<article data-name="(.*?)"(.*?)</article>', page, re.S):
        views = re.findall(r'<figure class="seen".*?</figure>', card, re.S)
        numbers = [re.findall(r'data-box="(.*?)"', view) for view in views]
        found[name] = [[[float(word) for word in box.split()] for box in boxes] for boxes in numbers]
    return found


def test_the_page_shows_what_training_with_the_same_flags_and_seed_sees(run_script, tiny_data, tmp_path):
    words = ["--crop_policy", "object", "--random_flip", "True", "--seed", 5, "--epochs", 2, "--num_images", 7]
    ended = run_script(BROWSE, "--data_dir", tiny_data, "--out", tmp_path / "out", *SMALL, *words)
    data = DataConfig(data_dir=str(tiny_data), crop_policy="object", random_flip=True)
    config = RunConfig(data, ModelConfig(image_size=32, image_channels=1), train=TrainConfig(seed=5))
    records, vocabulary = factory.read_split(data, "train")
    dataset = factory.build_dataset(records, factory.with_vocabulary(config, vocabulary), augment=True)
    places = {record.path.relative_to(tiny_data).as_posix(): index for index, record in enumerate(records)}
    found = boxes_by_picture((tmp_path / "out/index.html").read_text())
    assert len(found) == 7
    for name, views in found.items():
        for epoch, boxes in enumerate(views):
            expected = dataset.sample(places[name], epoch).boxes
            assert torch.equal(torch.tensor(boxes).reshape(-1, 4), expected)
    assert "train: 7 of 12 pictures, 2 times each" in ended.output
    assert f"written: {tmp_path / 'out/index.html'}" in ended.output
    with Image.open(tmp_path / "out/contact_sheet.png") as sheet:
        assert sheet.width > 8 * 192 and sheet.height > 2 * 192  # fourteen draws, eight to a line


def test_the_validation_split_is_shown_in_the_training_splits_names_and_never_mirrored(run_script, tmp_path):
    for split, tags in (("train", ["Spots", "Scratches"]), ("val", ["Dents", "Scratches"])):
        path = tmp_path / "data" / split / "p.png"
        path.parent.mkdir(parents=True)
        Image.new("L", (40, 40)).save(path)
        boxes = tuple(Box(tag, 5, 5, 25, 20) for tag in tags)
        vott.write(path.with_name("x-export.json"), [ImageRecord(path, 40, 40, boxes)], tags, name="x")
    words = ["--split", "val", "--random_flip", "True", "--epochs", 8, "--class_map", "Dents="]
    run_script(BROWSE, "--data_dir", tmp_path / "data", "--out", tmp_path / "out", *SMALL, *words)
    page = (tmp_path / "out/index.html").read_text()
    assert '<option value="2">Scratches</option>' in page and "<p>Spots</p>" in page
    assert page.count('class="seen"') == 8 and "mirrored" not in page


def test_a_dry_run_and_print_config_write_nothing(run_script, tiny_data, tmp_path):
    words = ["--data_dir", tiny_data, "--out", tmp_path / "out", *SMALL]
    ended = run_script(BROWSE, *words, "--dry_run")
    assert "12 of 12 pictures" in ended.output and f"would be written: {tmp_path / 'out/index.html'}" in ended.output
    printed = json.loads(run_script(BROWSE, *words, "--print_config").output)
    assert printed["image_size"] == 32 and printed["data_dir"] == str(tiny_data)
    own = {"split": "train", "num_images": 64, "epochs": 1, "seed": 0}
    assert {name: printed[name] for name in own} == own
    assert not (tmp_path / "out").exists()


@pytest.fixture
def pictures(tmp_path):
    """Eight pictures without boxes, of two products."""
    folder = tmp_path / "data"
    folder.mkdir()
    for i in range(8):
        values = np.random.default_rng(i).integers(0, 255, (48, 48), dtype=np.uint8)
        Image.fromarray(values).save(folder / f"{'ab'[i % 2]}_{i}.png")
    return folder


def of_pictures(folder, *words):
    return ["--data_dir", folder, "--dataset_mode", "images", "--val_fraction", 0, *SMALL, *words]


def test_a_picture_that_cannot_be_decoded_stops_it_or_is_left_out_and_named(run_script, pictures, tmp_path):
    broken = pictures / "a_2.png"
    broken.write_bytes(broken.read_bytes()[:300])  # its header is whole
    words = of_pictures(pictures, "--out", tmp_path / "out")
    ended = run_script(BROWSE, *words, code=1)
    assert ended.output.splitlines()[-1].startswith("error: ") and "a_2.png" in ended.output.splitlines()[-1]
    assert "Traceback" not in ended.output and not (tmp_path / "out/index.html").exists()
    ended = run_script(BROWSE, *words, "--on_bad_data", "skip")
    page = (tmp_path / "out/index.html").read_text()
    assert "left out: 1 pictures" in ended.output and "1 picture left out" in page
    assert len(boxes_by_picture(page)) == 7 and "a_2.png" not in boxes_by_picture(page)


def test_names_say_where_in_a_folder_given_relatively_pictures_lie(run_script, pictures, tmp_path):
    (pictures / "cam 1").mkdir()
    (pictures / "a_2.png").rename(pictures / "cam 1/a_2.png")
    (pictures / "a_4.png").write_bytes((pictures / "a_4.png").read_bytes()[:300])
    (pictures / "a_4.png").rename(pictures / "cam 1/a_4.png")
    run_script(BROWSE, *of_pictures("data", "--out", "out", "--on_bad_data", "skip"), cwd=tmp_path)
    page = (tmp_path / "out/index.html").read_text()
    assert 'data-name="cam 1/a_2.png"' in page and "<bdi>cam 1/a_4.png</bdi>: images that cannot be read" in page


def test_a_picture_without_a_header_is_bad_data_as_in_training(run_script, pictures, tmp_path):
    (pictures / "a_2.png").write_bytes(b"")
    words = of_pictures(pictures, "--out", tmp_path / "out")
    last = run_script(BROWSE, *words, code=1).output.splitlines()[-1]
    assert "a_2.png" in last and "--on_bad_data skip" in last
    assert "7 of 7 pictures" in run_script(BROWSE, *words, "--on_bad_data", "skip").output


def test_nothing_to_show_is_one_line_and_an_error(run_script, pictures, tmp_path):
    words = of_pictures(pictures, "--out", tmp_path / "out", "--on_bad_data", "skip")
    last = run_script(BROWSE, *words, "--split", "val", code=1).output.splitlines()[-1]
    assert last.startswith("error: ") and "no images for the val split" in last
    for file in pictures.iterdir():
        file.write_bytes(file.read_bytes()[:300])
    last = run_script(BROWSE, *words, code=1).output.splitlines()[-1]
    assert last == f"error: {pictures}: none of its 8 pictures can be read"


def test_too_many_objects_stop_it_even_where_bad_data_are_skipped(run_script, tiny_data, tmp_path):
    words = ["--data_dir", tiny_data, "--out", tmp_path / "out", *SMALL, "--max_objects", 1, "--on_bad_data", "skip"]
    last = run_script(BROWSE, *words, code=1).output.splitlines()[-1]
    assert "more than --max_objects 1" in last


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--conditioning", "spade"], "--conditioning spade: --dataset_mode images has no label maps"),
        (["--image_size", "33"], "--image_size 33: must be a multiple of"),
        (["--data_dir", "nowhere"], "no such folder"),
        (["--num_images", "0"], "--num_images 0: must be at least 1"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_what_cannot_be_is_one_line_and_an_error(run_script, pictures, tmp_path, words, told):
    ended = run_script(BROWSE, *of_pictures(pictures, "--out", tmp_path / "out"), *words, code=1)
    assert told in ended.output.splitlines()[-1] and "Traceback" not in ended.output


def test_the_page_does_not_go_where_it_would_become_data(run_script, pictures):
    last = run_script(BROWSE, *of_pictures(pictures, "--out", pictures / "out"), code=1).output.splitlines()[-1]
    assert "lies in --data_dir" in last and not (pictures / "out").exists()


def test_a_label_map_stands_beside_its_picture(run_script, tiny_maps, tmp_path):
    words = ["--dataset_mode", "ade20k", "--conditioning", "spade", "--no_instance", "True", "--image_size", 32]
    run_script(BROWSE, "--data_dir", tiny_maps, "--out", tmp_path / "out", *words)
    page = (tmp_path / "out/index.html").read_text()
    maps = sorted(re.findall(r'src="(index_files/\d+_0_map\.png)"', page))
    assert len(maps) == 4 and all((tmp_path / "out" / file).is_file() for file in maps)
    assert "data-box" not in page and "the network is told the label map" in page


def test_names_of_files_may_be_anything_a_disk_holds(run_script, pictures, tmp_path):
    (pictures / "a_2.png").rename(pictures / """a_<script>alert('1')"&#.png""")
    (pictures / "a_4.png").rename(pictures / b"a_\xff.png".decode(errors="surrogateescape"))
    run_script(BROWSE, *of_pictures(pictures, "--out", tmp_path / "out"))
    page = (tmp_path / "out/index.html").read_text(encoding="utf-8")
    assert page.count("<script>") == 1 and str(escape("""a_<script>alert('1')"&#.png""")) in page
    assert len(re.findall("<article", page)) == 8
