"""The literature's protocols: how many images of which layouts, and how large; anything else is refused."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from .image_set import ImageSet
from .metrics.diversity import Group


@dataclass(frozen=True)
class Protocol:
    """What a figure is comparable under. `layouts` 0 is any number; sides are the images' shorter ones.

    `lpips_compat` is the mode in which LPIPS is taken, `metrics` are those of the papers.
    """

    source: str
    metrics: tuple[str, ...]
    per_layout: int
    side: int
    layouts: int = 0
    reference: int = 0
    lpips_compat: str = ""


PROTOCOLS: dict[str, Protocol] = {
    # COCO-Stuff's 2017 segmentation challenge split, filtered: 3,097 validation images.
    "layoutdiffusion": Protocol("arXiv 2303.17189", ("fid", "is", "lpips"), 5, 256, layouts=3097, reference=3097),
    "lostgan": Protocol("arXiv 2003.11571", ("fid", "is", "lpips"), 5, 128, layouts=3097, reference=3097),
    "sdm": Protocol("arXiv 2207.00050", ("lpips",), 10, 256, lpips_compat="sdm"),
}


def check(name: str, samples: ImageSet, reference: ImageSet | None, groups: Sequence[Group], image_size: int) -> None:
    """ValueError, in one line, where the images are not those that the protocol wants."""
    wanted = PROTOCOLS[name]
    problems = []
    counts = Counter(len(images) for _, images in groups)
    if wanted.layouts and len(groups) != wanted.layouts:
        problems.append(f"{len(groups):,} layouts instead of {wanted.layouts:,}")
    if set(counts) != {wanted.per_layout}:
        found = ", ".join(f"{number:,} layouts have {images}" for images, number in sorted(counts.items())) or "none"
        problems.append(f"{wanted.per_layout} images of each layout are wanted ({found})")
    for side, what in ((samples, "samples"), (reference, "reference")):
        other = {f"{x.width}x{x.height}" for x in (side.looks if side else ()) if min(x.width, x.height) != wanted.side}
        if other and image_size != wanted.side:
            problems.append(f"{what} of {sorted(other)[0]} instead of {wanted.side} pixels")
    if wanted.reference and reference and len(reference.items) != wanted.reference:
        problems.append(f"a reference of {len(reference.items):,} images instead of {wanted.reference:,}")
    if image_size not in (0, wanted.side):
        problems.append(f"--image_size {image_size}")
    if problems:
        raise ValueError(f"--protocol {name} ({wanted.source}): {'; '.join(problems)}")
