"""A folder of pictures without annotations; the product is what precedes the first underscore of a file's name."""

from pathlib import Path

from ..annotations import AnnotationError, ImageRecord
from ..images import IMAGE_SUFFIXES, find_pictures, visible
from ..problems import LEFT_OUT, Problem
from .plain_boxes import reading

# Without annotations, nothing else would tell that such pictures are missing.
OTHER_SUFFIXES = (".gif", ".heic", ".heif", ".avif", ".jfif", ".jpe", ".jp2", ".ppm", ".pgm", ".dng", ".raw", ".nef")


def read(
    folder: Path, image_dir: Path | None = None, problems: list[Problem] | None = None
) -> tuple[list[ImageRecord], list[str]]:
    """Every picture below `folder`, in the order of their paths, and the product names in theirs.

    Pictures of formats that are not read are added to `problems` as left out, or without it logged.
    """
    if image_dir is not None:
        raise AnnotationError(f"--image_dir {image_dir}: --dataset_mode images has its pictures in --data_dir")
    with reading(folder, problems) as found:
        paths = find_pictures(Path(folder))
        suffixes = ", ".join(sorted(IMAGE_SUFFIXES))
        for path in sorted(path for path in visible(Path(folder)) if path.suffix.lower() in OTHER_SUFFIXES):
            found.append(Problem(str(path), "pictures of other formats", f"read are {suffixes}", LEFT_OUT))
        if not paths:
            raise AnnotationError(f"{folder}: no pictures in it ({suffixes})")
    records = [ImageRecord(path, 0, 0, product=_product(path.stem)) for path in paths]
    return records, sorted({record.product for record in records if record.product})


def _product(stem: str) -> str | None:
    prefix, underscore, _ = stem.partition("_")
    return prefix if underscore and prefix else None
