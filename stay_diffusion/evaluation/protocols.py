"""The literature's protocols: how many images of which layouts, and how large; anything else is refused."""

from collections import Counter
from dataclasses import dataclass
from pathlib import Path

from .comparison import Comparison
from .groups import all_groups


@dataclass(frozen=True)
class Protocol:
    """The conditions under which figures compare. `layouts` 0 is any number; sides are the images' shorter ones.

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


def check(comparison: Comparison) -> None:
    """Raise ValueError, in one line, where the images are not those of --protocol."""
    options, samples, reference = comparison.options, comparison.samples, comparison.given_reference
    protocol, folder = PROTOCOLS[options.protocol], Path(options.samples)
    groups = all_groups(folder) if folder.is_dir() else []
    problems = []
    counts = Counter(len(images) for _, images in groups)
    if protocol.layouts and len(groups) != protocol.layouts:
        problems.append(f"{len(groups):,} layouts instead of {protocol.layouts:,}")
    if set(counts) != {protocol.per_layout}:
        found = ", ".join(f"{number:,} layouts have {images}" for images, number in sorted(counts.items())) or "none"
        problems.append(f"{protocol.per_layout} images of each layout are wanted ({found})")
    size = options.image_size
    for side, name in ((samples, "samples"), (reference, "reference")):
        looks = side.looks if side else ()
        other = {f"{look.width}x{look.height}" for look in looks if min(look.width, look.height) != protocol.side}
        if other and size != protocol.side:
            problems.append(f"{name} of {sorted(other)[0]} instead of {protocol.side} pixels")
    if protocol.reference and reference and len(reference.items) != protocol.reference:
        problems.append(f"a reference of {len(reference.items):,} images instead of {protocol.reference:,}")
    if size not in (0, protocol.side):
        problems.append(f"--image_size {size}")
    if problems:
        raise ValueError(f"--protocol {options.protocol} ({protocol.source}): {'; '.join(problems)}")
