"""The whole network: what reaches its output, what does not, and how it is built."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn
from torch.testing import assert_close

from stay_diffusion.config import ModelConfig
from stay_diffusion.data.layout import Layout
from stay_diffusion.models.blocks import AttentionBlock, ResBlock
from stay_diffusion.models.isla_norm import IslaNorm
from stay_diffusion.models.layers import GroupNorm32, timestep_embedding
from stay_diffusion.models.object_masks import MaskNet
from stay_diffusion.models.unet import UNet

TINY = ModelConfig(
    image_size=16, num_channels=32, num_res_blocks=1, channel_mult="1,2", attention_resolutions="8", num_heads=2
)
EVERYTHING = {"mask_refine": True, "z_mode": "prior", "resblock_updown": True, "use_scale_shift_norm": False}
VARIANTS = {
    "none": {"conditioning": "none"},
    "isla": {"conditioning": "isla"},
    "isla_bg": {"conditioning": "isla_bg"},
    "everything": {"conditioning": "isla_bg", **EVERYTHING},
}
STYLE = torch.randn(2, 4, 128, generator=torch.Generator().manual_seed(9))  # z for three objects and the background


def each(*names: str):
    return pytest.mark.parametrize("options", [VARIANTS[name] for name in names], ids=names)


variants = each(*VARIANTS)


def unet(learn_sigma: bool = False, trained: bool = True, num_products: int = 2, **options) -> UNet:
    """A tiny network for 3 classes and some products; `trained`: no parameter is left zero."""
    torch.manual_seed(0)
    model = UNet(replace(TINY, **options), learn_sigma, 3, num_products)
    if hasattr(model, "conditioner"):
        model.conditioner.mask_net = MaskNet(model.conditioner.object_codes.width, channels=8)  # the full one is slow
    if trained:
        for parameter in model.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


@pytest.fixture
def layout() -> Layout:
    boxes = torch.tensor([[0.1, 0.2, 0.7, 0.5], [0.55, 0.3, 0.9, 0.95], [0.3, 0.35, 0.45, 0.45]])
    return Layout.collate([(boxes, torch.tensor([1, 2, 3]), 1), (boxes[:1], torch.tensor([2]), 2)])


def images(channels: int = 3, height: int = 16, width: int = 16) -> Tensor:
    return torch.randn(2, channels, height, width, generator=torch.Generator().manual_seed(4))


T = torch.tensor([3, 700])


@torch.no_grad()
def run(model: UNet, layout: Layout | None, x: Tensor | None = None, t: Tensor = T) -> Tensor:
    """The output, with the style draw held fixed."""
    x = images() if x is None else x
    if layout is not None and hasattr(model, "conditioner"):
        layout = model.condition(layout, x.shape[-2:], STYLE[: len(layout), -1 - layout.num_objects :])
    return model(x, t, layout)


def differ(a: Tensor, b: Tensor, by: float = 1e-3) -> bool:
    return ((a - b).abs().amax(dim=(1, 2, 3)) > by).all()


@variants
@pytest.mark.parametrize(("channels", "learn_sigma"), [(1, False), (3, True)])
def test_a_fresh_network_gives_exactly_zero_in_one_mean_and_if_wanted_one_variance_per_channel(
    options, channels, learn_sigma, layout
):
    out = run(unet(learn_sigma, trained=False, image_channels=channels, **options), layout, images(channels))
    assert out.shape == (2, channels * (1 + learn_sigma), 16, 16) and not out.any()


@variants
def test_every_parameter_gets_a_gradient(options, layout):
    # Twice the width: a norm group of one channel would undo whatever is added to it just before.
    model = unet(learn_sigma=True, **options, num_channels=64).train()
    model(images(), T, layout).square().sum().backward()
    idle = {name for name, p in model.named_parameters() if p.grad is None or p.grad.abs().max() < 1e-4}
    # An instance norm undoes the bias before it; `isla` has no background for the product to modulate.
    allowed = {f"conditioner.mask_net.stages.{i}.0.bias" for i in range(3)}
    if options["conditioning"] == "isla":
        allowed.add("conditioner.object_codes.product_embedding.weight")
    assert idle <= allowed


@variants
def test_two_evaluations_agree(options, layout):
    model = unet(dropout=0.5, **options)
    assert_close(run(model, layout), run(model, layout), rtol=0, atol=0)


def test_dropout_acts_in_training(layout):
    model = unet(dropout=0.5).train()
    assert differ(run(model, layout), run(model, layout))


@variants
def test_a_condition_worked_out_beforehand_gives_the_same_output(options, layout):
    model = unet(**options)
    torch.manual_seed(5)
    direct = model(images(), T, layout)
    torch.manual_seed(5)
    condition = model.condition(layout, (16, 16))
    for _ in range(2):
        assert_close(model(images(), T, condition), direct)


@variants
@torch.no_grad()
def test_modulations_kept_for_sampling_give_the_same_output_at_every_step(options, layout):
    model = unet(**options)
    torch.manual_seed(5)
    condition = model.condition(layout, (16, 16))
    torch.manual_seed(5)
    modulation = model.modulation(layout, (16, 16))
    for t in (T, T + 1):
        assert_close(model(images(), t, modulation), model(images(), t, condition), rtol=0, atol=0)
    if hasattr(model, "conditioner"):
        assert set(modulation.kept) == {norm for norm, _ in model.modulated_norms()} == set(modulated(model))


def modulated(model: UNet) -> list[IslaNorm]:
    return [module for module in model.modules() if isinstance(module, IslaNorm)]


@each("isla_bg", "everything")
@torch.no_grad()
def test_what_is_kept_is_used(options, layout):
    model = unet(**options)
    modulation = model.modulation(layout, (16, 16))
    before = model(images(), T, modulation)
    for norm in modulated(model):
        norm.project.weight.zero_()
    assert_close(model(images(), T, modulation), before, rtol=0, atol=0)
    assert differ(model(images(), T, model.condition(layout, (16, 16))), before)


@variants
@pytest.mark.parametrize("num_products", [0, 2])
@torch.no_grad()
def test_pictures_seen_with_several_layouts_are_each_as_if_seen_alone(options, num_products, layout):
    model = unet(**options, num_products=num_products)
    product = layout.product.clamp(max=num_products)
    both = replace(layout, product=product).with_null()
    rows = []
    model.input_blocks[0].register_forward_hook(lambda module, inputs, output: rows.append(len(output)))
    torch.manual_seed(5)
    shared = model(images(), T, both)
    torch.manual_seed(5)
    assert_close(shared, model(images().repeat(2, 1, 1, 1), T.repeat(2), both), rtol=1e-4, atol=1e-4)
    assert rows == [4 if num_products else 2, 4]  # the encoder knows the product, and nothing else of a layout


def test_a_style_is_drawn_anew_for_every_condition_and_held_within_it(layout):
    model = unet(z_mode="prior")
    first, second = (model.condition(layout, (16, 16)) for _ in range(2))
    assert_close(model(images(), T, first), model(images(), T, first), rtol=0, atol=0)
    assert differ(model(images(), T, first), model(images(), T, second))


@variants
def test_a_picture_does_not_depend_on_its_batch(options, layout):
    model = unet(**options)
    both = run(model, layout)
    assert_close(run(model, layout[:1], images()[:1], T[:1]), both[:1], rtol=1e-4, atol=1e-4)


@each("isla", "isla_bg", "everything")
def test_padding_objects_change_nothing(options, layout):
    model = unet(**options)
    padded = layout[1:]  # one object and two that pad
    alone = Layout(padded.boxes[:, :1], padded.labels[:, :1], padded.valid[:, :1], padded.product)
    styles = STYLE[:1], STYLE[:1, [0, 3]]
    outputs = [
        model(images()[:1], T[:1], model.condition(x, (16, 16), z))
        for x, z in zip((padded, alone), styles, strict=True)
    ]
    assert_close(*outputs, rtol=1e-4, atol=1e-4)


@variants
def test_gradient_checkpointing_gives_the_same_gradients_with_dropout_too(options, layout):
    gradients, calls = [], []
    for use_checkpoint in (False, True):
        model = unet(dropout=0.3, use_checkpoint=use_checkpoint, **options).train()
        for module in (model.output_blocks[0][0].in_layers[2], model.output_blocks[0][1].norm):
            module.register_forward_hook(lambda *_: calls.append(1))
        torch.manual_seed(6)
        model(images(), T, layout).square().sum().backward()
        gradients.append({name: p.grad for name, p in model.named_parameters()})
    assert_close(gradients[1], gradients[0])
    assert len(calls) == 2 * (1 + 2)  # once plain; twice checkpointed


@pytest.mark.parametrize("size", [(40, 40), (48, 48), (72, 40), (8, 16)])
def test_any_multiple_of_the_stride_is_a_size_square_or_not(size, layout):
    model = unet(trained=True, channel_mult="1,1,1,1", attention_resolutions="", learn_sigma=True)
    out = run(model, layout, images(3, *size))
    assert model.stride == 8 and out.shape == (2, 6, *size) and out.isfinite().all()
    assert differ(out, run(model, layout.null(), images(3, *size)))


@pytest.mark.parametrize("size", [(40, 44), (36, 40)])
def test_other_sizes_are_an_error_that_says_which_would_do(size, layout):
    with pytest.raises(ValueError, match=f"{size[1]} x {size[0]} pixels: sides must be multiples of 8"):
        unet(channel_mult="1,1,1,1")(images(3, *size), T, layout)


@each("isla", "isla_bg")
def test_mirroring_image_and_layout_mirrors_the_output(options, layout):
    model = unet(resblock_updown=True, **options)  # strided convolutions would not commute
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data = (module.weight + module.weight.flip(-1)) / 2

    class SymmetricMasks(nn.Module):
        def forward(self, codes):
            mask = torch.rand(16, 16, generator=torch.Generator().manual_seed(7))
            return ((mask + mask.flip(-1)) / 2).expand(len(codes), -1, -1)

    model.conditioner.mask_net = SymmetricMasks()
    plain, mirrored = run(model, layout), run(model, layout.flip(), images().flip(-1))
    assert_close(mirrored.flip(-1), plain, rtol=1e-4, atol=1e-4)
    assert differ(run(model, layout, images().flip(-1)).flip(-1), plain)


@variants
def test_the_null_layout_is_the_fully_dropped_one_and_forgets_what_was_there(options, layout):
    model = unet(**options)
    null = run(model, layout.null())
    assert_close(run(model, layout.drop(1.0)), null, rtol=0, atol=0)
    nothing = Layout.collate([(torch.zeros(0, 4), torch.zeros(0).long(), -1)] * 2)
    assert_close(run(model, nothing), null, rtol=1e-4, atol=1e-4)
    assert null.isfinite().all() and differ(run(model, layout), null)


@variants
def test_good_parts_of_known_and_unknown_products_and_null_are_told_apart(options, layout):
    model = unet(**options)
    good = layout.good_part()
    products = torch.tensor([1, 2]), torch.tensor([2, 1]), torch.zeros(2).long(), torch.full((2,), -1)
    own, other, unknown, null = (run(model, replace(good, product=product)) for product in products)
    assert own.isfinite().all() and differ(own, other) and differ(own, unknown) and differ(own, null)
    if options["conditioning"] == "isla_bg":
        assert differ(unknown, null)
    else:  # without a background, nothing has no code
        assert_close(unknown, null, rtol=0, atol=0)


@each("isla", "isla_bg", "everything")
def test_labels_and_boxes_both_matter(options, layout):
    model = unet(**options)
    relabelled, moved = replace(layout, labels=layout.labels % 3 + 1), replace(layout, boxes=layout.boxes + 0.1)
    assert differ(run(model, relabelled), run(model, layout)) and differ(run(model, moved), run(model, layout))


@pytest.mark.parametrize("conditioning", ["none", "isla_bg"])
def test_the_product_joins_the_timestep_embedding_where_it_is_known(conditioning):
    model, seen = unet(conditioning=conditioning), []
    model.input_blocks[1].register_forward_pre_hook(lambda _, inputs: seen.append(inputs[1]))
    products = torch.tensor([2, 1, 0, -1])
    nothing = Layout.collate([(torch.zeros(0, 4), torch.zeros(0).long(), int(p)) for p in products])
    t = torch.tensor([5, 5, 5, 5])
    with torch.no_grad():
        model(images().repeat(2, 1, 1, 1), t, nothing)
    time = model.time_embed(timestep_embedding(t, 32))
    rows = model.label_emb.weight
    assert_close(seen[0] - time, torch.stack([rows[1], rows[0], 0 * rows[0], 0 * rows[0]]), rtol=1e-4, atol=1e-5)


@variants
def test_the_time_matters(options, layout):
    model = unet(**{"use_scale_shift_norm": True, **options}, num_channels=64)
    assert differ(run(model, layout), run(model, layout, t=T.flip(0)))


def test_an_unconditional_model_has_no_layout_and_looks_at_none(layout):
    model = unet(class_cond=False, conditioning="isla_bg")
    assert not any("emb" in name.split(".")[0] and name != "time_embed" for name, _ in model.named_children())
    assert not hasattr(model, "conditioner")
    assert_close(run(model, layout), run(model, None), rtol=0, atol=0)


def test_exactly_the_middle_and_decoder_res_blocks_have_conditioned_norms():
    model = unet(resblock_updown=True)
    norms = {name: type(m) for name, m in model.named_modules() if isinstance(m, GroupNorm32 | IslaNorm)}
    conditioned = set()
    for name, module in model.named_modules():
        if isinstance(module, ResBlock) and name.startswith(("middle_block", "output_blocks")):
            conditioned |= {f"{name}.in_layers.0", f"{name}.out_layers.0"}
    assert len(conditioned) == 2 * (2 + 4 + 1)  # middle, decoder, upsampling
    assert {name for name, kind in norms.items() if kind is IslaNorm} == conditioned
    plain = {name for name, kind in norms.items() if kind is GroupNorm32 and not name.endswith(".normalise")}
    assert {"out.0", "middle_block.1.norm", "input_blocks.1.0.in_layers.0"} <= plain


@each("isla", "isla_bg", "everything")
def test_all_conditioned_norms_get_the_layout(options, layout):
    model, seen = unet(**options), {}
    for name, module in model.named_modules():
        if isinstance(module, IslaNorm):
            module.register_forward_pre_hook(lambda _, inputs, name=name: seen.update({name: inputs[1]}))
    run(model, layout)
    assert len(seen) >= 12 and all(condition.codes.shape[1] == 4 for condition in seen.values())


def test_refined_masks_keep_to_their_boxes_at_every_block(layout):
    model, seen = unet(mask_refine=True, channel_mult="1,1,1,1", attention_resolutions=""), []
    for stage in model.output_blocks:
        stage[0].in_layers[0].register_forward_pre_hook(lambda _, inputs: seen.append(inputs))
    condition = model.condition(layout, (64, 64))
    model(torch.randn(2, 3, 64, 64), T, condition)
    assert len(seen) == 8 and len({id(refined) for _, refined in seen}) == 8
    for x, refined in seen:
        size = tuple(x.shape[-2:])
        touched = nn.functional.adaptive_max_pool2d(condition.indicator, size).flatten(2) > 0
        weights = refined.weights(size)[:, :-1]
        assert not weights[~touched].any()
        for valid, drawn, inside in zip(layout.valid, weights, touched, strict=True):
            assert (drawn[valid][inside[valid]] > 0).all()


@pytest.mark.parametrize("updown", [False, True])
def test_the_state_dict_has_guided_diffusions_names(updown):
    names = set(unet(conditioning="none", resblock_updown=updown).state_dict())
    blocks = ["input_blocks.1.0", "input_blocks.3.0", "middle_block.0", "middle_block.2"]
    blocks += [f"output_blocks.{i}.0" for i in range(4)]
    attention = ["input_blocks.3.1", "middle_block.1", "output_blocks.0.1", "output_blocks.1.1"]
    skips = ["input_blocks.3.0", *(f"output_blocks.{i}.0" for i in range(4))]
    modules = {"time_embed.0", "time_embed.2", "input_blocks.0.0", "out.0", "out.2"}
    if updown:
        blocks += ["input_blocks.2.0", "output_blocks.1.2"]
    else:
        modules |= {"input_blocks.2.0.op", "output_blocks.1.2.conv"}
    layers = ["in_layers.0", "in_layers.2", "emb_layers.1", "out_layers.0", "out_layers.3"]
    modules |= {f"{block}.{layer}" for block in blocks for layer in layers}
    modules |= {f"{block}.{layer}" for block in attention for layer in ("norm", "qkv", "proj_out")}
    modules |= {f"{block}.skip_connection" for block in skips}
    assert names == {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")} | {"label_emb.weight"}


@pytest.mark.parametrize(("scale_shift", "per_channel"), [(True, 2), (False, 1)])
def test_every_res_block_takes_a_scale_and_a_shift_or_a_sum_from_the_time(scale_shift, per_channel):
    blocks = [m for m in unet(use_scale_shift_norm=scale_shift).modules() if isinstance(m, ResBlock)]
    assert all(b.emb_layers[1].out_features == per_channel * b.out_layers[3].out_channels for b in blocks)
    assert blocks and all(b.scale_shift is scale_shift for b in blocks)


def test_attention_is_at_the_resolutions_asked_for_and_in_the_middle():
    model = unet(image_size=32, channel_mult="1,1,1", attention_resolutions="32,8")
    found = {name for name, module in model.named_modules() if isinstance(module, AttentionBlock)}
    at_32 = {"input_blocks.1.1", "output_blocks.4.1", "output_blocks.5.1"}
    at_8 = {"input_blocks.5.1", "output_blocks.0.1", "output_blocks.1.1"}
    assert found == at_32 | at_8 | {"middle_block.1"}


def test_heads_are_counted_or_sized_and_may_differ_in_the_decoder():
    def heads(**options):
        model = unet(**options)
        return [m.num_heads for m in model.modules() if isinstance(m, AttentionBlock)]

    assert heads(num_heads=2) == [2, 2, 2, 2]
    assert heads(num_heads=2, num_heads_upsample=8) == [2, 2, 8, 8]
    assert heads(num_heads=2, num_head_channels=16) == [4, 4, 4, 4]
    with pytest.raises(ValueError, match="--num_heads 5: does not divide 64 channels"):
        unet(num_heads=5)


def test_the_order_of_the_attention_channels_is_passed_on():
    blocks = [m for m in unet(use_new_attention_order=True).modules() if isinstance(m, AttentionBlock)]
    assert blocks and all(block.new_attention_order for block in blocks)


def test_an_unknown_conditioning_is_an_error_that_lists_the_known():
    with pytest.raises(ValueError, match="--conditioning islet: choose one of none, spade, isla, isla_bg"):
        unet(conditioning="islet")


@variants
def test_low_precision_stays_near_float32(options, layout):
    model = unet(**options, num_channels=64)
    expected = run(model, layout)
    with torch.autocast("cpu", torch.bfloat16):
        out = run(model, layout)
    assert out.dtype == torch.bfloat16 and not torch.equal(out.float(), expected)
    assert (out.float() - expected).norm() < 0.05 * expected.norm()


@each("isla", "isla_bg")
def test_more_objects_than_classes_modulate_as_each_would_by_its_own_code(options):
    generator = torch.Generator().manual_seed(7)
    corners, sides = (
        torch.rand(2, 5, 2, generator=generator) * 0.6,
        0.1 + 0.3 * torch.rand(2, 5, 2, generator=generator),
    )
    boxes = torch.cat([corners, corners + sides], dim=-1)
    layout = Layout.collate(
        [(boxes[0], torch.tensor([1, 1, 3, 1, 3]), 1), (boxes[1, :4], torch.tensor([2, 3, 2, 2]), 2)]
    )
    model = unet(**options)
    gradients = []
    for each_its_own in (False, True):
        model.conditioner.num_classes = 100 if each_its_own else 3
        condition = model.condition(layout, (16, 16))
        assert (condition.shared_by is None) == each_its_own and condition.codes.shape[1] == (6 if each_its_own else 4)
        out = model(images(), T, condition)
        gradients.append([out, *torch.autograd.grad(out.sin().sum(), list(model.parameters()), allow_unused=True)])
    for actual, expected in zip(*gradients, strict=True):
        if expected is not None:
            assert_close(actual, expected, rtol=1e-3, atol=1e-4)
