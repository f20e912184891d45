import logging
from pathlib import Path

import pytest
from PIL import Image

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord
from stay_diffusion.data.formats import vott, vott_csv

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
HEADER = '"image","xmin","ymin","xmax","ymax","label"\n'
GOOD = '"a.png",1,2,5,8,"Spots"\n'
SPOTS = Box("Spots", 1, 2, 5, 8)


def save_image(path, size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path)
    return path


def export(tmp_path, rows, header=HEADER, images=("a.png",)):
    for name in images:
        save_image(tmp_path / name)
    (tmp_path / "x-export.csv").write_bytes((header + rows).encode())
    return tmp_path


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/deeppcb")
def test_deeppcb_says_the_same_as_csv_and_as_json():
    json_folder = SHARED / "deeppcb/val/vott-json-export"
    problems = []
    records, tags = vott_csv.read(SHARED / "deeppcb/val/vott-csv-export", json_folder, problems)
    expected, expected_tags = vott.read(json_folder)
    assert problems == [] and sum(len(record.boxes) for record in records) == 644
    assert sorted(tags) == sorted(expected_tags)
    assert sorted(records, key=lambda r: r.path) == sorted((r for r in expected if r.boxes), key=lambda r: r.path)


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/deeppcb")
def test_what_vott_exported_is_written_again_byte_for_byte(tmp_path):
    source = SHARED / "deeppcb/val/vott-csv-export/DeepPCB-val-export.csv"
    records, tags = vott_csv.read(source, SHARED / "deeppcb/val/vott-json-export")
    vott_csv.write(tmp_path / "x-export.csv", records, tags)
    assert (tmp_path / "x-export.csv").read_bytes() == source.read_bytes()


def test_what_is_written_is_read_back_exactly(tmp_path):
    boxes = (Box('O\'Brien, "Pits"', 0.1, 0.2, 0.1 + 0.2, 1 / 3), Box("Löcher", -300.3, 2, 1e-5, 9.999999999999998))
    records = [
        ImageRecord(save_image(tmp_path / "ü b, it's #1%20.png"), 20, 10, boxes),
        ImageRecord(save_image(tmp_path / "deep/er/b.PNG", (8000, 3)), 8000, 3, (Box("Löcher", 1, 1, 7999.99, 2),)),
    ]
    vott_csv.write(tmp_path / "out/x-export.csv", records, [])
    assert vott_csv.read(tmp_path / "out", tmp_path) == (records, ['O\'Brien, "Pits"', "Löcher"])


def test_a_product_is_written_as_a_box_over_the_whole_image_of_any_size(tmp_path):
    vott_csv.write(tmp_path / "x.csv", [ImageRecord(save_image(tmp_path / "a.png"), 0, 0, (SPOTS,), "A")], [])
    assert vott_csv.read(tmp_path)[0][0].boxes == (Box("A", 0, 0, 20, 10), SPOTS)


def test_images_and_tags_without_boxes_are_left_out_with_their_count(tmp_path, caplog):
    records = [ImageRecord(tmp_path / f"{name}.png", 20, 10, boxes) for name, boxes in (("a", ()), ("b", (SPOTS,)))]
    with caplog.at_level(logging.WARNING):
        vott_csv.write(tmp_path / "x.csv", records, ["Spots", "Pits"])
    assert "left out 1 images without boxes" in caplog.text and "left out 1 tags without boxes: Pits" in caplog.text
    assert (tmp_path / "x.csv").read_text() == HEADER + '"b.png",1,2,5,8,"Spots"'


def test_two_images_of_one_name_are_not_written_and_nothing_is_left_behind(tmp_path):
    records = [ImageRecord(tmp_path / f"{name}/a.png", 20, 10, (SPOTS,)) for name in ("one", "two")]
    with pytest.raises(AnnotationError, match=r"two images are called a\.png"):
        vott_csv.write(tmp_path / "x.csv", records, [])
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(("row", "kind", "detail"), [
    ('"a.png",1,2,5,nan,"Pits"', "without finite", "line 2, a.png: 1, 2, 5, nan"),
    ('"a.png",1,2,inf,8,"Pits"', "without finite", "line 2"),
    ('"a.png",1,two,5,8,"Pits"', "without finite", "1, two, 5, 8"),
    ('"a.png",,2,5,8,"Pits"', "without finite", "line 2"),
    ('"a.png",5,2,5,8,"Pits"', "without area", "line 2"),
    ('"a.png",5,2,1,8,"Pits"', "without area", "line 2"),
    ('"a.png",1,8,5,2,"Pits"', "without area", "line 2"),
    ('"a.png",20,2,25,8,"Pits"', "wholly outside", "line 2"),
    ('"a.png",-5,2,0,8,"Pits"', "wholly outside", "line 2"),
    ('"a.png",1,10,5,12,"Pits"', "wholly outside", "line 2"),
    ('"a.png",1,-3,5,0,"Pits"', "wholly outside", "line 2"),
    ('"a.png",1,2,5,8,""', "without a label", "line 2"),
    ('"a.png",1,2,5,8', "without image or columns", "line 2: not 6 columns"),
    ('"a.png",1,2,5,8,"Pits",7', "without image or columns", "line 2: not 6 columns"),
    ('"",1,2,5,8,"Pits"', "without image or columns", "line 2: no image"),
])  # fmt: skip
def test_a_row_that_cannot_be_used_is_named_and_the_others_stay(tmp_path, row, kind, detail):
    problems = []
    records, tags = vott_csv.read(export(tmp_path, f"{row}\n{GOOD}"), None, problems)
    assert records == [ImageRecord(tmp_path / "a.png", 20, 10, (SPOTS,))] and tags == ["Spots"]
    [problem] = problems
    assert problem.file == str(tmp_path / "x-export.csv") and problem.action == "box skipped"
    assert kind in problem.kind and detail in problem.detail


@pytest.mark.parametrize(("name", "kind"), [("missing.png", "not found"), ("broken.png", "cannot be read")])
def test_an_image_that_cannot_be_used_is_named_once_and_the_others_stay(tmp_path, name, kind):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    problems = []
    row = f'"{name}",1,2,5,8,"Pits"\n'
    records, _ = vott_csv.read(export(tmp_path, row + GOOD + row), None, problems)
    assert [record.path.name for record in records] == ["a.png"]
    [problem] = problems
    assert kind in problem.kind and problem.action == "image skipped" and name in problem.detail


@pytest.mark.parametrize(("content", "message"), [
    (b"", "not a VoTT CSV export: its first line has no image, xmin"),
    (b'"image","xmin","ymin","xmax","ymax"\n', "has no label"),
    (b'"image";"xmin";"ymin";"xmax";"ymax";"label"\n', r"cannot be read as CSV .*',' expected"),
    (b"image;xmin;ymin;xmax;ymax;label\n", "not a VoTT CSV export"),
    (HEADER.encode(), "no image can be used"),
    ((HEADER + '"missing.png",1,2,5,8,"Pits"').encode(), r"image missing\.png not found.*--image_dir"),
    ((HEADER + '"a.png",1,2,5,8,"Pi').encode(), "cannot be read as CSV"),
    (HEADER.encode() + b'"\xff.png",1,2,5,8,"Pits"', "cannot be read as text"),
])  # fmt: skip
def test_a_file_that_is_of_no_use_is_refused_by_name(tmp_path, content, message):
    (tmp_path / "x-export.csv").write_bytes(content)
    with pytest.raises(AnnotationError, match=rf"x-export\.csv: (?s:.)*{message}"):
        vott_csv.read(tmp_path)


@pytest.mark.parametrize("arguments", [("nowhere",), (".", "nowhere"), (".",)])
def test_folders_without_anything_are_refused(tmp_path, arguments):
    with pytest.raises(AnnotationError, match=r"no such|no CSV export"):
        vott_csv.read(*(tmp_path / name for name in arguments))


def test_an_image_in_two_files_is_refused(tmp_path):
    export(tmp_path, GOOD)
    (tmp_path / "y-export.csv").write_text(HEADER + GOOD)
    with pytest.raises(AnnotationError, match=r"annotated twice.*x-export.*y-export"):
        vott_csv.read(tmp_path)


@pytest.mark.parametrize(("header", "row"), [
    ("label,ymax,xmax,ymin,xmin,image,notes\n", "Spots,8,5,2,1,a.png,fine\n"),
    ("\ufeff" + HEADER.replace("\n", "\r\n"), GOOD.replace("\n", "\r\n\r\n")),
    (HEADER, '"C:\\\\parts\\\\a.png",1.0,2,5,8e0,"Spots"\n'),
    (HEADER, '"a%2Epng",1,2,5,8,"Spots"'),
])  # fmt: skip
def test_other_writers_ways_are_understood(tmp_path, header, row):
    assert vott_csv.read(export(tmp_path, row, header))[0][0].boxes == (SPOTS,)


def test_folders_tell_images_of_one_name_apart(tmp_path):
    rows = '"one/a.png",1,2,5,8,"Spots"\n"/elsewhere/two/a.png",1,2,5,8,"Pits"\n'
    records, _ = vott_csv.read(export(tmp_path, rows, images=("one/a.png", "two/a.png")))
    assert [(r.path.parent.name, r.boxes[0].label) for r in records] == [("one", "Spots"), ("two", "Pits")]


def test_a_box_partly_outside_is_kept_as_drawn(tmp_path):
    [record], _ = vott_csv.read(export(tmp_path, '"a.png",-3.5,-2,25,11,"Pits"\n'))
    assert record.boxes == (Box("Pits", -3.5, -2, 25, 11),)


def test_what_a_mac_leaves_beside_an_export_does_not_count(tmp_path):
    (export(tmp_path, GOOD) / "._x-export.csv").write_bytes(b"\0\5\x16\7")
    assert len(vott_csv.read(tmp_path)[0]) == 1


def test_rows_of_an_image_need_not_follow_one_another(tmp_path):
    folder = export(tmp_path, GOOD + '"b.png",1,2,5,8,"Pits"\n' + GOOD, images=("a.png", "b.png"))
    assert [len(record.boxes) for record in vott_csv.read(folder)[0]] == [2, 1]


def test_without_a_list_problems_are_logged_once_per_kind(tmp_path, caplog):
    folder = export(tmp_path, '"a.png",5,2,5,8,"Pits"\n' * 3 + GOOD)
    with caplog.at_level(logging.WARNING):
        vott_csv.read(folder)
    [record] = caplog.records
    assert "3 times boxes without area: box skipped (first: " in record.getMessage()


def test_a_hundred_thousand_rows_are_read_in_seconds(tmp_path):
    [record], _ = vott_csv.read(export(tmp_path, GOOD * 100_000))
    assert len(record.boxes) == 100_000
