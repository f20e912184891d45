"""The rows of the table, each measured in the smallest way there is."""

import pytest
import sampling_step
import torch
import training_step
from measuring import AT_LEAST, AT_MOST
from torch.testing import assert_close


def test_the_plain_route_of_sampling_does_what_ours_does():
    for row in sampling_step.rows("tiny", rounds=1):
        assert row.number == "3" and row.sense == AT_LEAST and row.ratio > 0 and "differ by" in row.held


@torch.no_grad()
def test_plain_norms_and_attention_are_written_out_and_agree():
    model, x, layout = sampling_step.network_of("tiny", with_product=True)
    plain = sampling_step.plainly(model)
    replaced = [m for m in plain.modules() if "forward" in vars(m) and not isinstance(m, torch.nn.SiLU)]
    assert len(replaced) == len(list(model.modulated_norms())) + 1  # and the attention in the middle
    t = torch.tensor([500])
    assert_close(plain(x, t, layout), model(x, t, layout), rtol=1e-4, atol=1e-5)
    assert (model(x, t, layout) - model(x, t, layout.null())).abs().max() > 1e-3


@pytest.mark.slow
def test_a_training_step_is_measured_against_one_without_layout_and_against_spade():
    rows = training_step.rows(("tiny",), rounds=1)
    assert [row.number for row in rows] == ["1", "1", "2", "2", "5"]
    assert [row.sense for row in rows] == [AT_MOST, AT_MOST, AT_LEAST, AT_LEAST, AT_MOST]
    assert all(row.ratio > 0 for row in rows)
    assert rows[1].ratio > 2  # the mask generator outweighs so small a network
    assert rows[4].ratio < 1
