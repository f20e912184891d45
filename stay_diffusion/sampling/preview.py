"""Pictures for people: layouts drawn with class-coloured boxes, contact sheets, training previews."""

from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.annotations import Box

# Distinct on grey surfaces, in class order; repeated when there are more classes.
COLOURS = (
    (230, 60, 50), (60, 180, 75), (70, 120, 255), (245, 200, 40), (200, 70, 220),
    (60, 210, 220), (255, 140, 30), (170, 255, 100), (255, 150, 190), (150, 110, 60),
)  # fmt: skip
GAP, CAPTION = 4, 14


def colour_of(label: str, classes: Sequence[str]) -> tuple[int, int, int]:
    return COLOURS[classes.index(label) % len(COLOURS)]


def draw_boxes(image: Image.Image, objects: Sequence[Box], classes: Sequence[str], side: int) -> Image.Image:
    """The picture enlarged to side x side, with the outlines of its boxes (in [0, 1]) just outside them."""
    canvas = enlarge(image, side)
    draw = ImageDraw.Draw(canvas)
    for box in objects:
        corners = [box.x0 * side - 1, box.y0 * side - 1, box.x1 * side, box.y1 * side]
        draw.rectangle([max(-1, min(side, c)) for c in corners], outline=colour_of(box.label, classes))
    return canvas


def draw_layout(objects: Sequence[Box], classes: Sequence[str], side: int) -> Image.Image:
    """The layout alone: filled class-coloured boxes on black, the smallest on top."""
    canvas = Image.new("RGB", (side, side))
    draw = ImageDraw.Draw(canvas)
    for box in sorted(objects, key=lambda b: (b.x0 - b.x1) * (b.y1 - b.y0)):
        corners = [box.x0 * side, box.y0 * side, box.x1 * side - 1, box.y1 * side - 1]
        x0, y0, x1, y1 = (round(c) for c in corners)
        draw.rectangle([x0, y0, max(x0, x1), max(y0, y1)], fill=colour_of(box.label, classes), outline=(255, 255, 255))
    return canvas


def draw_map(labels: np.ndarray, side: int) -> Image.Image:
    """A label map (H, W) in colours, one per class."""
    shares = 0.618 * np.arange(labels.max() + 1)[:, None] * (1, 1.7, 2.3) % 1  # spread by the golden ratio
    return enlarge(Image.fromarray((shares[labels] * 200 + 40).astype(np.uint8)), side)


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """RGB, side x side, every pixel still visible."""
    return image.convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def legend(drawn: Iterable[Sequence[Box]], classes: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """The colours of the classes that some of the objects have, in class order."""
    seen = {box.label for objects in drawn for box in objects}
    return {name: colour_of(name, classes) for name in classes if name in seen}


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], captions: Sequence[str], colours: dict[str, tuple], columns: int = 4
) -> Image.Image:
    """Groups of equally large pictures side by side, `columns` groups to a line, under a legend of `colours`."""
    side, per_group = rows[0][0].width, len(rows[0])
    group_width, line_height = per_group * side + (per_group - 1) * 1 + 2 * GAP, side + CAPTION + GAP
    columns = min(columns, len(rows))
    lines = -(-len(rows) // columns)
    sheet = Image.new("RGB", (max(columns * group_width, 360), CAPTION + GAP + lines * line_height), (24, 24, 24))
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    x = GAP
    for name, colour in colours.items():
        draw.rectangle([x, 3, x + 8, 11], fill=colour)
        draw.text((x + 12, 1), name, fill=(230, 230, 230), font=font)
        x += 24 + int(draw.textlength(name, font=font))
    for i, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        left, top = (i % columns) * group_width + GAP, CAPTION + GAP + (i // columns) * line_height
        draw.text((left, top), caption, fill=(200, 200, 200), font=font)
        for j, cell in enumerate(row):
            sheet.paste(cell, (left + j * (side + 1), top + CAPTION))
    return sheet
