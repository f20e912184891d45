"""What reading of many pictures saves must not change what is read."""

import gc
import json

import pytest
from reading import load_records

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord
from stay_diffusion.data.formats import coco, vott
from stay_diffusion.data.formats.files import read_json, visible_files
from stay_diffusion.data.formats.plain_boxes import json_number, json_numbers, reading

WRITERS = {"sdi": (vott.write, "x-export.json"), "coco_json": (coco.write, "annotations.json")}


def make(folder, mode, num=30):
    from PIL import Image

    folder.mkdir(parents=True)
    records = []
    for i in range(num):
        Image.new("L", (16, 16)).save(folder / f"{i}.png")
        records.append(ImageRecord(folder / f"{i}.png", 16, 16, (Box(("spot", "line")[i % 2], 1, 2, 5.5, 8),)))
    write, name = WRITERS[mode]
    write(folder / name, records, ["spot", "line"], name="x")
    return folder


@pytest.mark.parametrize("mode", WRITERS)
def test_two_splits_of_the_same_files_are_the_same_read_once_or_twice(mode, tmp_path, monkeypatch):
    data, shared = make(tmp_path / "data", mode), {}
    apart = [load_records(mode, data, split) for split in ("train", "val")]
    first = load_records(mode, data, "train", shared=shared)
    monkeypatch.setattr("stay_diffusion.data.datasets._read", lambda *_: pytest.fail("read again"))
    monkeypatch.chdir(tmp_path)  # another name of the same folder
    second = load_records(mode, data.relative_to(tmp_path), "val", shared=shared)
    assert [first, second] == apart
    assert not shared


def test_what_cannot_be_used_is_told_for_both_splits(tmp_path):
    data, shared = make(tmp_path / "data", "sdi"), {}
    (data / "3.png").unlink()
    for split in ("train", "val"):
        problems = []
        load_records("sdi", data, split, shared=shared, problems=problems)
        assert [problem.kind for problem in problems] == ["images that are not found"]


def test_splits_in_folders_of_their_own_are_each_read(tmp_path):
    for split in ("train", "val"):
        make(tmp_path / split, "sdi", num=4 if split == "train" else 2)
    shared = {}
    assert [len(load_records("sdi", tmp_path, split, shared=shared)[0]) for split in ("train", "val")] == [4, 2]
    assert not shared


def test_labels_of_the_same_name_are_one_object(tmp_path):
    records, _ = vott.read(make(tmp_path / "data", "sdi"))
    assert len({id(box.label) for record in records for box in record.boxes}) == 2


def test_the_collector_rests_while_reading_and_goes_on_after_an_error(tmp_path):
    with pytest.raises(AnnotationError), reading(tmp_path, None):
        assert not gc.isenabled()
        raise AnnotationError("broken")
    assert gc.isenabled()


def test_a_collector_that_was_off_stays_off(tmp_path):
    gc.disable()
    try:
        with reading(tmp_path, None):
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()


@pytest.mark.parametrize(("number", "left_alone"), [(1000, False), (200_000, True)])
def test_the_collector_leaves_alone_what_was_read_where_it_was_much(tmp_path, number, left_alone):
    before = gc.get_freeze_count()
    try:
        with reading(tmp_path, None):
            made = [[i] for i in range(number)]
        assert (gc.get_freeze_count() >= before + len(made)) == left_alone
    finally:
        gc.unfreeze()


@pytest.mark.parametrize("values", [
    [], [1, 2.5], [True, 1.0], [1.0, "2"], [float("nan"), 1.0], [1.0, float("inf")], [10**400, 1], [-1e301], [None],
])  # fmt: skip
def test_many_numbers_are_read_as_each_by_itself(values):
    assert repr(json_numbers(values)) == repr([json_number(value) for value in values])


def test_objects_are_replaced_as_soon_as_they_are_read_and_entries_twice_are_errors(tmp_path):
    file = tmp_path / "a.json"
    file.write_text(json.dumps([{"long": 1, "kept": 2}, {"kept": {"long": {"long": 3}}}]))
    assert read_json(file, "long", lambda entry: {**entry, "long": None}) == [
        {"long": None, "kept": 2},
        {"kept": {"long": None}},
    ]
    file.write_text('{"long": 1, "long": 2}')
    with pytest.raises(AnnotationError, match="'long' twice"):
        read_json(file, "long", lambda entry: {})


def test_files_of_an_ending_are_found_in_order_hidden_ones_not(tmp_path):
    for name in ("b-export.json", "a/c-export.json", "a/other.json", ".hidden-export.json"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = visible_files(tmp_path, "-export.json")
    assert [path.relative_to(tmp_path).as_posix() for path in found] == ["a/c-export.json", "b-export.json"]


@pytest.mark.parametrize("climb", ["..", "inside/../..", "%2e%2e", "..\\inside\\.."])
def test_a_vott_path_that_leads_out_of_the_data_is_not_followed(climb, tmp_path):
    data = make(tmp_path / "data", "sdi", num=2)
    (data / "inside").mkdir()
    (data / "1.png").rename(tmp_path / "1.png")
    file = data / "x-export.json"
    file.write_text(file.read_text().replace("file:1.png", f"file:{json.dumps(climb)[1:-1]}/1.png"))
    problems = []
    records, _ = vott.read(data, problems=problems)
    assert [record.path.name for record in records] == ["0.png"]
    assert ["leads out" in problem.detail for problem in problems] == [True]


def test_a_vott_path_that_climbs_and_comes_back_is_followed(tmp_path):
    data = make(tmp_path / "data", "sdi", num=2)
    file = data / "x-export.json"
    file.write_text(file.read_text().replace("file:1.png", "file:../data/1.png"))
    assert [record.path for record in vott.read(data)[0]] == [data / "0.png", data / "1.png"]
