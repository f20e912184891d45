"""Several data sets as one: their names united, their pictures under names that do not collide."""

import json
import shutil
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path

from .annotations import AnnotationError, ImageRecord, Vocabulary
from .exports import EXPORTS, OWN_FOLDER, LabelledSet
from .formats.files import composed, copy_image
from .provenance import read_provenance


@dataclass(frozen=True)
class Known:
    """What one set says of names: all that it has, in its order, and which of them it shows as classes and products.

    Its products are `stated` where the format names them, else found by their covering whole pictures.
    """

    where: str
    names: Sequence[str]
    shown: Vocabulary
    stated: bool


@dataclass(frozen=True)
class Origin:
    """Pictures of one split that come from one place: "real" or "synthetic"."""

    name: str
    records: Sequence[ImageRecord]


Splits = dict[str, list[Origin]]  # "train" and "val"


def united(sets: Sequence[Known]) -> Vocabulary:
    """The names of all sets, those of the first in its order, then others; AnnotationError where two contradict."""
    products: dict[str, str] = {}
    classes: dict[str, str] = {}
    for known in sets:
        for name in known.shown.products:
            if name not in classes:
                products.setdefault(name, known.where)
            elif known.stated:
                raise AnnotationError(_contradiction(name, known.where, classes[name]))
        for name in known.shown.classes:
            if name in products:
                raise AnnotationError(_contradiction(name, products[name], known.where))
            classes.setdefault(name, known.where)
    seen: dict[str, str] = {}
    spelt: dict[str, str] = {}
    for known in sets:
        for name in dict.fromkeys([*known.names, *known.shown.products]):
            like = spelt.setdefault(_plain(name), name)
            if name not in seen and like != name and seen[like] != known.where:
                raise AnnotationError(
                    f"{name!r} of {known.where} and {like!r} of {seen[like]} differ in little; "
                    f'--class_map "{name}={like}" reads them as one'
                )
            seen.setdefault(name, known.where)
    return Vocabulary(
        tuple(dict.fromkeys(name for known in sets for name in known.names if name not in products)), tuple(products)
    )


def file_names(origins: Sequence[Origin]) -> dict[Path, str]:
    """The pictures' names in one folder, by their paths: their own, or where the stem is taken already a new one.

    AnnotationError for a picture that two origins have.
    """
    names: dict[Path, str] = {}
    own = {_folded(record.stem) for origin in origins for record in origin.records}
    taken: set[str] = set()
    for origin in origins:
        for record in origin.records:
            if record.path in names:
                raise AnnotationError(f"{record.path}: is in the {origin.name} data and in others, too")
            ending = "" if origin is origins[0] else f"_{origin.name}"
            others = (f"{record.stem}{ending}" + (f"_{n}" if n > 1 else "") for n in count(1 if ending else 2))
            free = (stem for stem in others if _folded(stem) not in taken and _folded(stem) not in own)
            stem = next(free) if _folded(record.stem) in taken else record.stem
            taken.add(_folded(stem))
            names[record.path] = stem + record.path.suffix
    return names


def write_split(
    fmt: str, folder: Path, split: str, origins: Sequence[Origin], vocabulary: Vocabulary
) -> list[tuple[str, Path, Path]]:
    """Copies the pictures of a split into a data set and labels them there: (origin, where from, where to) of each."""
    names = file_names(origins)
    there: dict[Path, Path] = {}

    def place(image: Path, target: Path) -> Path:
        there[image] = copy_image(image, target, names[image])
        return there[image]

    records = [record for origin in origins for record in origin.records]
    data = LabelledSet(records, vocabulary, split, split)
    EXPORTS[fmt](data, folder / split if fmt in OWN_FOLDER else folder, place)
    return [(origin.name, record.path, there[record.path]) for origin in origins for record in origin.records]


def write_set(fmt: str, out: Path, splits: Splits, vocabulary: Vocabulary) -> None:
    """Write the data set and its manifest, in a neighbouring folder that takes the name `out` when all is there."""
    partial = out.with_name(f".{out.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    partial.mkdir(parents=True)
    lines = []
    for split, origins in splits.items():
        if any(origin.records for origin in origins):
            for origin, source, copy in write_split(fmt, partial, split, origins, vocabulary):
                entry = {"file": copy.relative_to(partial).as_posix(), "split": split, "origin": origin}
                entry |= {"copied_from": str(source.resolve())}
                told = read_provenance(copy) if origin == "synthetic" else None
                lines.append(json.dumps({**entry, **({"provenance": told} if told else {})}) + "\n")
    (partial / "manifest.jsonl").write_text("".join(lines), encoding="utf-8")
    if out.is_dir():
        out.rmdir()
    partial.rename(out)


def show_counts(splits: Splits, vocabulary: Vocabulary) -> None:
    """Print the images and the boxes of each class, by origin."""
    columns = [(f"{split} {origin.name}", origin.records) for split, origins in splits.items() for origin in origins]
    counts = [Counter(n for r in records for n in (r.product, *(b.label for b in r.boxes))) for _, records in columns]
    rows: list[tuple[str, Sequence[object]]] = [
        ("", [name for name, _ in columns]),
        ("pictures", [len(records) for _, records in columns]),
        ("without boxes", [sum(not r.boxes for r in records) for _, records in columns]),
        *((name, [c[name] for c in counts]) for name in vocabulary.classes),
        *((f"product {name}", [c[name] for c in counts]) for name in vocabulary.products),
    ]
    for name, values in rows:
        print(f"{name:24s}" + "".join(f"{value:>17}" for value in values))


def check_tags(product_tags: Sequence[str], sets: Sequence[Known]) -> None:
    there = dict.fromkeys(name for known in sets for name in known.names)
    for tag in product_tags:
        if tag not in there:
            raise ValueError(f"--product_tags {tag}: no such tag; tags: {', '.join(there) or 'none'}")


def _contradiction(name: str, product_in: str, class_in: str) -> str:
    hint = f"--product_tags without {name}, or --class_map {name}=NAME"
    return f"{name!r} is a product in {product_in}, but in {class_in} a class of objects; {hint}"


def _folded(name: str) -> str:
    """As file systems compare that know no case."""
    return composed(name).casefold()


def _plain(name: str) -> str:
    return "".join(letter for letter in _folded(name) if letter.isalnum()) or name
