"""Files of annotation formats: found, named, read, replaced."""

import json
import os
import re
import shutil
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from ..annotations import AnnotationError, ImageRecord
from ..images import IMAGE_SUFFIXES, find_pictures, visible
from .plain_boxes import as_name

CLASSES = "classes.txt"  # one name per line, in the order of the data set

NULLS = ("", "~", "null")  # YAML's ways to say nothing

Index = dict[str, list[Path]]  # stem, as `composed` -> every picture with it
YamlValue = str | list | dict  # of texts and further values


def check_image_dir(image_dir: Path | None) -> None:
    if image_dir is not None and not Path(image_dir).is_dir():
        raise AnnotationError(f"--image_dir {image_dir}: no such folder")


def composed(name: str) -> str:
    """The name as it compares: Macs take an umlaut apart into letter and dots, in file names and zip files."""
    return unicodedata.normalize("NFC", name)


def leads_out(path: str | Path, *folders: Path | None) -> bool:
    """Whether a path, links not followed, is in none of `folders`: a data set must not reach for others' pictures."""
    place = os.path.join(os.path.abspath(path), "")
    return not any(folder and place.startswith(os.path.join(os.path.abspath(folder), "")) for folder in folders)


def visible_files(folder: Path, ending: str | tuple[str, ...] = "") -> list[Path]:
    """Every file below `folder` in order, linked folders followed once; not hidden ones, such as a Mac's ._NAME.

    Only those whose names end so: of a folder with a hundred thousand pictures the others are never looked at.
    """
    return sorted(path for path in visible(folder, ending) if path.is_file())


def images_by_stem(folder: Path, below: bool) -> Index:
    """The pictures in a folder, and `below` it in its sub-folders, by the name without suffix."""
    index: Index = defaultdict(list)
    for path in find_pictures(folder) if below else sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".") and not path.is_dir():
            index[composed(path.stem)].append(path)
    return index


def read_text(file: Path) -> str:
    try:
        text = file.read_bytes().decode("utf-8-sig")  # quicker than Path.read_text where there are hundreds of MB
        return text.replace("\r\n", "\n").replace("\r", "\n") if "\r" in text else text
    except (OSError, ValueError) as error:
        raise AnnotationError(f"{file}: cannot be read as text ({error})") from error


def read_lines(file: Path) -> list[str]:
    # Not splitlines(): the names of files may have the rarer line breaks.
    return [line.removesuffix("\r") for line in read_text(file).split("\n")]


def read_json(file: Path, name: str = "", made: Callable[[dict], dict] | None = None) -> object:
    """What a JSON file holds; AnnotationError where an entry of one object is there twice.

    Objects with an entry `name` are replaced by what is `made` of them as soon as they are read: what that leaves out
    never adds up in memory.
    """

    def entry(pairs: list[tuple[str, object]]) -> dict:
        found = dict(pairs)
        if len(found) != len(pairs):
            names = [each for each, _ in pairs]
            twice = next(each for i, each in enumerate(names) if each in names[:i])
            raise ValueError(f"one entry has {twice!r:.80} twice")
        return made(found) if made and name in found else found

    text = read_text(file)
    try:
        return json.loads(text, object_pairs_hook=entry)
    except (ValueError, RecursionError) as error:
        raise AnnotationError(f"{file}: cannot be read as JSON ({error})") from error


def read_names(file: Path) -> list[str]:
    """The names in a list of classes, one per line; none where there is no such file."""
    lines = read_lines(file) if file.is_file() else []
    while lines and not lines[-1].strip():
        lines.pop()
    return [line.strip() for line in lines]


def read_yaml(file: Path) -> dict[str, YamlValue]:
    """What the keys of a yaml hold, every scalar as text, without those that hold nothing.

    Raises AnnotationError that names the line where it is not YAML or has a key twice.
    """
    import yaml

    text = read_text(file)
    try:
        tree, values = (parse(text, Loader=yaml.BaseLoader) for parse in (yaml.compose, yaml.load))
    except yaml.MarkedYAMLError as error:
        line = error.problem_mark.line + 1 if error.problem_mark else 1
        raise AnnotationError(f"{file}, line {line}: not understood: {error.problem}") from error
    except yaml.reader.ReaderError as error:
        line = text.count("\n", 0, error.position) + 1
        raise AnnotationError(f"{file}, line {line}: not understood: {error.reason}") from error
    except (RecursionError, ValueError, OverflowError) as error:  # from deep nesting and escapes beyond Unicode
        raise AnnotationError(f"{file}: not understood ({error})") from error
    if not isinstance(values, dict):
        raise AnnotationError(f"{file}: has no keys with values, such as names")
    assert isinstance(tree, yaml.MappingNode)
    for node in (tree, *(value for _, value in tree.value)):
        seen = set()
        for key, _ in node.value if isinstance(node, yaml.MappingNode) else ():
            if key.value in seen:
                raise AnnotationError(f"{file}, line {key.start_mark.line + 1}: {key.value} is there twice")
            seen.add(key.value)
    return {key: value for key, value in values.items() if value not in NULLS}


def names_by_index(file: Path, value: YamlValue | None) -> dict[int, str]:
    """The class names of a yaml, a list or a map of indexes."""
    if not isinstance(value, list | dict):
        raise AnnotationError(f"{file}: names is neither a list nor a map of indexes")
    pairs = []
    for key, text in value.items() if isinstance(value, dict) else enumerate(value):
        name = as_name(text)
        if name is None:
            raise AnnotationError(f"{file}: names has no single name for {key}")
        if not re.fullmatch("[0-9]{1,9}", str(key)):
            raise AnnotationError(f"{file}: names has the index {key!r} for {name!r}; indexes are whole numbers")
        pairs.append((int(key), name))
    return names_once(file, pairs)


def names_once(file: Path, pairs: Sequence[tuple[int, str]]) -> dict[int, str]:
    """index -> name; AnnotationError where one or the other is there twice."""
    for things in ([index for index, _ in pairs], [name for _, name in pairs]):
        if len(set(things)) != len(things):
            twice = next(thing for i, thing in enumerate(things) if thing in things[:i])
            raise AnnotationError(f"{file}: names has {twice!r} twice")
    return dict(pairs)


def check_names(folder: Path, names: Sequence[str]) -> list[str]:
    """`names` without repetitions; AnnotationError for those that one line of text cannot hold."""
    for name in names:
        if name != as_name(name):
            raise AnnotationError(
                f"{folder}: {name!r} cannot be written: empty, a blank at an end or a control character"
            )
    return list(dict.fromkeys(names))


def check_stems(folder: Path, records: Sequence[ImageRecord]) -> None:
    """AnnotationError for two records of one stem and for names of pictures that one line of text cannot hold."""
    check_names(folder, [record.path.name for record in records])
    stems: dict[str, Path] = {}
    for record in records:
        if record.stem in stems:
            first = stems[record.stem]
            raise AnnotationError(f"{folder}: {first} and {record.path} need the same file; rename one of them")
        stems[record.stem] = record.path


def copy_image(image: Path, folder: Path, name: str = "") -> Path:
    """Where a copy of `image` now is in `folder`, complete or not at all; `name` if it is to have another there."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{image.name}.tmp"
    try:
        shutil.copyfile(image, partial)
        return partial.replace(folder / (name or image.name))
    finally:
        partial.unlink(missing_ok=True)


def link_image(image: Path, folder: Path) -> Path:
    """Where `image` now is in `folder` too: another name of the same file, a copy where the file system has none."""
    folder.mkdir(parents=True, exist_ok=True)
    partial = folder / f".{image.name}.tmp"
    partial.unlink(missing_ok=True)
    try:
        os.link(os.path.realpath(image), partial)
    except OSError:
        return copy_image(image, folder)
    try:
        return partial.replace(folder / image.name)
    finally:
        partial.unlink(missing_ok=True)  # renaming one name of a file to another of its names does nothing at all


def replace_file(path: Path, text: str) -> None:
    """Writes `path` complete or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        partial.write_text(text, encoding="utf-8", newline="\n")
        os.replace(partial, path)
    finally:
        partial.unlink(missing_ok=True)
