"""Published networks, read as scripts/import_weights.py reads them, against their own code's outputs."""

import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import load_tensors, load_weights
from stay_diffusion.run.import_weights import SILENT, into_isla, layout_start, misfits, published_config, to_ours
from stay_diffusion.run.verification import conditions

SHARE = 1e-4  # of the largest output


@pytest.fixture(autouse=True)
def no_gradients():
    with torch.no_grad():
        yield


def published(group) -> tuple[dict, dict]:
    """The flags by name and the state dict; the counts that are constants there, not flags, are the file's."""
    state = to_ours(load_tensors(group.files[".pt"]))
    values = {"image_channels": group.numbers()["x"].shape[1], **group.flags()}
    if SILENT in state:
        values.setdefault("num_classes", len(state[SILENT]))
    return values, state


def outputs(config, state, group) -> dict:
    """By what the network was conditioned on."""
    numbers = group.numbers()
    model = factory.build_model(config).eval()
    load_weights(
        model, group.files[".pt"], into_isla(state, model) if config.model.conditioning == "isla_bg" else state
    )
    return {
        what: model(numbers["x"].float(), numbers["t"], layout) for what, layout in conditions(config, numbers).items()
    }


def test_a_published_network_fits_its_flags_and_gives_its_output(network):
    values, state = published(network)
    config = published_config("guided" if network.is_guided else "sdm", values)
    assert misfits(state, config) == []
    (output,) = outputs(config, state, network).values()
    expected = network.numbers()["out"].float()
    assert_close(output, expected, rtol=0, atol=SHARE * expected.abs().max().item())


def test_a_layout_model_started_from_guided_diffusion_gives_its_output_for_any_layout(guided):
    values, state = published(guided)
    original = published_config("guided", values)
    config = layout_start(original, {"classes": ["spot", "line"]})
    (expected,) = outputs(original, state, guided).values()
    started = outputs(config, state, guided)
    assert len(started) == 2  # without objects, and with random boxes
    for output in started.values():
        assert_close(output, expected, rtol=0, atol=1e-5 * expected.abs().max().item())
