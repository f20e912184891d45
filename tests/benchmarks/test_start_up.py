from pathlib import Path

import pytest
import start_up

from stay_diffusion.config import DataConfig
from stay_diffusion.run.factory import read_split


@pytest.mark.parametrize("mode", start_up.WRITERS)
def test_an_annotation_takes_less_than_300_bytes(mode, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # the names of folders count too
    start_up.make_data(Path("data"), mode, images=300, boxes=4)
    by_box, by_image = start_up.held(Path("data"), mode)
    assert 150 < by_box < 300
    assert by_image == pytest.approx(4 * by_box)


@pytest.mark.parametrize("mode", start_up.WRITERS)
def test_another_box_takes_itself_and_four_numbers(mode, tmp_path):
    held = []
    for boxes in (4, 8):
        start_up.make_data(tmp_path / f"data{boxes}", mode, images=300, boxes=boxes)
        held.append(start_up.held(tmp_path / f"data{boxes}", mode)[1])
    assert held[1] - held[0] < 4 * 180


@pytest.mark.parametrize("mode", start_up.WRITERS)
def test_made_data_have_their_pictures_and_boxes(mode, tmp_path):
    start_up.make_data(tmp_path / "data", mode, images=40, boxes=3)
    splits = [
        read_split(DataConfig(data_dir=str(tmp_path / "data"), dataset_mode=mode), name)[0] for name in ("train", "val")
    ]
    assert sum(map(len, splits)) == 40 and all(len(record.boxes) == 3 for split in splits for record in split)
    assert len({record.path.stat().st_ino for split in splits for record in split}) == 1


def test_bytes_count_every_object_once():
    text = "x" * 1000
    once, twice = start_up.held_bytes([text]), start_up.held_bytes([text, text])
    assert once > 1000
    assert twice - once < 100


def test_a_command_is_what_it_takes_more_than_another():
    more = start_up.Command(5.0, 4.0, 300) - start_up.Command(2.0, 1.0, 100)
    assert (more.seconds, more.busy, more.peak) == (3.0, 3.0, 200)
