import copy
from functools import partial

import pytest
import torch

from stay_diffusion.config import SampleConfig
from stay_diffusion.data.annotations import RelativeBox, Vocabulary
from stay_diffusion.data.images import to_tensor
from stay_diffusion.data.layout import Layout
from stay_diffusion.diffusion.gaussian_diffusion import respace
from stay_diffusion.layouts.items import LayoutItem
from stay_diffusion.run import factory
from stay_diffusion.sampling.batches import make_all
from stay_diffusion.sampling.generate import TrainedModel, image_generators, make_images
from stay_diffusion.system.device import in_best_format

VOCABULARY = Vocabulary(("spot", "line"), ("A",))
ITEMS = [
    LayoutItem("two", "A", (RelativeBox("spot", 0.1, 0.1, 0.6, 0.7), RelativeBox("line", 0.5, 0.2, 0.9, 0.8)), "test"),
    LayoutItem("none", "A", (), "test"),
    LayoutItem("one", None, (RelativeBox("line", 0.0, 0.4, 1.0, 0.6),), "test"),
]
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def networks(tiny_run):
    """A network by z_mode whose output is not zero, and the diffusion."""
    built = {}
    for z_mode in ("off", "prior"):
        config = tiny_run(model={"z_mode": z_mode})
        torch.manual_seed(0)
        model = factory.build_model(config).eval()
        for parameter in model.parameters():
            if not parameter.any():
                torch.nn.init.normal_(parameter, std=0.1)
        built[z_mode] = model
    return built, factory.build_diffusion(config.diffusion)


def images_of(networks, items=ITEMS, z_mode="off", done=frozenset(), **options):
    built, diffusion = networks
    made, sample = {}, SampleConfig(**options)
    model = TrainedModel(built[z_mode], respace(diffusion, "4"), SHAPE, sample)
    make = partial(make_images, model, items, VOCABULARY, 0, False)
    make_all(make, len(items), sample.batch_size, lambda index, one: made.update({index: one.image}), done)
    return {index: to_tensor(image, 1) for index, image in made.items()}


def layout_of(items=ITEMS):
    return Layout.collate([item.tensors(VOCABULARY) for item in items])


@pytest.mark.parametrize("options", [{}, {"s": 2.0}, {"sampler": "ddpm"}, {"sampler": "ddim", "eta": 1.0}], ids=str)
@pytest.mark.parametrize("z_mode", ["off", "prior"])
def test_an_image_does_not_depend_on_the_batch_size(networks, z_mode, options):
    whole, single = (images_of(networks, z_mode=z_mode, batch_size=size, **options) for size in (3, 1))
    assert sorted(whole) == sorted(single) == [0, 1, 2]
    # One of 255 levels: products of another size may round the other way.
    torch.testing.assert_close(whole, single, rtol=0, atol=2.001 / 255)
    differing = sum((whole[i] - single[i]).count_nonzero().item() for i in whole)
    assert differing <= 0.01 * sum(image.numel() for image in whole.values())


def test_the_images_of_a_continued_run_are_the_very_same(networks):
    whole = images_of(networks, batch_size=2)
    rest = images_of(networks, batch_size=2, done={0, 2})
    assert sorted(rest) == [1] and torch.equal(rest[1], whole[1])


def test_every_image_has_its_own_noise_and_another_seed_another(networks):
    same_layout = [ITEMS[0], ITEMS[0]]
    first = images_of(networks, same_layout, seed=0)
    second = images_of(networks, same_layout, seed=1)
    assert all((first[i] - second[j]).abs().max() > 0.05 for i in (0, 1) for j in (0, 1))
    assert (first[0] - first[1]).abs().max() > 0.05


def test_the_layout_reaches_the_image(networks):
    moved = LayoutItem("moved", "A", ITEMS[0].objects[:1], "test")
    assert (images_of(networks, [ITEMS[0]])[0] - images_of(networks, [moved])[0]).abs().max() > 1e-3


@pytest.mark.parametrize("scale", [1.0, 2.0])
def test_a_random_style_does_not_depend_on_padding(networks, scale):
    built, diffusion = networks
    layout, short = layout_of(), respace(diffusion, "4")
    made = [
        TrainedModel(built["prior"], short, SHAPE, SampleConfig(s=scale)).generate(
            padded, image_generators(0, range(3))
        )
        for padded in (layout, layout.pad(5))
    ]
    torch.testing.assert_close(made[0], made[1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("z_mode", ["off", "prior"])
def test_guidance_kept_to_an_interval_is_none_outside_it_and_whole_within_it(networks, z_mode):
    without, whole = (images_of(networks, z_mode=z_mode, s=s) for s in (1.0, 3.0))
    nowhere, everywhere, in_part = (
        images_of(networks, z_mode=z_mode, s=3.0, guidance_interval=levels)
        for levels in ("1e8,1e9", "0,1e9", "0.5,1e9")
    )
    torch.testing.assert_close(nowhere, without, rtol=0, atol=1e-3)
    assert all(torch.equal(everywhere[i], whole[i]) for i in whole)
    for other in (whole, without):
        assert max((in_part[i] - other[i]).abs().max() for i in other) > 0.02


def test_what_fills_in_unknown_pixels_is_guided_in_the_interval_too(networks):
    built, diffusion = networks
    known, keep = torch.zeros(3, *SHAPE), torch.zeros(3, 1, *SHAPE[1:], dtype=torch.bool)
    without, whole, nowhere = (
        TrainedModel(built["off"], respace(diffusion, "4"), SHAPE, SampleConfig(s=s, guidance_interval=levels)).fill(
            layout_of(), known, keep, image_generators(0, range(3))
        )
        for s, levels in ((1.0, ""), (3.0, ""), (3.0, "1e8,1e9"))
    )
    torch.testing.assert_close(nowhere, without, rtol=0, atol=1e-3)
    assert (whole - without).abs().max() > 0.02


@pytest.mark.parametrize("levels", ["0.3", "5,0.3", "1,1", "0.3,1,5", "low,high", "-1,2", ","])
def test_an_interval_that_is_none_is_refused_by_its_flag(levels):
    with pytest.raises(ValueError, match=f"--guidance_interval {levels}: expected"):
        SampleConfig(guidance_interval=levels).guided_levels  # noqa: B018


def test_images_lie_in_the_range_of_pictures(networks):
    made = images_of(networks, clip_denoised=False, s=4.0)
    assert all(image.shape == SHAPE and image.abs().max() <= 1 for image in made.values())


def test_a_generator_depends_on_seed_and_index_alone():
    def first(seed, index):
        return torch.rand(1, generator=image_generators(seed, [index])[0]).item()

    assert first(3, 7) == torch.rand(1, generator=image_generators(3, range(10))[7]).item()
    assert len({first(seed, index) for seed in range(4) for index in range(4)}) == 16


def test_a_network_in_the_format_for_sampling_answers_the_same(networks):
    built, diffusion = networks
    plain, sample = built["off"], SampleConfig(sampler="dpmpp_2m", s=2.0)
    fast = in_best_format(copy.deepcopy(plain))
    assert fast.input_blocks[0][0].weight.is_contiguous(memory_format=torch.channels_last)
    generators = [[torch.Generator().manual_seed(i) for i in range(len(ITEMS))] for _ in range(2)]
    short = respace(diffusion, "4")
    made = [
        TrainedModel(model, short, SHAPE, sample).generate(layout_of(), own)
        for model, own in zip((plain, fast), generators, strict=True)
    ]
    torch.testing.assert_close(*made, rtol=0, atol=1e-4)
