"""A folder of pictures without annotations; the product is what precedes the first underscore of a file's name."""

from pathlib import Path

from stay_diffusion.data.annotations import AnnotationError, ImageRecord
from stay_diffusion.data.formats.plain_boxes import reading
from stay_diffusion.data.images import IMAGE_SUFFIXES, find_pictures
from stay_diffusion.data.problems import Problem


def read(
    folder: Path, image_dir: Path | None = None, problems: list[Problem] | None = None
) -> tuple[list[ImageRecord], list[str]]:
    """Every picture below `folder`, in the order of their paths, and the product names in theirs."""
    if image_dir is not None:
        raise AnnotationError(f"--image_dir {image_dir}: --dataset_mode images has its pictures in --data_dir")
    with reading(folder, problems):
        paths = find_pictures(Path(folder))
        if not paths:
            raise AnnotationError(f"{folder}: no pictures in it ({', '.join(sorted(IMAGE_SUFFIXES))})")
    records = [ImageRecord(path, 0, 0, product=_product(path.stem)) for path in paths]
    return records, sorted({record.product for record in records if record.product})


def _product(stem: str) -> str | None:
    prefix, underscore, _ = stem.partition("_")
    return prefix if underscore and prefix else None
