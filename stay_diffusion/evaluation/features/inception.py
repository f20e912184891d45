"""The Inception network behind FID: its weights, and the resizing of images for it."""

import io
import socket
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ...run.checkpoint import sha256
from ...system.torchvision_cpu import import_torchvision
from .extractor import Extractor

FEATURES = 2048  # pool3; with fewer images the covariance is singular and the distance biased upwards
# sFID's layer in guided-diffusion, TensorFlow's mixed_6/conv: the first channels of Mixed_6d, 17 x 17 of each.
SPATIAL_BLOCK, SPATIAL_CHANNELS = "Mixed_6d", 7
WEIGHTS_HASH = "6726825d"
WEIGHTS_NAMES = (f"pt_inception-2015-12-05-{WEIGHTS_HASH}.pth", f"weights-inception-2015-12-05-{WEIGHTS_HASH}.pth")
WEIGHTS_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS_NAMES[0]}"
OASIS_SIZE = 256


def load_network(weights: Path | None) -> nn.Module:
    """Load torch-fidelity's Inception, which gives pool3 (B, 2048) and logits (B, 1008) of uint8 (B, 3, H, W).

    None leaves the weights random.
    """
    import_torchvision()
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Inception(FeatureExtractorInceptionV3):
        def load_state_dict(self, state_dict, *args, **kwargs):
            return super().load_state_dict(state_dict or self.state_dict(), *args, **kwargs)

    # Its constructor unpickles whatever a file holds, so it is handed what weights_only has already let through.
    checked = io.BytesIO()
    try:
        torch.save(torch.load(weights, map_location="cpu", weights_only=True) if weights else {}, checked)
        checked.seek(0)
        outputs = [str(FEATURES), "logits_unbiased"]
        return Inception("inception-v3-compat", outputs, feature_extractor_weights_path=checked)
    except Exception as error:  # of many types, over many lines
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{weights}: cannot be loaded as {WEIGHTS_NAMES[0]}: {reason}") from error


def fold(network: nn.Module) -> nn.Module:
    """Fold the batch norms into the convolutions, channels last: 1.7 times as fast on a CPU.

    The outputs differ in the last bits of float32.
    """
    for module in network.modules():
        convolution, norm = getattr(module, "conv", None), getattr(module, "bn", None)
        if isinstance(convolution, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module.conv, module.bn = fuse_conv_bn_eval(convolution, norm), nn.Identity()
    return network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def find_weights(given: Path | None, download: bool = False) -> Path:
    """Return the file given, or Inception's in torch hub's cache, fetched there only where `download` says so."""
    cache = Path(torch.hub.get_dir()) / "checkpoints"
    candidates = [given] if given else [cache / name for name in WEIGHTS_NAMES]
    for path in candidates:
        if path.is_file():
            return path
    if given:
        raise ValueError(f"--weights {given}: no such file")
    if not download:
        raise ValueError(
            f"Inception weights {WEIGHTS_NAMES[0]} are not in {cache}: download {WEIGHTS_URL} there "
            "(on any machine, then copy), name a copy with --weights FILE, or let --download fetch it"
        )
    cache.mkdir(parents=True, exist_ok=True)
    socket.setdefaulttimeout(30)
    try:
        torch.hub.download_url_to_file(WEIGHTS_URL, str(candidates[0]), hash_prefix=WEIGHTS_HASH)
    except (OSError, RuntimeError) as error:
        raise ValueError(f"--download: {WEIGHTS_URL} could not be fetched into {cache}: {error}") from error
    return candidates[0]


def pool3(network: nn.Module, images: Tensor) -> Tensor:
    """Return features (B, 2048) of uint8 (B, 3, H, W)."""
    return network(images)[0]


def outputs(network: nn.Module, images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
    """Return some of pool (B, 2048), logits (B, 1008) and spatial (B, 2023) of uint8 (B, 3, H, W), in one pass."""
    found = {}

    def keep(module, inputs, output):
        found["spatial"] = output[:, :SPATIAL_CHANNELS].flatten(1).float()

    hook = getattr(network, SPATIAL_BLOCK).register_forward_hook(keep) if "spatial" in kinds else None
    try:
        found["pool"], found["logits"] = network(images)
    finally:
        if hook:
            hook.remove()
    return {kind: found[kind] for kind in kinds}


def oasis_pool3(network: nn.Module, images: Tensor) -> Tensor:
    """Return pool3 as OASIS and SDM do: resized to 256, then to 299, both with half-pixel centres."""
    x = torch.stack([_skimage_resize(image) for image in images.cpu()]).to(images.device) / 255
    x = 2 * nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
    for name, layer in network.named_children():
        if name != "fc":
            x = layer(x)
    return x.flatten(1)


def extractor(weights: Path, compat: str | None, device: torch.device | str) -> Extractor:
    """Build the extractor of pool, logits and spatial features; in a mode of compatibility, of pool alone."""
    network = fold(load_network(weights)).to(device)

    def measure(images: Tensor, kinds: Sequence[str]) -> dict[str, Tensor]:
        return {"pool": PROTOCOLS[compat](network, images)} if compat else outputs(network, images, kinds)

    return Extractor(
        measure,
        kinds=("pool",) if compat else ("pool", "logits", "spatial"),
        width=FEATURES,
        facts={
            "features": f"Inception 2015-12-05, pool3 ({FEATURES})",
            "weights": str(weights.resolve()),
            "weights_sha256": sha256(weights),
            "resize": RESIZES[compat],
            "compat": compat,
        },
    )


def _skimage_resize(image: Tensor) -> Tensor:
    # skimage.transform.resize's defaults: Gaussian anti-aliasing where it shrinks, then bilinear; (3, H, W).
    from scipy import ndimage

    shrink = np.array([1, image.shape[1] / OASIS_SIZE, image.shape[2] / OASIS_SIZE])
    smooth = ndimage.gaussian_filter(image.float().numpy(), np.maximum(0, (shrink - 1) / 2), mode="mirror")
    return torch.from_numpy(ndimage.zoom(smooth, 1 / shrink, order=1, mode="mirror", grid_mode=True))


PROTOCOLS: dict[str | None, Callable[[nn.Module, Tensor], Tensor]] = {None: pool3, "oasis": oasis_pool3}
RESIZES = {
    None: "uint8, bilinear to 299 as TensorFlow 1 does it",
    "oasis": "skimage's anti-aliased bilinear to 256, then bilinear to 299; jpg and png alone, less the last N mod 50",
}
