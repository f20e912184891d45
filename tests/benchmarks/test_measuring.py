"""How benchmarks measure: turns, ratios, verdicts."""

import pytest
import torch
from measuring import AT_LEAST, AT_MOST, Row, in_turn, ratio, same, table


def test_routes_take_turns_and_every_other_round_is_gone_backwards():
    gone = []
    seconds = in_turn({name: lambda name=name: gone.append(name) for name in "ab"}, rounds=3, warm_up=1)
    assert "".join(gone) == "ab" + "ab" + "ba" + "ab"
    assert {name: len(times) for name, times in seconds.items()} == {"a": 3, "b": 3}


def test_a_ratio_is_the_median_of_the_rounds_own():
    # A machine that halves its speed in the third round: both routes take twice as long.
    assert ratio([3.0, 2.0, 8.0, 2.0, 2.0], [1.0, 1.0, 2.0, 1.0, 1.0]) == (2.0, 2.0, 4.0)
    assert ratio([3.0], [2.0]) == (1.5, 1.5, 1.5)


@pytest.mark.parametrize(
    ("sense", "measured", "verdict"),
    [
        (AT_MOST, 1.1, "met"),
        (AT_MOST, 1.11, "missed"),
        (AT_LEAST, 1.1, "met"),
        (AT_LEAST, 1.09, "missed"),
        (AT_LEAST, None, "not measured"),
    ],
)
def test_a_row_says_whether_its_target_is_met(sense, measured, verdict):
    row = Row("1", "a step", sense, 1.1, measured, note="needs a GPU")
    assert row.verdict == verdict
    line = table([row]).splitlines()[-1]
    assert verdict in line and f"{sense} 1.1" in line and (measured is not None or "needs a GPU" in line)


def test_two_runs_agree_where_their_spreads_meet():
    def row(ratio, *spread):
        return Row("1", "a step", AT_MOST, 1.1, ratio, *spread)

    assert row(1.1, 1.0, 1.2).agrees(row(1.3, 1.2, 1.4)) and row(1.3, 1.2, 1.4).agrees(row(1.1, 1.0, 1.2))
    assert not row(1.1, 1.0, 1.2).agrees(row(1.3, 1.21, 1.4))
    assert row(1.1).agrees(row(1.109)) and not row(1.1).agrees(row(1.112))


def test_routes_that_do_not_do_the_same_are_refused():
    x = torch.arange(1.0, 5.0)
    assert "2.0e-03" in same(x * 1.002, x, 1e-2, "outputs")
    for other in (x * 1.02, x * torch.nan):
        with pytest.raises(ValueError, match="outputs: the two routes differ"):
            same(other, x, 1e-2, "outputs")
