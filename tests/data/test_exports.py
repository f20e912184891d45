"""A data set written whole in each format: read by our readers, by plain ones of the formats' own rules, and again."""

import errno
import os
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import yaml
from PIL import Image
from reading import load_records

from stay_diffusion.data import exports
from stay_diffusion.data.annotations import Box, ImageRecord, Vocabulary, assign_products
from stay_diffusion.data.exports import EXPORTS, READ_AS, LabelledSet
from stay_diffusion.data.formats import coco, coco_masks, voc, vott, yolo
from stay_diffusion.data.formats.files import link_image

CLASSES = ("pin-hole", "Löcher", "never drawn", "Spots")
NAMES = Vocabulary(CLASSES, ("part B", "part A"))
WHOLE = {"sdi": True, "voc": True, "yolo": True, "coco_json": False}  # products as boxes over the whole picture

# Coordinates that no format holds in few digits: thirds, and what 32-bit numbers make of tenths.
BOXES = [
    (Box("Löcher", 100 / 3, 2.25, 40.000001, 11.1), Box("Spots", 0.1, 0.20000000298, 0.30000001192, 30.0)),
    (),
    (Box("pin-hole", 7, 8, 39.5, 29),),
]
PRODUCTS = ("part A", "part B", None)


@pytest.fixture
def data(tmp_path):
    """Three pictures of three sizes, one without objects, one without a product; a space and an umlaut in all names."""
    records = []
    for i, (boxes, product) in enumerate(zip(BOXES, PRODUCTS, strict=True)):
        path = tmp_path / f"pictures/part ä {i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (40 + i, 30 + i), 40 * i).save(path)
        records.append(ImageRecord(path, 40 + i, 30 + i, boxes, product))
    return LabelledSet(records, NAMES, "some name")


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def read_format(fmt, folder):
    """Records and tag names by the format's own reader."""
    if fmt == "coco":
        return coco.read(folder / "annotations/instances_train.json")
    return {"vott": vott, "voc": voc, "yolo": yolo}[fmt].read(folder)


def assert_boxes(found, expected):
    assert [box[0] for box in found] == [box.label for box in expected]
    for box, other in zip(found, expected, strict=True):
        assert box[1:] == pytest.approx((other.x0, other.y0, other.x1, other.y1), rel=0, abs=1e-4)


@pytest.mark.parametrize("fmt", EXPORTS)
def test_our_reader_finds_pictures_objects_products_and_pictures_without_objects(fmt, data, tmp_path):
    EXPORTS[fmt](data, tmp_path / "set", link_image)
    records, names = load_records(READ_AS[fmt], tmp_path / "set", "train", val_fraction=0)
    assert names.classes == ("pin-hole", "Löcher", "Spots") and set(names.products) == {"part A", "part B"}
    assert [record.path.name for record in records] == [record.path.name for record in data.records]
    for record, given in zip(records, data.records, strict=True):
        assert tmp_path / "set" in record.path.parents and record.path.read_bytes() == given.path.read_bytes()
        assert (record.width, record.height, record.product) == (given.width, given.height, given.product)
        assert_boxes([(b.label, b.x0, b.y0, b.x1, b.y1) for b in record.boxes], given.boxes)


@pytest.mark.parametrize("fmt", EXPORTS)
def test_a_set_that_is_read_and_written_again_is_the_same_to_the_byte(fmt, data, tmp_path):
    EXPORTS[fmt](data, tmp_path / "first", link_image)
    records, tags = read_format(fmt, tmp_path / "first")
    records = assign_products(records, NAMES.products)
    names = Vocabulary(tuple(tag for tag in tags if tag not in NAMES.products), NAMES.products)
    assert names == NAMES
    EXPORTS[fmt](LabelledSet(records, names, "some name"), tmp_path / "second", link_image)
    first, second = tree(tmp_path / "first"), tree(tmp_path / "second")
    assert len(first) >= 4 and second == first


@pytest.mark.parametrize("fmt", EXPORTS)
def test_a_set_can_be_moved_as_a_whole(fmt, data, tmp_path):
    EXPORTS[fmt](data, tmp_path / "set", link_image)
    (tmp_path / "pictures").rename(tmp_path / "gone")
    (tmp_path / "set").rename(tmp_path / "moved")
    for text in (path for path in (tmp_path / "moved").rglob("*") if path.suffix != ".png" and path.is_file()):
        assert str(tmp_path) not in text.read_text()
    records, _ = load_records(READ_AS[fmt], tmp_path / "moved", "train", val_fraction=0)
    assert all(record.path.is_relative_to(tmp_path / "moved") for record in records) and len(records) == 3


# By others


def test_pycocotools_finds_class_i_under_the_id_i_plus_1(data, tmp_path):
    api = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    EXPORTS["coco"](data, tmp_path, link_image)
    loaded = api.COCO(str(tmp_path / "annotations/instances_train.json"))
    assert [(c["id"], c["name"]) for c in loaded.loadCats(loaded.getCatIds())] == [*enumerate(CLASSES, 1)]
    for image, given in zip(loaded.loadImgs(loaded.getImgIds()), data.records, strict=True):
        with Image.open(tmp_path / "images/train" / image["file_name"]) as picture:
            assert picture.size == (image["width"], image["height"]) == (given.width, given.height)
        found = [
            (CLASSES[a["category_id"] - 1], *a["bbox"]) for a in loaded.loadAnns(loaded.getAnnIds(imgIds=image["id"]))
        ]
        assert_boxes([(name, x, y, x + w, y + h) for name, x, y, w, h in found], given.boxes)


def test_a_reader_of_voc_s_folders_finds_the_same(data, tmp_path):
    EXPORTS["voc"](data, tmp_path, link_image)
    stems = (tmp_path / "ImageSets/Main/train.txt").read_text().splitlines()
    assert stems == [record.stem for record in data.records]
    for stem, given in zip(stems, data.records, strict=True):
        root = ElementTree.parse(tmp_path / f"Annotations/{stem}.xml").getroot()
        with Image.open(tmp_path / "JPEGImages" / root.findtext("filename")) as picture:
            stated = int(root.findtext("size/width")), int(root.findtext("size/height"))
            assert picture.size == stated == (given.width, given.height)
        found = [
            (o.findtext("name"), *(float(o.find("bndbox").findtext(k)) for k in ("xmin", "ymin", "xmax", "ymax")))
            for o in root.iter("object")
        ]
        assert_boxes(found, drawn(given))


def test_a_reader_of_yolo_s_folders_finds_class_i_as_i(data, tmp_path):
    EXPORTS["yolo"](data, tmp_path, link_image)
    stated = yaml.safe_load((tmp_path / "data.yaml").read_text())
    assert stated["names"] == dict(enumerate([*CLASSES, *NAMES.products]))
    listed = [tmp_path / line for line in (tmp_path / stated["train"]).read_text().splitlines()]
    assert sorted(listed) == sorted((tmp_path / "images/train").iterdir())
    for image, given in zip(listed, data.records, strict=True):
        label = Path(str(image).replace("/images/", "/labels/")).with_suffix(".txt")
        rows = [line.split() for line in label.read_text().splitlines()]
        with Image.open(image) as picture:
            W, H = picture.size
        found = []
        for index, *shares in rows:
            cx, cy, w, h = map(float, shares)
            found.append((stated["names"][int(index)], *((cx - w / 2) * W, (cy - h / 2) * H)))
            found[-1] += ((cx + w / 2) * W, (cy + h / 2) * H)
        assert_boxes(found, drawn(given))


def test_what_has_neither_objects_nor_a_product_is_a_negative_in_every_format(data, tmp_path):
    empty = replace(data, records=[replace(data.records[1], product=None)], vocabulary=Vocabulary(CLASSES))
    for fmt, write in EXPORTS.items():
        write(empty, tmp_path / fmt, link_image)
    stem = data.records[1].stem
    assert (tmp_path / f"yolo/labels/train/{stem}.txt").read_bytes() == b""
    assert not list(ElementTree.parse(tmp_path / f"voc/Annotations/{stem}.xml").getroot().iter("object"))
    assert len(coco.read(tmp_path / "coco/annotations/instances_train.json")[0]) == 1
    assert [record.boxes for record in vott.read(tmp_path / "vott")[0]] == [()]


def drawn(record):
    """The objects as formats have them in which a product is a box."""
    whole = (Box(record.product, 0, 0, record.width, record.height),) if record.product else ()
    return (*whole, *record.boxes)


# Masks


@pytest.mark.parametrize("size", [(1, 1), (7, 5), (40, 60)])
def test_pycocotools_reads_our_code_of_a_mask_and_writes_the_very_same(size):
    codes = pytest.importorskip("pycocotools.mask", reason="needs pycocotools")
    rng = np.random.default_rng(0)
    masks = [np.zeros(size, bool), np.ones(size, bool), *(rng.random(size) < share for share in (0.1, 0.5, 0.9))]
    blob = np.zeros((300, 500), bool)  # long runs, whose differences are negative and take several letters
    blob[20:270, 30:480] = True
    blob[100:120, 31:400:3] = False
    for mask in [*masks, blob]:
        code = coco_masks.encode(mask)
        assert np.array_equal(codes.decode(code), mask)
        assert code["counts"].encode() == codes.encode(np.asfortranarray(mask, dtype=np.uint8))["counts"]


def test_weak_masks_go_to_their_objects_and_are_called_weak(data, tmp_path):
    api = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    masks = [[np.zeros((r.height, r.width), bool) for _ in r.boxes] for r in data.records]
    for number, mask in enumerate(mask for of_record in masks for mask in of_record):
        mask[3 : 5 + number, 2:9] = True
    codes = [[coco_masks.encode(mask) for mask in of_record] for of_record in masks]
    EXPORTS["coco"](replace(data, weak_masks=codes), tmp_path, link_image)
    loaded = api.COCO(str(tmp_path / "annotations/instances_train.json"))
    annotations = loaded.loadAnns(loaded.getAnnIds())
    assert len(annotations) == 3 and all(annotation["weak"] is True for annotation in annotations)
    for annotation, mask in zip(annotations, (mask for of_record in masks for mask in of_record), strict=True):
        assert np.array_equal(loaded.annToMask(annotation), mask)
    assert "weak" in loaded.dataset["info"]["masks"]
    assert len(load_records("coco_json", tmp_path, "train", val_fraction=0)[0]) == 3


# Files


def test_pictures_are_further_names_of_the_files_where_there_can_be_any(data, tmp_path):
    EXPORTS["yolo"](data, tmp_path, link_image)
    for record in data.records:
        assert (tmp_path / "images/train" / record.path.name).samefile(record.path)
    data.records[0].path.unlink()
    Image.new("L", (40, 30), 200).save(data.records[0].path)  # made anew: the name moves to the new file
    EXPORTS["yolo"](data, tmp_path, link_image)
    assert (tmp_path / "images/train" / data.records[0].path.name).samefile(data.records[0].path)
    assert not list((tmp_path / "images/train").glob(".*"))


def test_pictures_are_copied_where_the_file_system_has_one_name_for_each(data, tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(os, "link", refuse)
    EXPORTS["voc"](data, tmp_path, link_image)
    for record in data.records:
        copy = tmp_path / "JPEGImages" / record.path.name
        assert copy.read_bytes() == record.path.read_bytes() and not copy.samefile(record.path)


def test_pictures_that_are_in_their_place_stay_there(data, tmp_path):
    EXPORTS["vott"](data, tmp_path / "pictures", exports.stay)
    names = {path.name for path in (tmp_path / "pictures").iterdir()}
    assert names == {*(record.path.name for record in data.records), "some name-export.json"}
