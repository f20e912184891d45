"""Reading any picture upright into the model's channels and range, and the way back."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageOps, UnidentifiedImageError
from torch import Tensor

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

# The value that is white where a picture has more than 8 bits. 32-bit integers are taken as 16-bit greys in a wider
# container and floats as 0..1; whatever lies outside has no agreed white and is refused.
WHITE = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1}

TIFF_WIDTH, TIFF_HEIGHT, ORIENTATION = 256, 257, 274
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height


class ImageError(ValueError):
    """A picture cannot be read; the message names the file."""


def read_image(path: Path, channels: int, upright: bool = True) -> Image.Image:
    """The picture in mode L (1 channel) or RGB (3), or in mode F, 0..255, for greys of more than 8 bits.

    Turned as its EXIF orientation says if `upright`, else as stored.
    Transparency is ignored: the colours are those stored in the file.
    Raises ImageError where the file is missing, broken, cut off or of an unknown range.
    """
    assert channels in (1, 3)
    try:
        # Not Image.open(path): mapping the file into memory, Pillow 12 garbles a sideways TIFF.
        with open(path, "rb") as file, Image.open(file) as image:
            picture = ImageOps.exif_transpose(image) if upright else image
            if picture.mode in WHITE:
                return _deep_grey(picture)
            return _opaque(picture).convert("L" if channels == 1 else "RGB")
    except Exception as error:  # decoders raise nearly every type on broken files
        raise _unreadable(path, error) from error


def find_pictures(folder: Path) -> list[Path]:
    """The pictures below a folder, sorted, as `visible` lists them; links to nothing too: reading names them."""
    return sorted(path for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES)


def visible(folder: Path) -> Iterator[Path]:
    """All but folders below a folder; linked folders are followed once, hidden files and folders left out."""
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if not name.startswith("."))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, from the file's header only."""
    try:
        with open(path, "rb") as file, Image.open(file) as image:
            # A TIFF's `size` is already upright in some versions of Pillow; its tags never are.
            tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
            width, height = (tags[TIFF_WIDTH], tags[TIFF_HEIGHT]) if tags else image.size
            # Not image.getexif(): for PNG that decodes the whole picture in search of a later chunk.
            sideways = Image.Image.getexif(image).get(ORIENTATION) in SIDEWAYS
    except Exception as error:
        raise _unreadable(path, error) from error
    return (height, width) if sideways else (width, height)


def to_tensor(image: Image.Image, channels: int) -> Tensor:
    """(C, H, W) float32 in [-1, 1] from a picture of mode L, F or RGB; a grey is repeated over 3 channels."""
    values = torch.from_numpy(np.array(image, dtype=np.float32))
    values = values[None].expand(channels, -1, -1) if values.ndim == 2 else values.permute(2, 0, 1)
    assert values.shape[0] == channels
    return (values / 127.5 - 1).clamp(-1, 1).contiguous()  # clamp: resizing a mode F picture can overshoot


def to_pil(tensor: Tensor) -> Image.Image:
    """An 8-bit picture, L or RGB, from (C, H, W) in [-1, 1], rounded to the nearest value."""
    assert tensor.ndim == 3 and tensor.shape[0] in (1, 3)
    values = ((tensor.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).contiguous().numpy())


def _deep_grey(image: Image.Image) -> Image.Image:
    # Not convert(): it clips at 255.
    values, white = np.asarray(image).astype(np.float64), WHITE[image.mode]
    if not (values.min() >= 0 and values.max() <= white):
        found = f"{values.min():g}..{values.max():g}"
        raise ValueError(f"mode {image.mode} with values {found}, expected 0..{white}: save it as 8- or 16-bit grey")
    return Image.fromarray((values * (255 / white)).astype(np.float32))


def _opaque(image: Image.Image) -> Image.Image:
    # Pillow warns when the transparency of a palette is thrown away, unless it is made a channel first.
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def _unreadable(path: Path, error: Exception) -> ImageError:
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path}: no such image")
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{path}: not an image, or of an unknown format")
    return ImageError(f"{path}: cannot be read as an image: {str(error) or type(error).__name__}")
