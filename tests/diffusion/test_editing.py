"""Known pixels stay, and the others come to agree with them: data whose conditional distribution is known."""

import pytest
import torch

from stay_diffusion.diffusion.editing import inpaint, visits
from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace

RHO = 0.9  # how two pixels of unit variance go together
COVARIANCE = torch.tensor([[1.0, RHO], [RHO, 1.0]])


@pytest.fixture(scope="module")
def process():
    return GaussianDiffusion.create("cosine", 1000, prediction="x_start")


def pair_denoiser(process):
    """E[x_start | x_t] of pictures (B, 1, 1, 2) drawn from N(0, COVARIANCE)."""

    def model(x, t):
        signal, sigma = (process.at(name, t).view(-1, 1, 1) for name in ("signal", "sigma"))
        gain = signal * COVARIANCE @ torch.linalg.inv(signal**2 * COVARIANCE + sigma**2 * torch.eye(2))
        return (gain @ x.view(-1, 2, 1)).view(x.shape)

    return model


def filled_in(process, num_resamples, steps=20, value=1.0, num=1000):
    """The second pixel of `num` pictures whose first is `value`."""
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(num, 1, 1, 2, generator=generator)

    known, keep = torch.full((num, 1, 1, 2), value), torch.tensor([True, False]).expand(num, 1, 1, 2)
    images = inpaint(
        respace(process, f"logsnr{steps}"),
        pair_denoiser(process),
        draw(),
        draw,
        clip_denoised=False,
        known=known,
        keep=keep,
        num_resamples=num_resamples,
    )
    assert (images[..., 0] == value).all()
    return images[..., 1].flatten()


def test_resampling_brings_the_unknown_pixel_to_its_conditional_distribution(process):
    drawn = filled_in(process, num_resamples=20, steps=60)
    torch.testing.assert_close(drawn.mean(), torch.tensor(RHO), atol=0.06, rtol=0)
    torch.testing.assert_close(drawn.std(), torch.tensor((1 - RHO**2) ** 0.5), atol=0.04, rtol=0)


def test_more_resampling_agrees_better(process):
    errors = [abs(filled_in(process, n).mean().item() - RHO) for n in (1, 4, 16)]
    assert errors[0] > 1.5 * errors[1] > 2 * errors[2]


def test_the_picture_of_a_one_picture_data_set_is_restored(process):
    picture = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)) * 2 - 1
    keep = torch.ones(1, 1, 8, 8, dtype=torch.bool)
    keep[..., 2:6, 3:7] = False
    generator = torch.Generator().manual_seed(1)

    def draw():
        return torch.randn(1, 3, 8, 8, generator=generator)

    images = inpaint(respace(process, "logsnr10"), lambda x, t: picture, draw(), draw, known=picture, keep=keep)
    torch.testing.assert_close(images, picture)


def test_known_pixels_are_exact_whatever_the_network_says(process):
    known = torch.linspace(-1, 1, 16).view(1, 1, 4, 4)
    keep = torch.arange(4)[None, None, :, None].expand(1, 1, 4, 4) < 2
    generator = torch.Generator().manual_seed(0)

    def draw():
        return torch.randn(1, 1, 4, 4, generator=generator)

    images = inpaint(respace(process, "logsnr5"), lambda x, t: 0.3 * x, draw(), draw, known=known, keep=keep)
    assert images[keep].equal(known[keep]) and not images[~keep].equal(known[~keep])


@pytest.mark.parametrize(("steps", "jump", "resamples"), [(7, 3, 2), (5, 1, 4), (4, 10, 3), (6, 2, 1)])
def test_every_way_up_undoes_a_way_down_and_the_end_is_clean(steps, jump, resamples):
    level, downs = steps - 1, 0  # of noise; -1 is the clean picture
    for i, is_up in visits(steps, jump, resamples):
        if is_up:
            assert i == level + 1
            level = i
        else:
            assert i == level
            level, downs = i - 1, downs + 1
    assert level == -1 and downs == steps * resamples
