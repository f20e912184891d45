from pathlib import Path

import pytest
from PIL import Image
from reading import load_records

from stay_diffusion.data.annotations import AnnotationError
from stay_diffusion.data.formats import image_folder
from stay_diffusion.data.images import find_pictures
from stay_diffusion.run import factory


@pytest.fixture
def folder(tmp_path):
    def make(*names):
        for name in names:
            (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (12, 8), 90).save(tmp_path / name)
        return tmp_path

    return make


def test_the_product_is_what_precedes_the_first_underscore(folder):
    records, products = image_folder.read(folder("screw_001_b.png", "nut_2.png", "plain.png", "_hidden.png"))
    assert {r.path.name: r.product for r in records} == {
        "screw_001_b.png": "screw",
        "nut_2.png": "nut",
        "plain.png": None,
        "_hidden.png": None,
    }
    assert products == ["nut", "screw"]


def test_pictures_are_found_in_every_subfolder_in_the_order_of_their_paths(folder):
    root = folder("b/1.PNG", "a/deep/2.jpg", "c.tif")
    (root / "notes.txt").touch()
    records, products = image_folder.read(root)
    assert [r.path.relative_to(root).as_posix() for r in records] == ["a/deep/2.jpg", "b/1.PNG", "c.tif"]
    assert products == [] and all(not r.boxes and r.width == 0 for r in records)


def test_a_folder_without_pictures_is_one_line_with_the_known_suffixes(tmp_path):
    with pytest.raises(AnnotationError, match=r"no pictures in it \(\.bmp, .*\.webp\)") as error:
        image_folder.read(tmp_path)
    assert str(tmp_path) in str(error.value)


def test_a_second_folder_of_images_is_refused(folder):
    with pytest.raises(AnnotationError, match="--image_dir x: --dataset_mode images"):
        image_folder.read(folder("a.png"), Path("x"))


def test_products_become_the_vocabulary_in_alphabetical_order(folder):
    records, vocabulary = load_records("images", folder("train/b_1.png", "train/a_1.png", "val/a_2.png"), "train")
    assert vocabulary.products == ("a", "b") and vocabulary.classes == ()
    assert [vocabulary.product_of(record) for record in records] == [1, 2]


def test_a_split_need_not_show_every_product(folder):
    root = folder("train/b_1.png", "train/a_1.png", "val/b_2.png")
    records, vocabulary = load_records("images", root, "val", product_tags=("a", "b"))
    assert vocabulary.products == ("a", "b") and vocabulary.product_of(records[0]) == 2


def test_a_product_that_the_model_does_not_know_is_named_with_its_file(folder):
    root = folder("train/a_1.png", "val/b_2.png")
    with pytest.raises(AnnotationError, match=r"b_2\.png: unknown product 'b'; known: a"):
        load_records("images", root, "val", product_tags=("a",))


def test_product_tags_for_names_without_products_are_refused(folder):
    with pytest.raises(AnnotationError, match="--product_tags a: no such tag; tags: none"):
        load_records("images", folder("train/1.png", "val/2.png"), "train", product_tags=("a",))


@pytest.mark.parametrize(("class_cond", "products", "shown"), [(True, ("a",), 1), (False, (), 0)])
def test_an_unconditional_model_without_names_is_shown_no_product(folder, tiny_run, class_cond, products, shown):
    records, _ = load_records("images", folder("train/a_1.png", "val/a_2.png"), "train")
    data = {"dataset_mode": "images", "product_tags": products, "classes": ()}
    config = tiny_run(data=data, model={"class_cond": class_cond, "conditioning": "none"})
    sample = factory.build_dataset(records, config, augment=True).sample(0, 0)
    assert sample.product == shown and sample.boxes.shape == (0, 4) and sample.semantic_map is None


def test_linked_folders_are_followed_once_and_hidden_files_are_left_out(tmp_path):
    real, linked = tmp_path / "real", tmp_path / "elsewhere"
    for folder in (real, linked):
        folder.mkdir()
        Image.new("L", (4, 4)).save(folder / f"{folder.name}_1.png")
        Image.new("L", (4, 4)).save(folder / f"._{folder.name}_1.png")
    (real / "more").symlink_to(linked)
    (real / "back").symlink_to(real)
    (real / "a folder.png").mkdir()
    (real / ".thumbnails").mkdir()
    Image.new("L", (4, 4)).save(real / ".thumbnails/real_1.png")
    assert [path.name for path in find_pictures(real)] == ["elsewhere_1.png", "real_1.png"]


def test_pictures_of_formats_that_are_not_read_are_named_and_stop_nothing(folder):
    root, problems = folder("a_1.png", "b/2.gif"), []
    (root / "b_3.HEIC").touch()
    records, _ = image_folder.read(root, None, problems)
    assert [record.path.name for record in records] == ["a_1.png"]
    assert [(Path(problem.file).name, problem.action) for problem in problems] == [
        ("2.gif", "left out"),
        ("b_3.HEIC", "left out"),
    ]
