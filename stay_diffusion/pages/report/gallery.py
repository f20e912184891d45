"""Every picture that a report shows, each file read once and kept only as what the page holds of it."""

from collections import defaultdict
from collections.abc import Sequence
from typing import NamedTuple

from ...data.images import ImageError
from .pictures import (
    CROP_BYTES,
    CROPS_BYTES,
    WHOLE_BYTES,
    WHOLES_BYTES,
    Embedded,
    crop_around,
    pixels,
    read_small,
    share,
    whole,
)
from .results import Result, Results
from .sheets import Sheet, Shown

THUMBNAIL = 256


class Gallery(NamedTuple):
    """Whole pictures and thumbnails by index, crops by index and place of the box, training crops by index.

    A training picture that cannot be read is None.
    """

    wholes: dict[int, Embedded]
    thumbnails: dict[int, Embedded]
    crops: dict[tuple[int, int], Embedded]
    originals: dict[int, Embedded | None]


def gallery_of(
    results: Results, sheets: Sequence[Sheet], pairs: Sequence[Shown], thumbnails: Sequence[Result]
) -> Gallery:
    """Raises ImageError where a sample cannot be read."""
    crops = {*(shown for sheet in sheets for group in sheet.groups.values() for shown in group), *pairs}
    by_picture: dict[int, list[Shown]] = defaultdict(list)
    for shown in crops:
        by_picture[shown.result.index].append(shown)
    crop_bytes = share(CROPS_BYTES, len(crops) + len(pairs) + len(thumbnails), CROP_BYTES)
    whole_bytes = share(WHOLES_BYTES, len(by_picture), WHOLE_BYTES)

    found = Gallery({}, {}, {}, {})
    for index, boxes in sorted(by_picture.items()):
        image = read_small(boxes[0].result.file, results.value_range)
        found.wholes[index] = whole(image, most_bytes=whole_bytes)
        for shown in boxes:
            found.crops[index, shown.place] = crop_around(image, pixels(shown.asked.box, image), crop_bytes)
    for result in thumbnails:
        image = read_small(result.file, results.value_range)
        found.thumbnails[result.index] = whole(image, THUMBNAIL, crop_bytes)
    for shown in pairs:
        nearest = shown.result.nearest
        assert nearest is not None
        try:
            original = crop_around(read_small(nearest.file, results.value_range), nearest.box, crop_bytes)
        except ImageError:  # a data set may have moved since
            original = None
        found.originals[shown.result.index] = original
    return found
