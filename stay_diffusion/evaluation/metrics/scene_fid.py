"""SceneFID: the Frechet distance between the objects of two sets, each cut out of its picture; lower is nearer.

python evaluations/scene_fid.py --reference REAL --samples GENERATED

arXiv 2003.07449. Every box is cut out as it is, clipped to its picture, and resized to --crop_size squared (bicubic, by
default 224, as LAMA's code has it); what the network sees is then resized as for FID.
"""

import hashlib
from dataclasses import replace

from ..image_set import Cut, ImageSet, Look

LEAST_PIXELS = 1  # each way, of a box that is cut out


def object_cuts(images: ImageSet, size: int, around: bool = False) -> ImageSet:
    """The objects of images that were looked at and whose objects are known, as a set of `size` x `size` images.

    With `around` they are cut out as the quality gate cuts them, with what is around them.

    Boxes of less than a pixel each way within their picture are left out. ValueError where fewer than 2 remain.
    """
    assert images.objects is not None and len(images.looks) == len(images.items)
    items, looks, objects = [], [], []
    for item, look, boxes in zip(images.items, images.looks, images.objects, strict=True):
        for box in boxes:
            x0, y0, x1, y1 = (min(max(edge, 0.0), 1.0) for edge in box.edges)
            if min((x1 - x0) * look.width, (y1 - y0) * look.height) >= LEAST_PIXELS:
                digest = hashlib.sha256(f"{look.digest} {x0} {y0} {x1} {y1} {size} {around}".encode()).hexdigest()
                items.append(Cut(item, (x0, y0, x1, y1), size, around))
                looks.append(Look(digest, look.format, size, size, look.grey))
                objects.append((box,))
    if len(items) < 2:
        raise ValueError(f"{images.path}: {len(items)} objects in {len(images.items)} pictures, a distance needs 2")
    sizes = {f"{size}x{size}": len(items)}
    return replace(
        images,
        path=f"{images.path} (objects)",
        items=items,
        looks=tuple(looks),
        objects=tuple(objects),
        products=None,
        sizes=sizes,
    )
