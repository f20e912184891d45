import logging
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from reading import load_records

from stay_diffusion.data import semantic_datasets
from stay_diffusion.data.annotations import AnnotationError, EmptySplit, MapFiles
from stay_diffusion.data.codings import CODINGS
from stay_diffusion.data.formats import semantic_map
from stay_diffusion.data.semantic_datasets import SEMANTIC_DATASETS

SHARED = Path(__file__).resolve().parents[2] / "../shared/data"
REAL = {"ade20k": "ade20k_mini", "cityscapes": "cityscapes_layout_mini", "coco_semantic": "coco_semantic_mini"}


@pytest.fixture
def folder(tmp_path):
    """folder(*paths): a data set of empty files; finding pairs opens none of them."""

    def make(*paths):
        for path in paths:
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).touch()
        return tmp_path

    return make


def pairs(mode, root, split="train"):
    """(image, label map, instance map) of each record by their paths in the data set."""
    files = [(r.path, r.maps.labels, r.maps.instances) for r in semantic_datasets.read(mode, root, split)]
    return [tuple(path and path.relative_to(root).as_posix() for path in paths) for paths in files]


def save(path, values, **options):
    image = values if isinstance(values, Image.Image) else Image.fromarray(np.asarray(values))
    image.save(path, **options)
    return path


def refused(path, *words, action=semantic_map.read_ids):
    with pytest.raises(AnnotationError) as error:
        action(path)
    message = str(error.value)
    assert "\n" not in message
    assert all(word in message for word in (*words, str(getattr(path, "labels", path)))), message


def test_ade20k_has_training_and_validation_folders(folder):
    root = folder("images/training/a.jpg", "annotations/training/a.png")
    folder("images/validation/b.jpg", "annotations/validation/b.png")
    assert pairs("ade20k", root) == [("images/training/a.jpg", "annotations/training/a.png", None)]
    assert pairs("ade20k", root, "val") == [("images/validation/b.jpg", "annotations/validation/b.png", None)]


def test_cityscapes_takes_label_and_instance_ids_of_every_city_and_no_other_file(folder, caplog):
    kinds = [("gtFine", f"gtFine_{kind}") for kind in ("labelIds", "instanceIds", "color", "labelTrainIds")]
    names = [f"{top}/train/aachen/aachen_1_{end}.png" for top, end in (("leftImg8bit", "leftImg8bit"), *kinds)]
    root = folder(*names, *(name.replace("aachen", "ulm") for name in names))
    expected = tuple(names[:3])
    assert pairs("cityscapes", root) == [expected, tuple(name.replace("aachen", "ulm") for name in expected)]
    assert not caplog.records


def test_celeba_has_train_and_test_folders_and_the_label_map_marks_its_edges(folder):
    root = folder("train/images/0.jpg", "train/labels/0.png", "test/images/1.jpg", "test/labels/1.png")
    assert pairs("celeba", root) == [("train/images/0.jpg", "train/labels/0.png", "train/labels/0.png")]
    assert pairs("celeba", root, "val") == [("test/images/1.jpg", "test/labels/1.png", "test/labels/1.png")]


def test_coco_has_a_folder_for_each_split_and_kind(folder):
    root = folder(*(f"{split}_{kind}/7.png" for split in ("train", "val") for kind in ("img", "label", "inst")))
    assert pairs("coco_semantic", root, "val") == [("val_img/7.png", "val_label/7.png", "val_inst/7.png")]


def test_pairs_are_made_by_stem_whatever_the_suffix_and_the_order(folder, caplog):
    images = ["images/training/b.JPG", "images/training/a-1.jpeg", "images/training/a.webp"]
    labels = ["annotations/training/0.png", *(f"annotations/training/{stem}.PNG" for stem in ("a", "a-1", "b"))]
    root = folder(*images, *labels, "images/training/index.txt", "images/training/Thumbs.db")
    with caplog.at_level(logging.WARNING):
        found = pairs("ade20k", root)
    assert [(Path(image).stem, Path(label).stem) for image, label, _ in found] == [(s, s) for s in ("a", "a-1", "b")]
    assert "1 label maps have no picture" in caplog.text and "0.png" in caplog.text


def test_complete_pairs_warn_of_nothing(folder, caplog):
    pairs("ade20k", folder("images/training/a.jpg", "annotations/training/a.png"))
    assert not caplog.records


def test_pictures_of_one_name_in_two_subfolders_keep_their_own_maps(folder):
    names = [f"{side}/training/{place}/1.png" for place in ("kitchen", "street") for side in ("images", "annotations")]
    assert pairs("ade20k", folder(*names)) == [(*names[:2], None), (*names[2:], None)]


def test_pictures_without_a_label_map_are_named_and_counted(folder):
    root = folder("annotations/training/a.png", *(f"images/training/{stem}.jpg" for stem in "abcdef"))
    with pytest.raises(AnnotationError, match=r"b\.jpg, .*c\.jpg, .*d\.jpg and 2 more: no label map in .*annotations"):
        pairs("ade20k", root)


def test_a_picture_without_the_instance_map_that_others_have_is_named(folder):
    root = folder(*(f"train_{kind}/{stem}.png" for kind in ("img", "label") for stem in "ab"), "train_inst/a.png")
    with pytest.raises(AnnotationError, match=r"train_img/b\.png: no instance map in .*train_inst"):
        pairs("coco_semantic", root)


def test_a_data_set_without_any_instance_map_has_none(folder):
    assert pairs("coco_semantic", folder("train_img/a.jpg", "train_label/a.png"))[0][2] is None


def test_two_files_of_one_name_are_an_error_that_names_both(folder):
    root = folder("images/training/a.jpg", "images/training/a.png", "annotations/training/a.png")
    with pytest.raises(AnnotationError, match=r"a\.png: a\.jpg beside it"):
        pairs("ade20k", root)


@pytest.mark.parametrize("mode", SEMANTIC_DATASETS)
def test_a_missing_split_is_one_line_that_names_the_folder(mode, tmp_path):
    for split, kind in (("train", AnnotationError), ("val", EmptySplit)):
        with pytest.raises(
            AnnotationError, match=f"no such folder, for the {split} split of --dataset_mode {mode}"
        ) as error:
            semantic_datasets.read(mode, tmp_path, split)
        assert type(error.value) is kind and "\n" not in str(error.value) and str(tmp_path) in str(error.value)


def test_a_folder_without_pictures_is_an_empty_split_and_no_folder_an_error(folder):
    root = folder("images/training/readme.txt", "annotations/training/a.png")
    with pytest.raises(EmptySplit, match="no pictures"):
        semantic_datasets.read("ade20k", root, "train")
    with pytest.raises(AnnotationError, match=r"--data_dir .*nowhere: no such folder"):
        semantic_datasets.read("ade20k", root / "nowhere", "train")


def test_the_vocabulary_is_the_data_sets_own_or_a_longer_one_that_was_given(folder):
    root = folder("train/images/0.jpg", "train/labels/0.png")
    assert load_records("celeba", root, "train")[1].classes == CODINGS["celeba"].classes
    longer = tuple(f"class_{i}" for i in range(1, 21))
    assert load_records("celeba", root, "train", classes=longer)[1].classes == longer
    with pytest.raises(AnnotationError, match="has 19 classes, but the model knows 18"):
        load_records("celeba", root, "train", classes=longer[:18])


@pytest.mark.parametrize("options", [{"image_dir": Path("x")}, {"product_tags": ("A",)}])
def test_flags_that_label_maps_do_not_have_are_refused(options, folder):
    with pytest.raises(ValueError, match=f"--{next(iter(options))} .*: --dataset_mode celeba has none"):
        load_records("celeba", folder("train/images/0.jpg", "train/labels/0.png"), "train", **options)


@pytest.mark.parametrize("mode", REAL)
def test_every_real_pair_reads_and_shows_objects(mode):
    root = SHARED / REAL[mode]
    if not root.is_dir():
        pytest.skip(f"shared/data/{REAL[mode]} is not here")
    records = semantic_datasets.read(mode, root, "val")
    assert records
    for record in records[:4]:
        maps = semantic_map.read(record.maps)
        assert maps.labels.shape[::-1] == Image.open(record.path).size
        assert len(semantic_map.objects(maps, CODINGS[mode], use_instances=True)[0]) > 0


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_ids_of_16_bits_stay_apart(tmp_path, suffix):
    ids = np.array([[26001, 26257], [255, 65535]], dtype=np.uint16)  # the first two have one low byte
    np.testing.assert_array_equal(semantic_map.read_ids(save(tmp_path / f"ids{suffix}", ids)), ids)


@pytest.mark.parametrize("bits", [2, 4, 8])
def test_a_palette_picture_holds_its_indices_and_not_its_colours(tmp_path, bits):
    image = Image.new("P", (3, 1))
    image.putpalette([9, 9, 9, 200, 0, 0, 9, 9, 9, 0, 0, 255])  # two entries of one colour
    image.putdata([2, 0, 3])
    assert semantic_map.read_ids(save(tmp_path / "p.png", image, bits=bits)).tolist() == [[2, 0, 3]]


@pytest.mark.parametrize("mode", ["RGB", "RGBA"])
def test_a_grey_saved_in_colour_holds_its_grey(tmp_path, mode):
    grey = Image.fromarray(np.array([[0, 7], [150, 255]], dtype=np.uint8))
    assert semantic_map.read_ids(save(tmp_path / "g.png", grey.convert(mode))).tolist() == [[0, 7], [150, 255]]


def test_pictures_that_hold_no_ids_are_refused_by_name(tmp_path):
    refused(save(tmp_path / "colour.png", Image.new("RGB", (4, 4), (1, 1, 2))), "a RGB picture")
    refused(save(tmp_path / "float.tif", np.ones((4, 4), np.float32)), "a F picture")
    refused(save(tmp_path / "lossy.jpg", np.full((4, 4), 3, np.uint8)), "JPEG does not keep ids")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n no more")
    refused(tmp_path / "broken.png", "cannot be read as a label map")
    refused(tmp_path / "none.png", "no such label map")


@pytest.mark.parametrize(
    ("coding", "pairs_of_id_and_label"),
    [
        ("ade20k", [(1, 1), (150, 150), (0, 151)]),
        ("coco_semantic", [(0, 1), (181, 182), (255, 183)]),
        ("cityscapes", [(0, 1), (33, 34)]),
        ("celeba", [(0, 1), (18, 19)]),
    ],
)
def test_ids_become_labels_with_the_unlabelled_as_the_last_class(tmp_path, coding, pairs_of_id_and_label):
    ids, labels = np.array(pairs_of_id_and_label).T
    path = save(tmp_path / "ids.png", ids[None].astype(np.uint8))
    assert semantic_map.read(MapFiles(path, None, CODINGS[coding])).labels.tolist() == [labels.tolist()]


@pytest.mark.parametrize("coding", CODINGS)
def test_a_written_map_reads_back_as_the_same_labels(tmp_path, coding):
    labels = np.arange(1, len(CODINGS[coding].classes) + 1, dtype=np.int16)[None].repeat(2, axis=0)
    path = save(tmp_path / "map.png", semantic_map.to_image(labels, CODINGS[coding]))
    np.testing.assert_array_equal(semantic_map.read(MapFiles(path, None, CODINGS[coding])).labels, labels)


@pytest.mark.parametrize(
    ("coding", "unknown", "known"),
    [("ade20k", 151, "0..150"), ("coco_semantic", 182, "0..181 and 255"), ("cityscapes", 255, "0..33")],
)
def test_unknown_ids_are_named_with_the_file_and_the_known_ones(tmp_path, coding, unknown, known):
    path = save(tmp_path / "odd.png", np.array([[1, unknown, 1]], np.uint8))
    refused(MapFiles(path, None, CODINGS[coding]), f"ids {unknown} have no class", known, action=semantic_map.read)


def test_maps_of_two_sizes_are_named_with_both(tmp_path):
    labels, instances = save(tmp_path / "l.png", np.ones((4, 6), np.uint8)), tmp_path / "i.png"
    save(instances, np.ones((6, 4), np.uint8))
    files = MapFiles(labels, instances, CODINGS["coco_semantic"])
    refused(files, "i.png: 4x6", "has 6x4", action=semantic_map.read)
