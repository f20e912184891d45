import numpy as np
import pytest

from stay_diffusion.layouts.plan import BLOCK, BalancedPlan, DataPlan, filled, whole_numbers

COUNTS = np.array([[3, 0, 0], [2, 1, 0], [1, 1, 0], [1, 0, 0], [0, 2, 0], [0, 0, 1], [0, 0, 0], [1, 0, 1]])
ONE_PRODUCT = np.zeros(len(COUNTS), dtype=int)


def balanced(shares, already=(0, 0, 0), counts=COUNTS, products=ONE_PRODUCT, seed=0):
    return BalancedPlan(counts, products, np.array(shares), np.array(already, dtype=float), (seed,))


def counted(plan, number):
    """Objects by class (3,) of the first layouts."""
    return np.bincount(np.concatenate([plan[k][1] for k in range(number)]), minlength=3)


def test_the_data_s_plan_takes_every_picture_once_in_each_pass_in_another_order():
    plan = DataPlan(COUNTS, (0,))
    passes = [[plan[k][0] for k in range(start, start + 8)] for start in (0, 8, 16)]
    assert all(sorted(each) == list(range(8)) for each in passes) and passes[0] != passes[1] != passes[2]
    picture, classes = plan[3]
    assert np.array_equal(np.bincount(classes, minlength=3), COUNTS[picture])


@pytest.mark.parametrize("shares", [(1 / 3, 1 / 3, 1 / 3), (0.2, 0.7, 0.1), (0.5, 0, 0.5)])
def test_counts_are_exact_at_the_end_of_every_block(shares):
    plan = balanced(shares)
    for blocks in (1, 2, 5):
        counts = counted(plan, blocks * BLOCK)
        assert (np.abs(counts - np.array(shares) * counts.sum()) <= 1).all()


def test_a_balanced_layout_is_the_company_of_the_picture_that_it_takes_after():
    plan = balanced((0.4, 0.4, 0.2))
    kept = [np.array_equal(np.bincount(plan[k][1], minlength=3), COUNTS[plan[k][0]]) for k in range(3 * BLOCK)]
    assert np.mean(kept) > 0.98


def test_classes_without_a_share_are_left_out_of_their_pictures():
    plan = balanced((0.5, 0, 0.5))
    for k in range(BLOCK):
        picture, classes = plan[k]
        assert 1 not in classes and COUNTS[picture, [0, 2]].any() == (len(classes) > 0)


def test_pictures_without_objects_keep_their_share():
    plan = balanced((1 / 3, 1 / 3, 1 / 3))
    empty = sum(len(plan[k][1]) == 0 for k in range(4 * BLOCK))
    assert abs(empty - 4 * BLOCK / 8) <= 4


def test_what_is_there_already_is_made_up_for():
    plan = balanced((0.5, 0.5, 0), already=(90, 10, 0))
    together = counted(plan, BLOCK)[:2] + np.array([90, 10])
    assert abs(together[0] - together[1]) <= 1
    assert counted(balanced((0.5, 0.5, 0), already=(900, 10, 0)), BLOCK)[0] == 0


def test_a_class_changes_where_it_is_met_in_company_and_on_the_product():
    # Class 0 always comes twice with one of class 1: more of class 1 can only come by change; 2 is on another product.
    counts = np.array([[2, 1, 0]] * 8 + [[0, 0, 1]] * 2)
    plan = balanced((0.4, 0.5, 0.1), counts=counts, products=np.array([1] * 8 + [2] * 2))
    layouts = [plan[k] for k in range(BLOCK)]
    assert all((2 in classes) == (counts[picture, 2] > 0) for picture, classes in layouts)
    total = counted(plan, BLOCK)
    assert (np.abs(total - np.array((0.4, 0.5, 0.1)) * total.sum()) <= 1).all()


@pytest.mark.parametrize(
    ("shares", "have", "amount", "expected"),
    [
        ((0.5, 0.5), (0, 0), 10, (5, 5)),
        ((0.5, 0.5), (4, 0), 10, (3, 7)),
        ((0.5, 0.5), (40, 0), 10, (0, 10)),
        ((0.75, 0.25), (0, 0), 8, (6, 2)),
        ((0.6, 0.2, 0.2), (6, 10, 1), 9, (6, 0, 3)),
        ((1, 0), (5, 0), 3, (3, 0)),
    ],
)
def test_an_amount_is_dealt_out_like_water(shares, have, amount, expected):
    dealt = filled(np.array(shares, dtype=float), np.array(have, dtype=float), amount)
    assert dealt.sum() == pytest.approx(amount)
    levels = (dealt + have)[np.array(shares) > 0] / np.array(shares)[np.array(shares) > 0]
    drawn = dealt[np.array(shares) > 0] > 0
    np.testing.assert_allclose(levels[drawn], levels[drawn].min())  # all that get some come to one level
    assert (levels >= levels[drawn].max() - 1e-9).all()  # which the others are above already
    np.testing.assert_allclose(dealt, expected)


def test_rounding_keeps_the_sum_and_is_off_by_less_than_one():
    rng = np.random.default_rng(0)
    for _ in range(50):
        amounts = rng.dirichlet(np.ones(7)) * 100
        rounded = whole_numbers(amounts, 100)
        assert rounded.sum() == 100 and (np.abs(rounded - amounts) < 1).all()
    assert whole_numbers(np.array([2.0, 0, 3.0]), 5).tolist() == [2, 0, 3]
