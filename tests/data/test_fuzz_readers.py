"""Valid annotation files, changed at random anywhere: what is read can be used, or one line names the file."""

import copy
import json
import math
import unicodedata
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image
from reading import load_records

from stay_diffusion.data.annotations import AnnotationError

EXAMPLES = 45  # per format; thousands find no more
fuzz = settings(
    max_examples=EXAMPLES, deadline=None, derandomize=True, database=None, suppress_health_check=list(HealthCheck)
)

BOUNDS = {"left": 1, "top": 2, "width": 4, "height": 6}
REGION = {"id": "r", "type": "RECTANGLE", "tags": ["Spots", "Pits"], "boundingBox": BOUNDS}
POINTS = [{"x": 1, "y": 2}, {"x": 5, "y": 3}, {"x": 2, "y": 8}]
POLYGON = {"id": "p", "type": "POLYGON", "tags": ["Pits"], "points": POINTS}


def vott_asset(name):
    size, path = {"width": 20, "height": 10}, f"file:/elsewhere/{name}"
    return {"id": name, "name": name, "path": path, "size": size, "state": 2, "type": 1, "format": "png"}


TAGS = [{"name": "Pits", "color": "#fff"}, {"name": "Spots", "color": "#f00"}]
ENTRIES = {str(i): {"asset": vott_asset(f"{i}.png"), "regions": [REGION, POLYGON]} for i in range(2)}
EXPORT = {"name": "x", "tags": TAGS, "assets": ENTRIES, "version": "2.2.0"}
PROJECT = {"name": "x", "tags": TAGS, "assets": {str(i): vott_asset(f"{i}.png") for i in range(2)}}
IMAGES = [{"id": i, "file_name": f"{i}.png", "width": 20, "height": 10} for i in range(2)]


def coco(*categories):
    keys = [categories[i % len(categories)][0] for i in range(6)]
    annotations = [
        {"id": i, "image_id": i % 2, "category_id": key, "bbox": [1, 2, 4, 6], "iscrowd": 0}
        for i, key in enumerate(keys)
    ]
    listed = [{"id": key, "name": name, "supercategory": "x"} for key, name in categories]
    return {"images": IMAGES, "annotations": annotations, "categories": listed}


XML = (
    "<annotation><filename>0.png</filename><size><width>20</width><height>10</height><depth>3</depth></size>"
    + "<object><name>Spots</name><bndbox><xmin>1</xmin><ymin>2</ymin><xmax>5</xmax><ymax>8</ymax></bndbox></object>" * 2
    + "</annotation>"
)
LABELS = "1 0.15 0.5 0.2 0.6\n0 0.1 0.1 0.5 0.1 0.5 0.9\n1 0.5 0.5 1 1\n"
YAML = "path: .\ntrain: images/train\nval: images/train\nnc: 2\nnames:\n  0: Pits\n  1: Spots\n"
LIST = "images/train/0.png\n./images/train/1.png\n"

# mode: name of a file, its content, what else is there
JSON_FILES = {
    "VoTT": ("sdi", "x-export.json", EXPORT, {}),
    "VoTT project": ("sdi", "x.vott", PROJECT, {"0-asset.json": ENTRIES["0"]}),
    "VoTT asset": ("sdi", "0.png-asset.json", ENTRIES["0"], {"x.vott": PROJECT}),
    "COCO": ("coco_json", "x.json", coco((7, "Spots"), (3, "Pits")), {}),
    "things": ("coco", "annotations/instances_train2017.json", coco((18, "dog")),
               {"annotations/stuff_train2017.json": coco((124, "grass"))}),
    "stuff": ("coco", "annotations/stuff_train2017.json", coco((124, "grass")),
              {"annotations/instances_train2017.json": coco((18, "dog"))}),
}  # fmt: skip
YOLO_FILES = {"data.yaml": YAML, "labels/train/0.txt": LABELS, "labels/train/1.txt": ""}
LISTED = YOLO_FILES | {"data.yaml": YAML.replace("images/train", "train.txt", 1)}
TEXT_FILES = {
    "VOC": ("voc", "0.xml", XML, {"1.xml": XML}),
    "VOC alone": ("voc", "0.xml", XML, {}),
    "YOLO": ("yolo", "labels/train/0.txt", LABELS, YOLO_FILES),
    "YOLO's yaml": ("yolo", "data.yaml", YAML, YOLO_FILES),
    "YOLO's list": ("yolo", "train.txt", LIST, LISTED),
    "YOLO's classes": ("yolo", "classes.txt", "Pits\nSpots\n", {"labels/train/0.txt": LABELS}),
    **{name: (mode, file, json.dumps(content), others) for name, (mode, file, content, others) in JSON_FILES.items()},
}
PICTURES = {"yolo": "images/train", "coco": "images/train2017"}

NUMBERS = st.one_of(
    st.integers(-30, 30), st.floats(), st.sampled_from([0, -1, 2**31, 2**63, 10**400, 1e308, -1e308, 5e-324, 1e20])
)
WORDS = st.one_of(st.text(max_size=8), st.sampled_from(["", " ", "nan", "1e400", "../0.png", "/etc", "a\nb", "\ud800"]))
VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, WORDS),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS, inner, max_size=3),
    max_leaves=5,
)
BREAKERS = [
    "\0",
    "\n",
    '"',
    "'",
    "<",
    "&",
    "{",
    "[",
    ":",
    "- ",
    "*a",
    "\t",
    ",",
    "1e400",
    "nan",
    "-",
    "_",
    "%",
    "..",
    "/",
]
BITS = st.one_of(st.sampled_from(BREAKERS), WORDS, NUMBERS.map(str))


def places(value, parent=None, key=None):
    """Every (container, key) in a JSON value."""
    if parent is not None:
        yield parent, key
    children = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, child in list(children):
        yield from places(child, value, key)


@st.composite
def changed_json(draw, content):
    """JSON in which up to three values are replaced, deleted or repeated."""
    content = {"whole": copy.deepcopy(content)}
    for _ in range(draw(st.integers(1, 3))):
        parent, key = draw(st.sampled_from(list(places(content))))
        way = draw(st.sampled_from(["replace", "replace", "delete", "repeat"]))
        if way == "replace":
            parent[key] = draw(VALUES)
        elif way == "repeat" and isinstance(parent, list):
            parent.insert(key, copy.deepcopy(parent[key]))
        elif parent is not content:
            del parent[key]
    return json.dumps(content["whole"]).encode()


@st.composite
def changed_text(draw, text):
    """Bytes with pieces cut out, put in or repeated, bits flipped, cut off, or in another encoding."""
    data = text.encode()
    for _ in range(draw(st.integers(1, 3))):
        i, n = draw(st.integers(0, len(data))), draw(st.integers(0, 6))
        way = draw(st.sampled_from(["put", "put", "cut", "repeat", "flip", "end"]))
        piece = (
            draw(BITS).encode(errors="surrogatepass") if way == "put" else data[i : i + 30] if way == "repeat" else b""
        )
        if way == "flip" and i < len(data):
            piece = bytes([data[i] ^ 1 << draw(st.integers(0, 7))])
        data = data[:i] if way == "end" else data[:i] + piece + data[i + (0 if way == "repeat" else n) :]
    return data.decode(errors="replace").encode("utf-16") if draw(st.integers(0, 19)) == 0 else data


@st.composite
def changed_words(draw, text, separator):
    """A text some of whose words, between separators, are others, twice there or gone."""
    words = text.split(separator)
    for _ in range(draw(st.integers(1, 3))):
        i = draw(st.integers(0, len(words) - 1))
        words[i : i + 1] = draw(st.sampled_from([[], [words[i]] * 2, *[[draw(BITS)]] * 4]))
        words = words or [""]
    return separator.join(words).encode(errors="surrogatepass")


@st.composite
def changed_xml(draw):
    """VOC some of whose elements have another text, are there twice, or gone."""
    root = ElementTree.fromstring(XML)
    for _ in range(draw(st.integers(1, 3))):
        parent = draw(st.sampled_from([element for element in root.iter() if len(element)] or [root]))
        child = draw(st.sampled_from(list(parent) or [root]))
        way = draw(st.sampled_from(["text", "text", "tag", "repeat", "delete"]))
        if way == "text":
            child.text = draw(BITS)
        elif way == "tag":
            child.tag = draw(st.sampled_from([element.tag for element in root.iter()]))
        elif child is not root:
            (parent.append if way == "repeat" else parent.remove)(copy.deepcopy(child) if way == "repeat" else child)
    return ElementTree.tostring(root, encoding="unicode").encode(errors="surrogatepass")


def save(folder: Path, name: str, content) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    text = content if isinstance(content, str | bytes) else json.dumps(content)
    (folder / name).write_bytes(text if isinstance(text, bytes) else text.encode())


@pytest.fixture
def data(tmp_path):
    """Makes the folder of a data set: two pictures and the files that stay as they are."""

    def build(mode, others):
        for i in range(2):
            place = tmp_path / "data" / PICTURES.get(mode, "") / f"{i}.png"
            place.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (20, 10)).save(place)
        for name, content in others.items():
            save(tmp_path / "data", name, content)
        return tmp_path / "data"

    return build


def check(mode, folder) -> None:
    """What is read can be used and what is said is one line; nothing else is raised."""
    problems = []
    options = {"coco_min_object_size": 0, "coco_min_objects": 1} if mode == "coco" else {}
    try:
        records, names = load_records(mode, folder, "train", val_fraction=0, problems=problems, **options)
    except AnnotationError as error:
        assert len(str(error).splitlines()) == 1 and str(folder) in str(error)
        return
    for record in records:
        assert record.path.is_relative_to(folder) and record.width >= 1 and record.height >= 1
        for box in record.boxes:
            assert box.label in names.classes and box.label == box.label.strip() != ""
            assert not {unicodedata.category(letter) for letter in box.label} & {"Cc", "Cs"}
            assert all(map(math.isfinite, (box.x0, box.y0, box.x1, box.y1)))
            assert max(box.x0, 0) < min(box.x1, record.width) and max(box.y0, 0) < min(box.y1, record.height)
    for problem in problems:
        assert str(folder) in problem.file and problem.action in ("image skipped", "box skipped", "left out")
        assert all(len(text.splitlines()) <= 1 for text in (problem.file, problem.kind, problem.detail))


@pytest.mark.parametrize(("mode", "name", "content", "others"), JSON_FILES.values(), ids=JSON_FILES)
def test_any_json_is_read_or_refused(data, mode, name, content, others):
    folder = data(mode, others)

    @fuzz
    @given(changed_json(content))
    def run(text):
        save(folder, name, text)
        check(mode, folder)

    run()


@pytest.mark.parametrize(("mode", "name", "content", "others"), TEXT_FILES.values(), ids=TEXT_FILES)
def test_any_bytes_are_read_or_refused(data, mode, name, content, others):
    folder = data(mode, others)

    @fuzz
    @given(changed_text(content))
    def run(text):
        save(folder, name, text)
        check(mode, folder)

    run()


@pytest.mark.parametrize(("name", "separator"), [
    ("YOLO", " "), ("YOLO's yaml", " "), ("YOLO's yaml", "\n"), ("YOLO's list", "/"),
])  # fmt: skip
def test_any_words_are_read_or_refused(data, name, separator):
    mode, file, content, others = TEXT_FILES[name]
    folder = data(mode, others)

    @fuzz
    @given(changed_words(content, separator))
    def run(text):
        save(folder, file, text)
        check(mode, folder)

    run()


def test_any_xml_is_read_or_refused(data):
    folder = data("voc", {"1.xml": XML})

    @fuzz
    @given(changed_xml())
    def run(text):
        save(folder, "0.xml", text)
        check("voc", folder)

    run()
