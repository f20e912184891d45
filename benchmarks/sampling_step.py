"""A guided step of sampling, against two passes one after the other as they are written plainly.

    python benchmarks/sampling_step.py [--network M] [--rounds 7]

One thread, one picture with 8 boxes, guidance 1.5. Our route is the sampler's own: the layout worked out before the
first step, maps in memory pixel by pixel, one pass of both halves, which share the encoder where no product is told
(as with COCO or DeepPCB). The plain route works the layout out in each of two passes, and does in them what the
papers write, operation by operation: the norm, times 1 + gamma, plus beta, times 1 + scale, plus shift; attention as
two products around a softmax. Same weights; outputs are compared. Also measured, and told in the protocol: our own
network called plainly twice, and our route where a product is told.
"""

import copy
from collections.abc import Callable
from types import MethodType

import torch
import torch.nn.functional as F
from measuring import AT_LEAST, Row, in_turn, ratio, same, table
from subjects import NETWORKS, SCALE
from torch import Tensor

from stay_diffusion.data.layout import UNKNOWN_PRODUCT
from stay_diffusion.diffusion.guidance import classifier_free
from stay_diffusion.models.blocks import AttentionBlock
from stay_diffusion.models.isla_norm import IslaNorm
from stay_diffusion.models.layers import SiLU
from stay_diffusion.models.unet import UNet
from stay_diffusion.run import factory
from stay_diffusion.system.command import argument_parser, run_command
from stay_diffusion.system.device import autocast, in_best_format, keep_freed_memory
from stay_diffusion.training.noise_batch import noise_batch

CPU, OBJECTS = torch.device("cpu"), 8
LEAST = {"fp32": 1.25, "bf16": 2.3}
TOLERANCES = {"fp32": 1e-4, "bf16": 5e-2}


def plain_norm(norm: IslaNorm, x: Tensor, conditioning, scale_shift=None) -> Tensor:
    size = tuple(x.shape[-2:])
    P = norm.project(conditioning.codes)  # B O+1 2C
    gamma, beta = (P.mT @ conditioning.weights(size)).unflatten(-1, size).chunk(2, dim=1)  # each B C H W
    h = F.group_norm(x, norm.normalise.num_groups, eps=norm.normalise.eps) * (1 + gamma) + beta
    if scale_shift is None:
        return h
    scale, shift = (part[..., None, None] for part in scale_shift)
    return h * (1 + scale) + shift


def plain_attention(block: AttentionBlock, x: Tensor) -> Tensor:
    B, C, H, W = x.shape
    qkv = block.qkv(block.norm(x).flatten(2)).view(B * block.num_heads, -1, H * W)  # BN 3C/N T
    q, k, v = qkv.chunk(3, dim=1)
    weights = (torch.einsum("bct,bcs->bts", q, k) / q.shape[1] ** 0.5).softmax(dim=-1)
    h = torch.einsum("bts,bcs->bct", weights, v).reshape(B, C, H * W)
    return x + block.proj_out(h).view(B, C, H, W)


def plainly(model: UNet) -> UNet:
    """A copy of the network whose norms and attention do what the papers write."""
    model = copy.deepcopy(model)
    model.conditioner.num_classes = 10**9  # each object by a code of its own
    for module in model.modules():
        if isinstance(module, IslaNorm):
            module.forward = MethodType(plain_norm, module)
        if isinstance(module, AttentionBlock):
            module.forward = MethodType(plain_attention, module)
        if isinstance(module, SiLU):
            module.forward = MethodType(torch.nn.SiLU.forward, module)
    return model


def network_of(name: str, with_product: bool) -> tuple[UNet, Tensor, object]:
    """A network whose every weight matters, a picture and its layout."""
    config = NETWORKS[name].config(batch_size=1)
    if not with_product:
        config = factory.with_vocabulary(config, factory.Vocabulary(config.data.classes))
    torch.manual_seed(0)
    model = factory.build_model(config).eval()
    for parameter in model.parameters():
        if not parameter.any():
            torch.nn.init.normal_(parameter, std=0.02)
    images, layout = noise_batch(config, 1, OBJECTS)
    if not with_product:
        layout.product.fill_(UNKNOWN_PRODUCT)
    return model, images, layout


def in_float32(step: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The same step, as it is outside of any autocast."""

    def outside() -> Tensor:
        with torch.autocast(CPU.type, enabled=False):
            return step()

    return outside


@torch.no_grad()
def rows(network: str = "M", rounds: int = 7) -> list[Row]:
    """Row 3 of the targets, in float32 and bf16."""
    keep_freed_memory()
    model, x, layout = network_of(network, with_product=False)
    t, C, size = torch.tensor([500]), x.shape[1], tuple(x.shape[-2:])
    plain = plainly(model)

    def sequential(network: UNet) -> Tensor:
        conditional, null = network(x, t, layout), network(x, t, layout.null())
        return null + SCALE * (conditional - null)

    def ours(model: UNet, layout, precision: str):
        model = in_best_format(copy.deepcopy(model))
        guided = classifier_free(model, SCALE, num_channels=C)
        with autocast(CPU, precision):
            modulation = model.modulation(layout.with_null(), size)

        def step() -> Tensor:
            return guided(x, t, layout=modulation)

        return step

    with_product = network_of(network, with_product=True)
    routes = {
        "plain": lambda: sequential(plain),
        "own": lambda: sequential(model),
        "fp32": ours(model, layout, "fp32"),
        "product": ours(with_product[0], with_product[2], "fp32"),
    }
    with autocast(CPU, "bf16"):  # one context, as in sampling: the weights are cast once
        routes = {name: in_float32(step) for name, step in routes.items()} | {"bf16": ours(model, layout, "bf16")}
        seconds = in_turn(routes, rounds)
        outputs = {precision: routes[precision]() for precision in LEAST}
    found = []
    for precision in ("fp32", "bf16"):
        own, product = (ratio(seconds[a], seconds[b])[0] for a, b in (("own", precision), ("plain", "product")))
        found.append(
            Row(
                "3",
                f"guided step in {precision}, against two plain passes in fp32, {network}",
                AT_LEAST,
                LEAST[precision],
                *ratio(seconds["plain"], seconds[precision]),
                protocol=f"{network}: {NETWORKS[network]}, one picture, {OBJECTS} boxes, s {SCALE}, one thread, "
                f"{rounds} rounds; against our own network called twice with the layout {own:.2f}; with a product, in "
                f"fp32, {product:.2f}",
                held=same(outputs[precision], routes["plain"](), TOLERANCES[precision], f"outputs in {precision}"),
                details={"seconds": seconds},
            )
        )
    return found


def main() -> int:
    parser = argument_parser(__doc__)
    parser.add_argument("--network", choices=list(NETWORKS), default="M")
    parser.add_argument("--rounds", type=int, default=7)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    found = rows(arguments.network, arguments.rounds)
    print(table(found), *(f"{row.protocol}; {row.held}" for row in found), sep="\n")
    return 0


if __name__ == "__main__":
    run_command(main)
