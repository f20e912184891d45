import json
from pathlib import Path

import pytest
from reading import load_records

from stay_diffusion.data import datasets
from stay_diffusion.data.annotations import (
    AnnotationError,
    Box,
    ImageRecord,
    Vocabulary,
    assign_products,
    build_vocabulary,
    find_product_tags,
)
from stay_diffusion.data.splits import find_split

SHARED = Path(__file__).resolve().parents[2] / "../shared"


def record(name, *boxes, product=None):
    """A 200x100 picture with boxes given as label or (label, x0, y0, x1, y1); a bare label covers it whole."""
    drawn = tuple(Box(box, 0, 0, 200, 100) if isinstance(box, str) else Box(*box) for box in boxes)
    return ImageRecord(Path(name), 200, 100, drawn, product)


SPOT = ("spot", 10, 10, 20, 20)
SCRATCH = ("scratch", 50, 10, 150, 14)


@pytest.fixture
def read(monkeypatch):
    """Puts a reader of records made by hand in the place of the real one and notes what it was asked for."""

    def install(per_folder, tags=()):
        asked = []

        def reader(folder, image_dir, problems):
            asked.append((folder, image_dir))
            return (per_folder[folder.name] if isinstance(per_folder, dict) else per_folder), list(tags)

        monkeypatch.setitem(datasets.FOLDER_READERS, "sdi", reader)
        return asked

    return install


@pytest.mark.parametrize(
    ("box", "covers"),
    [
        ((0, 0, 200, 100), True),
        ((2, 1, 198, 99), True),
        ((-5, -5, 205, 105), True),
        ((2.1, 0, 200, 100), False),
        ((0, 1.1, 200, 100), False),
        ((0, 0, 197.9, 100), False),
        ((0, 0, 200, 98.9), False),
    ],
)
def test_a_box_covers_the_picture_up_to_a_hundredth_of_each_side(box, covers):
    assert Box("A", *box).covers(200, 100) is covers


def test_product_tags_are_those_that_always_cover_the_whole_picture():
    records = [record("1", SPOT, "A"), record("2", "C"), record("3", "spot", "A")]
    assert find_product_tags(records) == ("A", "C")


def test_a_product_box_becomes_the_product_and_no_object():
    (assigned,) = assign_products([record("1", "A", SPOT)], ["A", "C"])
    assert assigned.product == "A" and [box.label for box in assigned.boxes] == ["spot"]


def test_a_picture_without_product_box_keeps_an_unknown_product():
    assert assign_products([record("1", SPOT)], ["A"])[0].product is None


def test_two_products_on_one_picture_are_an_error_with_the_file():
    with pytest.raises(AnnotationError, match=r"both\.png: more than one product: A, C"):
        assign_products([record("both.png", "C", "A")], ["A", "C"])


def test_the_vocabulary_follows_the_projects_tags_then_the_order_of_appearance():
    records = [record("1", ("dent", 0, 0, 9, 9), SPOT), record("2", SCRATCH)]
    assert build_vocabulary(records, ["scratch", "unused", "spot"], ["A"]) == Vocabulary(
        ("scratch", "spot", "dent"), ("A",)
    )


def test_labels_and_products_count_from_one_and_an_unknown_product_is_zero():
    names = Vocabulary(("scratch", "spot"), ("A", "C"))
    marked = record("1", SPOT, product="C")
    assert names.label_of(marked, marked.boxes[0]) == 2
    assert names.product_of(marked) == 2 and names.product_of(record("2")) == 0


def test_an_unknown_class_is_an_error_with_file_class_and_known_classes():
    marked = record("x.png", SPOT)
    with pytest.raises(AnnotationError, match=r"x\.png: unknown class 'spot'; known: scratch, dent"):
        Vocabulary(("scratch", "dent")).label_of(marked, marked.boxes[0])


def test_an_unknown_product_is_an_error_with_file_product_and_known_products():
    with pytest.raises(AnnotationError, match=r"x\.png: unknown product 'C'; known: A"):
        Vocabulary((), ("A",)).product_of(record("x.png", product="C"))


@pytest.mark.parametrize("made", ["train", "training", "images/train", "images/training"])
def test_a_split_is_found_under_each_of_its_names(tmp_path, made):
    (tmp_path / made).mkdir(parents=True)
    assert find_split(tmp_path, "train") == tmp_path / made and find_split(tmp_path, "val") is None


def test_split_folders_are_read_each_for_itself(tmp_path, read):
    (tmp_path / "train").mkdir()
    (tmp_path / "validation").mkdir()
    read({"train": [record("a", SPOT), record("b")], "validation": [record("c", SPOT)]})
    assert [r.stem for r in load_records("sdi", tmp_path, "train")[0]] == ["a", "b"]
    assert [r.stem for r in load_records("sdi", tmp_path, "val")[0]] == ["c"]


def test_images_are_looked_for_in_the_image_folder_of_the_same_split(tmp_path, read):
    for folder in ("labels/train", "labels/val", "pictures/val"):
        (tmp_path / folder).mkdir(parents=True)
    asked = read([record("a")])
    load_records("sdi", tmp_path / "labels", "val", tmp_path / "pictures")
    load_records("sdi", tmp_path / "labels", "train", tmp_path / "pictures")
    assert asked == [
        (tmp_path / "labels/val", tmp_path / "pictures/val"),
        (tmp_path / "labels/train", tmp_path / "pictures"),
    ]


def test_without_split_folders_every_image_is_in_exactly_one_split(tmp_path, read):
    everything = [record(f"{i:04}.png") for i in range(500)]
    read(everything)
    train, val = (load_records("sdi", tmp_path, split)[0] for split in ("train", "val"))
    assert sorted(r.stem for r in train + val) == [r.stem for r in everything]
    assert 30 <= len(val) <= 70


def test_the_split_of_an_image_depends_on_its_name_alone(tmp_path, read):
    read([record(f"{i}.png") for i in range(50)])
    before = {r.stem for r in load_records("sdi", tmp_path, "val", val_fraction=0.3)[0]}
    read([record(f"elsewhere/{i}.bmp") for i in reversed(range(100))])
    after = {r.stem for r in load_records("sdi", tmp_path, "val", val_fraction=0.3)[0]}
    assert before == {stem for stem in after if int(stem) < 50}
    assert {stem for stem in before if int(stem) < 10} == {"6", "9"}  # by their MD5 sums, on every computer


def test_both_splits_of_one_folder_share_the_vocabulary(tmp_path, read):
    names = [record(f"{i}.png", (f"class{i}", 0, 0, 9, 9)) for i in range(50)]
    read(names)
    (train, of_train), (val, of_val) = (load_records("sdi", tmp_path, split) for split in ("train", "val"))
    assert of_train == of_val and len(of_train.classes) == 50 and train and val


def test_products_are_inferred_and_the_rest_keeps_the_projects_order(tmp_path, read):
    read([record("1", "A", SPOT), record("2", "C", SCRATCH)], tags=["scratch", "C", "spot", "A"])
    records, names = load_records("sdi", tmp_path, "train", val_fraction=0)
    assert names == Vocabulary(("scratch", "spot"), ("A", "C"))
    assert [r.product for r in records] == ["A", "C"]


def test_given_product_tags_are_used_even_where_they_do_not_cover_the_picture(tmp_path, read):
    read([record("1", SPOT, SCRATCH)])
    records, names = load_records("sdi", tmp_path, "train", product_tags=["spot"], val_fraction=0)
    assert names == Vocabulary(("scratch",), ("spot",)) and records[0].product == "spot"


def test_a_mistyped_product_tag_is_an_error_with_the_known_tags(tmp_path, read):
    read([record("1", "A", SPOT)], tags=["A", "spot"])
    with pytest.raises(AnnotationError, match="--product_tags B: no such tag; tags: A, spot"):
        load_records("sdi", tmp_path, "train", product_tags=["B"], val_fraction=0)


def test_given_classes_are_used_as_they_are(tmp_path, read):
    read([record("1", "A", SPOT)], tags=["spot", "A"])
    records, names = load_records(
        "sdi", tmp_path, "train", product_tags=("A",), classes=("dent", "spot"), val_fraction=0
    )
    assert names == Vocabulary(("dent", "spot"), ("A",)) and records[0].product == "A"


def test_a_tag_that_the_given_classes_lack_is_an_error_with_the_file(tmp_path, read):
    read([record("odd.png", SCRATCH)])
    with pytest.raises(AnnotationError, match=r"odd\.png: unknown class 'scratch'; known: spot"):
        load_records("sdi", tmp_path, "train", classes=("spot",), val_fraction=0)


def test_with_given_classes_no_product_is_guessed(tmp_path, read):
    read([record("odd.png", "A")])
    with pytest.raises(AnnotationError, match=r"odd\.png: unknown class 'A'"):
        load_records("sdi", tmp_path, "train", classes=("spot",), val_fraction=0)


def test_two_images_of_one_name_stay_two_records(tmp_path, read):
    read([record("left/1.png", SPOT), record("right/1.png")])
    records, _ = load_records("sdi", tmp_path, "train", val_fraction=0)
    assert [r.path for r in records] == [Path("left/1.png"), Path("right/1.png")]


def test_a_missing_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(AnnotationError, match=r"--data_dir .*nowhere: no such folder"):
        load_records("sdi", tmp_path / "nowhere", "train")


def test_a_missing_train_folder_is_an_error_with_what_was_looked_for(tmp_path, read):
    (tmp_path / "val").mkdir()
    read([record("1")])
    assert load_records("sdi", tmp_path, "val")[0]
    with pytest.raises(AnnotationError, match="no folder for the train split; looked for train, training, images/tr"):
        load_records("sdi", tmp_path, "train")


def test_a_train_folder_alone_holds_the_validation_pictures_too(tmp_path, read):
    (tmp_path / "train").mkdir()
    read([record(str(i), SPOT) for i in range(40)])
    train, val = (load_records("sdi", tmp_path, split, val_fraction=0.3)[0] for split in ("train", "val"))
    assert train and val and not {r.stem for r in train} & {r.stem for r in val}
    assert len(train) + len(val) == 40


def test_an_empty_split_is_an_error_only_when_asked_for(tmp_path, read):
    read([record("1")])
    assert len(load_records("sdi", tmp_path, "train", val_fraction=0)[0]) == 1
    with pytest.raises(AnnotationError, match=r"no images for the val split \(by name, --val_fraction 0\)"):
        load_records("sdi", tmp_path, "val", val_fraction=0)


def test_an_unknown_dataset_mode_is_an_error_with_the_known_ones(tmp_path):
    with pytest.raises(ValueError, match="--dataset_mode sid: choose from sdi"):
        load_records("sid", tmp_path, "train")


def test_an_empty_folder_is_an_error_that_names_it(tmp_path):
    with pytest.raises(AnnotationError, match=str(tmp_path)):
        load_records("sdi", tmp_path, "train")


@pytest.mark.skipif(not (SHARED / "data/magnetic_tile_mini").is_dir(), reason="needs ../shared/data/magnetic_tile_mini")
def test_a_real_data_set_with_pictures_beside_its_exports_is_read_whole():
    folder = SHARED / "data/magnetic_tile_mini"
    train, names = load_records("sdi", folder, "train")
    val, _ = load_records("sdi", folder, "val", classes=names.classes)
    assert names == Vocabulary(("Blowhole", "Break", "Crack", "Fray", "Uneven"))
    assert (len(train), len(val)) == (102, 34)
    assert (sum(len(r.boxes) for r in train), sum(len(r.boxes) for r in val)) == (103, 35)


def test_one_export_is_as_good_as_its_folder(tmp_path):
    asset = {"id": "1", "name": "a.png", "path": "file:a.png", "size": {"width": 9, "height": 9}, "state": 1, "type": 1}
    export = {"tags": [], "assets": {"1": {"asset": asset, "regions": [], "version": "2.2.0"}}}
    (tmp_path / "a.png").touch()
    (tmp_path / "p-export.json").write_text(json.dumps(export))
    records, _ = load_records("sdi", tmp_path / "p-export.json", "train", val_fraction=0)
    assert [r.path.name for r in records] == ["a.png"]
