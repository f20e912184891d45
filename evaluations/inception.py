"""What FID sees of a picture: the Inception network, where its weights are, and images batched and resized for it."""

import argparse
import io
import itertools
import socket
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from stay_diffusion.data.images import read_image, to_pil, to_tensor
from stay_diffusion.distributed import gather_shares
from stay_diffusion.launchers import World
from stay_diffusion.torchvision_cpu import import_torchvision

FEATURES = 2048  # pool3; with fewer images the covariance is singular and the distance biased upwards
WEIGHTS_HASH = "6726825d"
WEIGHTS_NAMES = (f"pt_inception-2015-12-05-{WEIGHTS_HASH}.pth", f"weights-inception-2015-12-05-{WEIGHTS_HASH}.pth")
WEIGHTS_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS_NAMES[0]}"
OASIS_SIZE = 256

Item = Path | NDArray[np.uint8]


def load_network(weights: Path | None) -> nn.Module:
    """torch-fidelity's Inception, giving pool3 (B, 2048) of uint8 (B, 3, H, W); None leaves the weights random."""
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
        return Inception("inception-v3-compat", [str(FEATURES)], feature_extractor_weights_path=checked)
    except Exception as error:  # of many types, over many lines
        reason = str(error).strip().partition("\n")[0]
        raise ValueError(f"{weights}: cannot be loaded as {WEIGHTS_NAMES[0]}: {reason}") from error


def find_weights(given: Path | None, download: bool) -> Path:
    """The file given, or Inception's in torch hub's cache, fetched there only where `download` says so."""
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


def extract(
    network: nn.Module, items: Sequence[Item], args: argparse.Namespace, world: World, name: str
) -> list[tuple[str, NDArray[np.float32]]]:
    """(size WxH, features (B, D)) of all items in their order, batch by batch, on every process.

    Batches are cut at the same items however many processes share them, in turn: features can differ in the last bit
    with their batch.
    """
    from tqdm import tqdm

    own: dict[int, list[tuple[str, NDArray[np.float32]]]] = {}  # by the first item of a batch
    starts = range(0, len(items), args.batch_size)[world.rank :: world.size]
    total = sum(len(items[start : start + args.batch_size]) for start in starts)
    quiet = None if world.is_main else True  # None: unless it is a terminal
    with torch.inference_mode(), tqdm(total=total, desc=name, disable=quiet) as progress:
        for start in starts:
            own[start] = []
            for batch in batches(items[start : start + args.batch_size], args.batch_size, args.image_size):
                features = PROTOCOLS[args.compat](network, batch.to(args.device)).cpu().numpy()
                own[start].append((f"{batch.shape[3]}x{batch.shape[2]}", features))
                progress.update(len(batch))
    return list(itertools.chain(*gather_shares(name, own)))


def batches(items: Sequence[Item], batch_size: int, image_size: int | None) -> Iterator[Tensor]:
    """uint8 (B, 3, H, W): only neighbours of one size together, since each image is resized from its own."""
    images = (pixels(item, image_size) for item in items)
    for _, same in itertools.groupby(images, key=np.shape):
        while batch := list(itertools.islice(same, batch_size)):
            yield torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)


def pixels(item: Item, image_size: int | None = None) -> NDArray[np.uint8]:
    """(H, W, 3) of a file or of an npz's (H, W, 3 or 1); a grey is repeated over the three channels."""
    if isinstance(item, Path):
        image = to_pil(to_tensor(read_image(item, channels=3), channels=3))
    else:
        image = Image.fromarray(np.broadcast_to(item, (*item.shape[:2], 3)).copy())
    if image_size and image.size != (image_size, image_size):
        image = image.resize((image_size, image_size), Image.Resampling.BICUBIC)
    return np.array(image)


def pool3(network: nn.Module, images: Tensor) -> Tensor:
    """Features (B, 2048) of uint8 (B, 3, H, W)."""
    return network(images)[0]


def oasis_pool3(network: nn.Module, images: Tensor) -> Tensor:
    """The same as OASIS and SDM take them: resized to 256, then to 299, both with half-pixel centres."""
    x = torch.stack([_skimage_resize(image) for image in images.cpu()]).to(images.device) / 255
    x = 2 * nn.functional.interpolate(x, size=(299, 299), mode="bilinear", align_corners=False) - 1
    for name, layer in network.named_children():
        if name != "fc":
            x = layer(x)
    return x.flatten(1)


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
