"""Does it learn at all, and what the layout says?"""

import itertools

import pytest
import torch

from stay_diffusion.config import SampleConfig
from stay_diffusion.data.layout import Layout
from stay_diffusion.diffusion.gaussian_diffusion import respace
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder
from stay_diffusion.sampling.generate import TrainedModel, image_generators
from stay_diffusion.training.state import TrainingState
from stay_diffusion.training.train_loop import train

STEPS = 60


def two_pictures():
    """A bright spot on the left and a dark line on the right, of 16 x 16 pixels, with their layouts."""
    images = torch.zeros(2, 1, 16, 16)
    images[0, :, 4:12, 2:7] = 1.0
    images[1, :, 2:14, 10:13] = -1.0
    boxes = torch.tensor([[[2 / 16, 4 / 16, 7 / 16, 12 / 16]], [[10 / 16, 2 / 16, 13 / 16, 14 / 16]]])
    labels = torch.tensor([[1], [2]])
    return images, Layout(boxes, labels, labels > 0, torch.ones(2, dtype=torch.long))


@pytest.fixture(scope="module")
def trained(tiny_run, tmp_path_factory):
    """The state after training on nothing but the two pictures, and the loss of every step."""
    config = tiny_run(
        model={"image_size": 16, "channel_mult": "1,1"},
        diffusion={"prediction": "x_start"},
        max_steps=STEPS,
        lr=3e-3,
        batch_size=4,
        save_interval=STEPS,
    )
    torch.manual_seed(0)
    model = factory.build_model(config)
    state = TrainingState(config, model, factory.build_diffusion(config.diffusion), torch.device("cpu"))
    images, layout = two_pictures()
    batch = images.repeat(2, 1, 1, 1), Layout.cat([layout] * 2)
    folder = RunFolder(tmp_path_factory.mktemp("overfit"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OPENAI_LOG_FORMAT", "csv")
        train(state, config, itertools.repeat(batch), folder, [])
    rows = (folder.path / "progress.csv").read_text().splitlines()
    column = rows[0].split(",").index("loss")
    return state, [float(row.split(",")[column]) for row in rows[1:]]


def test_the_loss_on_two_pictures_falls_tenfold(trained):
    _, losses = trained
    assert sum(losses[-10:]) / 10 < losses[0] / 10


def test_each_layout_is_drawn_as_its_own_picture(trained):
    state, _ = trained
    images, layout = two_pictures()
    diffusion = respace(state.diffusion, "10")
    # The averaged weights, the layouts in the other order, and noise that nothing was trained on.
    model, swapped = state.emas[0].model, layout[torch.tensor([1, 0])]
    sampler = TrainedModel(model, diffusion, (1, 16, 16), SampleConfig())
    samples = sampler.generate(swapped, image_generators(3, range(2)))
    distance = (samples[:, None] - images[None]).pow(2).mean(dim=(2, 3, 4))  # sample, picture
    assert distance[0, 1] < distance[0, 0] / 3
    assert distance[1, 0] < distance[1, 1] / 3
