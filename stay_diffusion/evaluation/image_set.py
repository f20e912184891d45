"""A set of images to measure: a folder, image_sample.py's results, or an npz; with facts about each image."""

import hashlib
import itertools
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from ..data.annotations import RelativeBox
from ..data.images import FORMATS, IMAGE_SUFFIXES, read_image, to_pil, to_tensor
from ..data.images import image_size as size_of
from ..data.manifest import find_manifests
from ..quality import crops
from ..run.checkpoint import sha256
from ..system.distributed import gather_shares
from ..system.launchers import ALONE, World

OASIS_BATCH, OASIS_SUFFIXES = 50, frozenset({".jpg", ".png"})
GREY_MODES = ("1", "L", "LA", "I", "F")


Whole = Path | NDArray[np.uint8]  # a file, or (H, W, 1 or 3)


class Cut(NamedTuple):
    """An object of an image: its box in [0, 1] of the sides, shown on size x size pixels.

    `around`: as the quality gate crops it, a square with its surroundings, at the gate's own size.
    """

    image: Whole
    box: tuple[float, float, float, float]
    size: int
    around: bool = False


Item = Whole | Cut


class Look(NamedTuple):
    """An image without its pixels: sha256 of its content, file format (of an npz: array), width, height, is it grey."""

    digest: str
    format: str
    width: int
    height: int
    grey: bool


@dataclass(frozen=True)
class ImageSet:
    """Images, or the mean (D,) and covariance (D, D) of their features, or both.

    `runs` holds how many images each of several runs of image_sample.py has; `sizes` how many have each size (WxH);
    `looks` one per item, where they were looked at; `objects` the boxes in [0, 1] that each item shows and `products`
    what it is, where known.
    """

    path: str
    items: Sequence[Item] = ()
    mu: NDArray[np.float64] | None = None
    sigma: NDArray[np.float64] | None = None
    runs: dict[str, int] = field(default_factory=dict)
    sizes: dict[str, int] = field(default_factory=dict)
    looks: tuple[Look, ...] = ()
    objects: tuple[tuple[RelativeBox, ...], ...] | None = None
    products: tuple[str | None, ...] | None = None

    @property
    def images(self) -> list[Whole]:
        """Return the items of a set that holds no cuts."""
        return [item for item in self.items if not isinstance(item, Cut)]

    @property
    def known_objects(self) -> tuple[tuple[RelativeBox, ...], ...]:
        assert self.objects is not None
        return self.objects


def open_set(path: Path, compat: str | None = None, least: int = 2) -> ImageSet:
    """The images of a folder, sorted, or of an npz (arr_0, uint8 NHWC), or an npz's mu and sigma where it has them.

    Of a folder that image_sample.py has made, it is the samples, of all runs together. ValueError for fewer images
    than `least`.
    """
    if path.is_dir():
        found = _open_folder(path, OASIS_SUFFIXES if compat else IMAGE_SUFFIXES)
    elif path.suffix == ".npz" and path.is_file():
        found = _open_npz(path)
    else:
        raise ValueError(
            f"{path}: " + ("neither a folder nor an npz file" if path.exists() else "no such file or folder")
        )
    if found.mu is None and len(found.items) < least:
        raise ValueError(f"{path}: a covariance needs at least {least} images, found {len(found.items)}")
    if compat and len(found.items) > OASIS_BATCH:
        found = replace(found, items=found.items[: len(found.items) // OASIS_BATCH * OASIS_BATCH])
    return found


def looked_at(images: ImageSet, world: World = ALONE) -> ImageSet:
    """The same set with its looks, in the order of sizes and content: whatever the images are called, it is one order.

    Several processes share the looking.
    """
    found = images.images
    own = {i: look(found[i]) for i in range(len(found))[world.rank :: world.size]}
    looks = gather_shares(f"{images.path} looked at", own)
    order = content_order(looks)
    sizes = Counter(f"{looks[i].width}x{looks[i].height}" for i in order)
    return replace(
        images,
        items=[found[i] for i in order],
        looks=tuple(looks[i] for i in order),
        objects=images.objects and tuple(images.objects[i] for i in order),
        products=images.products and tuple(images.products[i] for i in order),
        sizes=dict(sizes),
    )


def content_order(looks: Sequence[Look]) -> list[int]:
    """Return the places of images in the order of sizes and content."""
    return sorted(range(len(looks)), key=lambda i: (looks[i].width, looks[i].height, looks[i].digest))


def look(item: Whole) -> Look:
    """Find the facts of an image."""
    if not isinstance(item, Path):
        height, width, channels = item.shape
        digest = hashlib.sha256(f"{item.shape}".encode() + np.ascontiguousarray(item).tobytes()).hexdigest()
        return Look(digest, "array", width, height, channels == 1)
    width, height = size_of(item)
    with open(item, "rb") as file, Image.open(file, formats=FORMATS) as image:
        grey = image.mode in GREY_MODES or image.mode.startswith("I;")
        return Look(sha256(item), image.format or "", width, height, grey)


def batches(items: Sequence[Item], batch_size: int, image_size: int | None, channels: int = 3) -> Iterator[Tensor]:
    """uint8 (B, C, H, W): only neighbours of one size together, since each image is resized from its own."""
    images = (_array(picture, image_size) for picture in _pictures(items, channels))
    for _, same in itertools.groupby(images, key=np.shape):
        while batch := list(itertools.islice(same, batch_size)):
            yield torch.from_numpy(np.stack(batch)).permute(0, 3, 1, 2)


def pixels(item: Item, image_size: int | None = None, channels: int = 3) -> NDArray[np.uint8]:
    """(H, W, C) of a file, an npz's (H, W, 3 or 1) or a cut; a grey is repeated over three channels."""
    return _array(next(_pictures([item], channels)), image_size)


def _pictures(items: Sequence[Item], channels: int) -> Iterator[Image.Image]:
    """Decoded, and cut where they are cuts; a picture once for all its cuts that follow one another."""
    opened: tuple[Whole, Image.Image] | None = None
    for item in items:
        source = item.image if isinstance(item, Cut) else item
        if opened is None or source is not opened[0]:
            opened = source, _decoded(source, channels)
        yield _cut_out(opened[1], item) if isinstance(item, Cut) else opened[1]


def _cut_out(picture: Image.Image, cut: Cut) -> Image.Image:
    """The pixels that the box touches and no others: resize(box=...) alone would look over its border."""
    (W, H), (x0, y0, x1, y1) = picture.size, cut.box
    if cut.around:
        pixels = crops.cut(picture, (x0 * W, y0 * H, x1 * W, y1 * H), len(picture.getbands())).pixels
        inner = pixels[:, crops.RIM : -crops.RIM, crops.RIM : -crops.RIM]
        return Image.fromarray(inner[0] if len(inner) == 1 else inner.transpose(1, 2, 0).copy())
    left, top = int(x0 * W), int(y0 * H)
    part = picture.crop((left, top, math.ceil(x1 * W), math.ceil(y1 * H)))
    box = (x0 * W - left, y0 * H - top, x1 * W - left, y1 * H - top)
    return part.resize((cut.size, cut.size), Image.Resampling.BICUBIC, box=box)


def _decoded(image: Whole, channels: int) -> Image.Image:
    if isinstance(image, Path):
        return to_pil(to_tensor(read_image(image, channels), channels))
    if channels == 1:
        return Image.fromarray(image[..., 0]) if image.shape[2] == 1 else Image.fromarray(image).convert("L")
    return Image.fromarray(np.broadcast_to(image, (*image.shape[:2], 3)).copy())


def _array(picture: Image.Image, image_size: int | None) -> NDArray[np.uint8]:
    if image_size and picture.size != (image_size, image_size):
        picture = picture.resize((image_size, image_size), Image.Resampling.BICUBIC)
    array = np.array(picture)
    return array[..., None] if array.ndim == 2 else array


def _open_folder(path: Path, suffixes: frozenset[str]) -> ImageSet:
    results = find_manifests(path)
    folders = [manifest.parent / "samples" for manifest in results] or [path]
    found = [sorted(p for p in folder.iterdir() if p.suffix.lower() in suffixes) for folder in folders]
    if not any(found):
        inside = ", ".join(sorted(p.name for p in path.iterdir() if p.is_dir())[:5]) or "none"
        raise ValueError(f"{path}: no {' '.join(sorted(suffixes))} in it (not searched: folders inside: {inside})")
    runs = {folder.parent.name: len(images) for folder, images in zip(folders, found, strict=True)}
    return ImageSet(str(path.resolve()), [image for images in found for image in images], runs=runs if results else {})


def _open_npz(path: Path) -> ImageSet:
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
        return ImageSet(str(path.resolve()), images)
    mu, sigma = arrays["mu"], arrays["sigma"]
    if mu.ndim != 1 or sigma.shape != (len(mu), len(mu)) or not np.isfinite(mu).all() or not np.isfinite(sigma).all():
        raise ValueError(f"{path}: expected finite mu (D,) and sigma (D, D), found {shapes}")
    return ImageSet(str(path.resolve()), mu=mu, sigma=sigma)
