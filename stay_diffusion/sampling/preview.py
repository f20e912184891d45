"""Images for people: layouts drawn with class-coloured boxes, contact sheets."""

import colorsys
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from ..data.annotations import RelativeBox
from ..data.images import WHITE

# Distinct on grey surfaces, in class order.
COLOURS = (
    (230, 60, 50), (60, 180, 75), (70, 120, 255), (245, 200, 40), (200, 70, 220),
    (60, 210, 220), (255, 140, 30), (170, 255, 100), (255, 150, 190), (150, 110, 60),
)  # fmt: skip
GAP, CAPTION = 4, 14
SWATCH = 24  # pixels that a legend's entry takes besides its name
CELL, LEAST_CELL = 256, 192  # pixels: an image's longer side in a contact sheet
CUT_OFF = 0.1  # per cent of the pixels, at either end, that need not differ in a deep grey that is shown

Colour = tuple[int, int, int]


def colour_of(label: str, classes: Sequence[str]) -> Colour:
    """One of COLOURS while there are enough, else one of as many as there are classes."""
    i = classes.index(label)
    if len(classes) <= len(COLOURS):
        return COLOURS[i]
    # Hues by the golden ratio; three strengths and two brightnesses, so that near hues differ in them.
    red, green, blue = colorsys.hsv_to_rgb(i * 0.618 % 1, (1, 0.7, 0.45)[i % 3], (1, 0.75)[i % 2])
    return round(255 * red), round(255 * green), round(255 * blue)


def draw_boxes(image: Image.Image, objects: Sequence[RelativeBox], classes: Sequence[str], side: int) -> Image.Image:
    """Fit an image into side x side, and draw the outlines of its boxes just outside them."""
    canvas = fit(image, side)
    draw, (width, height) = ImageDraw.Draw(canvas), canvas.size
    for box in objects:
        seen = box.pixels(width, height)
        x0, x1 = (max(-1, min(width, x)) for x in (seen.x0 - 1, seen.x1))
        y0, y1 = (max(-1, min(height, y)) for y in (seen.y0 - 1, seen.y1))
        draw.rectangle([x0, y0, max(x0, x1), max(y0, y1)], outline=colour_of(box.label, classes))
    return canvas


def draw_layout(objects: Sequence[RelativeBox], classes: Sequence[str], size: tuple[int, int]) -> Image.Image:
    """Draw the layout alone, width x height: filled class-coloured boxes on black, the smallest on top."""
    width, height = size
    canvas = Image.new("RGB", size)
    draw = ImageDraw.Draw(canvas)
    for box in sorted(objects, key=lambda b: (b.x0 - b.x1) * (b.y1 - b.y0)):
        seen = box.pixels(width, height)
        x0, y0, x1, y1 = (round(edge) for edge in (seen.x0, seen.y0, seen.x1 - 1, seen.y1 - 1))
        colour = colour_of(box.label, classes)
        draw.rectangle([x0, y0, max(x0, x1), max(y0, y1)], fill=colour, outline=(255, 255, 255))
    return canvas


def draw_map(labels: np.ndarray, classes: Sequence[str], side: int) -> Image.Image:
    """Draw a label map (H, W) in its classes' colours; 0 is black."""
    colours = np.array([(0, 0, 0), *(colour_of(name, classes) for name in classes)], dtype=np.uint8)
    return fit(Image.fromarray(colours[labels]), side)


def classes_of(labels: np.ndarray, classes: Sequence[str]) -> set[str]:
    """The names of the labels in a map (H, W)."""
    return {classes[label - 1] for label in np.unique(labels) if label}


def fit(image: Image.Image, side: int) -> Image.Image:
    """Make an image RGB, its longer side `side`: enlarged so that every pixel is still visible, or shrunk."""
    longest = max(image.size)
    width, height = (max(1, round(length * side / longest)) for length in image.size)
    # Deep greys as floats: Pillow shrinks no others.
    plain = Image.fromarray(np.asarray(image, np.float32)) if image.mode in WHITE else image.convert("RGB")
    return as_rgb(plain.resize((width, height), Image.Resampling.NEAREST if side >= longest else Image.Resampling.BOX))


def cell_side(images: Iterable[Image.Image]) -> int:
    """The longer side at which images stand in one sheet: whole multiples of small ones, large ones shrunk."""
    longest = max(max(image.size) for image in images)
    return longest * max(1, LEAST_CELL // longest) if longest <= CELL else CELL


def as_rgb(image: Image.Image) -> Image.Image:
    """Convert to 8 bits and three channels; a grey of more bits from its own darkest to its own brightest."""
    if image.mode not in WHITE:
        return image.convert("RGB")
    values = np.asarray(image).astype(np.float64)
    black, white = np.percentile(values, (CUT_OFF, 100 - CUT_OFF))
    shown = (values - black) * (255 / max(white - black, 1e-9))
    return Image.fromarray(shown.round().clip(0, 255).astype(np.uint8)).convert("RGB")


def legend(seen: Iterable[str], classes: Sequence[str]) -> dict[str, Colour]:
    """The colours of the classes that are seen, in class order."""
    seen = set(seen)
    return {name: colour_of(name, classes) for name in classes if name in seen}


def contact_sheet(
    rows: Sequence[Sequence[Image.Image]], captions: Sequence[str], colours: dict[str, Colour], columns: int = 4
) -> Image.Image:
    """Lay groups of images side by side, `columns` groups to a line, under a legend of `colours`.

    Every image stands in the middle of a cell that holds the largest.
    """
    cells, per_group = [cell for row in rows for cell in row], max(map(len, rows))
    cell_width, cell_height = max(cell.width for cell in cells), max(cell.height for cell in cells)
    group_width, line_height = per_group * cell_width + (per_group - 1) * 1 + 2 * GAP, cell_height + CAPTION + GAP
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
            x, y = (cell_width - cell.width) // 2, (cell_height - cell.height) // 2
            sheet.paste(cell, (left + j * (cell_width + 1) + x, top + CAPTION + y))
    return sheet


def _places(widths: Sequence[int], line_width: int) -> tuple[list[tuple[int, int]], int]:
    """Place entries, x and y, on lines of `line_width`; return their places and the height of all lines."""
    places, x, y = [], GAP, 0
    for width in widths:
        if x > GAP and x + width > line_width:
            x, y = GAP, y + CAPTION
        places.append((x, y))
        x += width
    return places, y + CAPTION


def _plain(text: str) -> str:
    """Strip accents, which Pillow's own font cannot show."""
    return unicodedata.normalize("NFKD", text.replace("ß", "ss")).encode("ascii", "ignore").decode()
