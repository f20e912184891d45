"""What we write is read the same by readers that others wrote."""

import pytest
from PIL import Image

from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.formats import coco, voc, yolo

CLASSES = ["Spots", "Löcher", "pin-hole"]


@pytest.fixture
def records(tmp_path):
    """Three pictures of different sizes, one without boxes; all names in the order of the pictures."""
    boxes = [(Box("Löcher", 1.5, 2.25, 30, 11), Box("Spots", 4, 4, 8, 9)), (), (Box("pin-hole", 7, 8, 39.5, 29),)]
    made = []
    for i, objects in enumerate(boxes):
        path = tmp_path / f"pictures/part ä {i}.png"
        path.parent.mkdir(exist_ok=True)
        Image.new("RGB", (40 + i, 30), (i, 0, 0)).save(path)
        made.append(ImageRecord(path, 40 + i, 30, objects))
    return made


def said(records):
    """name of the picture -> [(class, x0, y0, x1, y1), ...]"""
    return {r.path.name: [(b.label, b.x0, b.y0, b.x1, b.y1) for b in r.boxes] for r in records}


def assert_same(found, records, shift=(0, 0, 0, 0)):
    expected = said(records)
    assert found.keys() == expected.keys()
    for name, boxes in found.items():
        assert [box[0] for box in boxes] == [box[0] for box in expected[name]]
        for box, other in zip(boxes, expected[name], strict=True):
            assert box[1:] == pytest.approx([a + b for a, b in zip(other[1:], shift, strict=True)], rel=0, abs=0.01)


def test_pycocotools_reads_the_same_boxes(records, tmp_path):
    api = pytest.importorskip("pycocotools.coco", reason="needs pycocotools")
    coco.write(tmp_path / "x.json", records, CLASSES, name="x", image_dir=tmp_path / "pictures")
    loaded = api.COCO(str(tmp_path / "x.json"))
    assert [category["name"] for category in loaded.loadCats(loaded.getCatIds())] == CLASSES
    names, found = {category["id"]: category["name"] for category in loaded.loadCats(loaded.getCatIds())}, {}
    for image in loaded.loadImgs(loaded.getImgIds()):
        annotations = loaded.loadAnns(loaded.getAnnIds(imgIds=[image["id"]]))
        corners = [(names[a["category_id"]], *a["bbox"]) for a in annotations]
        found[image["file_name"]] = [(label, x, y, x + w, y + h) for label, x, y, w, h in corners]
        assert [a["area"] for a in annotations] == pytest.approx([w * h for *_, w, h in corners])
    assert_same(found, records)
    assert {(image["width"], image["height"]) for image in loaded.loadImgs(loaded.getImgIds())} == {
        (record.width, record.height) for record in records
    }


def read_by_supervision(dataset):
    found = {}
    for path, _, detections in dataset:
        labels = [dataset.classes[i] for i in detections.class_id if i is not None]
        corners = detections.xyxy.tolist()
        found[path.replace("\\", "/").rpartition("/")[2]] = [(n, *c) for n, c in zip(labels, corners, strict=True)]
    return found


def test_supervision_reads_the_same_boxes_from_voc(records, tmp_path):
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    voc.write(tmp_path / "out", records, CLASSES, copy_images=True)
    folders = (str(tmp_path / "out" / name) for name in ("JPEGImages", "Annotations"))
    found = read_by_supervision(supervision.DetectionDataset.from_pascal_voc(*folders))
    # It counts pixels from 1 to the last, as the original devkit does: we write coordinates as they stand.
    assert_same(found, records, shift=(-1, -1, 0, 0))


def test_supervision_reads_the_same_boxes_from_yolo(records, tmp_path):
    supervision = pytest.importorskip("supervision", reason="needs supervision")
    yolo.write(tmp_path / "out", records, CLASSES, copy_images=True)
    folders = [str(tmp_path / "out" / name) for name in ("images/train", "labels/train", "data.yaml")]
    dataset = supervision.DetectionDataset.from_yolo(*folders)
    assert dataset.classes == CLASSES
    assert_same(read_by_supervision(dataset), records)
