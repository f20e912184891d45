"""The same boxes in every format: there and back, and the same training batches whatever they were read from."""

import json
import logging
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from reading import load_records
from torch.testing import assert_close

from stay_diffusion.config import DataConfig
from stay_diffusion.data.annotations import AnnotationError, Box, ImageRecord, assign_products
from stay_diffusion.data.formats import coco, voc, vott, yolo
from stay_diffusion.data.loader import batches
from stay_diffusion.data.problems import LEFT_OUT
from stay_diffusion.run import factory

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
    image_dir = None if mode == "voc" else tmp_path / "pictures"
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


NAMES = ["Löcher", 'O\'Brien: "x" #1, <a> & b', "1", "yes"]
PRODUCTS = ["A", "B 2"]
PICTURES = {"a b%20.png": (20, 10), "ü#.jpg": (4000, 3), "deep/c'.d.PNG": (1, 1), "deep/e.bmp": (333, 517)}
FORMATS = {  # name: (writes records below a folder, reads them again), the pictures being elsewhere
    "VoTT": (lambda folder, records, _: vott.write(folder / "x-export.json", records, NAMES, name="x"), vott.read),
    "VOC": (lambda folder, records, _: voc.write(folder, records, NAMES), voc.read),
    "YOLO": (lambda folder, records, _: yolo.write(folder, records, NAMES), yolo.read),
    "COCO": (
        lambda folder, records, root: coco.write(folder / "x.json", records, NAMES, name="x", image_dir=root),
        coco.read,
    ),
}


@st.composite
def drawn_records(draw, folder):
    """Records of some of PICTURES: a product or none, up to five boxes, inside, partly outside or twice the same."""
    made = []
    for name in draw(st.lists(st.sampled_from(list(PICTURES)), min_size=1, unique=True)):
        (W, H), boxes = PICTURES[name], []
        for label in draw(st.lists(st.sampled_from(NAMES), max_size=5)):
            x0, y0 = draw(st.floats(-1.5 * W, W - 0.05)), draw(st.floats(-1.5 * H, H - 0.05))
            x1, y1 = draw(st.floats(max(x0, 0) + 0.05, 3.0 * W)), draw(st.floats(max(y0, 0) + 0.05, 3.0 * H))
            boxes.append(Box(label, x0, y0, x1, y1))
        made.append(ImageRecord(folder / name, W, H, tuple(boxes), draw(st.sampled_from([None, *PRODUCTS]))))
    return made


def test_any_records_pass_through_all_formats_in_any_order(tmp_path, caplog):
    caplog.set_level(logging.ERROR)
    pictures = tmp_path / "pictures"
    for name, size in PICTURES.items():
        (pictures / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", size).save(pictures / name)
    rounds = iter(range(10**6))

    @settings(max_examples=25, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck))
    @given(drawn_records(pictures), st.permutations(list(FORMATS)))
    def run(records, order):
        seen = {record.path: record for record in records}
        found, folder = records, tmp_path / "written" / str(next(rounds))
        for name in order if any(record.boxes or record.product for record in records) else ():
            write, read = FORMATS[name]
            (folder / name).mkdir(parents=True)
            write(folder / name, found, pictures)
            problems = []
            found, tags = read(folder / name, pictures, problems)
            found = assign_products(found, PRODUCTS)
            assert {problem.action for problem in problems} <= {LEFT_OUT}
            assert {record.path for record in found} == seen.keys()
            assert [tag for tag in tags if tag not in PRODUCTS] == NAMES
            for record in found:
                given = seen[record.path]
                assert (record.width, record.height, record.product) == (given.width, given.height, given.product)
                assert [box.label for box in record.boxes] == [box.label for box in given.boxes]
                for one, other in zip(record.boxes, given.boxes, strict=True):
                    expected = other.x0, other.y0, other.x1, other.y1
                    assert (one.x0, one.y0, one.x1, one.y1) == pytest.approx(expected, rel=0, abs=0.01)

    run()


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
        image_dir = None if mode == "voc" else records[0].path.parent
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
    ],
)
def test_real_data_sets_have_the_counts_of_their_descriptions(mode, folder, split, images, boxes):
    records, _ = load_records(mode, SHARED / folder, split, on_bad_data="skip")
    assert (len(records), sum(len(record.boxes) for record in records)) == (images, boxes)


@needs_shared
def test_cocos_labels_are_its_own_ids():
    _, names = load_records("coco", SHARED / "coco_stuff_mini", "val")
    given = json.loads((SHARED / "coco_stuff_mini/annotations/instances_val2017.json").read_text())["categories"]
    assert len(names.classes) == 182
    for category in given:
        assert names.classes[category["id"] - 1] == category["name"]


def test_what_cannot_be_used_is_refused_unless_it_is_to_be_skipped(records, tmp_path, caplog):
    folder = tmp_path / "pictures"
    records[0] = ImageRecord(records[0].path, 40, 30, (*records[0].boxes, Box("Spots", 5, 5, 5, 9)))
    vott.write(folder / "x-export.json", records, CLASSES, name="x")
    with pytest.raises(AnnotationError, match=r"regions without area.*--on_bad_data skip"):
        load_records("sdi", folder, "train", val_fraction=0)
    found, _ = load_records("sdi", folder, "train", val_fraction=0, on_bad_data="skip")
    assert [len(record.boxes) for record in found] == [2, 0, 1]
    assert "1 times RECTANGLE regions without area" in caplog.text


@pytest.mark.parametrize("name", ["", "x-export.csv"])
def test_a_csv_export_is_refused_with_what_to_export(tmp_path, name):
    (tmp_path / "x-export.csv").write_text('"image","xmin","ymin","xmax","ymax","label"\n')
    (tmp_path / "a.png").touch()
    place = tmp_path / name
    with pytest.raises(
        AnnotationError, match=f"^{place}: a CSV export cannot hold good parts; .*Export settings -> VoTT JSON"
    ) as error:
        load_records("sdi", place, "train")
    assert len(str(error.value).splitlines()) == 1
