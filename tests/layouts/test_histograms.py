import json

import numpy as np

from stay_diffusion.data.annotations import RelativeBox
from stay_diffusion.layouts.histograms import histograms
from stay_diffusion.layouts.items import LayoutItem

LAYOUTS = [
    LayoutItem("one", "A", (RelativeBox("spot", 0.0, 0.0, 0.1, 0.2), RelativeBox("line", 0.8, 0.9, 1.4, 1.0)), "test"),
    LayoutItem("two", None, (), "test"),
    LayoutItem(
        "three", "A", (RelativeBox("spot", 0.4, 0.4, 0.6, 0.8), RelativeBox("spot", 0.6, 0.1, 0.601, 0.101)), "test"
    ),
]


def test_classes_products_and_numbers_of_objects_are_counted():
    found = histograms(LAYOUTS)
    assert (found["layouts"], found["objects"]) == (3, 4)
    assert found["classes"] == {"line": 1, "spot": 3} and found["products"] == {"": 1, "A": 2}
    assert found["objects_per_layout"] == [1, 0, 2]


def test_sides_and_areas_of_what_lies_in_the_picture_are_binned_and_none_is_lost():
    found = histograms(LAYOUTS)
    for name, values in (
        ("width", [0.1, 0.2, 0.2, 0.001]),
        ("height", [0.2, 0.1, 0.4, 0.001]),
        ("area", [0.02, 0.02, 0.08, 0.000001]),
    ):
        edges, counts = (np.array(found[name][key]) for key in ("edges", "counts"))
        places = (np.digitize(np.array(values) * (1 + 1e-9), edges) - 1).clip(0, 23)
        assert counts.tolist() == np.bincount(places, minlength=24).tolist() and counts.sum() == 4


def test_centres_are_counted_by_row_and_column():
    centres = np.array(histograms(LAYOUTS)["centres"])
    expected = np.zeros((8, 8), dtype=int)
    expected[0, 0] = expected[7, 7] = expected[4, 4] = expected[0, 4] = 1  # (row, column)
    assert np.array_equal(centres, expected)


def test_sets_of_any_size_have_the_same_bins_and_go_into_json():
    one, empty = histograms(LAYOUTS), histograms([])
    assert all(one[name]["edges"] == empty[name]["edges"] for name in ("width", "height", "area"))
    assert json.loads(json.dumps(one)) == one and empty["objects_per_layout"] == []
