"""Pictures for people: layouts drawn with class-coloured boxes, contact sheets, training previews."""

import colorsys
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.annotations import Box

# Distinct on grey surfaces, in class order.
COLOURS = (
    (230, 60, 50), (60, 180, 75), (70, 120, 255), (245, 200, 40), (200, 70, 220),
    (60, 210, 220), (255, 140, 30), (170, 255, 100), (255, 150, 190), (150, 110, 60),
)  # fmt: skip
GAP, CAPTION = 4, 14
SWATCH = 24  # pixels that a legend's entry takes besides its name

Colour = tuple[int, int, int]


def colour_of(label: str, classes: Sequence[str]) -> Colour:
    """One of COLOURS while there are enough, else one of as many as there are classes."""
    i = classes.index(label)
    if len(classes) <= len(COLOURS):
        return COLOURS[i]
    # Hues by the golden ratio; three strengths and two brightnesses, so that near hues differ in them.
    red, green, blue = colorsys.hsv_to_rgb(i * 0.618 % 1, (1, 0.7, 0.45)[i % 3], (1, 0.75)[i % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


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


def draw_map(labels: np.ndarray, classes: Sequence[str], side: int) -> Image.Image:
    """A label map (H, W) in its classes' colours; 0 is black."""
    colours = np.array([(0, 0, 0), *(colour_of(name, classes) for name in classes)], dtype=np.uint8)
    return enlarge(Image.fromarray(colours[labels]), side)


def classes_of(labels: np.ndarray, classes: Sequence[str]) -> set[str]:
    """The names of the labels in a map (H, W)."""
    return {classes[label - 1] for label in np.unique(labels) if label}


def enlarge(image: Image.Image, side: int) -> Image.Image:
    """RGB, side x side, every pixel still visible."""
    return image.convert("RGB").resize((side, side), Image.Resampling.NEAREST)


def legend(seen: Iterable[str], classes: Sequence[str]) -> dict[str, Colour]:
    """The colours of the classes that are seen, in class order."""
    seen = set(seen)
    return {name: colour_of(name, classes) for name in classes if name in seen}


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], captions: Sequence[str], colours: dict[str, Colour], columns: int = 4
) -> Image.Image:
    """Groups of equally large pictures side by side, `columns` groups to a line, under a legend of `colours`."""
    side, per_group = rows[0][0].width, len(rows[0])
    group_width, line_height = per_group * side + (per_group - 1) * 1 + 2 * GAP, side + CAPTION + GAP
    columns = min(columns, len(rows))
    lines, width, font = -(-len(rows) // columns), max(columns * group_width, 360), ImageFont.load_default()
    places, legend_height = _places([SWATCH + int(font.getlength(_plain(name))) for name in colours], width)
    sheet = Image.new("RGB", (width, legend_height + GAP + lines * line_height), (24, 24, 24))
    draw = ImageDraw.Draw(sheet)
    for (name, colour), (x, y) in zip(colours.items(), places, strict=True):
        draw.rectangle([x, y + 3, x + 8, y + 11], fill=colour)
        draw.text((x + 12, y + 1), _plain(name), fill=(230, 230, 230), font=font)
    for i, (row, caption) in enumerate(zip(rows, captions, strict=True)):
        left, top = (i % columns) * group_width + GAP, legend_height + GAP + (i // columns) * line_height
        draw.text((left, top), _plain(caption), fill=(200, 200, 200), font=font)
        for j, cell in enumerate(row):
            sheet.paste(cell, (left + j * (side + 1), top + CAPTION))
    return sheet


def _places(widths: Sequence[int], line_width: int) -> tuple[list[tuple[int, int]], int]:
    """Where entries go, x and y, on lines of `line_width`; the height of all lines."""
    places, x, y = [], GAP, 0
    for width in widths:
        if x > GAP and x + width > line_width:
            x, y = GAP, y + CAPTION
        places.append((x, y))
        x += width
    return places, y + CAPTION


def _plain(text: str) -> str:
    """What Pillow's own font can show: letters without their accents."""
    return unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
