"""Reading any picture upright into the model's channels and range, and the way back."""

import os
import stat
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple

import numpy as np
import torch
from PIL import Image, ImageFile, ImageOps, UnidentifiedImageError
from torch import Tensor

IMAGE_SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})
# Whatever a file is called: others, EPS among them, start foreign programs or have no use here.
FORMATS = ("JPEG", "PNG", "TIFF", "BMP", "WEBP", "GIF", "PPM", "JPEG2000")

# The value that is white where a picture has more than 8 bits. 32-bit integers are taken as 16-bit greys in a wider
# container and floats as 0..1; whatever lies outside has no agreed white and is refused.
WHITE = {"I;16": 65535, "I;16L": 65535, "I;16B": 65535, "I;16N": 65535, "I": 65535, "F": 1}

TIFF_WIDTH, TIFF_HEIGHT, ORIENTATION = 256, 257, 274
SIDEWAYS = (5, 6, 7, 8)  # EXIF orientations that swap width and height

Range = tuple[float, float]  # the values that are black and white
Window = tuple[float, float, float, float]  # x0 y0 x1 y1

# Pillow warns of large pictures, such as line scans have, and refuses what can only be a bomb, twice as large.
warnings.filterwarnings("ignore", category=Image.DecompressionBombWarning)


class ImageError(ValueError):
    """A picture cannot be read; the message names the file."""


class Picture(NamedTuple):
    """A picture that may have been made smaller in reading, and its width and height in the file, upright.

    `image` shows x0 y0 x1 y1 of the file's pixels: with the mean of several for each of its own, at the right and
    bottom perhaps of fewer than the others.
    """

    image: Image.Image
    width: int
    height: int
    shown: Window


def read_image(path: Path, channels: int, upright: bool = True, value_range: Range | None = None) -> Image.Image:
    """The picture in mode L (1 channel) or RGB (3), or in mode F, 0..255, for greys of more than 8 bits.

    Turned as its EXIF orientation says if `upright`, else as stored. `value_range` are the values that are black and
    white in greys of more than 8 bits; without it 0 and the most that the file's type holds.
    Transparency is ignored: the colours are those stored in the file.
    Raises ImageError where the file is missing, broken, cut off, of an unknown range or a decompression bomb.
    """
    image = read_picture(path, channels, upright, value_range).image
    return image.convert("RGB") if channels == 3 and image.mode == "L" else image


def read_picture(
    path: Path,
    channels: int,
    upright: bool = True,
    value_range: Range | None = None,
    reduction: Callable[[int, int], int] = lambda width, height: 1,
) -> Picture:
    """As read_image, made smaller by the power of 2 that `reduction` gives for the upright width and height.

    A grey picture may be of mode L whatever `channels` is.
    """
    assert channels in (1, 3)
    try:
        # Not Image.open(path): mapping the file into memory, Pillow 12 garbles a sideways TIFF.
        with opened(path) as file, Image.open(file, formats=FORMATS) as image:
            as_stored = not upright or Image.Image.getexif(image).get(ORIENTATION, 1) == 1
            if image.format == "JPEG" and as_stored:
                width, height = image.size
                factor = reduction(width, height)
                if factor > 1:
                    image.draft("L" if channels == 1 else None, (max(width // factor, 1), max(height // factor, 1)))
                reduced = converted(image, channels, value_range, factor // _scale(image))
            else:
                turned = ImageOps.exif_transpose(image) if upright else image
                width, height = turned.size
                factor = reduction(width, height)
                reduced = converted(turned, channels, value_range, factor)
            return Picture(reduced, width, height, (0, 0, reduced.width * factor, reduced.height * factor))
    except Exception as error:  # decoders raise nearly every type on broken files
        raise unreadable(path, error) from error


def find_pictures(folder: Path) -> list[Path]:
    """The pictures below a folder, sorted, as `visible` lists them; links to nothing too: reading names them."""
    return sorted(path for path in visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES)


def visible(folder: Path, ending: str | tuple[str, ...] = "") -> Iterator[Path]:
    """All but folders below a folder whose names end so; linked folders are followed once, hidden ones left out."""
    visited = set()
    for place, folders, names in os.walk(folder, followlinks=True):
        real = os.path.realpath(place)
        if real in visited:  # a link back up
            folders.clear()
            continue
        visited.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield from (Path(place, name) for name in names if name.endswith(ending) and not name.startswith("."))


def image_size(path: Path) -> tuple[int, int]:
    """Width and height of the upright picture, from the file's header only."""
    try:
        with opened(path) as file, Image.open(file, formats=FORMATS) as image:
            # A TIFF's `size` is already upright in some versions of Pillow; its tags never are.
            tags = getattr(image, "tag_v2", None) if image.format == "TIFF" else None
            width, height = (tags[TIFF_WIDTH], tags[TIFF_HEIGHT]) if tags else image.size
            # Not image.getexif(): for PNG that decodes the whole picture in search of a later chunk.
            sideways = Image.Image.getexif(image).get(ORIENTATION) in SIDEWAYS
    except Exception as error:
        raise unreadable(path, error) from error
    return (height, width) if sideways else (width, height)


def to_tensor(image: Image.Image, channels: int) -> Tensor:
    """(C, H, W) float32 in [-1, 1] from a picture of mode L, F or RGB; a grey is repeated over 3 channels."""
    values = torch.from_numpy(np.array(image, dtype=np.float32))
    values = (values / 127.5 - 1).clamp_(-1, 1)  # clamp: resizing a mode F picture can overshoot
    values = values[None].expand(channels, -1, -1) if values.ndim == 2 else values.permute(2, 0, 1)
    assert values.shape[0] == channels
    return values.contiguous()


def to_pil(tensor: Tensor) -> Image.Image:
    """An 8-bit picture, L or RGB, from (C, H, W) in [-1, 1], rounded to the nearest value."""
    assert tensor.ndim == 3 and tensor.shape[0] in (1, 3)
    values = ((tensor.detach().float().cpu() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
    return Image.fromarray(values[0].numpy() if len(values) == 1 else values.permute(1, 2, 0).contiguous().numpy())


def opened(path: Path) -> BinaryIO:
    """The file, if it is one."""
    if not stat.S_ISREG(os.stat(path).st_mode):
        raise ValueError("not a file")  # opening a pipe would wait for ever
    return open(path, "rb")


def _scale(image: ImageFile.ImageFile) -> int:
    """By how much a JPEG is made smaller in decoding, after draft()."""
    return image.decoderconfig[0] if image.decoderconfig else 1


def converted(image: Image.Image, channels: int, value_range: Range | None = None, factor: int = 1) -> Image.Image:
    """An open picture of any mode as `read_picture` gives it: L, RGB, or F in 0..255, made smaller by `factor`."""
    if image.mode in WHITE:
        image = _deep_grey(image, value_range)
    elif image.mode != "L":
        image = _opaque(image).convert("L" if channels == 1 else "RGB")
    image.load()
    return image.reduce(factor) if factor > 1 else image


def _deep_grey(image: Image.Image, value_range: Range | None) -> Image.Image:
    # Not convert(): it clips at 255.
    values = np.asarray(image).astype(np.float64)
    black, white = value_range or (0, WHITE[image.mode])
    if value_range:  # what lies outside, dead pixels say, was left out on purpose
        values = np.nan_to_num(values, nan=black).clip(black, white)
    elif not (values.min() >= black and values.max() <= white):
        found = f"{values.min():g}..{values.max():g}"
        raise ValueError(
            f"mode {image.mode} with values {found}, expected 0..{white}: give --value_range, or save it as 8- or "
            "16-bit grey"
        )
    return Image.fromarray(((values - black) * (255 / (white - black))).astype(np.float32))


def _opaque(image: Image.Image) -> Image.Image:
    # Pillow warns when the transparency of a palette is thrown away, unless it is made a channel first.
    return image.convert("RGBA") if image.mode == "P" and "transparency" in image.info else image


def unreadable(path: Path, error: Exception) -> ImageError:
    """Why a picture cannot be read, in one line that names it."""
    if isinstance(error, FileNotFoundError):
        return ImageError(f"{path}: no such image")
    if isinstance(error, UnidentifiedImageError):
        return ImageError(f"{path}: not an image, or of an unknown format")
    if isinstance(error, Image.DecompressionBombError):
        return ImageError(f"{path}: too many pixels for a picture ({str(error).split(',')[0]}); cut it into parts")
    return ImageError(f"{path}: cannot be read as an image: {str(error) or type(error).__name__}")
