"""What makes a figure hard to compare: the warnings, in the order in which docs/evaluation.md explains them."""

from collections.abc import Iterator

from .image_set import ImageSet

LOSSY = ("JPEG", "WEBP", "JPEG2000")


def of_set(images: ImageSet, enough: int) -> Iterator[str]:
    """One set of images that were looked at; `enough` are those under which a distance of its features is biased."""
    N = len(images.looks)
    if 0 < N < enough:
        yield f"{images.path}: {N:,} images, under {enough:,}, bias a Frechet distance upwards: compare equal counts"
    if len(set(images.runs.values())) > 1:
        yield f"{images.path}: its runs hold different numbers of images: is one of them not finished?"
    if copies := N - len({look.digest for look in images.looks}):
        yield f"{images.path}: {copies} of its {N} images are copies of others, byte for byte"


def of_both(samples: ImageSet, reference: ImageSet, image_size: int | None) -> Iterator[str]:
    """What differs between the two sides."""
    if not (samples.looks and reference.looks):
        return
    formats = [sorted({look.format for look in side.looks}) for side in (samples, reference)]
    lossy = [sum(look.format in LOSSY for look in side.looks) / len(side.looks) for side in (samples, reference)]
    if lossy[0] != lossy[1]:
        yield (
            f"samples are {'/'.join(formats[0])}, the reference {'/'.join(formats[1])}: lossy compression alone moves "
            "figures: save both alike"
        )
    sizes = [set(samples.sizes), set(reference.sizes)]
    if sizes[0] != sizes[1] or (not image_size and len(sizes[0]) > 1):
        what = f"all are resized to {image_size}" if image_size else "--image_size N resizes all to N x N first"
        yield (
            f"the images are of several sizes (samples {_listed(sizes[0])}; reference {_listed(sizes[1])}), which "
            f"changes figures; {what}, and --reference val takes real pictures as the model saw them"
        )
    elif image_size and sizes[0] != {f"{image_size}x{image_size}"}:
        yield f"all images are resized from {_listed(sizes[0])} to {image_size}x{image_size}, which changes figures"
    grey = [all(look.grey for look in side.looks) for side in (samples, reference)]
    if grey[0] != grey[1]:
        yield f"one side is grey ({'samples' if grey[0] else 'reference'}), the other is not"
    shared = {look.digest for look in samples.looks} & {look.digest for look in reference.looks}
    if shared and samples.path != reference.path:
        yield f"{len(shared)} images are on both sides, byte for byte: do the samples hold real pictures?"


def of_inception(samples: ImageSet) -> Iterator[str]:
    """What Inception was not made for."""
    if samples.looks and all(look.grey for look in samples.looks):
        yield (
            "grey pictures, repeated over three channels: Inception learnt colour photographs of ImageNet; "
            "--features trained:FILE measures with features of the data themselves"
        )


def _listed(names) -> str:
    names = sorted(names)
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
