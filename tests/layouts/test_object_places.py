import numpy as np
import pytest

from stay_diffusion.layouts.places import Kind, ObjectPlaces, most_shared, overlap

CLASSES, PRODUCTS = ("spot", "line"), ("A", "B")


def boxes_of(rng, name, number, centre, sides, spread=30):
    """Boxes of a class around a centre, wholly in a picture of 100 x 100, one a picture."""
    pictures = []
    for _ in range(number):
        half = np.array(sides[rng.integers(len(sides))]) * rng.uniform(0.99, 1.01, 2) / 2
        x, y = np.clip(np.array(centre) + rng.uniform(-spread, spread, 2), half + 1, 99 - half)
        pictures.append((None, [(name, x - half[0], y - half[1], x + half[0], y + half[1])]))
    return pictures


def drawn(statistics, label=1, product=0, number=300, size=(100.0, 100.0), seed=0):
    """Boxes (number, 4) in pixels."""
    places, rng, kind = ObjectPlaces(statistics), np.random.default_rng(seed), Kind(label, product, 1)
    return np.concatenate([places.draw(kind, places.choose(kind, rng)[0], size, 1, rng) for _ in range(number)])


def sides_of(boxes):
    return boxes[:, 2:] - boxes[:, :2]


def centres_of(boxes):
    return (boxes[:, 2:] + boxes[:, :2]) / 2


def test_width_and_height_stay_joint(count):
    rng = np.random.default_rng(0)
    pictures = boxes_of(rng, "spot", 60, (50, 50), [(40, 6), (6, 40)])
    width, height = sides_of(drawn(count(pictures, CLASSES))).T
    flat, upright = width > 30, height > 30
    assert (flat ^ upright).all() and 100 < flat.sum() < 200
    for long, short in ((width[flat], height[flat]), (height[upright], width[upright])):
        assert ((long > 40 / 1.2) & (long < 40 * 1.2) & (short > 6 / 1.2) & (short < 6 * 1.2)).all()
    assert len(set(width.round(3))) > 200  # varied


def test_a_class_that_is_only_ever_in_one_part_stays_there(count):
    rng = np.random.default_rng(0)
    left = boxes_of(rng, "spot", 60, (20, 50), [(10, 10), (20, 5)], spread=15)
    right = boxes_of(rng, "line", 60, (80, 20), [(10, 10), (20, 5)], spread=10)
    statistics = count([*left, *right], CLASSES)
    for label, pictures in ((1, left), (2, right)):
        real = centres_of(np.array([box for _, [(_, *box)] in pictures]))
        found = centres_of(drawn(statistics, label))
        assert (found >= real.min(axis=0) - 1e-6).all() and (found <= real.max(axis=0) + 1e-6).all()
        assert (np.abs(found.mean(axis=0) - real.mean(axis=0)) < 3).all()
        assert (found.std(axis=0) > 0.7 * real.std(axis=0)).all()


def test_positions_go_with_the_product_unless_it_has_too_few(count):
    rng = np.random.default_rng(0)
    on = {
        "A": boxes_of(rng, "spot", 40, (20, 50), [(8, 8)], 10),
        "B": boxes_of(rng, "spot", 40, (80, 50), [(8, 8)], 10),
    }
    pictures = [(product, objects) for product in PRODUCTS for _, objects in on[product]]
    statistics = count(pictures, CLASSES, PRODUCTS)
    for product, (least, most) in ((1, (0, 40)), (2, (60, 100))):
        x = centres_of(drawn(statistics, product=product))[:, 0]
        assert least < x.min() and x.max() < most
    few = count(pictures[:43], CLASSES, PRODUCTS)  # 3 of them on B
    x = centres_of(drawn(few, product=2))[:, 0]
    assert x.min() < 30 and x.max() > 60 and (x < 40).mean() > 0.8


def test_positions_go_with_the_size(count):
    rng = np.random.default_rng(0)
    small, large = (
        boxes_of(rng, "spot", 60, centre, [(side, side)], 5) for centre, side in (((20, 20), 5), ((70, 70), 30))
    )
    boxes = drawn(count([*small, *large], CLASSES))
    is_large = sides_of(boxes)[:, 0] > 15
    assert (centres_of(boxes)[is_large] > 50).all() and (centres_of(boxes)[~is_large] < 50).all()


def test_sizes_go_with_how_full_a_picture_is(count):
    rng = np.random.default_rng(0)
    alone = boxes_of(rng, "spot", 30, (50, 50), [(40, 40)])
    crowds = [(None, [box for _, [box] in boxes_of(rng, "spot", 6, (50, 50), [(6, 6)])]) for _ in range(20)]
    places, rng = ObjectPlaces(count([*alone, *crowds], CLASSES)), np.random.default_rng(0)
    for number, least, most in ((1, 30, 50), (5, 4, 8)):
        kind = Kind(1, 0, number)
        boxes = np.concatenate([places.draw(kind, places.choose(kind, rng)[0], (100, 100), 2, rng) for _ in range(50)])
        assert sides_of(boxes).min() > least and sides_of(boxes).max() < most


# Borders


def test_what_is_always_clear_of_the_border_stays_clear(count):
    rng = np.random.default_rng(0)
    statistics = count(boxes_of(rng, "spot", 50, (50, 50), [(96, 20), (20, 96), (10, 10)], 60), CLASSES)
    assert statistics.boxes.min() >= 1 and statistics.boxes.max() <= 99
    boxes = drawn(statistics, number=1000)
    assert boxes.min() >= 1 - 1e-6 and boxes.max() <= 99 + 1e-6


def test_what_touches_the_border_does_so_as_often_and_at_the_same_side(count):
    rng = np.random.default_rng(0)
    tall = [("spot", x, 0, x + 5, 100) for x in rng.uniform(5, 90, 20)]
    at_left = [("spot", 0, y, 15, y + 10) for y in rng.uniform(5, 80, 20)]
    at_bottom = [("spot", x, 88, x + 8, 100) for x in rng.uniform(5, 80, 20)]
    free = [objects[0] for _, objects in boxes_of(rng, "spot", 20, (50, 50), [(10, 10)])]
    x0, y0, x1, y1 = drawn(
        count([(None, [box]) for box in (*tall, *at_left, *at_bottom, *free)], CLASSES), number=800
    ).T
    left, top, right, bottom = x0 == 0, y0 == 0, x1 == 100, y1 == 100
    counts = [(top & bottom).sum(), left.sum(), (bottom & ~top).sum(), (~(left | top | right | bottom)).sum()]
    assert not right.any() and all(150 < number < 250 for number in counts) and sum(counts) == 800


def test_what_a_crop_cuts_reaches_as_far_beyond_it(count):
    statistics = count([(None, [("spot", -6, 20 + i, 14, 30 + i)]) for i in range(30)], CLASSES)
    boxes = drawn(statistics)
    share = -boxes[:, 0] / sides_of(boxes)[:, 0]
    np.testing.assert_allclose(share, 0.3, atol=1e-9)


# Pictures of other sizes than the data's


def test_objects_keep_their_size_in_pixels_in_a_larger_picture(count):
    rng = np.random.default_rng(0)
    statistics = count(boxes_of(rng, "spot", 50, (30, 50), [(10, 20)], 20), CLASSES)
    boxes = drawn(statistics, size=(400.0, 200.0))
    assert (np.abs(sides_of(boxes) / (10, 20) - 1) < 0.15).all()
    x, y = centres_of(boxes).T
    assert x.min() > 40 and 160 < x.max() < 200 and y.max() > 120  # the map of places grows with the picture


def test_what_reaches_across_the_data_s_pictures_starts_at_an_edge_of_a_larger_one(count):
    statistics = count([(None, [("spot", 10 + i, 0, 15 + i, 100)]) for i in range(30)], CLASSES)
    boxes = drawn(statistics, size=(300.0, 300.0))
    at_top, at_bottom = boxes[:, 1] == 0, boxes[:, 3] == 300
    assert (at_top ^ at_bottom).all() and 100 < at_top.sum() < 200
    assert (np.abs(sides_of(boxes)[:, 1] / 100 - 1) < 0.15).all()


@pytest.mark.parametrize("size", [(40.0, 100.0), (5.0, 5.0)])
def test_an_object_larger_than_the_picture_is_cut_to_it(count, size):
    rng = np.random.default_rng(0)
    boxes = drawn(count(boxes_of(rng, "spot", 50, (50, 50), [(60, 20)]), CLASSES), size=size)
    assert boxes.min() >= 0 and (boxes[:, 2:] <= size).all() and (sides_of(boxes) > 0).all()
    assert (sides_of(boxes)[:, 0] == size[0]).all()


# Overlap


def test_overlap_is_in_shares_of_the_smaller_box():
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [2, 2, 4, 4], [50, 50, 60, 60]], dtype=float)
    expected = [[1, 0.5, 1, 0], [0.5, 1, 0, 0], [1, 0, 1, 0], [0, 0, 0, 1]]
    np.testing.assert_allclose(overlap(boxes, boxes), expected)
    np.testing.assert_allclose(most_shared(boxes), [1, 0.5, 1, 0])
    assert most_shared(boxes[:1]).tolist() == [0] and most_shared(boxes[:0]).shape == (0,)
