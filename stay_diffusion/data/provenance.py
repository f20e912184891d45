"""What a generated picture says of itself inside its file: how it was made, as text chunks of a PNG."""

import json
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEY = "stay_diffusion"
DESCRIPTION = "Made by a diffusion model from a layout of boxes; no photograph."
PATHS = ("checkpoint", "source", "source_image")  # whose folders are nobody's business once the picture travels
TOO_LONG = ("masks",)


def text_chunks(entry: dict) -> PngInfo:
    """A manifest's line for a picture's file: whole but for masks, and of paths only the last part."""
    told = {key: Path(value).name if key in PATHS and value else value for key, value in entry.items()}
    chunks = PngInfo()
    chunks.add_text("Software", KEY)
    chunks.add_text("Description", DESCRIPTION)
    chunks.add_text(KEY, json.dumps({key: value for key, value in told.items() if key not in TOO_LONG}))
    return chunks


def read_provenance(path: Path) -> dict | None:
    """What `text_chunks` wrote, from the file's header alone; None for pictures that say nothing.

    ValueError for what cannot be read.
    """
    try:
        with Image.open(path) as image:
            text = image.info.get(KEY)
        return None if text is None else json.loads(text)
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: cannot be read for its provenance: {error}") from None
