"""A model that has learnt more names draws the old ones as before, and new ones as some defect or other."""

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.testing import assert_close

from stay_diffusion.data.annotations import Vocabulary
from stay_diffusion.data.layout import Layout
from stay_diffusion.models.new_names import CODES, SILENT, with_new_names
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import load_weights

OLD = Vocabulary(("spot", "line", "pit"), ("A", "B"))
NEW = Vocabulary((*OLD.classes, "dent", "scale"), (*OLD.products, "C"))
MODELS = {
    "isla_bg": {"conditioning": "isla_bg"},
    "isla": {"conditioning": "isla"},
    "isla_bg, masks refined": {"conditioning": "isla_bg", "mask_refine": True},
    "isla, masks refined, styles": {"conditioning": "isla", "mask_refine": True, "z_mode": "prior"},
    "spade": {"conditioning": "spade", "no_instance": True},
    "spade with edges": {"conditioning": "spade"},
    "none": {"conditioning": "none"},
}
LABELS, PRODUCTS = torch.tensor([[1, 2], [3, 1], [2, 2]]), torch.tensor([1, 2, 0])


def build(tiny_run, names, seed, **options):
    """A model of 8 x 8 pixels that knows `names`, as if it were trained: no weight is zero."""
    config = tiny_run(data={"classes": names.classes, "product_tags": names.products}, model=options)
    torch.manual_seed(seed)
    model = factory.build_model(config).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn(parameter.shape))
    return model


def layout_of(labels, products):
    generator = torch.Generator().manual_seed(3)
    corner = torch.rand(*labels.shape, 2, generator=generator) * 0.5
    maps = torch.zeros(len(labels), 2, 8, 8, dtype=torch.int16)
    maps[:, 0, :4], maps[:, 0, 4:, 2:], maps[:, 1, 4] = labels[:, :1, None], labels[:, 1:, None], 1
    return Layout(torch.cat([corner, corner + 0.4], dim=-1), labels, labels > 0, products, maps)


def drawn(model, labels=LABELS, products=PRODUCTS):
    x = torch.randn(len(labels), 1, 8, 8, generator=torch.Generator().manual_seed(4))
    z = torch.randn(len(labels), 3, 128, generator=torch.Generator().manual_seed(5))
    with torch.no_grad():
        conditioning = model.condition(layout_of(labels, products), (8, 8), z)
        return model(x, torch.tensor([1, 500, 900]), conditioning)


@pytest.fixture(params=MODELS)
def models(request, tiny_run):
    """A model of three classes and two products, and the same with two more classes and a product."""
    options = MODELS[request.param]
    old, new = build(tiny_run, OLD, 0, **options), build(tiny_run, NEW, 1, **options)
    load_weights(new, Path("start.pt"), with_new_names(old.state_dict(), new, 3, 2))
    return old, new


def test_what_is_drawn_for_old_names_stays(models):
    old, new = models
    # Not always the last bit: a matrix product of more rows may be summed in another order.
    assert_close(drawn(new), drawn(old), rtol=0, atol=2e-6 * drawn(old).abs().max().item())
    assert (drawn(old) - drawn(old, LABELS.flip(0), PRODUCTS.flip(0))).abs().max() > 1e-3  # and names matter


def test_every_old_weight_stays_bit_for_bit_and_edges_stay_behind_the_classes(models):
    old, new = models
    edges = getattr(getattr(old, "conditioner", None), "edges", False)
    for name, tensor in old.state_dict().items():
        is_map = "mlp_shared.0.weight" in name
        grown, dim = new.state_dict()[name], int(is_map)
        kept = tensor.shape[dim] - (edges and is_map)
        assert torch.equal(grown.narrow(dim, 0, kept), tensor.narrow(dim, 0, kept)), name
        last = tensor.shape[dim] - kept
        assert torch.equal(grown.narrow(dim, grown.shape[dim] - last, last), tensor.narrow(dim, kept, last)), name


def test_a_new_class_is_drawn_as_some_defect_and_not_as_nothing(tiny_run):
    """Its norms modulate as the mean of the old classes' do, but for what its own direction adds."""
    old, new = build(tiny_run, OLD, 0), build(tiny_run, NEW, 1)
    own = new.state_dict()[f"{CODES}label_embedding.weight"][4:].clone()
    load_weights(new, Path("start.pt"), with_new_names(old.state_dict(), new, 3, 2))
    codes = new.conditioner.object_codes.label_embedding.weight
    assert_close(codes[4:] - own, codes[1:4].mean(dim=0).expand(2, -1))
    assert (codes[4] - codes[5]).abs().mean() > 0.5  # two new classes are two


@pytest.mark.parametrize("name", ["spade with edges", "isla_bg, masks refined"])
def test_what_is_not_a_code_starts_as_the_mean_of_the_old_names(tiny_run, name):
    old, new = (build(tiny_run, names, 0, **MODELS[name]) for names in (OLD, NEW))
    grown, start = with_new_names(old.state_dict(), new, 3, 2), old.state_dict()
    tables = [(n, 1) for n in start if n.endswith("mlp_shared.0.weight")]
    tables += [(n, 0) for n in start if re.fullmatch(r"mask_refinements\.\d+\.(head\.3\.\w+|alpha)", n)]
    for table, dim in tables:
        mean = start[table].narrow(dim, 1 - dim, 3).mean(dim, keepdim=True)
        added = grown[table].narrow(dim, 4 - dim, 2)
        assert_close(added, mean.expand_as(added), msg=table)
    assert_close(grown[SILENT][2:], start[SILENT].mean(dim=0, keepdim=True))
    assert len(tables) == {"spade with edges": 8, "isla_bg, masks refined": 3}[name]


def test_the_first_product_starts_as_the_unknown_one(tiny_run):
    none, one = (replace(OLD, products=products) for products in ((), ("A",)))
    old, new = build(tiny_run, none, 0), build(tiny_run, one, 1)
    own = new.state_dict()[f"{CODES}product_embedding.weight"][2].clone()
    load_weights(new, Path("start.pt"), with_new_names(old.state_dict(), new, 3, 0))
    assert not new.label_emb.weight.any()
    codes = new.conditioner.object_codes.product_embedding.weight
    assert_close(codes[2], codes[1] + own)
    unknown = torch.zeros(3).long()
    assert_close(drawn(new, LABELS, unknown), drawn(old, LABELS, unknown), rtol=0, atol=1e-5)


def test_weights_that_have_all_names_are_left_alone(tiny_run):
    model = build(tiny_run, OLD, 0, mask_refine=True)
    state = model.state_dict()
    grown = with_new_names(state, model, 3, 2)
    assert grown.keys() == state.keys() and all(torch.equal(grown[name], state[name]) for name in state)


def test_weights_that_do_not_have_the_names_they_are_said_to_have_are_refused(tiny_run):
    state, new = build(tiny_run, OLD, 0).state_dict(), build(tiny_run, NEW, 1)
    with pytest.raises(ValueError, match=r"label_embedding.weight as \(4, 180\) instead of \(6, 180\)"):
        load_weights(new, Path("start.pt"), with_new_names(state, new, 2, 2))
