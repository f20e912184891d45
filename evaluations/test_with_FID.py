"""Frechet Inception distance between two sets of images: lower is nearer.

python evaluations/test_with_FID.py REAL GENERATED
"""

import argparse
import hashlib
import io
import itertools
import json
import socket
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from stay_diffusion.data.images import IMAGE_SUFFIXES, read_image, to_pil, to_tensor
from stay_diffusion.torchvision_cpu import import_torchvision

# The two sides where none are given on the command line.
path1 = ""
path2 = ""

FEATURES = 2048  # pool3; with fewer images the covariance is singular and the distance biased upwards
WEIGHTS_HASH = "6726825d"
WEIGHTS_NAMES = (f"pt_inception-2015-12-05-{WEIGHTS_HASH}.pth", f"weights-inception-2015-12-05-{WEIGHTS_HASH}.pth")
WEIGHTS_URL = f"https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{WEIGHTS_NAMES[0]}"
OASIS_SIZE, OASIS_BATCH, OASIS_SUFFIXES = 256, 50, frozenset({".jpg", ".png"})

Item = Path | NDArray[np.uint8]


@dataclass(frozen=True)
class Side:
    """One of the two sets: its images, or the mean (D,) and covariance (D, D) of their features, or both."""

    path: str
    items: Sequence[Item] = ()
    mu: NDArray[np.float64] | None = None
    sigma: NDArray[np.float64] | None = None
    sizes: dict[str, int] = field(default_factory=dict)


def main() -> None:
    args = parse_arguments()
    sides = [open_side(Path(path), args.compat) for path in args.paths]
    weights = None
    torch.backends.cudnn.allow_tf32 = False  # its 10 bits of mantissa would show in the number
    if any(side.mu is None for side in sides):
        weights = find_weights(args.weights, args.download)
        network = inception(weights).to(args.device)
        sides = [side if side.mu is not None else measure(side, network, args) for side in sides]
    if len(sides[0].mu) != len(sides[1].mu):
        lengths = " and ".join(f"{side.path} has {len(side.mu)}" for side in sides)
        raise ValueError(f"the two sides hold different features: {lengths}; pool3 has {FEATURES}")
    fid = frechet_distance(sides[0].mu, sides[0].sigma, sides[1].mu, sides[1].sigma)
    facts = protocol(sides, weights, args)
    print(f"FID: {fid:.4f}", *(f"  {name}: {value}" for name, value in facts.items()), sep="\n")
    for caution in cautions(sides, facts):
        print(f"warning: {caution}", file=sys.stderr)
    if args.json:
        args.json.write_text(json.dumps({"fid": fid, "protocol": facts}, indent=2) + "\n")


def frechet_distance(mu1: NDArray, sigma1: NDArray, mu2: NDArray, sigma2: NDArray) -> float:
    """|mu1 - mu2|^2 + tr(sigma1 + sigma2 - 2 (sigma1 sigma2)^(1/2)) for means (D,) and covariances (D, D).

    With sigma = A A^T, the trace of that root is the sum of the singular values of A1^T A2; A has as many columns as
    sigma has rank, so that singular covariances (fewer images than features) cost no accuracy.
    """
    difference = np.asarray(mu1, np.float64) - np.asarray(mu2, np.float64)
    common = np.linalg.svd(_root(sigma1).T @ _root(sigma2), compute_uv=False).sum()
    traces = np.trace(sigma1, dtype=np.float64) + np.trace(sigma2, dtype=np.float64)
    return max(0.0, float(difference @ difference + traces - 2 * common))  # rounding can leave -1e-13


def _root(sigma: NDArray) -> NDArray[np.float64]:
    values, vectors = np.linalg.eigh(np.asarray(sigma, np.float64))
    kept = values > values[-1] * len(values) * np.finfo(np.float64).eps
    return vectors[:, kept] * np.sqrt(values[kept])


def statistics(features: NDArray) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Mean (D,) and unbiased covariance (D, D) of features (N, D), N at least 2, in float64."""
    assert len(features) >= 2
    features = np.asarray(features, np.float64)
    return features.mean(axis=0), np.cov(features, rowvar=False)


def inception(weights: Path | None) -> nn.Module:
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


def open_side(path: Path, compat: str | None = None) -> Side:
    """The images of a folder, sorted, or of an npz (arr_0, uint8 NHWC), or an npz's mu and sigma where it has them."""
    if path.is_dir():
        suffixes = OASIS_SUFFIXES if compat else IMAGE_SUFFIXES
        side = Side(str(path.resolve()), sorted(p for p in path.iterdir() if p.suffix.lower() in suffixes))
        if not side.items:
            inside = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())[:5]) or "none"
            raise ValueError(f"{path}: no {' '.join(sorted(suffixes))} in it (not searched: folders inside: {inside})")
    elif path.suffix == ".npz" and path.is_file():
        side = _open_npz(path)
    else:
        raise ValueError(
            f"{path}: " + ("neither a folder nor an npz file" if path.exists() else "no such file or folder")
        )
    if side.mu is None and len(side.items) < 2:
        raise ValueError(f"{path}: a covariance needs at least 2 images, found {len(side.items)}")
    if compat and len(side.items) > OASIS_BATCH:
        side = replace(side, items=side.items[: len(side.items) // OASIS_BATCH * OASIS_BATCH])
    return side


def _open_npz(path: Path) -> Side:
    try:
        with np.load(path) as file:
            arrays = {name: file[name] for name in (("mu", "sigma") if "mu" in file else ("arr_0",))}
    except Exception as error:  # not a zip, cut off, pickled, or without the arrays
        raise ValueError(f"{path}: needs arr_0 (images), or mu and sigma (statistics): {error}") from error
    shapes = ", ".join(f"{name} {value.dtype} {value.shape}" for name, value in arrays.items())
    if "arr_0" in arrays:
        images = arrays["arr_0"]
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[3] not in (1, 3):
            raise ValueError(f"{path}: expected arr_0 as uint8 (N, H, W, 3 or 1), found {shapes}")
        return Side(str(path.resolve()), images)
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not np.isfinite(mu).all() or not np.isfinite(sigma).all():
        raise ValueError(f"{path}: expected finite mu (D,) and sigma (D, D), found {shapes}")
    return Side(str(path.resolve()), mu=mu, sigma=sigma)


def measure(side: Side, network: nn.Module, args: argparse.Namespace) -> Side:
    """The same side with its statistics, and how many of its images have each size (WxH)."""
    from tqdm import tqdm

    sizes: Counter = Counter()
    features = []
    with torch.inference_mode(), tqdm(total=len(side.items), desc=side.path, disable=None) as progress:
        for batch in batches(side.items, args.batch_size, args.image_size):
            sizes[f"{batch.shape[3]}x{batch.shape[2]}"] += len(batch)
            features.append(PROTOCOLS[args.compat](network, batch.to(args.device)).cpu().numpy())
            progress.update(len(batch))
    mu, sigma = statistics(np.concatenate(features))
    return replace(side, mu=mu, sigma=sigma, sizes=dict(sizes))


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


def protocol(sides: Sequence[Side], weights: Path | None, args: argparse.Namespace) -> dict:
    """All that the number depends on: what is printed below it and written as JSON."""
    facts = {}
    for name, side in zip(("path1", "path2"), sides, strict=True):
        sizes = ", ".join(f"{size} x {count}" for size, count in side.sizes.items())
        facts |= {name: side.path, f"{name}_images": len(side.items) or None, f"{name}_sizes": sizes or None}
    facts |= {"features": f"Inception 2015-12-05 pool3 ({FEATURES})" if weights else "as stored"}
    if weights:
        with weights.open("rb") as file:
            facts |= {
                "weights": str(weights.resolve()),
                "weights_sha256": hashlib.file_digest(file, "sha256").hexdigest(),
            }
        first = f"bicubic to {args.image_size}, then " if args.image_size else ""
        facts |= {"resize": first + RESIZES[args.compat], "compat": args.compat}
    return facts | {"versions": {name: version(name) for name in ("torch", "torch-fidelity", "numpy", "pillow")}}


def cautions(sides: Sequence[Side], facts: dict) -> Iterator[str]:
    """What makes the number hard to compare."""
    for side in sides:
        if 0 < len(side.items) < FEATURES:
            yield f"{side.path}: {len(side.items)} images, under {FEATURES:,}, bias FID upwards: compare equal counts"
    if not facts.get("weights_sha256", WEIGHTS_HASH).startswith(WEIGHTS_HASH):
        yield f"{facts['weights']} is not {WEIGHTS_NAMES[0]}: the number compares with nothing published"
    if not facts.get("compat") and len({size for side in sides for size in side.sizes}) > 1:
        yield "the images are of several sizes, which changes the number: --image_size N resizes all to N x N first"


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0], allow_abbrev=False)
    parser.add_argument(
        "paths", nargs="*", metavar="path", help="two of: folder of images; npz with arr_0 (uint8 NHWC) or mu and sigma"
    )
    parser.add_argument("--batch_size", type=int, default=32, metavar="N", help="changes the speed only")
    parser.add_argument(
        "--image_size", type=int, metavar="N", help="resize every image to N x N first (Pillow's bicubic)"
    )
    parser.add_argument(
        "--weights", type=Path, metavar="FILE", help=f"{WEIGHTS_NAMES[0]}, if it is not in torch hub's cache"
    )
    parser.add_argument("--download", action="store_true", help="fetch the weights where they are missing")
    parser.add_argument("--compat", choices=[name for name in PROTOCOLS if name], help=f"oasis: {RESIZES['oasis']}")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--json", type=Path, metavar="OUT", help="also write the number and its protocol to this file")
    args = parser.parse_args()
    args.paths = args.paths or [path for path in (path1, path2) if path]
    if len(args.paths) != 2:
        raise ValueError(f"two paths are needed, got {len(args.paths)}: as arguments, or path1 and path2 in {__file__}")
    for name in ("batch_size", "image_size"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise ValueError(f"--{name} {value}: must be 1 or more")
    if args.json and not args.json.resolve().parent.is_dir():
        raise ValueError(f"--json {args.json}: no such folder")
    try:
        torch.empty(0, device=args.device)
    except (RuntimeError, AssertionError) as error:
        raise ValueError(f"--device {args.device}: {str(error).partition(chr(10))[0]}") from error
    if args.compat and args.image_size:
        raise ValueError(f"--image_size {args.image_size}: --compat {args.compat} has its own size, {OASIS_SIZE}")
    return args


if __name__ == "__main__":
    try:
        main()
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed: pip install 'stay-diffusion[eval]'")
    except ValueError as error:
        sys.exit(f"error: {error}")
