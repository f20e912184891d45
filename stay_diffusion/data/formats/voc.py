"""Pascal VOC: one XML file per picture.

Coordinates are taken and written as they stand, x0 = xmin to x1 = xmax, as label tools and exports write them
(labelImg, VoTT, CVAT). The original devkit counts pixels from 1 and includes the last: its boxes come out smaller.
"""

from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path
from xml.etree import ElementTree

from ..annotations import AnnotationError, Box, ImageRecord
from ..images import ImageError, image_size
from ..problems import Problem
from .files import (
    CLASSES,
    Index,
    check_image_dir,
    check_names,
    check_stems,
    composed,
    copy_image,
    images_by_stem,
    read_names,
    replace_file,
    visible_files,
)
from .plain_boxes import UNREADABLE, as_name, box_fault, numbers, plain_number, reading, whole_size, with_product_drawn

ANNOTATIONS = "annotations"  # in any case, as the image folders
IMAGE_FOLDERS = ("images", "jpegimages", "img")

Place = tuple[Path, bool]  # a folder and whether what is below its folders counts


class Spoiled(ValueError):
    """One picture cannot be used; arguments are the kind of problem and its particulars."""


def read(
    folder: Path, image_dir: Path | None = None, problems: list[Problem] | None = None
) -> tuple[list[ImageRecord], list[str]]:
    """Every picture with an XML file below `folder` (or one XML file), in the order of the files; the class names.

    Where there are folders named Annotations, only the files in them count. A picture has its XML's stem and lies in
    `image_dir`, else in images, JPEGImages or img beside Annotations, else beside the XML; its header tells its size
    where `<size>` does not. A file without objects is a picture without defects. Names in classes.txt come first.
    What cannot be used is skipped and added to `problems`; without a list it is logged once per kind.
    Raises AnnotationError where no XML file is usable or two of them mean the same picture.
    """
    with reading(folder, problems) as found:
        return _read(Path(folder), image_dir, found)


def _read(folder: Path, image_dir: Path | None, found: list[Problem]) -> tuple[list[ImageRecord], list[str]]:
    check_image_dir(image_dir)
    files, index = _annotation_files(folder), cache(images_by_stem)
    places = {parent: _places(parent, image_dir) for parent in dict.fromkeys(file.parent for file in files)}
    records: list[ImageRecord] = []
    sources: dict[Path, Path] = {}
    for file in files:
        try:
            root = _parse(file)
            image = _find_image(file, {place: index(*place) for place in places[file.parent]})
            width, height = _size(root, image)
        except (Spoiled, ImageError) as error:
            kind, detail = error.args if isinstance(error, Spoiled) else (UNREADABLE, str(error))
            found.append(Problem(str(file), kind, detail, "image skipped"))
            continue
        if image in sources:
            raise AnnotationError(f"{image}: annotated twice, in {sources[image]} and in {file}; give one of the two")
        sources[image] = file
        records.append(ImageRecord(image, width, height, tuple(_boxes(root, width, height, file, found))))
    if not records:
        last = f"the last, {files[-1].name}: {found[-1].detail}"
        raise AnnotationError(f"{folder}: none of {len(files)} XML files is usable ({last})")
    found.extend(_unannotated(folder, files, [index(*place) for places in places.values() for place in places]))
    names = read_names(_home(files[0].parent)[0] / CLASSES)
    return records, list(dict.fromkeys([*names, *(box.label for record in records for box in record.boxes)]))


def write(folder: Path, records: Sequence[ImageRecord], tags: Sequence[str], *, copy_images: bool = False) -> None:
    """Annotations/STEM.xml for every record and classes.txt, each replaced as a whole; equal records give equal bytes.

    A record's product becomes a box over its whole image. With `copy_images` the pictures are put into JPEGImages,
    where other tools expect them; without, `read` needs their folder. Raises AnnotationError for two records of one
    stem, names that cannot be written and a folder with annotations of other pictures.
    """
    folder = Path(folder)
    records = [with_product_drawn(record) for record in records]
    check_stems(folder, records)
    names = check_names(folder, [*tags, *(box.label for record in records for box in record.boxes)])
    target = folder / "Annotations"
    stale = {path.stem for path in _xml_files(target)} - {record.stem for record in records}
    if stale:
        raise AnnotationError(f"{target}: already has annotations of other pictures, such as {min(stale)}.xml")
    target.mkdir(parents=True, exist_ok=True)
    for record in records:
        if copy_images:
            copy_image(record.path, folder / "JPEGImages")
        replace_file(target / f"{record.stem}.xml", _xml(record))
    replace_file(folder / CLASSES, "".join(f"{name}\n" for name in names))


def _annotation_files(folder: Path) -> list[Path]:
    if folder.is_file():
        return [folder]
    if not folder.is_dir():
        raise AnnotationError(f"{folder}: no such file or folder; give a folder with VOC's XML files")
    files = _xml_files(folder)
    if not files:
        raise AnnotationError(f"{folder}: no XML files found in it")
    return [file for file in files if _home(file.parent)[0] != file.parent] or files


def _xml_files(folder: Path) -> list[Path]:
    return [path for path in visible_files(folder) if path.suffix.lower() == ".xml"]


def _home(parent: Path) -> tuple[Path, Path]:
    """The folder in which the images' folder is looked for, and the sub-folder of Annotations that `parent` is."""
    for ancestor in (parent, *parent.parents):
        if ancestor.name.lower() == ANNOTATIONS:
            return ancestor.parent, parent.relative_to(ancestor)
    return parent, Path()


def _places(parent: Path, image_dir: Path | None) -> list[Place]:
    """Where the images of the XML files in `parent` may lie, the first choice first."""
    if image_dir is not None:
        return [(Path(image_dir), True)]
    home, _ = _home(parent)
    beside = sorted(path for path in home.iterdir() if path.name.lower() in IMAGE_FOLDERS and path.is_dir())
    return [*((path, True) for path in beside), (parent, False), *([(home, False)] if home != parent else [])]


def _find_image(file: Path, indexes: dict[Place, Index]) -> Path:
    for (root, _), index in indexes.items():
        images = index.get(composed(file.stem), [])
        same = [image for image in images if image.parent == root / _home(file.parent)[1]]
        if len(same or images) > 1:
            raise Spoiled("images that are not the only ones of their name", f"{images[0]} or {images[1]}")
        if images:
            return (same or images)[0]
    searched = " and ".join(str(root) for root, _ in indexes)
    raise Spoiled("XML files without an image", f"no image {file.stem} in {searched}")


def _unannotated(folder: Path, files: Sequence[Path], indexes: Sequence[Index]) -> Iterator[Problem]:
    stems = {composed(file.stem) for file in files}
    images = sorted({path for index in indexes for stem in index.keys() - stems for path in index[stem]})
    if images:
        detail = f"{len(images)}, the first {images[0]}"
        yield Problem(str(folder), "images without an XML file", detail, "left out")


def _parse(file: Path) -> ElementTree.Element:
    try:
        content = file.read_bytes()
        # Entities, external or growing without bounds, can only be declared in a DOCTYPE; NULs: it may be UTF-16.
        root = None if b"<!DOCTYPE" in content.replace(b"\0", b"") else ElementTree.fromstring(content)
    except (OSError, ElementTree.ParseError, LookupError, ValueError) as error:
        raise Spoiled("files that cannot be read as XML", str(error)) from error
    if root is None:
        raise Spoiled("XML files with a DOCTYPE", "VOC has none, and it may define entities")
    if root.tag != "annotation":
        raise Spoiled("XML files of another format", f"<{root.tag}> where VOC has <annotation>")
    return root


def _size(root: ElementTree.Element, image: Path) -> tuple[int, int]:
    """Width and height as stated, or from the image's header where they are missing or no whole positive numbers."""
    stated = numbers([root.findtext(f"size/{side}") for side in ("width", "height")])
    return whole_size(*stated) or image_size(image)


def _boxes(root: ElementTree.Element, width: int, height: int, file: Path, found: list[Problem]) -> Iterator[Box]:
    for i, element in enumerate(root.findall("object"), 1):
        name = as_name(element.findtext("name"))
        edges = element.find("bndbox")
        texts = [None if edges is None else edges.findtext(key) for key in ("xmin", "ymin", "xmax", "ymax")]
        x0, y0, x1, y1 = numbers(texts)
        fault = "objects without a name" if name is None else box_fault((x0, y0, x1, y1), width, height)
        if fault:
            found.append(Problem(str(file), fault, f"object {i} ({name}): {', '.join(map(str, texts))}", "box skipped"))
        elif name:
            yield Box(name, x0, y0, x1, y1)


def _xml(record: ImageRecord) -> str:
    def add(parent: ElementTree.Element, tag: str, text: object = None) -> ElementTree.Element:
        element = ElementTree.SubElement(parent, tag)
        element.text = None if text is None else str(text)
        return element

    root = ElementTree.Element("annotation")
    add(root, "filename", record.path.name)
    size = add(root, "size")
    for tag, value in (("width", record.width), ("height", record.height), ("depth", 3)):
        add(size, tag, value)  # depth is not read by anyone; VoTT, too, writes 3 for any image
    for box in record.boxes:
        element = add(root, "object")
        for tag, text in (("name", box.label), ("pose", "Unspecified"), ("truncated", 0), ("difficult", 0)):
            add(element, tag, text)
        bounds = add(element, "bndbox")
        for tag, edge in zip(("xmin", "ymin", "xmax", "ymax"), box.edges, strict=True):
            add(bounds, tag, plain_number(edge))
    ElementTree.indent(root)
    return ElementTree.tostring(root, encoding="unicode") + "\n"
