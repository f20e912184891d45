"""Row 4: steps are timed on real samplers and scaled to all of them."""

import finished_image
import pytest


def test_row_4_scales_timed_steps_to_all_calls(monkeypatch):
    monkeypatch.setattr(
        finished_image, "in_turn", lambda routes, rounds: {"default": [2.0], "ancestral": [2.4], "beforehand": [5.0]}
    )
    (row,) = finished_image.rows(rounds=1, network="tiny", num_objects=2)
    assert row.ratio == pytest.approx((5 + 1000 * 1.2) / (5 + 20 * 1.0))
    assert (row.number, row.sense, row.target) == ("4", "at least", 40)


def test_row_4_is_measured_on_real_samplers():
    (row,) = finished_image.rows(rounds=1, network="tiny", num_objects=2)
    assert set(row.details["seconds"]) == {"default", "ancestral", "beforehand"} and row.ratio > 1
