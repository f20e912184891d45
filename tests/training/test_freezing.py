"""What --freeze leaves alone stays bit for bit, and so does what is known of classes that the data lack."""

from dataclasses import replace

import pytest
import torch

from stay_diffusion.data.layout import Layout
from stay_diffusion.models.unet import CONDITIONINGS
from stay_diffusion.run import factory
from stay_diffusion.run.logger import Logger
from stay_diffusion.training.freezing import FREEZES, freeze
from stay_diffusion.training.memory import estimate_memory, parameter_count, trained_count
from stay_diffusion.training.state import TrainingState
from stay_diffusion.training.train_loop import train_step

CPU = torch.device("cpu")
SEEN, ABSENT = 2, (1, 3)  # classes of the batch, and others
MODELS = [(name, False) for name in CONDITIONINGS] + [("isla_bg", True), ("isla", True)]


def build(tiny_run, conditioning="isla_bg", mask_refine=False, **options):
    """A configuration and a model of three classes and two products, as if trained: no weight is zero."""
    data = {"classes": ("spot", "line", "pit"), "product_tags": ("A", "B")}
    config = tiny_run(data, {"conditioning": conditioning, "mask_refine": mask_refine}, lr=0.01, **options)
    torch.manual_seed(0)
    model = factory.build_model(config)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return config, model


def trained(tiny_run, tmp_path, name, *which, steps=3, **options):
    """A state after some steps on pictures of class `SEEN` and product 1, and its weights before."""
    config, model = build(tiny_run, *which, **options)
    freeze(model, name)
    state = TrainingState(config, model, factory.build_diffusion(config.diffusion), CPU)
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    boxes = torch.tensor([[[0.1, 0.1, 0.6, 0.7], [0.3, 0.2, 0.9, 0.8]]]).repeat(4, 1, 1)
    labels = torch.tensor([[SEEN, SEEN], [SEEN, 0]] * 2)  # one of them padded
    maps = torch.zeros(4, 2, 8, 8, dtype=torch.int16)
    maps[:, 0, :5], maps[:, 1, 4] = SEEN, 1
    layout = Layout(boxes, labels, labels > 0, torch.tensor([1, 1, 0, 1]), maps)
    for step in range(steps):
        images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(step)) * 2 - 1
        assert train_step(state, config, images, layout, Logger(tmp_path))
        state.step, state.samples = state.step + 1, state.samples + 4
    return state, before


def moved(model, before):
    return {name for name, tensor in model.state_dict().items() if not torch.equal(tensor, before[name])}


CODES = ("conditioner.", "label_emb.")
PROJECTIONS = (".project.", ".mlp_shared.", ".mlp_gamma.", ".mlp_beta.")


def is_trained(name, freezing):
    if freezing == "encoder":
        return not name.startswith(("time_embed.", "input_blocks."))
    is_conditioning = name.startswith((*CODES, "mask_refinements.")) or any(part in name for part in PROJECTIONS)
    return freezing == "none" or is_conditioning


@pytest.mark.parametrize("freezing", FREEZES)
@pytest.mark.parametrize(("conditioning", "mask_refine"), MODELS)
def test_frozen_weights_stay_bit_for_bit_and_all_others_move(tiny_run, tmp_path, conditioning, mask_refine, freezing):
    state, before = trained(tiny_run, tmp_path, freezing, conditioning, mask_refine, drop_rate=0.2, weight_decay=0.1)
    expected = {name for name in before if is_trained(name, freezing)}
    assert moved(state.model, before) == expected
    assert moved(state.emas[0].model, before) == expected
    held = [parameter for group in state.optimizer.param_groups for parameter in group["params"]]
    moments = sum(moments["exp_avg"].numel() for moments in state.optimizer.state.values())
    assert moments == sum(p.numel() for p in held) == sum(before[name].numel() for name in expected)
    assert moments == trained_count(state.model)


@pytest.mark.parametrize("freezing", ["none", "all_but_conditioning"])
@pytest.mark.parametrize(("conditioning", "mask_refine"), MODELS)
def test_what_belongs_to_names_that_the_data_lack_stays(tiny_run, tmp_path, conditioning, mask_refine, freezing):
    options = {"drop_rate": 0.2, "grad_clip": 0.1}
    state, before = trained(tiny_run, tmp_path, freezing, conditioning, mask_refine, **options)
    looked_at = 0
    for weights in (state.model.state_dict(), state.emas[0].model.state_dict()):
        for name, old in before.items():
            if name.endswith("mlp_shared.0.weight"):
                old, new, first = old.transpose(0, 1), weights[name].transpose(0, 1), 0
            elif "label_embedding" in name or ("mask_refinements" in name and ("head.3" in name or "alpha" in name)):
                old, new, first = old, weights[name], 1
            else:
                continue
            assert all(torch.equal(new[first + label - 1], old[first + label - 1]) for label in ABSENT), name
            assert not torch.equal(new[first + SEEN - 1], old[first + SEEN - 1]), name
            looked_at += 1
        product = 3 if "conditioner.object_codes.product_embedding.weight" in before else None
        if product:
            name = "conditioner.object_codes.product_embedding.weight"
            assert torch.equal(weights[name][product], before[name][product])
        assert torch.equal(weights["label_emb.weight"][1], before["label_emb.weight"][1])
    assert looked_at or conditioning == "none"


def test_memory_and_moments_are_those_of_what_is_trained(tiny_run):
    config, model = build(tiny_run)
    diffusion = factory.build_diffusion(config.diffusion)
    whole = estimate_memory(config, model, diffusion)
    freeze(model, "encoder")
    less = estimate_memory(config, model, diffusion)
    frozen = parameter_count(model) - trained_count(model)
    assert frozen == sum(p.numel() for m in (model.time_embed, model.input_blocks) for p in m.parameters())
    assert whole["weights and gradients"] - less["weights and gradients"] == 4 * frozen
    assert whole["optimizer"] - less["optimizer"] == 8 * frozen
    assert whole["averages"] == less["averages"] and whole["activations"] > less["activations"]


def test_a_model_without_conditioning_has_nothing_left_to_train(tiny_run):
    config, _ = build(tiny_run)
    model = factory.build_model(replace(config, model=replace(config.model, class_cond=False)))
    with pytest.raises(ValueError, match="--freeze all_but_conditioning: this model has no conditioning to train"):
        freeze(model, "all_but_conditioning")
