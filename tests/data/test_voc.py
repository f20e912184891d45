import logging
import os
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord
from stay_diffusion.data.formats import voc

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
SPOTS = Box("Spots", 1, 2, 5, 8)
SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"


def save_image(path, size=(20, 10)):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", size).save(path)
    return path


def obj(name="Spots", xmin=1, ymin=2, xmax=5, ymax=8):
    bounds = f"<xmin>{xmin}</xmin><ymin>{ymin}</ymin><xmax>{xmax}</xmax><ymax>{ymax}</ymax>"
    return f"<object><name>{name}</name><pose>Left</pose><difficult>1</difficult><bndbox>{bounds}</bndbox></object>"


def save_xml(path, *objects, size=SIZE, prefix=""):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{prefix}<annotation><filename>other</filename>{size}{''.join(objects)}</annotation>")
    return path


def data_set(folder, **files):
    """Pictures and XML files, one of each per stem, of the objects given."""
    for stem, objects in files.items():
        save_image(folder / f"JPEGImages/{stem}.png")
        save_xml(folder / f"Annotations/{stem}.xml", *objects)
    return folder


@pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data/neu_det")
@pytest.mark.parametrize(("split", "images", "counts", "widths", "heights"), [
    ("train", 360, (129, 172, 169, 92, 132, 102), (8, 199), (14, 199)),
    ("val", 120, (45, 79, 64, 31, 41, 38), (10, 199), (13, 199)),
])  # fmt: skip
def test_neu_det_has_the_counts_and_boxes_its_readme_states(split, images, counts, widths, heights):
    problems = []
    records, tags = voc.read(SHARED / "neu_det" / split, None, problems)
    boxes = [box for record in records for box in record.boxes]
    names = ["crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches"]
    assert sorted(tags) == names and problems == [] and len(records) == images
    assert Counter(box.label for box in boxes) == dict(zip(names, counts, strict=True))
    assert {(record.width, record.height) for record in records} == {(200, 200)}
    for found, stated in ((sorted(b.x1 - b.x0 for b in boxes), widths), (sorted(b.y1 - b.y0 for b in boxes), heights)):
        assert (found[0], found[-1]) == stated


@pytest.mark.parametrize("copy_images", [True, False])
def test_what_is_written_is_read_back_exactly(tmp_path, copy_images):
    boxes = (Box('O\'Brien & <Sons>, "x"', 0.1, 0.2, 0.1 + 0.2, 1 / 3), Box("Löcher", -300.3, 2, 1e-5, 9.99))
    records = [
        ImageRecord(save_image(tmp_path / "in/a.b.c.PNG"), 20, 10, boxes),
        ImageRecord(save_image(tmp_path / "in/b ü, it's #1%20.png"), 20, 10),
        ImageRecord(save_image(tmp_path / "in/deep/c.bmp", (8000, 3)), 8000, 3, (Box("last", 0, 0, 7999.99, 2),)),
    ]
    tags = ["last", "no box has this", "Löcher", 'O\'Brien & <Sons>, "x"']
    voc.write(tmp_path / "out", records, tags, copy_images=copy_images)
    found, found_tags = voc.read(tmp_path / "out", None if copy_images else tmp_path / "in")
    assert found_tags == tags and [record.path.name for record in found] == [record.path.name for record in records]
    assert [(r.width, r.height, r.boxes) for r in found] == [(r.width, r.height, r.boxes) for r in records]
    for before, after in zip(records, found, strict=True):
        assert after.path.read_bytes() == before.path.read_bytes() and (after.path == before.path) != copy_images


def test_the_bytes_are_the_same_in_any_folder_and_the_second_time(tmp_path):
    for name in ("one", "two", "two"):
        record = ImageRecord(tmp_path / name / "a.png", 20, 10, (SPOTS, Box("Pits", 0.5, 1, 2, 3)))
        voc.write(tmp_path / name, [record], ["Pits"])
    files = [
        {path.relative_to(tmp_path / name): path.read_bytes() for path in (tmp_path / name).rglob("*.*")}
        for name in ("one", "two")
    ]
    assert files[0] == files[1] and sorted(map(str, files[0])) == ["Annotations/a.xml", "classes.txt"]
    assert b"<xmin>1</xmin>" in files[0][Path("Annotations/a.xml")]


def test_a_product_is_written_as_a_box_over_the_whole_image_of_any_size(tmp_path):
    record = ImageRecord(save_image(tmp_path / "a.png"), 0, 0, (SPOTS,), "A")
    voc.write(tmp_path, [record], [])
    assert voc.read(tmp_path)[0][0].boxes == (Box("A", 0, 0, 20, 10), SPOTS)


@pytest.mark.parametrize("label", ["", " Spots", "Spots ", "Spo\nts", "\x01", "\ud800"])
def test_a_name_that_would_not_come_back_is_not_written(tmp_path, label):
    with pytest.raises(AnnotationError, match="cannot be written"):
        voc.write(tmp_path, [ImageRecord(tmp_path / "a.png", 20, 10, (Box(label, 1, 2, 5, 8),))], [])
    assert list(tmp_path.iterdir()) == []


def test_two_records_of_one_stem_are_not_written(tmp_path):
    records = [ImageRecord(tmp_path / f"{name}/a.png", 20, 10) for name in ("one", "two")]
    with pytest.raises(AnnotationError, match=r"one/a\.png and .*two/a\.png need the same file"):
        voc.write(tmp_path, records, [])


def test_annotations_of_other_pictures_are_not_mixed_with(tmp_path):
    data_set(tmp_path, b=[obj()])
    with pytest.raises(AnnotationError, match=r"other pictures, such as b\.xml"):
        voc.write(tmp_path, [ImageRecord(tmp_path / "a.png", 20, 10)], [])


@pytest.mark.parametrize(("annotation", "image", "start"), [
    ("ANNOTATIONS/a.xml", "IMAGES/a.jpg", "."),
    ("Annotations/a.xml", "JPEGImages/a.JPG", "."),
    ("annotations/a.xml", "images/Spots/a.jpeg", "."),
    ("train/Annotations/a.XML", "train/img/a.png", "."),
    ("Annotations/deep/a.xml", "JPEGImages/deep/a.png", "."),
    ("Annotations/a.xml", "JPEGImages/a.png", "Annotations"),
    ("Annotations/a.xml", "JPEGImages/a.png", "Annotations/a.xml"),
    ("a.xml", "a.png", "."),
    ("x/a.xml", "x/images/a.Tiff", "."),
    ("Annotations/a.xml", "Annotations/a.png", "."),
    ("Annotations/a.xml", "a.png", "."),
])  # fmt: skip
def test_images_are_found_by_their_stem_in_the_usual_places(tmp_path, annotation, image, start):
    save_xml(tmp_path / annotation, obj())
    save_image(tmp_path / image)
    records, tags = voc.read(tmp_path / start)
    assert records == [ImageRecord(tmp_path / image, 20, 10, (SPOTS,))] and tags == ["Spots"]


def test_of_two_images_of_one_stem_the_one_in_the_same_sub_folder_counts(tmp_path):
    for name in ("one", "two"):
        save_image(tmp_path / f"JPEGImages/{name}/a.png")
        save_xml(tmp_path / f"Annotations/{name}/a.xml", obj(name))
    found = {record.path.parent.name: record.boxes[0].label for record in voc.read(tmp_path)[0]}
    assert found == {"one": "one", "two": "two"}


def test_masks_in_other_folders_are_no_images(tmp_path):
    save_image(data_set(tmp_path, a=[obj()]) / "SegmentationClass/a.png")
    assert voc.read(tmp_path)[0][0].path == tmp_path / "JPEGImages/a.png"


def test_files_outside_annotations_and_hidden_files_do_not_count(tmp_path):
    data_set(tmp_path, a=[obj()])
    for name in ("project.xml", "Annotations/._a.xml", ".idea/Annotations/b.xml"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes(b"\0\5")
    problems = []
    assert len(voc.read(tmp_path, None, problems)[0]) == 1 and problems == []


def test_linked_folders_are_followed_once(tmp_path):
    data_set(tmp_path / "kept", a=[obj()])
    (tmp_path / "set").mkdir()
    for name in ("Annotations", "JPEGImages"):
        (tmp_path / "set" / name).symlink_to(tmp_path / "kept" / name)
        (tmp_path / "kept" / name / "up").symlink_to(tmp_path / "set")
    problems = []
    [record], _ = voc.read(tmp_path / "set", None, problems)
    assert record.path.samefile(tmp_path / "kept/JPEGImages/a.png") and problems == []


@pytest.mark.parametrize("size", [
    "", "<size/>", "<size><width>9</width></size>",
    SIZE.replace("20", "0"), SIZE.replace("10", "-10"), SIZE.replace("20", "wide"),
])  # fmt: skip
def test_the_header_tells_the_size_where_the_xml_does_not(tmp_path, size):
    save_image(tmp_path / "a.png", (30, 40))
    save_xml(tmp_path / "a.xml", size=size)
    assert voc.read(tmp_path)[0] == [ImageRecord(tmp_path / "a.png", 30, 40)]


def test_a_wrong_depth_changes_nothing(tmp_path):
    save_image(tmp_path / "a.png")
    save_xml(tmp_path / "a.xml", obj(), size=SIZE.replace("<depth>3", "<depth>0"))
    assert voc.read(tmp_path)[0] == [ImageRecord(tmp_path / "a.png", 20, 10, (SPOTS,))]


@pytest.mark.parametrize(("bad", "kind"), [
    (obj("", 1, 2, 5, 8), "objects without a name"),
    ("<object><bndbox/></object>", "objects without a name"),
    ("<object><name>Pits</name></object>", "without finite"),
    ("<object><name>Pits</name><part><bndbox><xmin>1</xmin></bndbox></part></object>", "without finite"),
    (obj("Pits", xmax="nan"), "without finite"),
    (obj("Pits", xmax="inf"), "without finite"),
    (obj("Pits", ymin="-1e999"), "without finite"),
    (obj("Pits", ymin="two"), "without finite"),
    (obj("Pits", ymin=""), "without finite"),
    (obj("Pits", xmin=5), "without area"),
    (obj("Pits", xmin=6), "without area"),
    (obj("Pits", ymin=9), "without area"),
    (obj("Pits", xmin=20, xmax=25), "wholly outside"),
    (obj("Pits", xmin=-5, xmax=0), "wholly outside"),
    (obj("Pits", ymin=10, ymax=12), "wholly outside"),
    (obj("Pits", ymin=-3, ymax=0), "wholly outside"),
])  # fmt: skip
def test_an_object_that_cannot_be_used_is_named_and_the_others_stay(tmp_path, bad, kind):
    problems = []
    [record], tags = voc.read(data_set(tmp_path, a=[bad, obj()]), None, problems)
    assert record.boxes == (SPOTS,) and tags == ["Spots"]
    [problem] = problems
    assert (problem.file, problem.action) == (str(tmp_path / "Annotations/a.xml"), "box skipped")
    assert kind in problem.kind and problem.detail.startswith("object 1 ")


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
) + "]>"  # fmt: skip
EXTERNAL = '<!DOCTYPE a [<!ENTITY i SYSTEM "file:///etc/hostname">]>'


@pytest.mark.parametrize(("content", "kind"), [
    (b"", "cannot be read as XML"),
    (b"\0\1\2\3", "cannot be read as XML"),
    (b"<annotation><object>", "cannot be read as XML"),
    (b"<annotation>&nbsp;</annotation>", "cannot be read as XML"),
    (b"<annotation>\xff</annotation>", "cannot be read as XML"),
    (b'<?xml version="1.0" encoding="nonsense"?><annotation/>', "cannot be read as XML"),
    (b'<?xml version="1.0" encoding="gb2312"?><annotation/>', "cannot be read as XML"),
    (b"<html></html>", "another format"),
    (f"{LAUGHS}<annotation>{obj('&i;')}</annotation>".encode(), "DOCTYPE"),
    (f"{EXTERNAL}<annotation>{obj('&i;')}</annotation>".encode(), "DOCTYPE"),
    (f"{EXTERNAL}<annotation>{obj('&i;')}</annotation>".encode("utf-16"), "DOCTYPE"),
])  # fmt: skip
def test_a_file_that_cannot_be_used_is_named_and_the_others_stay(tmp_path, content, kind):
    data_set(tmp_path, a=[obj()], b=[])
    (tmp_path / "Annotations/b.xml").write_bytes(content)
    problems = []
    records, _ = voc.read(tmp_path, None, problems)
    assert [record.stem for record in records] == ["a"]
    [problem] = problems
    assert kind in problem.kind and (problem.file, problem.action) == (
        str(tmp_path / "Annotations/b.xml"),
        "image skipped",
    )


@pytest.mark.parametrize(("images", "kind"), [
    ((), "XML files without an image"),
    (("JPEGImages/b.png", "JPEGImages/b.jpg"), "not the only ones"),
    (("JPEGImages/x/b.png", "JPEGImages/y/b.png"), "not the only ones"),
    (("JPEGImages/b.gif",), "XML files without an image"),
])  # fmt: skip
def test_an_xml_without_just_one_image_is_named_and_the_others_stay(tmp_path, images, kind):
    save_xml(data_set(tmp_path, a=[obj()]) / "Annotations/b.xml", obj())
    for image in images:
        save_image(tmp_path / image)
    problems = []
    records, _ = voc.read(tmp_path, None, problems)
    assert [record.stem for record in records] == ["a"]
    assert [(kind in problem.kind, problem.action) for problem in problems] == [(True, "image skipped")]


def test_a_broken_image_whose_size_is_needed_is_named(tmp_path):
    save_xml(data_set(tmp_path, a=[obj()]) / "Annotations/b.xml", size="")
    (tmp_path / "JPEGImages/b.png").write_bytes(b"no picture")
    problems = []
    assert len(voc.read(tmp_path, None, problems)[0]) == 1
    assert [problem.kind for problem in problems] == ["images that cannot be read"]


def test_images_without_an_xml_are_counted_once(tmp_path):
    data_set(tmp_path, a=[obj()])
    for i in range(3):
        save_image(tmp_path / f"JPEGImages/more{i}.png")
    problems = []
    assert len(voc.read(tmp_path, None, problems)[0]) == 1
    [problem] = problems
    assert (problem.kind, problem.action) == ("images without an XML file", "left out")
    assert problem.detail.startswith("3, the first ")


def test_an_xml_without_objects_is_a_picture_without_defects(tmp_path):
    records, tags = voc.read(data_set(tmp_path, a=[]))
    assert records == [ImageRecord(tmp_path / "JPEGImages/a.png", 20, 10)] and tags == []


def test_a_box_partly_outside_and_fractions_are_kept_as_drawn(tmp_path):
    [record], _ = voc.read(data_set(tmp_path, a=[obj(" Spots\n", -3.5, -2, " 25.25 ", 11)]))
    assert record.boxes == (Box("Spots", -3.5, -2, 25.25, 11),)


def test_other_encodings_are_read(tmp_path):
    data_set(tmp_path, a=[])
    text = f"<annotation>{SIZE}{obj('Löcher')}</annotation>"
    for start, codec in (("", "utf-8-sig"), ("", "utf-16"), ('<?xml version="1.0" encoding="latin-1"?>', "latin-1")):
        (tmp_path / "Annotations/a.xml").write_bytes((start + text).encode(codec))
        assert voc.read(tmp_path)[1] == ["Löcher"]


def test_classes_appear_in_the_order_of_files_and_objects(tmp_path):
    assert voc.read(data_set(tmp_path, b=[obj("x"), obj("a")], a=[obj("z"), obj("x")]))[1] == ["z", "x", "a"]


def test_one_image_annotated_twice_is_refused(tmp_path):
    for name in ("one", "two"):
        save_xml(tmp_path / f"Annotations/{name}/a.xml", obj())
    save_image(tmp_path / "JPEGImages/a.png")
    with pytest.raises(AnnotationError, match=r"a\.png: annotated twice.*one/a\.xml.*two/a\.xml"):
        voc.read(tmp_path)


@pytest.mark.parametrize(("arguments", "message"), [
    (("nowhere",), "nowhere: no such file or folder"),
    (("empty",), "empty: no XML files"),
    (("lost",), "none of 1 XML files is usable .*no image a in"),
    (("lost", "nowhere"), "--image_dir .*nowhere: no such folder"),
])  # fmt: skip
def test_folders_of_no_use_are_refused(tmp_path, arguments, message):
    (tmp_path / "empty").mkdir()
    save_xml(tmp_path / "lost/Annotations/a.xml", obj())
    with pytest.raises(AnnotationError, match=message):
        voc.read(*(tmp_path / name for name in arguments))


def test_without_a_list_problems_are_logged_once_per_kind(tmp_path, caplog):
    with caplog.at_level(logging.WARNING):
        voc.read(data_set(tmp_path, a=[obj(xmin=5)] * 3))
    [record] = caplog.records
    assert "3 times boxes without area: box skipped (first: " in record.getMessage()


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    voc.write(tmp_path, [ImageRecord(tmp_path / "a.png", 20, 10, (SPOTS,))], [])
    before = {path: path.read_bytes() for path in tmp_path.rglob("*.*")}

    def fail(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(OSError, match="disk full"):
        voc.write(tmp_path, [ImageRecord(tmp_path / "a.png", 20, 10)], [])
    assert {path: path.read_bytes() for path in tmp_path.rglob("*.*")} == before


def test_a_hundred_thousand_objects_are_read_in_seconds(tmp_path):
    [record], _ = voc.read(data_set(tmp_path, a=[obj()] * 100_000))
    assert len(record.boxes) == 100_000
