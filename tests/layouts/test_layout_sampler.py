from collections import Counter

import numpy as np
import pytest

from stay_diffusion.data.annotations import Vocabulary
from stay_diffusion.layouts.sampler import LayoutSampler

CLASSES, PRODUCTS = ("spot", "line", "pit"), ("A", "B")
VOCABULARY = Vocabulary(CLASSES, PRODUCTS)


def box_at(rng, name, side):
    x, y = rng.uniform(1, 99 - side, 2)
    return name, x, y, x + side, y + side


@pytest.fixture(scope="module")
def statistics(count):
    """100 pictures: on product A spots, often several, and a few lines; on B, a quarter, pits; some are good."""
    rng, pictures = np.random.default_rng(0), []
    for i in range(100):
        if i % 10 == 9:
            pictures.append((PRODUCTS[i % 4 == 1], []))
        elif i % 4 == 3:
            pictures.append(("B", [box_at(rng, "pit", 8)]))
        elif i % 20 == 2:
            pictures.append(("A", [box_at(rng, "line", 20)]))
        else:
            pictures.append(("A", [box_at(rng, "spot", 12) for _ in range(1 + i % 3)]))
    return count(pictures, CLASSES, PRODUCTS)


def sampler(statistics, *balance, seed=0, **options):
    return LayoutSampler(statistics, VOCABULARY, seed, balance or ("data",), **options)


def layouts(items):
    return [(item.product, item.objects) for item in items]


def classes_of(items):
    return Counter(box.label for item in items for box in item.objects)


def shares_of(items):
    counts = classes_of(items)
    return np.array([counts[name] for name in CLASSES]) / counts.total()


OPTIONS = [
    {},
    {"balance": ("uniform",)},
    {"balance": ("spot=1", "pit=2"), "good_parts": 0.3},
    {"balance": ("uniform",), "rare_first": True, "no_overlap": True},
]


def made(statistics, options, seed=0):
    options = dict(options)
    return sampler(statistics, *options.pop("balance", ()), seed=seed, **options)


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_the_same_seed_draws_the_same_layouts_and_another_seed_others(statistics, options):
    first, again, other = (layouts(made(statistics, options, seed).items(30)) for seed in (0, 0, 1))
    assert first == again and sum(one == two for one, two in zip(first, other, strict=True)) < 10


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_a_layout_depends_on_the_seed_and_its_index_alone(statistics, options):
    few, many = (layouts(made(statistics, options).items(number)) for number in (7, 250))
    assert many[:7] == few
    backwards = made(statistics, options)
    assert [backwards.draw(index) for index in (249, 120, 3)] == [many[index] for index in (249, 120, 3)]


def test_layouts_are_named_by_their_number(statistics):
    first, *_, last = sampler(statistics).items(12)
    assert (first.stem, last.stem, first.source, first.real()) == ("sampled_000000", "sampled_000011", "sampled", None)


# Which classes, how many, on what


def test_the_data_s_own_balance_is_kept(statistics):
    items = sampler(statistics).items(1000)
    real = statistics.items()
    assert np.abs(shares_of(items) - shares_of(real)).max() < 0.01
    for number in range(4):
        share = [sum(len(each.objects) == number for each in group) / len(group) for group in (items, real)]
        assert abs(share[0] - share[1]) < 0.02


def test_each_product_is_drawn_as_often_as_the_data_have_it_and_with_its_own_classes(statistics):
    items = sampler(statistics).items(400)
    products = Counter(item.product for item in items)
    assert products["B"] == 400 * np.mean(statistics.product == 2)
    found = {(item.product, box.label) for item in items for box in item.objects}
    assert found == {("A", "spot"), ("A", "line"), ("B", "pit")}


@pytest.mark.parametrize("options", [{}, {"good_parts": 0.2}, {"no_overlap": True}], ids=str)
def test_uniform_counts_of_1000_layouts_differ_by_less_than_5_percent(statistics, options):
    counts = classes_of(sampler(statistics, "uniform", **options).items(1000))
    assert len(counts) == 3 and max(counts.values()) < 1.05 * min(counts.values())


def test_balance_never_puts_a_class_on_a_product_that_does_not_have_it(statistics):
    items = sampler(statistics, "uniform").items(500)
    found = {(item.product, box.label) for item in items for box in item.objects}
    assert found == {("A", "spot"), ("A", "line"), ("B", "pit")}


def test_named_weights_are_the_shares_of_the_objects_and_the_others_are_not_drawn(statistics):
    items = sampler(statistics, "line=3", "pit=1").items(500)
    np.testing.assert_allclose(shares_of(items), [0, 0.75, 0.25], atol=0.01)


def test_classes_that_always_come_together_are_balanced_nevertheless(count):
    pair = [("spot", 10, 10, 20, 20), ("line", 40, 40, 50, 50), ("line", 60, 60, 70, 70)]
    counts = classes_of(sampler(count([(None, pair)] * 5, CLASSES), "uniform").items(100))
    assert abs(counts["spot"] - counts["line"]) <= 1 and counts.total() == 300


def test_balance_keeps_apart_what_is_never_seen_together(count):
    rng = np.random.default_rng(1)
    pictures = [(None, [box_at(rng, CLASSES[i % 7 % 3], 10) for _ in range(1 + i % 3)]) for i in range(70)]
    items = sampler(count(pictures, CLASSES), "uniform").items(300)
    mixed = [item for item in items if len({box.label for box in item.objects}) > 1]
    assert len(mixed) < 15


def test_rare_first_draws_the_rarest_class_until_it_has_caught_up(statistics):
    spots, lines, pits = statistics.training_objects
    assert lines < pits < spots
    drawn = sampler(statistics, "uniform", rare_first=True)
    first = classes_of(drawn.items(100))
    assert first["spot"] == 0 and abs(first["line"] + lines - first["pit"] - pits) <= 1
    later = classes_of(drawn.items(500))
    together = np.array([later[name] for name in CLASSES]) + statistics.training_objects
    assert together.max() - together.min() <= 1


@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_good_parts_are_the_share_asked_for(statistics, share):
    items = sampler(statistics, good_parts=share).items(200)
    empty = [not item.objects for item in items]
    assert abs(sum(empty) - 200 * share) <= 1 and abs(sum(empty[:50]) - 50 * share) <= 1
    if share == 0.5:
        assert {item.product for item in items if not item.objects} == set(PRODUCTS)


def test_without_good_parts_asked_for_there_are_as_many_as_in_the_data(statistics):
    for balance in (("data",), ("uniform",)):
        items = sampler(statistics, *balance).items(500)
        assert abs(sum(not item.objects for item in items) - 50) <= 3


def test_a_product_can_be_asked_for(statistics):
    drawn = sampler(statistics, "uniform")
    made = [drawn.draw(index, product="B") for index in range(100)]
    assert {product for product, _ in made} == {"B"}
    assert {box.label for _, boxes in made for box in boxes} == {"pit"}
    # A product that never shows what is asked for takes it from the others.
    lines = [sampler(statistics, "line=1").draw(index, product="B") for index in range(5)]
    assert all(product == "B" and {box.label for box in boxes} <= {"line"} for product, boxes in lines)
    assert any(boxes for _, boxes in lines)


def test_a_product_without_training_pictures_can_be_asked_for(statistics):
    drawn = LayoutSampler(statistics, Vocabulary(CLASSES, ("A", "B", "new")), 0, good_parts=0)
    product, boxes = drawn.draw(0, product="new")
    assert product == "new" and boxes
    with pytest.raises(ValueError, match="unknown product 'other'; known: A, B, new"):
        drawn.draw(0, product="other")


# Overlap


def crowded(count, rng):
    def apart():
        return [("spot", 10 + 30 * i, 20 + 20 * j, 30 + 30 * i, 35 + 20 * j) for i in range(3) for j in range(3)]

    return count([(None, [apart()[k] for k in rng.choice(9, 6, replace=False)]) for _ in range(40)], CLASSES)


def overlaps(items):
    return [
        (one, other)
        for item in items
        for i, one in enumerate(item.objects)
        for other in item.objects[:i]
        if min(one.x1, other.x1) > max(one.x0, other.x0) and min(one.y1, other.y1) > max(one.y0, other.y0)
    ]


def test_no_overlap_is_none_and_leaves_out_what_finds_no_place(count):
    # Squares of half the picture, of which four at most find a place.
    rng = np.random.default_rng(0)
    pictures = [(None, [box_at(rng, "spot", 48) for _ in range(6)]) for _ in range(20)]
    statistics = count(pictures, CLASSES)
    assert len(overlaps(sampler(statistics).items(20))) > 50
    items = sampler(statistics, no_overlap=True).items(30)
    assert overlaps(items) == []
    assert all(1 <= len(item.objects) <= 4 for item in items)


def test_objects_that_never_overlap_in_the_data_hardly_do_so_when_drawn(count):
    items = sampler(crowded(count, np.random.default_rng(0))).items(100)
    assert classes_of(items)["spot"] == 600
    assert len(overlaps(items)) < 0.02 * 100 * 15


# What cannot be


@pytest.mark.parametrize(
    ("balance", "told"),
    [
        (("even",), "--class_balance even: expected data, uniform, or CLASS=WEIGHT"),
        (("data", "uniform"), "--class_balance data,uniform: expected data, uniform, or"),
        (("hole=1",), "unknown class 'hole'; known: spot, line, pit, never"),
        (("spot=much",), "'much' is not a number"),
        (("spot=-1",), "weights of 0 and above"),
        (("spot=nan",), "weights of 0 and above"),
        (("spot=inf",), "weights of 0 and above"),
        (("spot=0",), "leaves no class that has training objects"),
        (("never=1", "spot=1"), "the training data hold no object of class 'never'"),
    ],
)
def test_a_balance_that_cannot_be_is_named(count, balance, told):
    statistics = count([(None, [("spot", 1, 1, 9, 9)])], (*CLASSES, "never"))
    with pytest.raises(ValueError, match=told) as error:
        LayoutSampler(statistics, VOCABULARY, 0, balance)
    assert "\n" not in str(error.value)


def test_options_that_cannot_be_are_named(statistics, count):
    with pytest.raises(ValueError, match="--rare_first True: --class_balance data leaves no class behind"):
        sampler(statistics, rare_first=True)
    with pytest.raises(ValueError, match=r"--good_parts -0.5: expected a share"):
        sampler(statistics, good_parts=-0.5)
    good = count([("A", [])] * 3, CLASSES, PRODUCTS)
    with pytest.raises(ValueError, match=r"--good_parts 0.2: the training data hold no object"):
        sampler(good, good_parts=0.2)
    with pytest.raises(ValueError, match="--class_balance uniform: leaves no class that has training objects"):
        sampler(good, "uniform")
    assert layouts(sampler(good).items(2)) == [("A", ()), ("A", ())]
