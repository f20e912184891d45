"""Weights of a trained model for one that knows more names: what was learnt stays, new names get a start."""

import re
from typing import NamedTuple

import torch
from torch import Tensor, nn

State = dict[str, Tensor]


class Rows(NamedTuple):
    """A tensor's rows for names: the kind of names, the number of other rows before them, and the dimension."""

    names: str
    first: int
    dim: int = 0


SILENT = "label_emb.weight"  # the products' rows in the timestep embedding
CODES = "conditioner.object_codes."
# By patterns of parameters' names. Other rows: padding before classes' codes; null and unknown before products'; in
# SPADE's maps, whose channels these are, the edges come after the classes.
TABLES = {
    rf"{CODES}label_embedding\.weight": Rows("classes", first=1),
    rf"{CODES}product_embedding\.weight": Rows("products", first=2),
    SILENT: Rows("products", first=0),
    r"mask_refinements\.\d+\.(head\.3\.weight|head\.3\.bias|alpha)": Rows("classes", first=1),
    r".+\.mlp_shared\.0\.weight": Rows("classes", first=0, dim=1),
}


def with_new_names(state: State, model: nn.Module, num_classes: int, num_products: int) -> State:
    """The weights of a model that knew so many classes and products, for a new `model` that knows others after them.

    Old names keep their rows, and draw what they drew. A new name starts as the mean of the old: as some defect or
    other. A new code is that mean plus the model's own random row: norms and masks project codes linearly, and along a
    direction of its own they can learn the new name without changing what they make of the others. The first product
    starts as the unknown one, its share of the timestep embedding as nothing, so that the output stays what it was.
    """
    own, grown = model.state_dict(), dict(state)
    known = {"classes": num_classes, "products": num_products}
    for name in state.keys() & own.keys():
        for pattern, rows in TABLES.items():
            if re.fullmatch(pattern, name):
                is_code = name.startswith(CODES)
                grown[name] = _with_rows(state[name], own[name], rows, known[rows.names], is_code)
    return grown | silent_products(state, own)


def silent_products(state: State, own: State) -> State:
    """The products' rows in the timestep embedding, zero, where a model has them and its start has not."""
    return {SILENT: torch.zeros_like(own[SILENT])} if SILENT in own and SILENT not in state else {}


def _with_rows(old: Tensor, own: Tensor, rows: Rows, known: int, is_code: bool) -> Tensor:
    end, dim = rows.first + known, rows.dim
    num_new = own.shape[dim] - old.shape[dim]
    if num_new <= 0 or not 0 <= old.shape[dim] - end <= dim:
        return old  # nothing new; or not the table of these names, which strict loading tells
    before, after = old.split([end, old.shape[dim] - end], dim)
    new = own.narrow(dim, end, num_new)
    if known:
        mean = before.narrow(dim, rows.first, known).mean(dim, keepdim=True)
        new = mean + new if is_code else mean.expand_as(new)
    elif is_code and rows.names == "products":
        new = before.narrow(dim, rows.first - 1, 1) + new
    return torch.cat([before, new, after], dim)
