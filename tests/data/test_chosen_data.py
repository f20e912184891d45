"""Which classes and which pictures are used: --classes, --class_map, --id_list."""

import json
import logging
from pathlib import Path

import pytest
from reading import load_records

from stay_diffusion.data import datasets
from stay_diffusion.data.annotations import AnnotationError, Box, EmptySplit, ImageRecord, Vocabulary
from stay_diffusion.data.splits import listed
from stay_diffusion.data.tags import merged, read_map

TAGS = ["spot", "scratch", "dent", "A"]
WHOLE = Box("A", 0, 0, 40, 30)


def spot(label):
    return Box(label, 5, 5, 15, 20)


@pytest.fixture
def load(monkeypatch, tmp_path):
    """load(**options) -> records and vocabulary of ten pictures, of product A and one or two defects each."""
    records = [
        ImageRecord(
            tmp_path / f"{'ab'[i % 2]}/p{i}.png", 40, 30, (WHOLE, *(spot(TAGS[j % 3]) for j in range(i, i + 2)))
        )
        for i in range(10)
    ]
    monkeypatch.setitem(datasets.FOLDER_READERS, "sdi", lambda folder, image_dir, problems: (records, TAGS))

    def call(split="train", **options):
        return load_records("sdi", tmp_path, split, **{"val_fraction": 0, **options})

    return call


def labels(records):
    return {box.label for record in records for box in record.boxes}


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_selected_classes_come_in_their_order_and_the_others_are_left_out_and_named(load, caplog):
    caplog.set_level(logging.INFO)
    records, names = load(classes=("dent", "spot"), select=True)
    assert (names.classes, names.products, names.left_out) == (("dent", "spot"), ("A",), ("scratch",))
    assert labels(records) == {"dent", "spot"} and {record.product for record in records} == {"A"}
    assert len(records) == 10 and "boxes left out by --classes and --class_map: scratch 7" in caplog.text


def test_the_names_that_a_selection_leaves_out_are_known_when_the_data_are_read_again(load):
    records, names = load(classes=("dent",), select=True)
    left_out = [f"{tag}=" for tag in names.left_out]
    again, _ = load(classes=names.classes, product_tags=names.products, class_map=left_out)
    assert again == records


def test_without_selection_a_class_beside_the_given_ones_is_an_error_that_says_what_to_do(load):
    with pytest.raises(AnnotationError, match=r"unknown class 'scratch'; known: spot, dent; --class_map scratch= "):
        load(classes=("spot", "dent"), product_tags=("A",))


def test_a_selected_class_that_the_data_lack_is_an_error_with_their_tags(load):
    with pytest.raises(AnnotationError, match=r"--classes stop: no such tag; tags: spot, scratch, dent, A"):
        load(classes=("stop",), select=True)


def test_a_class_selected_twice_is_an_error(load):
    with pytest.raises(AnnotationError, match=r"--classes spot,dent,spot: has 'spot' twice"):
        load(classes=("spot", "dent", "spot"), select=True)


def test_tags_of_the_map_that_new_data_lack_are_named_in_a_warning(load, caplog):
    load(class_map=("scrach=", "dent=mark", "A=steel"), select=True)
    assert "--class_map: the train split has no tags scrach; it has spot, scratch, dent, A" in caplog.text


def test_tags_of_the_map_that_later_data_lack_are_no_fault(load, caplog):
    load(class_map=("scrach=",))
    assert not caplog.text


def test_a_tag_is_read_as_another_name_and_two_tags_become_one_class(load):
    records, names = load(class_map=("scratch=mark", "dent=mark"))
    assert names.classes == ("spot", "mark") and labels(records) == {"spot", "mark"}
    assert sum(len(record.boxes) for record in records) == 20


def test_a_tag_without_a_name_is_left_out_and_its_pictures_stay(load):
    records, names = load(class_map=("scratch=", "dent="))
    assert names.classes == ("spot",) and len(records) == 10
    assert any(not record.boxes for record in records)


def test_products_are_renamed_too(load):
    records, names = load(class_map=("A=steel",))
    assert names.products == ("steel",) and {record.product for record in records} == {"steel"}


def test_classes_are_selected_by_the_names_that_the_map_gives(load):
    _, names = load(class_map=("scratch=mark", "dent=mark"), classes=("mark",), select=True)
    assert (names.classes, names.left_out) == (("mark",), ("spot",))


# Names that a model knows


def test_names_that_a_model_knows_come_first_whether_the_data_have_them_or_not(load):
    known = Vocabulary(("crack", "dent"), ("B",))
    records, names = load(known=known, select=True)
    assert (names.classes, names.products) == (("crack", "dent", "spot", "scratch"), ("B", "A"))
    assert labels(records) == {"spot", "scratch", "dent"} and names.left_out == ()


def test_a_selection_adds_to_the_names_that_a_model_knows(load):
    records, names = load(known=Vocabulary(("crack", "spot")), classes=("dent",), select=True)
    assert (names.classes, names.left_out) == (("crack", "spot", "dent"), ("spot", "scratch"))
    assert labels(records) == {"dent"}


def test_a_class_that_a_model_knows_stays_one_though_it_covers_every_picture(load):
    records, names = load(known=Vocabulary(("A",), ("B",)), select=True)
    assert (names.classes[0], names.products) == ("A", ("B",))
    assert labels(records) == {"A", "spot", "scratch", "dent"} and {record.product for record in records} == {None}


def test_a_product_that_a_model_knows_stays_one_though_it_covers_no_picture(load, monkeypatch):
    monkeypatch.setattr(datasets, "find_product_tags", lambda records: ())
    assert load(known=Vocabulary((), ("A",)), select=True)[1].products == ("A",)


@pytest.mark.parametrize(
    ("known", "options", "told"),
    [
        (Vocabulary(("A",)), {"product_tags": ("A",)}, "'A' is a class of the trained model, but a product of the"),
        (Vocabulary((), ("A",)), {"classes": ("A",)}, "'A' is a product of the trained model, but a class of the"),
    ],
)
def test_what_a_model_knows_as_another_kind_is_an_error(load, known, options, told):
    with pytest.raises(AnnotationError, match=told):
        load(known=known, select=True, **options)


@pytest.mark.parametrize("entry", ["scratch", "=scratch", " = x"])
def test_a_mistyped_entry_of_the_map_is_an_error_with_its_form(entry):
    with pytest.raises(ValueError, match=r"--class_map .*: expected TAG=NAME"):
        read_map([entry])


def test_entries_given_later_win_over_those_for_the_same_tag():
    assert merged(("a=x", "b="), ("b=y", "c=z")) == ("a=x", "b=y", "c=z")


def test_a_tag_with_an_equals_sign_is_left_out_without_touching_others(monkeypatch, tmp_path):
    records = [ImageRecord(tmp_path / "p.png", 40, 30, (spot("d"), spot("d=1"), spot("d=2")))]
    monkeypatch.setitem(datasets.FOLDER_READERS, "sdi", lambda *_: (records, ["d", "d=1", "d=2"]))
    options = {"classes": ("d",), "class_map": ("d=2=d",), "select": True, "val_fraction": 0}
    found, names = load_records("sdi", tmp_path, "train", **options)
    assert names.left_out == ("d=1",) and [box.label for box in found[0].boxes] == ["d", "d"]


@pytest.mark.parametrize("mode", ["ade20k", "celeba"])
def test_label_maps_have_no_tags_to_map(tmp_path, mode):
    with pytest.raises(ValueError, match=f"--class_map a=b: --dataset_mode {mode} has none"):
        load_records(mode, tmp_path, "train", class_map=("a=b",))


@pytest.mark.parametrize("name", ["p3", "p3.png", "b/p3.png", "./b/p3.png", "b/p3"])
@pytest.mark.parametrize("form", ["{}\np4\n\n", "\ufeff{}\r\n p4 \r\n", '["{}", "p4"]'])
def test_a_list_names_pictures_by_the_end_of_their_path_with_suffix_or_without(load, tmp_path, name, form):
    file = write(tmp_path / "list.txt", form.replace("{}", name))
    assert [record.stem for record in load(id_list=file)[0]] == ["p3", "p4"]


def test_a_name_in_a_list_stands_for_nothing_but_itself(load, tmp_path):
    for name in ("3", "a/p3.png", "p", "P3"):
        with pytest.raises(EmptySplit, match="none of its 1 names"):
            load(id_list=write(tmp_path / "list.txt", name))


@pytest.mark.parametrize(("disk", "line"), [("Pru\u0308f", "Pr\u00fcf"), ("Pr\u00fcf", "cam/Pru\u0308f.png")])
def test_a_name_in_a_list_is_found_however_a_computer_writes_its_umlauts(tmp_path, disk, line):
    records = [ImageRecord(tmp_path / f"cam/{disk}.png", 1, 1)]
    assert listed(records, Path(write(tmp_path / "list.txt", line))) == records


def test_numbers_in_a_json_list_are_names(tmp_path):
    records = [ImageRecord(Path(name), 1, 1) for name in ("7.png", "8.png")]
    assert listed(records, Path(write(tmp_path / "list.json", "[7]"))) == records[:1]


def test_a_list_for_each_split_makes_the_splits(load, tmp_path):
    write(tmp_path / "train.txt", "p1\np2")
    write(tmp_path / "val.txt", "p5")
    options = {"id_list": str(tmp_path / "{split}.txt"), "val_fraction": 0.5}
    assert [record.stem for record in load(**options)[0]] == ["p1", "p2"]
    assert [record.stem for record in load("val", **options)[0]] == ["p5"]


def test_a_name_in_the_lists_of_both_splits_is_an_error(load, tmp_path):
    write(tmp_path / "train.txt", "p1\np2\np3")
    write(tmp_path / "val.txt", "p5\np3\np2")
    with pytest.raises(AnnotationError, match=r"--id_list .*\{split\}\.txt: p2 is in both lists \(2 such names\)"):
        load("val", id_list=str(tmp_path / "{split}.txt"))


def test_one_list_restricts_both_splits_and_their_vocabulary_is_that_of_all(load, tmp_path):
    file = write(tmp_path / "list.txt", "\n".join(f"p{i}" for i in range(5)))
    (train, names), (val, _) = (load(split, id_list=file, val_fraction=0.5) for split in ("train", "val"))
    assert sorted(record.stem for record in train + val) == [f"p{i}" for i in range(5)]
    assert names.classes == ("spot", "scratch", "dent")


def test_names_without_a_picture_are_counted(load, tmp_path, caplog):
    load(id_list=write(tmp_path / "list.txt", "p1\nq1\nq2"))
    assert "2 of its 3 names have no picture here (first: q1)" in caplog.text


@pytest.mark.parametrize("content", [None, b"\xff\xfe\x00\xd8", b"[1, 2", b"[" * 100_000])
def test_a_list_that_cannot_be_read_is_named(load, tmp_path, content):
    if content is not None:
        (tmp_path / "list.txt").write_bytes(content)
    with pytest.raises(AnnotationError, match=r"--id_list .*list\.txt: cannot be read as a list"):
        load(id_list=str(tmp_path / "list.txt"))


def test_a_run_keeps_its_selection_through_resuming_and_sampling(run_script, tiny_data, tiny_network, tmp_path):
    for split in ("train", "val"):
        stems = sorted(path.stem for path in tiny_data.glob(f"{split}/*/*.png"))
        write(tmp_path / f"{split}.txt", "\n".join(stems[:4]))
    words = [
        "--data_dir",
        tiny_data,
        "--logdir",
        tmp_path / "run",
        *tiny_network,
        "--id_list",
        tmp_path / "{split}.txt",
    ]
    words += ["--classes", "mark,Pits", "--class_map", "Spots=mark,Stains=mark", "--batch_size", 2, "--cache", "ram"]
    run_script("scripts/image_train.py", *words, "--max_steps", 1)
    config = json.loads((tmp_path / "run/config.json").read_text())
    assert config["classes"] == ["mark", "Pits"] and config["id_list"] == str(tmp_path / "{split}.txt")
    assert set(config["class_map"]) == {"Spots=mark", "Stains=mark", "Scratches=", "Inclusions="}

    resumed = run_script("scripts/image_train.py", *words, "--max_steps", 2)
    assert "continuing from step 1" in resumed.output
    assert set(json.loads((tmp_path / "run/config.json").read_text())["class_map"]) == set(config["class_map"])
    ended = run_script("scripts/image_sample.py", "--model_path", tmp_path / "run/ema_0.9.pt", "--num_steps", 1)
    assert "4 images from 4 layouts" in ended.output
    lines = (tmp_path / "run/samples/manifest.jsonl").read_text().splitlines()
    assert {o["label"] for line in lines for o in json.loads(line)["layout"]["objects"]} <= {"mark", "Pits"}
