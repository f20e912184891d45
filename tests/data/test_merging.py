from pathlib import Path

import numpy as np
import pytest

from stay_diffusion.data.annotations import AnnotationError, ImageRecord, Vocabulary
from stay_diffusion.data.merging import Known, Origin, file_names, united
from stay_diffusion.data.splits import some_of


def known(where, classes=(), products=(), unused=(), stated=False):
    return Known(where, [*products, *unused, *classes], Vocabulary(tuple(classes), tuple(products)), stated)


def records(*paths):
    return [ImageRecord(Path(path), 8, 8) for path in paths]


def test_the_first_sets_names_come_first_in_its_order_and_those_of_others_after():
    names = united(
        [known("R", ("hole", "scratch"), ("B",), unused=("dent",)), known("S", ("burr", "hole"), ("A", "B"))]
    )
    assert names == Vocabulary(("dent", "hole", "scratch", "burr"), ("B", "A"))


@pytest.mark.parametrize(
    "sets",
    [
        (known("R", products=("A",)), known("S", classes=("A",))),
        (known("R", classes=("A",)), known("S", products=("A",), stated=True)),
        (known("R", products=("B",)), known("V", ("x",), ("B",)), known("S", classes=("B",))),
    ],
)
def test_a_name_that_is_a_product_here_and_a_class_there_is_an_error_that_names_both(sets):
    with pytest.raises(AnnotationError, match=r"is a product in \w, but in \w a class of objects; --product_tags"):
        united(sets)


def test_a_class_that_covers_whole_pictures_by_chance_stays_a_class():
    assert united([known("R", classes=("stain",)), known("S", products=("stain",))]) == Vocabulary(("stain",))


def test_names_that_differ_in_little_are_an_error_that_says_how_to_read_them_as_one():
    with pytest.raises(
        AnnotationError, match=r"'pin hole' of S and 'Pin-hole' of R .* --class_map \"pin hole=Pin-hole\""
    ):
        united([known("R", ("Pin-hole",)), known("S", ("pin hole",))])
    assert united([known("R", ("a", "A")), known("S", ("A",))]).classes == ("a", "A")  # one set's own are its own
    assert united([known("R", ("+",)), known("S", ("-",))]).classes == ("+", "-")


def test_pictures_keep_their_names_unless_another_has_it():
    origins = [
        Origin("real", records("r/a.png", "r/deep/a.jpg", "r/b.png", "r/B.png")),
        Origin("synthetic", records("s/a.png", "s/c.png", "t/c.png", "s/b_synthetic.png", "s/b.png")),
    ]
    names = {str(path): name for path, name in file_names(origins).items()}
    assert names == {
        "r/a.png": "a.png",
        "r/deep/a.jpg": "a_2.jpg",
        "r/b.png": "b.png",
        "r/B.png": "B_2.png",  # some file systems know no case
        "s/a.png": "a_synthetic.png",
        "s/c.png": "c.png",
        "t/c.png": "c_synthetic.png",
        "s/b_synthetic.png": "b_synthetic.png",
        "s/b.png": "b_synthetic_2.png",
    }


def test_a_picture_that_two_sets_have_is_an_error():
    with pytest.raises(AnnotationError, match=r"r/a\.png: is in the synthetic data and in others, too"):
        file_names([Origin("real", records("r/a.png")), Origin("synthetic", records("r/a.png"))])


def test_some_pictures_are_drawn_by_the_rule_that_is_documented():
    given = records(*(f"x/{name}.png" for name in "hgfedcba"))
    drawn = some_of(given, 3, seed=5)
    ordered = sorted(given, key=lambda record: record.stem)
    assert drawn == [ordered[i] for i in sorted(np.random.default_rng(5).permutation(8)[:3])]
    assert {record.stem for record in drawn} < {record.stem for record in some_of(given, 5, seed=5)}
    assert some_of(given, 8, seed=5) == ordered and some_of(given, 0, seed=5) == []
