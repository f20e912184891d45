"""Published state dicts: their names, what their shapes reveal, and what they become."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.testing import assert_close

from stay_diffusion.config.flags import flatten
from stay_diffusion.data.annotations import Vocabulary
from stay_diffusion.data.layout import Layout
from stay_diffusion.diffusion.guidance import classifier_free
from stay_diffusion.models.isla_norm import IslaNorm
from stay_diffusion.models.new_names import with_new_names
from stay_diffusion.models.object_masks import MaskNet
from stay_diffusion.models.unet import UNet
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import load_weights
from stay_diffusion.run.import_weights import into_isla, misfits, published_config, to_ours

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"
SMALL = {"image_size": 16, "num_channels": 32, "num_res_blocks": 1, "num_heads": 2, "channel_mult": "1,2"}
SMALL |= {"attention_resolutions": "8"}
SHAPES = {
    "plain": ("guided", {}),
    "one_level": ("guided", {"channel_mult": "1", "attention_resolutions": "", "use_scale_shift_norm": False}),
    "updown": ("guided", {"resblock_updown": True, "learn_sigma": True, "num_res_blocks": 2}),
    "no_attention": ("guided", {"channel_mult": "1,1,2", "attention_resolutions": "", "image_channels": 1}),
    "attention_everywhere": ("guided", {"attention_resolutions": "16,8", "use_scale_shift_norm": False}),
    "classes": ("guided", {"class_cond": True, "num_classes": 5}),
    "maps": ("sdm", {"num_classes": 3, "channel_mult": "2,1"}),
    "maps_updown": ("sdm", {"num_classes": 3, "no_instance": True, "resblock_updown": True, "learn_sigma": True}),
    "maps_one_level": ("sdm", {"num_classes": 3, "channel_mult": "1", "attention_resolutions": "16"}),
}
# By option, from the right value a wrong one whose difference shows.
WRONG = {
    "num_channels": lambda right: 2 * right,
    "image_channels": lambda right: 4 - right,
    "num_res_blocks": lambda right: right + 1,
    "channel_mult": lambda right: ("1" if right[0] == "2" else "2") + right[1:],
    "attention_resolutions": lambda right: "" if right == "16" else "16",
    "num_classes": lambda right: right + 4,
    **dict.fromkeys(
        ("learn_sigma", "use_scale_shift_norm", "resblock_updown", "class_cond", "no_instance"), lambda right: not right
    ),
}
X, T = torch.randn(3, 3, 16, 16, generator=torch.Generator().manual_seed(4)), torch.tensor([3, 500, 900])


def model_of(config, trained: bool = True) -> UNet:
    torch.manual_seed(0)
    model = factory.build_model(config).eval()
    if hasattr(model, "conditioner") and hasattr(model.conditioner, "mask_net"):
        torch.manual_seed(1)
        model.conditioner.mask_net = MaskNet(model.conditioner.object_codes.width, channels=8)  # the full one is slow
    if trained:
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def published(kind: str, given: dict):
    """Configuration and weights of a model of a published shape."""
    config = published_config(kind, {**SMALL, **given})
    return config, model_of(config).state_dict()


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def shape(request):
    return request.param


def test_right_flags_are_not_complained_of(shape):
    config, state = published(*shape)
    assert misfits(state, config) == []


@pytest.mark.parametrize("option", WRONG)
def test_a_wrong_flag_is_named_and_it_alone(shape, option):
    kind, given = shape
    config, state = published(kind, given)
    shows = {
        "class_cond": kind == "guided",
        "no_instance": kind == "sdm",
        "num_classes": config.model.class_cond,
        "resblock_updown": len(config.model.channel_multipliers) > 1,
    }
    if not shows.get(option, True):
        pytest.skip("does not show in such a model")
    wrong = {option: WRONG[option](flatten(config)[option])}
    (problem,) = misfits(state, published_config(kind, {**SMALL, **given, **wrong}))
    assert f"--{option} " in problem and ", but the file has " in problem


def test_several_wrong_flags_are_all_named():
    config, state = published("guided", {})
    wrong = published_config("guided", {**SMALL, "learn_sigma": True, "num_channels": 64, "num_res_blocks": 2})
    assert misfits(state, config) == []
    assert misfits(state, wrong) == [
        "--num_channels 64, but the file has 32",
        "--learn_sigma True, but the file has False",
        "--num_res_blocks 2, but the file has 1",
    ]


@pytest.mark.parametrize("theirs", ["plain", "maps"])
def test_weights_of_the_other_code_base_are_told_by_their_norms(theirs):
    kind, given = SHAPES[theirs]
    other = {"guided": "sdm", "sdm": "guided"}[kind]
    problems = misfits(published(kind, given)[1], published_config(other, {**SMALL, "num_classes": 3}))
    assert len(problems) == 1 and f"--kind {kind}" in problems[0]


def test_a_state_dict_of_something_else_is_refused():
    config, state = published("guided", {})
    classifier = {name: tensor for name, tensor in state.items() if not name.startswith("output_blocks")}
    for other, missing in (({"weight": torch.zeros(2)}, "time_embed.0.weight"), (classifier, "output_blocks")):
        with pytest.raises(ValueError, match=f"not a U-Net of guided-diffusion or SDM: it lacks '{missing}'"):
            misfits(other, config)


@pytest.mark.skipif(not GOLDEN.is_dir(), reason="needs ../shared/golden, published state dicts")
@pytest.mark.parametrize("name", ["sdm_instance", "sdm_no_instance", "guided_uncond"])
def test_each_tensor_of_a_published_file_gets_one_name_and_stays_as_it_is(name):
    theirs = torch.load(GOLDEN / f"{name}.pt", weights_only=True)
    state = to_ours(theirs)
    assert len(state) == len(theirs)
    for (old, before), (new, after) in zip(theirs.items(), state.items(), strict=True):
        assert torch.equal(before.float(), after)
        assert (old == new) == (name == "guided_uncond" or not ("in_" in old or "out_" in old) or "input" in old), old
    assert to_ours(state).keys() == state.keys()


def test_sdm_norms_become_the_first_of_the_layers_that_they_stand_beside():
    theirs = ["in_norm.mlp_shared.0.weight", "in_layers.1.bias", "out_norm.mlp_beta.bias", "out_layers.2.weight"]
    ours = ["in_layers.0.mlp_shared.0.weight", "in_layers.2.bias", "out_layers.0.mlp_beta.bias", "out_layers.3.weight"]
    untouched = ["input_blocks.1.0.in_layers.2.bias", "middle_block.0.emb_layers.1.bias", "out.2.weight"]
    state = dict.fromkeys([*(f"middle_block.0.{name}" for name in theirs), *untouched], torch.zeros(1))
    assert list(to_ours(state)) == [*(f"middle_block.0.{name}" for name in ours), *untouched]


def test_a_file_of_several_gpus_in_half_precision_is_read_too():
    read = to_ours({"module.a": torch.ones(1).half(), "module.b": torch.full((1,), 0.1).half()})
    assert_close(read, {"a": torch.ones(1), "b": torch.full((1,), 0.1)}, rtol=1e-3, atol=0)  # the dtype as well


@pytest.mark.parametrize("state", [{}, {"model": {"a": torch.zeros(1)}}, {"a": torch.zeros(1), "step": 3}, [1]])
def test_anything_but_a_flat_state_dict_is_refused_in_one_line(state):
    with pytest.raises(ValueError, match=r"\Anot a flat state dict: .*\Z"):
        to_ours(state)


# A start for ISLA

BOXES = torch.tensor([[0.1, 0.2, 0.7, 0.5], [0.3, 0.1, 0.9, 0.6], [-0.3, 0.5, 0.4, 1.4], [0.62, 0.62, 0.63, 0.63]])
NOTHING = (torch.zeros(0, 4), torch.zeros(0).long())
MANY = (BOXES.repeat(6, 1), torch.arange(24) % 2 + 1)
LAYOUTS = {
    "nothing": Layout.collate([(*NOTHING, 0)] * 3),
    "one": Layout.collate([(BOXES[:1], torch.tensor([1]), 0)] * 3),
    "overlapping_and_outside": Layout.collate([(BOXES, torch.tensor([1, 2, 1, 2]), 0)] * 3),
    "many_and_padded": Layout.collate([(*MANY, 0), (*NOTHING, 0), (BOXES[:2], torch.tensor([2, 2]), 0)]),
    "known_product": Layout.collate([(*MANY, 1), (*NOTHING, 2), (BOXES[:1], torch.tensor([1]), 1)]),
    "null": Layout.collate([(*MANY, 1)] * 3).null(),
}


def started(given: dict) -> tuple[UNet, UNet]:
    """An unconditional guided-diffusion model, and the ISLA model of 2 classes and 2 products that it starts."""
    config, state = published("guided", given)
    original = model_of(config)
    isla = replace(config, model=replace(config.model, conditioning="isla_bg", class_cond=True))
    model = model_of(factory.with_vocabulary(isla, Vocabulary(("spot", "line"), ("A", "B"))), trained=False)
    load_weights(model, Path("start.pt"), into_isla(state, model))
    return original, model


@pytest.fixture(scope="module", params=["added", "scaled", "updown"])
def start(request):
    options = {"added": {"use_scale_shift_norm": False}, "scaled": {}, "updown": {"resblock_updown": True}}
    return started({**options[request.param], "learn_sigma": True})


@pytest.mark.parametrize("name", LAYOUTS)
@torch.no_grad()
def test_an_isla_start_gives_the_originals_output_for_any_layout(start, name):
    original, model = start
    expected = original(X, T)
    assert_close(model(X, T, LAYOUTS[name]), expected, rtol=0, atol=1e-5 * expected.abs().max().item())


@torch.no_grad()
def test_guidance_changes_nothing_at_the_start(start):
    original, model = start
    expected = original(X, T)
    guided = classifier_free(model, 3.0, 3)(X, T, LAYOUTS["known_product"].with_null())
    assert_close(guided, expected, rtol=0, atol=5e-5 * expected.abs().max().item())  # 3 - 2 times the same


def test_one_step_of_training_makes_the_layout_matter():
    _, model = started({})
    layout = LAYOUTS["known_product"]
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    model(X, T, layout).square().mean().backward()
    projections = [module.project.weight for module in model.modules() if isinstance(module, IslaNorm)]
    assert len(projections) == 2 * (2 + 4) and all(weight.grad.abs().max() > 0 for weight in projections)
    assert model.label_emb.weight.grad.abs().max() > 0
    optimizer.step()
    with torch.no_grad():
        assert (model(X, T, layout) - model(X, T, layout.null())).abs().amax(dim=(1, 2, 3)).min() > 1e-4


def test_the_classes_of_a_class_conditional_original_become_products():
    config, state = published("guided", {"class_cond": True, "num_classes": 5})
    original = model_of(config)
    products = config.data.product_tags
    named = factory.with_vocabulary(
        replace(config, model=replace(config.model, conditioning="isla_bg"), data=replace(config.data, num_classes=0)),
        Vocabulary(("spot",), products),
    )
    model = model_of(named, trained=False)
    load_weights(model, Path("start.pt"), into_isla(state, model))
    layout = Layout.collate([(BOXES, torch.ones(4).long(), product) for product in (1, 3, 5)])
    with torch.no_grad():
        assert_close(model(X, T, layout), original(X, T, layout), rtol=1e-5, atol=1e-5)
        assert (original(X, T, layout) - original(X, T, layout[torch.tensor([1, 2, 0])])).abs().max() > 1e-3


# Names that the data bring


def test_rows_for_new_names_are_added_and_the_output_stays():
    config, state = published("guided", {})
    isla = replace(config, model=replace(config.model, conditioning="isla_bg", class_cond=True))
    nameless = model_of(isla, trained=False)
    start = into_isla(state, nameless)
    model = model_of(factory.with_vocabulary(isla, Vocabulary(("spot", "line"), ("A", "B"))), trained=False)
    own: dict[str, Tensor] = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    grown = with_new_names(start, model, 0, 0)
    load_weights(model, Path("start.pt"), grown)
    labels, products = (f"conditioner.object_codes.{kind}_embedding.weight" for kind in ("label", "product"))
    assert torch.equal(grown[labels], torch.cat([start[labels], own[labels][1:]]))
    assert torch.equal(grown[products], torch.cat([start[products], start[products][1] + own[products][2:]]))
    assert not model.label_emb.weight.any()
    expected = model_of(config)
    with torch.no_grad():
        for layout in LAYOUTS.values():
            assert_close(model(X, T, layout), expected(X, T), rtol=0, atol=1e-5 * expected(X, T).abs().max().item())
