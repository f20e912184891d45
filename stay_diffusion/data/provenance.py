"""What a generated picture says of itself inside its file: how it was made, as text chunks of a PNG."""

import json
from pathlib import Path

from PIL import Image
from PIL.PngImagePlugin import PngInfo

KEY = "stay_diffusion"
DESCRIPTION = "Made by a diffusion model from a layout of boxes; no photograph."
PATHS = ("checkpoint", "source", "source_image")  # whose folders are nobody's business once the picture travels
NOT_TOLD = ("masks", "quality")  # what is not about its making: what was found in it afterwards


def text_chunks(entry: dict) -> PngInfo:
    """A manifest's line for a picture's file: without what was found in it, and of paths only the last part."""
    told = {key: value for key, value in entry.items() if key not in NOT_TOLD}
    told |= {key: Path(told[key]).name for key in PATHS if told.get(key)}
    chunks = PngInfo()
    chunks.add_text("Software", KEY)
    chunks.add_text("Description", DESCRIPTION)
    chunks.add_text(KEY, json.dumps(told))
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
