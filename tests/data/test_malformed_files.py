"""Annotation files and pictures as they should not be: each is refused in one line that names it, or read right."""

import io
import json
import os
import struct
import time
import unicodedata
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from reading import load_records

from stay_diffusion.data.annotations import AnnotationError
from stay_diffusion.data.checks import usable

SECONDS = 8  # for the slowest row on a busy machine; a quadratic loop takes minutes
MANY = 100_000
NFC, NFD = (unicodedata.normalize(form, "Löcher") for form in ("NFC", "NFD"))
SECRET = {"../secret.png": (20, 10)}  # a picture beside the data set's folder
SKIPPED, BOX, OUT = "image skipped", "box skipped", "left out"


class Refused(NamedTuple):
    """The whole data set is refused with a message that has the file's name and the phrase."""

    file: str
    phrase: str


class Read(NamedTuple):
    """The number of boxes of each picture that is kept; (part of the kind, action) of each problem."""

    kept: dict[str, int]
    problems: tuple[tuple[str, str], ...] = ()


def read(*problems, **kept) -> Read:
    return Read({f"{stem}.png": n for stem, n in kept.items()}, problems)


Content = str | bytes | dict | list | tuple[int, int] | Callable[[Path], object]
Row = tuple[str, dict[str, Content], Refused | Read]


def make(path: Path, content: Content) -> None:
    """A text, bytes, JSON, a picture of a size, or whatever a function makes there."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if isinstance(content, tuple):
        Image.new("L", content).save(path, format="png")
    elif callable(content):
        content(path)
    else:
        text = json.dumps(content) if isinstance(content, dict | list) else content
        path.write_bytes(text if isinstance(text, bytes) else text.encode())


def link(target: str) -> Callable[[Path], object]:
    return lambda path: path.symlink_to(target)


# --- VoTT's JSON: the picture b.png with one box beside whatever is the matter with a.png


def region(x=1, y=2, w=4, h=6, **fields):
    bounds = {"left": x, "top": y, "width": w, "height": h}
    return {"id": "r", "type": "RECTANGLE", "tags": ["Spots"], "boundingBox": bounds, "points": []} | fields


def asset(name="a.png", *regions, **fields):
    size, path = {"width": 20, "height": 10}, f"file:/on/another/computer/{name}"
    own = {"id": name, "name": name, "path": path, "size": size, "state": 2, "type": 1, "format": "png"}
    return {"asset": own | fields, "regions": list(regions or (region(),))}


def project(*entries, tags=("Spots",), **fields):
    listed = {str(i): entry for i, entry in enumerate([*entries, asset("b.png")])}
    return {"name": "x", "tags": [{"name": tag, "color": "#f00"} for tag in tags], "assets": listed} | fields


def vott(content=None, /, *entries, name="x-export.json", **files):
    content = project(*entries) if content is None else content
    return {"a.png": (20, 10), "b.png": (20, 10), name: content} | files


def regions(*drawn):
    return vott(None, asset("a.png", *drawn))


def named(on_disk, stated):
    """VoTT's export of a picture whose name on disk is not quite as stated."""
    return {on_disk: (20, 10), "b.png": (20, 10), "x-export.json": project(asset(stated))}


def tagged(*tags):
    return regions(region(), region(tags=list(tags)))


EXPORT = "x-export.json"
BOTH = read(a=1, b=1)
TEXT = json.dumps(project(asset()))
VOTT: dict[str, tuple[dict, Refused | Read]] = {
    "BOM": (vott(b"\xef\xbb\xbf" + TEXT.encode()), BOTH),
    "CRLF": (vott(json.dumps(project(asset()), indent=1).replace("\n", "\r\n")), BOTH),
    "UTF-16": (vott(TEXT.encode("utf-16")), Refused(EXPORT, "cannot be read as text")),
    "Latin-1": (vott(TEXT.replace("Spots", "L\xf6cher").encode("latin-1")), Refused(EXPORT, "cannot be read as text")),
    "empty": (vott(b""), Refused(EXPORT, "cannot be read as JSON")),
    "cut off": (vott(TEXT[:-9]), Refused(EXPORT, "cannot be read as JSON")),
    "a list": (vott([]), Refused(EXPORT, 'has no "assets"')),
    "null": (vott("null"), Refused(EXPORT, 'has no "assets"')),
    "assets as a list": (vott(project(assets=[])), Refused(EXPORT, 'has no "assets"')),
    "asset null": (vott(None, None), Refused(EXPORT, "not in VoTT's shape")),
    "entry without an asset": (vott(None, {"regions": []}), Refused(EXPORT, "not in VoTT's shape")),
    "name as a number": (vott(None, asset(name=5)), Refused(EXPORT, "not in VoTT's shape")),
    "name as a list": (vott(None, asset(name=["a.png"], type=2)), Refused(EXPORT, "not in VoTT's shape")),
    "region null": (regions(None), Refused(EXPORT, "not in VoTT's shape")),
    "no assets": (vott(project(assets={})), Refused("data", "no images for the train split")),
    "name twice in an entry": (vott(TEXT[:-1] + ', "assets": {}}'), Refused(EXPORT, "has 'assets' twice")),
    "10,000 brackets": (vott("[" * 10_000 + "]" * 10_000), Refused(EXPORT, "cannot be read as JSON")),
    "deep regions": (vott(TEXT.replace('"r"', "[" * 990 + "]" * 990)), Refused(EXPORT, "cannot be read as JSON")),
    "coordinate nan": (regions(region(w=float("nan"))), read(("without finite", BOX), a=0, b=1)),
    "coordinate infinite": (regions(region(x=float("-inf"))), read(("without finite", BOX), a=0, b=1)),
    "coordinate 1e400": (
        vott(TEXT.replace('"left": 1,', '"left": 1e400,', 1)), read(("without finite", BOX), a=0, b=1),
    ),
    "coordinate '12.5'": (regions(region(w="12.5")), read(("without finite", BOX), a=0, b=1)),
    "coordinate 'abc'": (regions(region(w="abc")), read(("without finite", BOX), a=0, b=1)),
    "coordinate true": (regions(region(w=True)), read(("without finite", BOX), a=0, b=1)),
    "coordinate null": (regions(region(w=None)), read(("without finite", BOX), a=0, b=1)),
    "coordinate of 310 digits": (regions(region(w=10**310)), read(("without finite", BOX), a=0, b=1)),
    "coordinate 1e308": (regions(region(x=-1e299, w=2e299)), read(("beyond any image", BOX), a=0, b=1)),
    "box of another shape": (regions(region(boundingBox=[1, 2])), read(("without finite", BOX), a=0, b=1)),
    "points null": (regions(region(points=[None])), read(("without finite", BOX), a=0, b=1)),
    "neither box nor points": (regions(region(boundingBox=None)), read(("without finite", BOX), a=0, b=1)),
    "negative width": (regions(region(w=-1)), read(("RECTANGLE regions without area", BOX), a=0, b=1)),
    "no height": (regions(region(h=0), region()), read(("without area", BOX), a=1, b=1)),
    "wholly outside": (regions(region(x=20)), read(("wholly outside", BOX), a=0, b=1)),
    "type of its own": (regions(region(type="x" * 99 + "\n", w=0)), read(("X regions without area", BOX), a=0, b=1)),
    "the same box twice": (regions(region(), region()), read(a=2, b=1)),
    "one tag twice": (tagged("Spots", " Spots"), read(a=2, b=1)),
    "tag empty": (tagged(""), read(("tags are no names", BOX), a=1, b=1)),
    "tag null": (tagged(None), read(("tags are no names", BOX), a=1, b=1)),
    "tag with a line break": (tagged("Sp\not"), read(("tags are no names", BOX), a=1, b=1)),
    "tag of half a letter": (tagged("\ud800"), read(("tags are no names", BOX), a=1, b=1)),
    "tags as a word": (regions(region(tags="Spots")), read(("tags are no names", BOX), a=0, b=1)),
    "no tags": (regions(region(tags=None)), read(("without a tag", BOX), a=0, b=1)),
    "class name empty": (vott(project(tags=("Spots", " "))), Refused(EXPORT, "a tag has the name ' '")),
    "class name null": (vott(project(tags=(None,))), Refused(EXPORT, "a tag has the name None")),
    "class name of two lines": (vott(project(tags=("a\nb",))), Refused(EXPORT, r"a tag has the name 'a\nb'")),
    "regions as a word": (vott(None, asset() | {"regions": "x"}), read(("regions are no list", SKIPPED), b=1)),
    "regions lost": (vott(None, asset() | {"regions": None}), read(("regions are missing", SKIPPED), b=1)),
    "good part": (vott(None, asset(state=1) | {"regions": []}), read(a=0, b=1)),
    "never looked at": (vott(None, asset(state=0) | {"regions": []}), read(("nobody has looked", OUT), b=1)),
    "state as a word": (vott(None, asset(state="0")), read(("unknown state", SKIPPED), b=1)),
    "type true": (vott(None, asset(type=True)), read(("unknown state or type", SKIPPED), b=1)),
    "size of words": (vott(None, asset(size={"width": "9", "height": 1})), BOTH),
    "size negative": (vott(None, asset(size={"width": -20, "height": 10})), BOTH),
    "size infinite": (vott(None, asset(size={"width": float("inf"), "height": 10})), BOTH),
    "size as a list": (vott(None, asset(size=[20, 10])), BOTH),
    "size of another picture": (
        vott(None, asset(size={"width": 10, "height": 20})), read(("another size", SKIPPED), b=1),
    ),
    "no size and no picture": (
        vott(None, asset(size=None), **{"a.png": "text"}), read(("cannot be read", SKIPPED), b=1),
    ),
    "one picture twice": (vott(None, asset(), asset()), Refused(EXPORT, "annotated twice")),
    "picture missing": (vott(None, asset("c.png")), read(("not found", SKIPPED), b=1)),
    "only missing pictures": ({EXPORT: project()}, Refused(EXPORT, "image b.png not found in")),
    "name with a blank and quotes": (
        named("it's \"a\" b.png", "it's \"a\" b.png"), read(**{"it's \"a\" b": 1, "b": 1}),
    ),
    "name percent-encoded": (named("a b.png", "a%20b.png"), read(**{"a b": 1, "b": 1})),
    "name composed, on disk not": (named(f"{NFD}.png", f"{NFC}.png"), read(**{NFD: 1, "b": 1})),
    "name decomposed, on disk not": (named(f"{NFC}.png", f"{NFD}.png"), read(**{NFC: 1, "b": 1})),
    "name with a line break": (named("a\nb.png", "a\nb.png"), read(**{"a\nb": 1, "b": 1})),
    "name with a line break, missing": (named("c.png", "a\nb.png"), read(("not found", SKIPPED), b=1)),
    "name of 5,000 letters": (named("c.png", "a" * 5000), read(("not found", SKIPPED), b=1)),
    "name with a zero byte": (named("c.png", "a\0.png"), read(("not found", SKIPPED), b=1)),
    "extension in upper case": (named("a.PNG", "a.png"), read(("not found", SKIPPED), b=1)),
    "path of Windows": (vott(None, asset(path="file:C:\\parts\\a.png", name="")), BOTH),
    "path upwards": (
        vott(None, asset("secret.png", path="file:../secret.png"), **SECRET), read(("not found", SKIPPED), b=1),
    ),
    "path upwards later": (
        vott(None, asset("secret.png", path="file:a/..%2f../secret.png"), **SECRET), read(("not found", SKIPPED), b=1),
    ),
    "name upwards": (vott(None, asset("../secret.png"), **SECRET), read(("not found", SKIPPED), b=1)),
    "linked folder": (
        {"../other/a.png": (20, 10), "pictures": link("../other"), "b.png": (20, 10), EXPORT: project(asset())}, BOTH,
    ),
    "linked in a circle": (vott(None, asset(), up=link("."), loop=link("loop")), BOTH),
    "hidden file": (vott(None, asset(), **{"._x-export.json": b"\0\5\x16\7"}), BOTH),
    "empty folder": ({"note.txt": ""}, Refused("data", "no VoTT export")),
    "100,000 boxes": (regions(*[region()] * MANY), read(a=MANY, b=1)),
    "9,999 broken boxes": (regions(*[region(w=0)] * 9999), read(*[("without area", BOX)] * 9999, a=0, b=1)),
}  # fmt: skip


# --- a VoTT project: a.png has its regions in a file of its own


def folder(own, **fields):
    listed = {name: asset(f"{name}.png", **fields)["asset"] | {"id": name, "name": f"{name}.png"} for name in "ab"}
    own = {f"{name}-asset.json": content for name, content in (("b", asset("b.png")), ("a", own)) if content}
    return {"a.png": (20, 10), "b.png": (20, 10), "x.vott": {"tags": [], "assets": listed}} | own


PROJECT = {
    "right": (folder(asset()), BOTH),
    "file of regions lost": (folder(None), read(("regions are missing", SKIPPED), b=1)),
    "file of regions empty": (folder(asset() | {"regions": []}), read(("regions are missing", SKIPPED), b=1)),
    "file of regions cut off": (folder(TEXT[:50]), Refused("a-asset.json", "cannot be read as JSON")),
    "file of regions a list": (folder([1]), Refused("a-asset.json", 'has no "asset"')),
    "id upwards": (
        {"x.vott": {"assets": {"a": {"id": "../a", "name": "a.png"}}}}, Refused("x.vott", "is no name of a file"),
    ),
    "id a number": ({"x.vott": {"assets": {"a": {"name": "a.png"}}}}, Refused("x.vott", "not in VoTT's shape")),
}  # fmt: skip


# --- COCO


def image(key=1, file_name="a.png", **fields):
    return {"id": key, "file_name": file_name, "width": 20, "height": 10} | fields


IMAGE = image()


def annotation(bbox=(1, 2, 4, 6), **fields):
    return {"id": 1, "image_id": 1, "category_id": 7, "bbox": bbox, "iscrowd": 0, "segmentation": [[1, 2]]} | fields


def coco(*annotations, images=(IMAGE,), categories=((7, "Spots"),), text=None, **files):
    content = {
        "images": [*images, image(2, "b.png")],
        "annotations": [*annotations, annotation(id=2, image_id=2)],
        "categories": [{"id": key, "name": name} for key, name in categories],
    }
    return {"a.png": (20, 10), "b.png": (20, 10), "x.json": content if text is None else text} | files


def coco_named(on_disk, stated):
    return coco(annotation(), images=[image(1, stated)], **{on_disk: (20, 10)})


COCO_TEXT = json.dumps(coco(annotation())["x.json"])
COCO = {
    "BOM": (coco(text=b"\xef\xbb\xbf" + COCO_TEXT.encode()), BOTH),
    "UTF-16": (coco(text=COCO_TEXT.encode("utf-16")), Refused("x.json", "cannot be read as text")),
    "empty": (coco(text=b""), Refused("x.json", "cannot be read as JSON")),
    "cut off": (coco(text=COCO_TEXT[:-9]), Refused("x.json", "cannot be read as JSON")),
    "a list": (coco(text=[]), Refused("x.json", 'no list "images"')),
    "no categories": (coco(text={"images": [], "annotations": []}), Refused("x.json", 'no list "categories"')),
    "name twice in an entry": (
        coco(text=COCO_TEXT.replace('"id": 1,', '"id": 1, "id": 3,', 1)), Refused("x.json", "'id' twice"),
    ),
    "10,000 brackets": (coco(text="[" * 10_000), Refused("x.json", "cannot be read as JSON")),
    "number of 5,000 digits": (
        coco(text=COCO_TEXT.replace("20", "2" * 5000, 1)), Refused("x.json", "cannot be read as JSON"),
    ),
    "nan": (coco(annotation([1, 2, float("nan"), 6])), read(("without finite", BOX), a=0, b=1)),
    "1e400": (
        coco(text=COCO_TEXT.replace("[1, 2, 4, 6]", "[1, 2, 1e400, 6]", 1)), read(("without finite", BOX), a=0, b=1),
    ),
    "huge": (coco(annotation([-1e299, 2, 2e299, 6])), read(("beyond any image", BOX), a=0, b=1)),
    "words for numbers": (coco(annotation(["1", 2, 4, "12.5"])), read(("not four numbers", BOX), a=0, b=1)),
    "true for a number": (coco(annotation([1, 2, 4, True])), read(("not four numbers", BOX), a=0, b=1)),
    "negative": (coco(annotation([5, 8, -4, -6])), read(("without area", BOX), a=0, b=1)),
    "the same box twice": (coco(annotation(), annotation(id=9)), read(a=2, b=1)),
    "one id for two boxes": (coco(annotation(), annotation([2, 2, 4, 6])), read(a=2, b=1)),
    "one id for two images": (coco(images=[image(), image(1, "c.png")]), Refused("x.json", "two images have the id 1")),
    "one file for two images": (coco(images=[image(), image(3, "./a.png")]), Refused("x.json", "are the same file")),
    "one id for two classes": (
        coco(categories=((7, "a"), (7, "b"))), Refused("x.json", "two categories have the id 7"),
    ),
    "one name for two classes": (coco(categories=((7, "a"), (8, " a"))), Refused("x.json", "have the same name 'a'")),
    "class name empty": (coco(categories=((7, " "),)), Refused("x.json", "has no id or no name")),
    "class name of two lines": (coco(categories=((7, "a\nb"),)), Refused("x.json", "has no id or no name")),
    "class id nan": (coco(categories=((float("nan"), "a"),)), Refused("x.json", "has no id or no name")),
    "class that is not listed": (coco(annotation(category_id=-1)), read(("unknown category_id", BOX), a=0, b=1)),
    "class id as a word": (coco(annotation(category_id="7")), read(("unknown category_id", BOX), a=0, b=1)),
    "image that is not listed": (coco(annotation(image_id=9)), read(("unknown image_id", BOX), a=0, b=1)),
    "image id as a word": (coco(annotation(image_id="1")), read(("unknown image_id", BOX), a=0, b=1)),
    "crowd as a word": (coco(annotation(iscrowd="1")), read(a=0, b=1)),
    "image without boxes": (coco(), read(a=0, b=1)),
    "picture missing": (coco(images=[image(1, "c.png")]), read(("file is missing", SKIPPED), b=1)),
    "percent-encoded": (coco_named("a b.png", "a%20b.png"), read(("file is missing", SKIPPED), b=1)),
    "name composed, on disk not": (coco_named(f"{NFD}.png", f"{NFC}.png"), read(**{NFD: 1, "b": 1})),
    "name decomposed, on disk not": (coco_named(f"{NFC}.png", f"{NFD}.png"), read(**{NFC: 1, "b": 1})),
    "name with a line break": (coco_named("a\nb.png", "a\nb.png"), read(**{"a\nb": 1, "b": 1})),
    "name with Windows' separator": (coco_named("sub/a c.png", "sub\\a c.png"), read(**{"a c": 1, "b": 1})),
    "name upwards": (coco(images=[image(1, "../secret.png")], **SECRET), read(("leads out", SKIPPED), b=1)),
    "name absolute": (coco(images=[image(1, "/etc/a.png")]), read(("leads out", SKIPPED), b=1)),
    "name of 5,000 letters": (coco(images=[image(1, "a" * 5000)]), read(("file is missing", SKIPPED), b=1)),
    "folder called x.png": (
        coco(images=[image(1, "x.png")], **{"x.png/c.png": (3, 3)}), read(("missing", SKIPPED), b=1),
    ),
    "linked folder": (
        coco(annotation(), images=[image(1, "in/a.png")], **{"../other/a.png": (20, 10), "in": link("../other")}), BOTH,
    ),
    "size of another picture": (coco(images=[image(width=10)]), read(("another size", SKIPPED), b=1)),
    "size of words": (coco(annotation(), images=[image(width="20")]), BOTH),
    "product of two lines": (coco(images=[image(product="a\nb")]), read(("product is not a name", SKIPPED), b=1)),
    "hidden file": (coco(annotation(), **{"._x.json": "\0"}), BOTH),
    "empty folder": ({"note.txt": ""}, Refused("data", "no COCO JSON")),
    "100,000 boxes": (coco(*[annotation()] * MANY), read(a=MANY, b=1)),
    "9,999 boxes of no image": (
        coco(*[annotation(image_id=9)] * 9999), read(*[("unknown image", BOX)] * 9999, a=0, b=1),
    ),
    "no picture at all": (
        coco(images=[image(1, "c.png")], **{"b.png": ""}), read(("missing", SKIPPED), ("cannot be read", SKIPPED)),
    ),
}  # fmt: skip


# --- COCO-Stuff: things in one file, stuff in the other


def stuff(*things, images=(IMAGE,), name="dog", text=None, **files):
    images = [*images, image(2, "b.png")]
    things = [*things, annotation(id=2, image_id=2, category_id=18)]
    grass = [annotation(id=i, image_id=i, category_id=124) for i in (1, 2)]
    instances = {"images": images, "annotations": things, "categories": [{"id": 18, "name": name}]}
    stuff = {"images": images, "annotations": grass, "categories": [{"id": 124, "name": "grass"}]}
    return {
        "train2017/a.png": (20, 10), "train2017/b.png": (20, 10),
        "annotations/instances_train2017.json": instances,
        "annotations/stuff_train2017.json": stuff if text is None else text,
    } | files  # fmt: skip


def dog(bbox=(1, 2, 4, 6), **fields):
    return annotation(bbox, category_id=18, **fields)


STUFF_FILE = "stuff_train2017.json"
STUFF = {
    "right": (stuff(dog()), read(a=2, b=2)),
    "cut off": (stuff(text='{"images": ['), Refused(STUFF_FILE, "cannot be read as JSON")),
    "UTF-16": (stuff(text="{}".encode("utf-16")), Refused(STUFF_FILE, "cannot be read as text")),
    "nan": (stuff(dog([1, 2, float("nan"), 6])), read(("without finite", BOX), a=1, b=2)),
    "words for numbers": (stuff(dog(["1", 2, 4, 6])), read(("not four numbers", BOX), a=1, b=2)),
    "huge": (stuff(dog([-1e299, 2, 2e299, 6])), read(("beyond any image", BOX), a=1, b=2)),
    "the same box twice": (stuff(dog(), dog()), read(a=3, b=2)),
    "image that is not listed": (stuff(dog(image_id=9)), read(("unknown image_id", BOX), a=1, b=2)),
    "class that is not listed": (stuff(dog() | {"category_id": -1}), read(("unknown category_id", BOX), a=1, b=2)),
    "class of another data set": (stuff(name="hound"), Refused("instances_train2017.json", "is not COCO-Stuff's")),
    "one id for two images": (stuff(images=[image(), image()]), Refused("instances_train2017.json", "have the id 1")),
    "size of words": (stuff(images=[image(width="20")]), read(("without width and height", SKIPPED), b=2)),
    "name upwards": (stuff(images=[image(1, "../../secret.png")], **SECRET), read(("leads out", SKIPPED), b=2)),
    "picture missing": (stuff(images=[image(1, "c.png")]), read(("file is missing", SKIPPED), b=2)),
}  # fmt: skip


# --- Pascal VOC

SIZE = "<size><width>20</width><height>10</height><depth>3</depth></size>"


def thing(name="Spots", **bounds):
    bounds = {"xmin": 1, "ymin": 2, "xmax": 5, "ymax": 8} | bounds
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in bounds.items())
    return f"<object><name>{name}</name><bndbox>{inner}</bndbox></object>"


def xml(*things, size=SIZE, start=""):
    return f"{start}<annotation><filename>../secret.png</filename>{size}{''.join(things)}</annotation>"


def voc(content, **files):
    return {"a.png": (20, 10), "b.png": (20, 10), "a.xml": content, "b.xml": xml(thing())} | files


def drawn(**bounds):
    return voc(xml(thing(**bounds)))


def spoiled(kind):
    return read((kind, SKIPPED), b=1)


LAUGHS = '<!DOCTYPE a [<!ENTITY a "ha">' + "".join(
    f'<!ENTITY {b} "{f"&{a};" * 10}">' for a, b in zip("abcdefgh", "bcdefghi", strict=True)
) + "]>"  # fmt: skip
OUTSIDE = '<!DOCTYPE a [<!ENTITY i SYSTEM "file:///etc/hostname">]>'
VOC = {
    "BOM and CRLF": (voc(b"\xef\xbb\xbf" + xml(thing()).replace("><", ">\r\n<").encode()), BOTH),
    "UTF-16": (voc(xml(thing()).encode("utf-16")), BOTH),
    "Latin-1 that says so": (
        voc(xml(thing("ä"), start='<?xml version="1.0" encoding="latin-1"?>').encode("latin-1")), BOTH,
    ),
    "Latin-1 that does not": (voc(xml(thing("ä")).encode("latin-1")), spoiled("cannot be read as XML")),
    "empty": (voc(""), spoiled("cannot be read as XML")),
    "cut off": (voc(xml(thing())[:-20]), spoiled("cannot be read as XML")),
    "of another format": (voc("<html/>"), spoiled("of another format")),
    "entities that grow": (voc(xml(thing("&i;"), start=LAUGHS)), spoiled("DOCTYPE")),
    "entity from outside": (voc(xml(thing("&i;"), start=OUTSIDE)), spoiled("DOCTYPE")),
    "10,000 elements deep": (voc(xml("<part>" * 10_000 + "</part>" * 10_000, thing())), BOTH),
    "fractions": (drawn(xmax="12.5"), BOTH),
    "nan": (drawn(xmax="nan"), read(("without finite", BOX), a=0, b=1)),
    "1e400": (drawn(xmax="1e400"), read(("without finite", BOX), a=0, b=1)),
    "a word": (drawn(xmax="abc"), read(("without finite", BOX), a=0, b=1)),
    "1_0": (drawn(xmax="1_0"), read(("without finite", BOX), a=0, b=1)),
    "no number": (drawn(xmax=""), read(("without finite", BOX), a=0, b=1)),
    "no box": (voc(xml("<object><name>x</name></object>")), read(("without finite", BOX), a=0, b=1)),
    "huge": (drawn(xmin="-1e308", xmax="1e308"), read(("beyond any image", BOX), a=0, b=1)),
    "inverted": (drawn(xmin=6), read(("without area", BOX), a=0, b=1)),
    "wholly outside": (drawn(ymin=10, ymax=12), read(("wholly outside", BOX), a=0, b=1)),
    "the same box twice": (voc(xml(thing(), thing())), read(a=2, b=1)),
    "name empty": (voc(xml(thing(" "))), read(("without a name", BOX), a=0, b=1)),
    "name of two lines": (voc(xml(thing("a\nb"))), read(("without a name", BOX), a=0, b=1)),
    "size of 5,000 digits": (voc(xml(thing(), size=SIZE.replace("20", "2" * 5000))), BOTH),
    "size of another picture": (voc(xml(size=SIZE.replace("20", "30"))), spoiled("another size")),
    "picture missing": (voc(xml(), **{"c.xml": xml()}), read(("without an image", SKIPPED), a=0, b=1)),
    "two pictures": (voc(xml(), **{"a.jpg": (20, 10)}), spoiled("not the only ones")),
    "nothing usable": ({"a.xml": "", "a.png": (20, 10)}, Refused("a.xml", "none of 1 XML files is usable")),
    "name composed, on disk not": (
        voc(xml(), **{f"{NFD}.png": (20, 10), f"{NFC}.xml": xml(thing())}), read(a=0, b=1, **{NFD: 1}),
    ),
    "extension in upper case": ({"a.PNG": (20, 10), "a.XML": xml(thing())}, Read({"a.PNG": 1})),
    "name with a line break": ({"a\nb.png": (20, 10), "a\nb.xml": xml(thing())}, read(**{"a\nb": 1})),
    "name with a line break, broken": (
        voc(xml(), **{"c\nd.png": (20, 10), "c\nd.xml": ""}), read(("XML", SKIPPED), a=0, b=1),
    ),
    "folder called a.png": (
        {"a.png/c.png": (20, 10), "a.xml": xml(), "b.png": (20, 10), "b.xml": xml(thing())},
        read(("without an image", SKIPPED), b=1),
    ),
    "empty folder": ({"note.txt": ""}, Refused("data", "no XML files")),
    "100,000 boxes": (voc(xml(*[thing()] * MANY)), read(a=MANY, b=1)),
}  # fmt: skip


# --- YOLO

YAML = "train: images/train\nnames: [Pits, Spots]\n"
LINE = "1 0.15 0.5 0.2 0.6\n"


def yolo(text=LINE, yaml=YAML, **files):
    pictures = {f"images/train/{name}.png": (20, 10) for name in "ab"}
    labels = {"labels/train/a.txt": text, "labels/train/b.txt": LINE}
    return {key: value for key, value in (pictures | labels | {"data.yaml": yaml} | files).items() if value is not None}


def listed(lines, **files):
    return yolo(yaml="train: train.txt\nnames: [Pits, Spots]", **{"train.txt": lines}, **files)


NO_BOX = read(("neither a box", BOX), a=0, b=1)
YOLO = {
    "BOM and CRLF": (
        yolo(("\ufeff" + LINE + LINE).replace("\n", "\r\n"), "\ufeff" + YAML.replace("\n", "\r\n")), read(a=2, b=1),
    ),
    "label file of UTF-16": (yolo(LINE.encode("utf-16")), spoiled("label files that cannot be read")),
    "label file empty": (yolo(""), read(a=0, b=1)),
    "label file missing": (yolo(None), read(a=0, b=1)),
    "4 columns": (yolo("1 0.5 0.5 0.2"), NO_BOX),
    "6 columns": (yolo("1 0.5 0.5 0.2 0.2 0.9"), NO_BOX),
    "polygon": (yolo("1 0.1 0.1 0.5 0.1 0.5 0.9"), BOTH),
    "class negative": (yolo("-1 0.15 0.5 0.2 0.6"), read(("without a name", BOX), a=0, b=1)),
    "class unknown": (yolo("2 0.15 0.5 0.2 0.6"), read(("without a name", BOX), a=0, b=1)),
    "class a fraction": (yolo("0.5 0.15 0.5 0.2 0.6"), read(("without a name", BOX), a=0, b=1)),
    "class a name": (yolo("Spots 0.15 0.5 0.2 0.6"), read(("without finite", BOX), a=0, b=1)),
    "class 1e400": (yolo("1e400 0.15 0.5 0.2 0.6"), read(("without finite", BOX), a=0, b=1)),
    "nan": (yolo("1 nan 0.5 0.2 0.6"), read(("without finite", BOX), a=0, b=1)),
    "a word": (yolo("1 abc 0.5 0.2 0.6"), read(("without finite", BOX), a=0, b=1)),
    "0_1": (yolo("1 0.1_5 0.5 0.2 0.6"), read(("without finite", BOX), a=0, b=1)),
    "pixels for shares": (yolo("1 10 5 4 4"), read(("wholly outside", BOX), a=0, b=1)),
    "negative width": (yolo("1 0.5 0.5 -0.2 0.6"), read(("without area", BOX), a=0, b=1)),
    "huge": (yolo("1 0.5 0.5 1e300 1"), read(("beyond any image", BOX), a=0, b=1)),
    "huge polygon": (yolo("1 -1e308 0 1e308 0 1e308 1"), read(("without finite", BOX), a=0, b=1)),
    "the same box twice": (yolo(LINE + LINE), read(a=2, b=1)),
    "yaml of UTF-16": (yolo(yaml=YAML.encode("utf-16")), Refused("data.yaml", "cannot be read as text")),
    "yaml with a path of 5,000 letters": (
        yolo(yaml=YAML + f"val: {'a' * 5000}"), Refused("data.yaml", "no such folder"),
    ),
    "yaml with a path of two lines": (yolo(yaml=YAML + 'val: "a\\nb"'), Refused("data.yaml", "no such folder")),
    "yaml cut off": (yolo(yaml=YAML[:-3]), Refused("data.yaml", "not understood")),
    "yaml a list": (yolo(yaml="- a"), Refused("data.yaml", "has no keys")),
    "yaml empty": (yolo(yaml=""), Refused("data.yaml", "has no keys")),
    "yaml of 10,000 brackets": (yolo(yaml="names: " + "[" * 10_000), Refused("data.yaml", "not understood")),
    "yaml that grows": (
        yolo(yaml="a0: &a0 [x]\n" + "".join(f"a{i + 1}: &a{i + 1} [*a{i}, *a{i}]\n" for i in range(99)) + YAML), BOTH,
    ),
    "class name empty": (yolo(yaml=YAML.replace("Pits", '" "')), Refused("data.yaml", "no single name for 0")),
    "class name of two lines": (
        yolo(yaml=YAML.replace("Pits", '"a\\nb"')), Refused("data.yaml", "no single name for 0"),
    ),
    "one name for two classes": (yolo(yaml=YAML.replace("Pits", "Spots")), Refused("data.yaml", "has 'Spots' twice")),
    "class index of 5,000 digits": (
        yolo(yaml=f"train: images/train\nnames: {{{'1' * 1000}: a}}"), Refused("data.yaml", "whole numbers"),
    ),
    "classes.txt with a gap": (
        yolo(yaml=None, **{"classes.txt": "Pits\n\nSpots\n"}), Refused("classes.txt", "line that is no name"),
    ),
    "classes.txt of UTF-16": (
        yolo(yaml=None, **{"classes.txt": "Pits".encode("utf-16")}), Refused("classes.txt", "as text"),
    ),
    "folder called x.yaml": (yolo(yaml=None, **{"x.yaml/y": "", "classes.txt": "Pits\nSpots"}), BOTH),
    "list of UTF-16": (listed("images/train/a.png".encode("utf-16")), Refused("train.txt", "cannot be read as text")),
    "list that leads out": (listed("images/train/b.png\n../secret.png", **SECRET), read(("not found", SKIPPED), b=1)),
    "list of absolute paths": (listed("images/train/b.png\n/etc/a.png"), read(("not found", SKIPPED), b=1)),
    "list with a line twice": (listed("images/train/a.png\n./images/train/a.png"), read(("listed before", OUT), a=1)),
    "list with 5,000 letters": (listed("images/train/b.png\n" + "a" * 5000), read(("not found", SKIPPED), b=1)),
    "list with a zero byte": (listed("images/train/b.png\na\0.png"), read(("not found", SKIPPED), b=1)),
    "label file without a picture": (
        yolo(**{"labels/train/c.txt": LINE}), read(("without an image", SKIPPED), a=1, b=1),
    ),
    "label file composed, picture not": (
        yolo(**{f"images/train/{NFD}.png": (20, 10), f"labels/train/{NFC}.txt": LINE * 2}), read(a=1, b=1, **{NFD: 2}),
    ),
    "linked folder": (
        yolo(**{"../c/d.png": (20, 10), "images/train/in": link("../../../c"), "labels/train/in/d.txt": LINE}),
        read(a=1, b=1, d=1),
    ),
    "linked in a circle": (yolo(**{"images/train/up": link(".."), "images/train/loop": link("loop")}), BOTH),
    "picture of no use": (yolo(**{"images/train/a.png": "text"}), spoiled("cannot be read")),
    "picture of no use with a line break": (
        yolo(**{"images/train/a\nb.png": ""}), read(("cannot be read", SKIPPED), a=1, b=1),
    ),
    "hidden files": (yolo(**{"images/train/._a.png": "", "labels/train/._a.txt": "\0"}), BOTH),
    "empty folder": ({"note.txt": ""}, Refused("data", "no yaml with names")),
}  # fmt: skip


# --- pictures, whatever the format: the header alone does not tell


def cut(path: Path) -> None:
    file = io.BytesIO()
    Image.effect_noise((20, 10), 90).save(file, format={".jpg": "jpeg", ".tif": "tiff"}.get(path.suffix, "png"))
    path.write_bytes(file.getvalue()[:-40])


def png(width: int, height: int) -> bytes:
    """A PNG of nothing but a header that promises as many pixels, and a few bytes."""
    chunks = ((b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(99))))
    parts = [
        struct.pack(">I", len(d)) + k + d + struct.pack(">I", zlib.crc32(k + d)) for k, d in (*chunks, (b"IEND", b""))
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def picture(name, content, **size):
    return {
        "a.png": None,
        name: content,
        "b.png": (20, 10),
        "x.json": coco(annotation(), images=[image(1, name, **size)])["x.json"],
    }


NO_PICTURE = spoiled("cannot be read")
PICTURES = {
    "text": (picture("a.png", "text"), NO_PICTURE),
    "empty": (picture("a.png", b""), NO_PICTURE),
    "cut off PNG": (picture("a.png", cut), NO_PICTURE),
    "cut off JPEG": (picture("a.jpg", cut), NO_PICTURE),
    "cut off TIFF": (picture("a.tif", cut), NO_PICTURE),
    "of other sides": (picture("a.png", (10, 20)), spoiled("another size")),
    "without a size": (picture("a.png", png(0, 0), width=None), NO_PICTURE),
    "of 3,600,000,000 pixels": (picture("a.png", png(60_000, 60_000), width=60_000, height=60_000), NO_PICTURE),
    "of 3,600,000,000 pixels, no size stated": (picture("a.png", png(60_000, 60_000), width=None), NO_PICTURE),
    "a link to nothing": (picture("a.png", link("nowhere.png")), spoiled("file is missing")),
    "a link to itself": (picture("a.png", link("a.png")), spoiled("file is missing")),
    "another format than it says": (picture("a.jpg", (20, 10)), Read({"a.jpg": 1, "b.png": 1})),
}  # fmt: skip
SAME = {
    "images": {
        "text": ({"a.png": "text", "b.png": (20, 10)}, read(("cannot be read", SKIPPED), b=0)),
        "a link to nothing": ({"a.png": link("nowhere.png"), "b.png": (20, 10)}, read(("missing", SKIPPED), b=0)),
        "a folder": ({"a.png/c.jpg": (20, 10), "b.png": (20, 10)}, Read({"c.jpg": 0, "b.png": 0})),
        "none": ({"a.txt": ""}, Refused("data", "no pictures")),
    },
    "voc": {
        "a link to nothing": (voc(xml(), **{"a.png": link("nowhere.png")}), spoiled("missing")),
        "text": (voc(xml(), **{"a.png": "text"}), NO_PICTURE),
    },
    "yolo": {
        "a link to nothing": (yolo(**{"images/train/a.png": link("nowhere.png")}), NO_PICTURE),
        "a huge one": (yolo(**{"images/train/a.png": png(60_000, 60_000)}), NO_PICTURE),
    },
    "sdi": {"text": (vott(None, asset(), **{"a.png": "text"}), NO_PICTURE)},
}  # fmt: skip

TABLES = [("sdi", "VoTT", VOTT), ("sdi", "project", PROJECT), ("coco_json", "COCO", COCO)]
TABLES += [
    ("coco", "COCO-Stuff", STUFF),
    ("voc", "VOC", VOC),
    ("yolo", "YOLO", YOLO),
    ("coco_json", "picture", PICTURES),
]
TABLES += [(mode, f"{mode} picture", rows) for mode, rows in SAME.items()]
ROWS = [pytest.param(mode, *r, id=f"{table}: {name}") for mode, table, rows in TABLES for name, r in rows.items()]


def load(mode, data, problems, on_bad_data="error"):
    options = {"coco_min_object_size": 0, "coco_min_objects": 1, "coco_max_objects": MANY} if mode == "coco" else {}
    records, _ = load_records(
        mode, data, "train", val_fraction=0, problems=problems, on_bad_data=on_bad_data, **options
    )
    return records


@pytest.mark.parametrize(("mode", "files", "expected"), ROWS)
def test_what_is_wrong_is_named_in_one_line_and_the_rest_is_read(tmp_path, mode, files, expected):
    for name, content in files.items():
        if content is not None:
            make(tmp_path / "data" / name, content)
    start, problems = time.process_time(), []
    if isinstance(expected, Refused):
        with pytest.raises(AnnotationError) as error:
            load(mode, tmp_path / "data", problems)
        message = str(error.value)
        assert expected.file in message and expected.phrase in message and len(message.splitlines()) == 1
    else:
        records = usable(load(mode, tmp_path / "data", problems), problems, decode=True)
        assert {record.path.name: len(record.boxes) for record in records} == expected.kept
        assert [problem.action for problem in problems] == [action for _, action in expected.problems]
        for problem, (kind, _) in zip(problems, expected.problems, strict=True):
            assert kind in problem.kind and str(tmp_path) in problem.file
            assert all(len(text.splitlines()) == 1 for text in (problem.file, problem.kind, problem.detail))
    assert time.process_time() - start < SECONDS


@pytest.mark.parametrize("mode", ["sdi", "coco_json", "voc", "yolo"])
def test_by_default_what_is_wrong_stops_a_run_in_one_line(tmp_path, mode):
    files = {
        "sdi": regions(region(w=0)),
        "coco_json": coco(annotation([1, 2, 0, 6])),
        "voc": drawn(xmin=5),
        "yolo": yolo("1 0.5 0.5 0 1"),
    }
    for name, content in files[mode].items():
        make(tmp_path / "data" / name, content)
    with pytest.raises(AnnotationError, match=r"without area.*--on_bad_data skip") as error:
        load(mode, tmp_path / "data", None)
    assert len(str(error.value).splitlines()) == 1
    assert len(load(mode, tmp_path / "data", None, on_bad_data="skip")) == 2


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
@pytest.mark.parametrize(("mode", "name", "files", "expected"), [
    ("coco_json", "a.png", coco(annotation()), NO_PICTURE),
    ("coco_json", "x.json", coco(annotation()), Refused("x.json", "Permission denied")),
    ("voc", "a.xml", voc(xml()), spoiled("cannot be read as XML")),
    ("sdi", EXPORT, vott(None, asset()), Refused(EXPORT, "Permission denied")),
    ("yolo", "labels/train/a.txt", yolo(), spoiled("cannot be read")),
])  # fmt: skip
def test_what_may_not_be_read_is_named(tmp_path, mode, name, files, expected):
    shut = {"../shut": lambda path: (path.parent / "data" / name).chmod(0)}
    test_what_is_wrong_is_named_in_one_line_and_the_rest_is_read(tmp_path, mode, files | shut, expected)
