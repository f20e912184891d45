"""The same boxes in every format: there and back, and the same training batches whatever they were read from."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch.testing import assert_close

from stay_diffusion import factory
from stay_diffusion.config import DataConfig
from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord
from stay_diffusion.data.datasets import load_records
from stay_diffusion.data.formats import coco, voc, vott, vott_csv, yolo
from stay_diffusion.data.loader import batches

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
CLASSES = ["Spots", "Scratches", "pin-hole"]

needs_shared = pytest.mark.skipif(not SHARED.is_dir(), reason="needs ../shared/data")


@pytest.fixture
def records(tmp_path):
    """Three pictures with a space and an umlaut in their names, one of them without boxes."""
    made = []
    boxes = [(Box("Scratches", 1.5, 2.25, 30, 11), Box("Spots", 0, 0, 4, 4)), (), (Box("pin-hole", 7, 8, 39.5, 29),)]
    for i, objects in enumerate(boxes):
        path = tmp_path / "pictures" / f"part ä {i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("L", (40, 30), 40 * i).save(path)
        made.append(ImageRecord(path, 40, 30, objects))
    return made


WAYS = {  # mode: (writes the records below a folder, where load_records then looks)
    "sdi": (lambda folder, records: vott.write(folder / "x-export.json", records, CLASSES, name="x"), ""),
    "voc": (lambda folder, records: voc.write(folder, records, CLASSES, copy_images=True), ""),
    "yolo": (lambda folder, records: yolo.write(folder, records, CLASSES), ""),
    "coco_json": (lambda folder, records: coco.write(folder / "x.json", records, CLASSES, name="x"), ""),
}


@pytest.mark.parametrize("mode", WAYS)
def test_every_format_gives_back_boxes_classes_sizes_and_pictures_without_boxes(mode, records, tmp_path):
    write, where = WAYS[mode]
    folder = tmp_path / mode
    folder.mkdir()
    write(folder, records)
    image_dir = tmp_path / "pictures" if mode == "coco_json" else None
    read = {}
    for split in ("train", "val"):
        try:
            found, names = load_records(mode, folder / where, split, image_dir=image_dir, val_fraction=0.5)
        except AnnotationError:
            continue
        assert names.classes == tuple(CLASSES)
        read |= {record.stem: record for record in found}
    assert sorted(read) == [record.stem for record in records]
    for record in records:
        found = read[record.stem]
        assert (found.width, found.height) == (40, 30) and len(found.boxes) == len(record.boxes)
        for one, other in zip(found.boxes, record.boxes, strict=True):
            assert one.label == other.label
            given, back = ([box.x0, box.y0, box.x1, box.y1] for box in (other, one))
            assert back == pytest.approx(given, abs=0.01)


@needs_shared
def test_batches_are_the_same_from_vott_voc_yolo_and_coco(tmp_path):
    records, tags = vott.read(SHARED / "deeppcb/val/vott-json-export")
    records = records[:6]
    for name in ("vott", "voc", "yolo", "coco"):
        (tmp_path / name).mkdir()
    vott.write(tmp_path / "vott/x-export.json", records, tags, name="x")
    voc.write(tmp_path / "voc", records, tags, copy_images=True)
    yolo.write(tmp_path / "yolo", records, tags)
    coco.write(tmp_path / "coco/x.json", records, tags, name="x", image_dir=records[0].path.parent)
    seen = []
    for mode, folder in (("sdi", "vott"), ("voc", "voc"), ("yolo", "yolo"), ("coco_json", "coco")):
        image_dir = records[0].path.parent if mode == "coco_json" else None
        found, names = load_records(mode, tmp_path / folder, "train", image_dir=image_dir, val_fraction=0)
        run = factory.RunConfig(data=DataConfig(crop_policy="object", classes=names.classes, random_flip=True))
        dataset = factory.build_dataset(sorted(found, key=lambda record: record.stem), run, augment=True)
        seen.append((names.classes, next(batches(dataset, 4, seed=3, start=0))))
    for classes, (images, layout) in seen[1:]:
        assert classes == seen[0][0]
        assert torch.equal(images, seen[0][1][0])
        assert torch.equal(layout.labels, seen[0][1][1].labels)
        assert_close(layout.boxes, seen[0][1][1].boxes, rtol=0, atol=1e-5)


@needs_shared
@pytest.mark.parametrize(
    ("mode", "folder", "split", "images", "boxes"),
    [
        ("voc", "neu_det", "train", 360, 796),
        ("voc", "neu_det", "val", 120, 298),
        ("coco", "coco_stuff_mini", "train", 56, 308),
        ("coco", "coco_stuff_mini", "val", 46, 263),
        ("coco_json", "coco_stuff_mini", "train", 100, 662),
        ("sdi", "deeppcb", "val", 100, 644),
        ("sdi", "deeppcb/val/vott-csv-export", "train", 100, 644),
    ],
)
def test_real_data_sets_have_the_counts_of_their_descriptions(mode, folder, split, images, boxes):
    is_csv = "csv" in folder
    image_dir = SHARED / "deeppcb/val/vott-json-export" if is_csv else None
    records, _ = load_records(
        mode, SHARED / folder, split, image_dir=image_dir, val_fraction=0 if is_csv else 0.1, on_bad_data="skip"
    )
    assert (len(records), sum(len(record.boxes) for record in records)) == (images, boxes)


@needs_shared
def test_cocos_labels_are_its_own_ids():
    _, names = load_records("coco", SHARED / "coco_stuff_mini", "val")
    given = json.loads((SHARED / "coco_stuff_mini/annotations/instances_val2017.json").read_text())["categories"]
    assert len(names.classes) == 182
    for category in given:
        assert names.classes[category["id"] - 1] == category["name"]


def test_what_cannot_be_used_is_refused_unless_it_is_to_be_skipped(records, tmp_path, caplog):
    folder = tmp_path / "broken"
    folder.mkdir()
    records[0] = ImageRecord(records[0].path, 40, 30, (*records[0].boxes, Box("Spots", 5, 5, 5, 9)))
    vott.write(folder / "x-export.json", records, CLASSES, name="x")
    with pytest.raises(AnnotationError, match=r"regions without area.*--on_bad_data skip"):
        load_records("sdi", folder, "train", val_fraction=0)
    found, _ = load_records("sdi", folder, "train", val_fraction=0, on_bad_data="skip")
    assert [len(record.boxes) for record in found] == [2, 0, 1]
    assert "1 times RECTANGLE regions without area" in caplog.text


def test_csv_is_read_where_there_is_no_json(records, tmp_path):
    vott_csv.write(tmp_path / "pictures/x-export.csv", records, CLASSES)
    found, names = load_records("sdi", tmp_path / "pictures", "train", val_fraction=0)
    assert [record.stem for record in found] == ["part ä 0", "part ä 2"]
    assert names.classes == ("Scratches", "Spots", "pin-hole")
