"""report.html held against the folder that it is made of."""

import base64
import io
import json
import re
import shlex
from functools import partial

import numpy as np
import pytest
from made_results import make_results, write_lines
from page_reader import Read
from PIL import Image

from stay_diffusion.config import SampleRun, flags
from stay_diffusion.data.images import ImageError
from stay_diffusion.layouts import statistics_file as layout_statistics_file
from stay_diffusion.layouts.statistics import LayoutStatistics
from stay_diffusion.pages.report import gallery, write_report
from stay_diffusion.pages.report.pictures import crop_around, read_small, whole
from stay_diffusion.run.checkpoint import RunFolder

NASTY = """<script>alert("1")</script>'&<img src=x onerror=y>"""
BOX = (0.25, 0.25, 0.5, 0.5)


@pytest.fixture
def results_of(tmp_path):
    """results_of(layouts, ...): as make_results, in a folder of the test's own."""
    return partial(make_results, tmp_path)


def report(folder, **options) -> str:
    return write_report(folder, **options).read_text(encoding="utf-8")


def section(page: str, name: str) -> str:
    """One section of a page, "" where there is none."""
    found = re.search(rf'<section id="{name}">.*?</section>', page, re.S)
    return found[0] if found else ""


def tiles(page: str) -> dict[str, str]:
    """The figures at the top, by what they are."""
    return {what: figure for figure, what in re.findall(r"<li><strong>(.*?)</strong> (.*?)</li>", page)}


def crops(page: str) -> dict[str, dict[str, list[str]]]:
    """Of each class the crops in each group, as (picture-place), in the page's order."""
    found = {}
    for sheet in re.findall(r'<article class="sheet.*?</article>', page, re.S):
        groups = re.split(r'<div class="group (\w+)">', sheet)[1:]
        shown = [re.findall(r'id="crop-(\d+-\d+)"', inside) for inside in groups[1::2]]
        found[re.search("<h3><bdi>(.*?)</bdi>", sheet)[1]] = dict(zip(groups[::2], shown, strict=True))
    return found


def rows(page: str) -> dict[str, dict[str, str]]:
    """The table of classes: by class, its cells by their heads."""
    table = section(page, "Classes")
    heads = re.findall(r'<th scope="col">(.*?)</th>', table)
    lines = [re.findall(r"<t[hd].*?>(.*?)</t[hd]>", line, re.S) for line in re.findall("<tr>(.*?)</tr>", table)[1:]]
    plain = [[re.sub("<.*?>", "", cell) for cell in line] for line in lines]
    return {line[0]: dict(zip(heads, line, strict=True)) for line in plain}


def decoded(uri: str) -> Image.Image:
    kind, data = re.fullmatch(r"data:image/(png|jpeg);base64,(.*)", uri).groups()
    image = Image.open(io.BytesIO(base64.b64decode(data)))
    assert image.format.lower() == kind
    return image


# Which boxes are shown


@pytest.mark.parametrize("seed", range(3))
def test_the_best_the_median_and_the_worst_boxes_of_a_class_are_shown_in_order(results_of, seed):
    ranks = np.random.default_rng(seed).permutation(30).tolist()  # of picture i, 29 the best
    page = report(results_of([[("a", BOX)]] * 30, scores=[[rank / 29] for rank in ranks]), per_group=4)
    found = {group: [ranks[int(name[:-2])] for name in names] for group, names in crops(page)["a"].items()}
    assert found == {"best": [29, 28, 27, 26], "median": [16, 15, 14, 13], "worst": [0, 1, 2, 3]}


@pytest.mark.parametrize("number", [1, 2, 3, 5, 12])
def test_of_few_boxes_none_is_shown_twice(results_of, number):
    page = report(results_of([[("a", BOX)]] * number, scores=[[1 - i / 20] for i in range(number)]), per_group=4)
    shown = [name for group in crops(page)["a"].values() for name in group]
    assert sorted(shown) == sorted(f"{i}-0" for i in range(number)) and crops(page)["a"]["best"][0] == "0-0"
    assert number == 1 or crops(page)["a"]["worst"][0] == f"{number - 1}-0"


def test_each_class_has_its_own_boxes_also_where_a_picture_has_several(results_of):
    layouts = [[("a", BOX), ("b", BOX)], [("b", BOX), ("a", (0, 0, 0.2, 0.2))]]
    page = report(results_of(layouts, scores=[[0.9, 0.2], [0.8, 0.7]]))
    assert crops(page) == {
        "a": {"best": ["0-0"], "worst": ["1-1"]},
        "b": {"best": ["1-0"], "worst": ["0-1"]},
    }
    assert "2 boxes in 2 pictures" in page


def test_without_scores_the_boxes_are_spread_over_the_set_and_called_unranked(results_of):
    page = report(results_of([[("a", BOX)]] * 31), per_group=2)
    assert crops(page) == {"a": {"examples": ["0-0", "6-0", "12-0", "18-0", "24-0", "30-0"]}}
    assert "Not ranked" in page and "Best" not in page


def test_many_classes_share_the_places_that_there_are(results_of):
    layouts = [[(f"class {i % 50:02d}", BOX)] for i in range(150)]
    found = crops(report(results_of(layouts, scores=[[i / 150] for i in range(150)])))
    assert len(found) == 50 and all(len(group) == 1 for groups in found.values() for group in groups.values())


def test_a_caption_says_score_picture_and_what_else_the_box_is_taken_for(results_of):
    folder = results_of([[("a", BOX)], [("a", BOX)]], scores=[[0.987], [0.123]])
    lines = [json.loads(line) for line in (folder / "quality.jsonl").read_text().splitlines()]
    lines[1]["boxes"][0]["predicted"] = "nothing there"
    (folder / "quality.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    page = report(folder)
    captions = [re.sub("<.*?>", "", words) for words in re.findall("<figcaption>(.*?)</figcaption>", page, re.S)]
    assert "0.99 s000 " in captions and "0.12 s001 taken for nothing there" in captions
    assert rows(page)["a"]["seen as its own"] == "50 %" and rows(page)["a"]["else mostly as"] == "nothing there (1)"


# What the pictures show


@pytest.mark.parametrize("size", [(40, 40), (96, 80), (300, 200), (1000, 700)], ids=str)
@pytest.mark.parametrize(
    "box", [(0.25, 0.25, 0.5, 0.5), (0, 0, 0.1, 0.2), (0.9, 0.9, 1, 1), (0.05, 0.4, 0.95, 0.5)], ids=str
)
def test_a_crop_shows_the_box_where_its_outline_lies_and_its_surroundings(size, box):
    corners = [round(edge * side) for edge, side in zip(box, size * 2, strict=True)]
    image = Image.new("L", size)
    image.paste(255, corners)
    embedded = crop_around(image, corners)
    shown = np.asarray(decoded(embedded.uri).resize((round(embedded.width), round(embedded.height)))) > 127
    x0, y0, x1, y1 = (
        round(edge * side) for edge, side in zip(embedded.box, (embedded.width, embedded.height) * 2, strict=True)
    )
    assert (x1 - x0, y1 - y0) == (corners[2] - corners[0], corners[3] - corners[1])  # at the picture's own scale
    expected = np.zeros_like(shown)
    expected[y0:y1, x0:x1] = True
    assert np.mean(shown != expected) < 0.02 and not shown.all()


def test_of_a_box_over_the_border_the_part_inside_is_shown():
    embedded = crop_around(Image.new("L", (100, 100)), (-50, 20, 10, 40))
    assert embedded.box == pytest.approx((0, 0.25, 0.25, 0.75)) and embedded.width == embedded.height == 40
    embedded = crop_around(Image.new("L", (100, 100)), (90, 80, 130, 160))
    assert embedded.box == pytest.approx((0.75, 0.5, 1, 1)) and embedded.width == embedded.height == 40


def test_small_pictures_keep_every_pixel_and_are_shown_as_squares():
    values = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    embedded = whole(Image.fromarray(values))
    assert embedded.sharp and np.array_equal(np.asarray(decoded(embedded.uri)), values)


def test_large_pictures_become_small_files(tmp_path):
    values = np.random.default_rng(0).integers(0, 65535, (900, 1200), dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    embedded = whole(read_small(tmp_path / "deep.png", None), most_bytes=30_000)
    assert len(embedded.uri) <= 30_000 * 4 / 3 + 40 and not embedded.sharp
    assert (embedded.width, embedded.height) == (1200, 900) and decoded(embedded.uri).width < 800


@pytest.mark.parametrize(
    ("white", "value_range", "grey"), [(65535, None, 255), (32768, None, 128), (4095, (0, 4095), 255)]
)
def test_pictures_of_16_bits_keep_their_brightness(tmp_path, white, value_range, grey):
    Image.fromarray(np.full((20, 20), white, dtype=np.uint16)).save(tmp_path / "deep.png")
    shown = decoded(whole(read_small(tmp_path / "deep.png", value_range)).uri)
    assert np.abs(np.asarray(shown).astype(int) - grey).max() <= 1


def test_deep_pictures_are_shown_in_the_range_of_their_run(results_of, tiny_run, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open()
    run.write_config(tiny_run(data={"value_range": "0,4095"}))
    deep = Image.fromarray(np.full((20, 20), 4095, dtype=np.uint16))
    for image in Read(report(results_of([[("spot", BOX)], []], [deep, deep]))).of("img"):
        assert decoded(image["src"]).getextrema() == (255, 255)


def test_colours_stay(tmp_path):
    Image.new("RGB", (40, 40), (250, 10, 80)).save(tmp_path / "red.png")
    assert decoded(whole(read_small(tmp_path / "red.png", None)).uri).getpixel((5, 5)) == (250, 10, 80)


def test_however_many_pictures_there_are_the_page_stays_small(results_of, monkeypatch):
    rng = np.random.default_rng(0)
    images = [Image.fromarray(rng.integers(0, 255, (180, 180), dtype=np.uint8)) for _ in range(12)]
    monkeypatch.setattr(gallery, "CROPS_BYTES", 30_000)
    monkeypatch.setattr(gallery, "WHOLES_BYTES", 45_000)
    page = report(results_of([[("a", BOX), ("b", BOX)]] * 12, images, scores=[[i / 12, 0.5] for i in range(12)]))
    found = [image["src"] for image in Read(page).of("img")]
    assert len(found) > 30 and sum(map(len, found)) < 75_000 * 4 / 3 + 40 * len(found)


def test_every_crop_opens_a_whole_picture_with_all_its_boxes(results_of):
    layouts = [[("a", BOX), ("b", (0.5, 0.5, 1, 0.75))], [("b", BOX)], []]
    page = report(results_of(layouts, scores=[[0.5, 0.4], [0.3], []]))
    wholes = re.findall(r'<figure class="whole" id="(picture-\d)".*?</figure>', page, re.S)
    assert wholes == ["picture-0", "picture-1"]
    first = re.search(r'<figure class="whole" id="picture-0".*?</figure>', page, re.S)[0]
    places = [re.findall(r"[\d.]+(?=%)", box["style"]) for box in Read(first).of("b", "box")]
    assert [[float(word) for word in place] for place in places] == [[25, 25, 25, 25], [50, 50, 50, 25]]
    assert Read(first).text("i") == ["a", "b"]


def test_every_link_leads_somewhere_on_the_page(results_of, tmp_path):
    copy = {"similarity": 0.99, "box": 0, "file": str(tmp_path / "gone.png"), "training_box": [0, 0, 9, 9]}
    copies = {0: {**copy, "training_label": "a"}}
    read = Read(
        report(results_of([[("a", BOX), ("a", BOX)], [("b", BOX)], []], scores=[[1, 0], [1], []], copies=copies))
    )
    names = [attributes["id"] for _, attributes, _ in read.tags if "id" in attributes]
    links = [attributes["href"] for attributes in read.of("a")]
    assert len(set(names)) == len(names) and len(links) > 10
    assert {link[0] for link in links} == {"#"} and {link[1:] for link in links} <= set(names)


# What did not pass the gate, and what pictures had before


def rewritten(folder, changes: dict[int, dict]) -> None:
    """Changes lines of the manifest, by index."""
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    write_lines(folder / "manifest.jsonl", [line | changes.get(line["index"], {}) for line in lines])


def test_pictures_that_never_passed_the_gate_are_counted_and_not_shown(results_of):
    folder = results_of([[("a", BOX)], [("b", BOX)], [("a", BOX)]], scores=[[0.5], [0.1], [0.7]])
    kept = (folder / "quality.jsonl").read_text().splitlines()
    (folder / "quality.jsonl").write_text("\n".join([kept[0], kept[2]]))
    rewritten(folder, {1: {"rejected": True, "file": "rejected/s001.png"}})
    (folder / "samples/s001.png").unlink()
    page = report(folder)
    assert crops(page) == {"a": {"best": ["2-0"], "worst": ["0-0"]}}
    assert re.findall(r'<figure class="whole" id="picture-(\d)"', page) == ["0", "2"]
    assert tiles(page)["pictures"] == "2" and tiles(page)["more that never passed the gate"] == "1"


def test_boxes_that_a_picture_had_before_are_drawn_on_it_and_not_judged(results_of, tmp_path):
    copy = {"similarity": 0.9, "box": 0, "file": str(tmp_path / "gone.png"), "training_box": [0, 0, 9, 9]}
    folder = results_of([[("a", (0.5, 0.5, 0.75, 0.75))], []], scores=[[0.5], []])
    old, new = ({"label": label, "box": box} for label, box in (("b", BOX), ("a", (0.5, 0.5, 0.75, 0.75))))
    both = {"product": None, "objects": [{**old, "in_source": True}, new]}
    rewritten(folder, {0: {"layout": both}, 1: {"layout": {**both, "objects": [{**old, "in_source": True}]}}})
    lines = [json.loads(line) for line in (folder / "quality.jsonl").read_text().splitlines()]
    write_lines(folder / "quality.jsonl", [{**lines[0], "copy": {**copy, "training_label": "a"}}, lines[1]])
    page = report(folder)
    assert crops(page) == {"a": {"best": ["0-0"]}} and list(rows(page)) == ["a"]
    pair = re.search('<article class="pair.*?</article>', page, re.S)[0]
    shown = np.asarray(decoded(Read(pair).of("img")[0]["src"]))
    assert shown.shape == (32, 32) and (shown[8:24, 8:24] == 255).all()
    boxes = Read(re.search(r'<figure class="whole" id="picture-0".*?</figure>', page, re.S)[0]).of("b", "box")
    assert ["there" in box["class"].split() for box in boxes] == [True, False]
    assert tiles(page)["more boxes, which the pictures had before"] == "2" and not section(page, "Good-parts")


# Figures


def test_the_figures_at_the_top_are_counted_over_the_whole_set(results_of):
    layouts = [[("a", BOX), ("b", BOX)], [("a", BOX)], []]
    found = tiles(report(results_of(layouts, scores=[[0.9, 0.1], [0.5], []])))
    assert found == {
        "pictures": "3",
        "labelled boxes": "3",
        "classes": "2",
        "good parts": "1",
        "median score of a box": "0.50",
        "boxes seen as their own class": "100 %",
    }


def test_classes_are_counted_and_held_against_the_training_split(results_of, tiny_run, tmp_path):
    run = RunFolder(tmp_path / "run")
    run.open()
    run.write_config(tiny_run(data={"classes": ("line", "spot", "dent")}))
    pictures = [((100, 50), 0, np.array([[0, 0, 10, 10]] * n), np.array([1, 1, 3][:n])) for n in (3, 1, 0)]
    same = LayoutStatistics.of(("line", "spot", "dent"), (), [3, 0, 1], pictures)
    layout_statistics_file.write(run.path, {"seen": same, "whole": same})
    page = report(results_of([[("spot", BOX)] * 3, [("line", BOX)]], scores=[[0.2, 0.4, 0.9], [0.5]]))
    assert list(rows(page)) == ["line", "spot"]  # as the model has them
    wanted = {"boxes": "3", "pictures": "1", "share of boxes": "75.0 %", "in the data": "0.0 %", "median score": "0.40"}
    assert rows(page)["spot"].items() >= wanted.items()
    assert rows(page)["line"]["in the data"] == "75.0 %" and "not asked for here: dent" in page
    layouts = section(page, "Layouts")
    assert "training split of the data" in layouts and layouts.count('class="theirs"') == 4
    numbers = re.search("<figcaption>Boxes in a picture</figcaption>(.*?)</figure>", layouts, re.S)[1]
    assert re.findall("<title>(.*?)</title>", numbers) == ["0.0 %", "50.0 %", "0.0 %", "50.0 %"]
    heights = {float(word) for word in re.search('points="(.*?)"', numbers)[1].replace(",", " ").split()[1::2]}
    assert len(heights) == 2  # a third each of 0, 1 and 3, none of 2


def test_pictures_with_very_many_boxes_are_counted_together(results_of):
    page = report(results_of([[("a", BOX)] * number for number in (1, 12, 15, 40)]), per_group=1)
    numbers = re.search("<figcaption>Boxes in a picture</figcaption>(.*?)</figure>", page, re.S)[1]
    assert re.findall("<title>(.*?)</title>", numbers) == ["0.0 %", "25.0 %", *["0.0 %"] * 10, "75.0 %"]
    assert "12+</text>" in numbers


def test_a_bar_is_as_high_as_its_share_and_shares_add_up(results_of):
    page = report(results_of([[("a", (0, 0, 0.1, 0.1))]] * 3 + [[("a", (0, 0, 0.9, 0.9))]]))
    widths = re.search("<figcaption>Width of boxes</figcaption>(.*?)</figure>", page, re.S)[1]
    bars = re.findall(r'class="ours" x="([\d.]+)" y=".*?" width=".*?" height="([\d.]+)"', widths)
    (narrow, high), (wide, low) = ((float(x), float(height)) for x, height in bars if float(height))
    assert narrow < wide and high == pytest.approx(3 * low, abs=0.2)
    assert sum(float(share) for share in re.findall("<title>([0-9.]+) %</title>", widths)) == pytest.approx(100)


def test_centres_lie_where_the_boxes_are(results_of):
    page = report(results_of([[("a", (0, 0.9, 0.1, 1))], [("b", (0.9, 0, 1, 0.1))]]))
    maps = re.findall(r'aria-label="centres of (.*?), sampled set">(.*?)</svg>', page)
    cells = {name: re.findall(r'x="(\d)" y="(\d)"', inside) for name, inside in maps}
    assert cells == {"all classes": [("7", "0"), ("0", "7")], "a": [("0", "7")], "b": [("7", "0")]}


def test_box_adherence_is_told_as_it_was_measured(results_of):
    folder = results_of([[("a", BOX), ("b", BOX)]])
    per_class = {"a": {"boxes": 1, "difference": 12.345, "empty": 1}}
    found = {"inside": 12.3, "outside": 0.5, "ratio": 24.6, "empty_boxes": 1, "boxes": 2, "empty_rate": 0.5}
    (folder / "box_adherence.json").write_text(json.dumps({**found, "layouts": 1, "per_class": per_class}))
    page = report(folder)
    assert "12.30 grey levels" in section(page, "Box-adherence") and "1 of 2" in section(page, "Box-adherence")
    assert tiles(page)["change inside over outside the boxes"] == "24.6" and tiles(page)["boxes left empty"] == "50.0 %"
    cells = {name: (row["change in its boxes"], row["empty"]) for name, row in rows(page).items()}
    assert cells == {"a": ("12.3", "1"), "b": ("", "")}


# Copies of training pictures


def test_a_sample_stands_beside_the_training_object_that_it_is_most_like(results_of, tmp_path):
    image = Image.new("L", (64, 64), 77)
    image.paste(200, (30, 30, 50, 50))
    image.save(tmp_path / "train é.png")
    copy = {"box": 1, "file": str(tmp_path / "train é.png"), "training_box": [30, 30, 50, 50], "training_label": "b"}
    copies = {i: {**copy, "similarity": similarity} for i, similarity in enumerate((0.5, 0.97, 0.9))}
    folder = results_of([[("a", BOX), ("b", BOX)]] * 3, scores=[[0.5, 0.5]] * 3, copies=copies)
    (folder / "quality.json").write_text(json.dumps({"protocol": {"copy_threshold": 0.9}}))
    page = report(folder)
    pairs = re.findall(r'<article class="pair.*?</article>', page, re.S)
    assert [re.search("<strong>(.*?)</strong>", pair)[1] for pair in pairs] == ["0.970", "0.900", "0.500"]
    assert [">copy<" in pair for pair in pairs] == [True, True, False]
    assert tiles(page)["near-copies of training pictures"] == "2"
    sample, original = Read(pairs[0]).of("img")
    assert sample["alt"] == "sample s001, b" and original["alt"] == "training picture train é.png, b"
    crop = np.asarray(decoded(original["src"]))
    assert crop.shape == (40, 40) and (crop[10:30, 10:30] == 200).all() and (crop == 200).mean() == 0.25
    assert decoded(sample["src"]).getextrema() == (0, 255)


def test_a_training_picture_that_is_gone_is_said_to_be(results_of, tmp_path):
    copy = {"similarity": 0.9, "box": 0, "file": str(tmp_path / "gone.png"), "training_box": [0, 0, 9, 9]}
    copies = {0: {**copy, "training_label": "a"}}
    page = report(results_of([[("a", BOX)]], scores=[[0.5]], copies=copies))
    assert "not readable any more" in page and "gone.png" in page


# Good parts, and sets without boxes


def test_good_parts_are_shown_and_all_of_them_named(results_of):
    page = report(results_of([[("a", BOX)]] + [[]] * 20, products=["A"] * 21))
    good = section(page, "Good-parts")
    assert "20 pictures without boxes, 8 of them here" in good and len(Read(good).of("img")) == 8
    assert [name for name in Read(good).text("bdi") if name.startswith("s")][-20:] == [
        f"s{i:03d}" for i in range(1, 21)
    ]


def test_a_set_without_boxes_shows_its_pictures(results_of):
    page = report(results_of([[]] * 3))
    assert len(Read(section(page, "Pictures")).of("img")) == 3
    assert not section(page, "Contact-sheets") and not section(page, "Classes") and not section(page, "Good-parts")


# Names, and what a page may hold


def test_names_are_text_wherever_they_stand(results_of, tmp_path):
    stem = "a <b>&'\"{x}"
    copy = {"similarity": 0.9, "box": 0, "file": str(tmp_path / NASTY.split("/")[0]), "training_box": [0, 0, 9, 9]}
    folder = results_of(
        [[(NASTY, BOX), ("Kratzer über ß 漢字", BOX)], []],
        scores=[[0.5, 0.4], []],
        copies={0: {**copy, "training_label": NASTY}},
        stems=[stem, "good<i>"],
        products=[NASTY, NASTY],
        name="results <u>",
        sampler="<em>ddim",
    )
    read = Read(report(folder))
    assert not {name for name, _, _ in read.tags} & {"script", "u", "link", "iframe", "object", "form"}
    words = {name for _, attributes, _ in read.tags for name in attributes}
    assert all(re.fullmatch("[a-zA-Z0-9-]+", name) and not name.startswith("on") for name in words)
    assert "Kratzer über ß 漢字" in read.text("h3") + read.text("bdi") and NASTY in read.text("bdi")
    assert any(image["alt"] == f"{NASTY} in {stem}, score 0.50" for image in read.of("img"))
    assert read.text("title")[0] == "results <u>: report"


INJECTED = '"><form><meta http-equiv=refresh content=0>'


def injected(value):
    """The value with every string and number in it replaced."""
    if isinstance(value, dict):
        return {name: injected(inner) for name, inner in value.items()}
    return [injected(inner) for inner in value] if isinstance(value, list) else INJECTED


ENTRY = ("stem", "layout", "source", "seed", "run", "s", "sampler", "timestep_respacing", "eta", "clip_denoised")
ENTRY += ("precision", "image_size", "checkpoint", "checkpoint_sha256", "layouts", "attempt", "redrawn", "quality")


@pytest.mark.parametrize("field", [*ENTRY, "index", "file", "rejected", "asked", "source_image", "mask", "another"])
def test_no_field_of_a_manifest_puts_tags_into_the_page(results_of, field):
    folder = results_of([[("a", BOX)], []])
    lines = [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]
    write_lines(folder / "manifest.jsonl", [{**line, field: injected(line.get(field, ""))} for line in lines])
    try:
        read = Read(report(folder))
    except ValueError:
        assert field in ("index", "file", "layout", "asked", "attempt", "redrawn", "rejected")
        return
    assert not {name for name, _, _ in read.tags} & {"form", "script", "base"} and len(read.of("meta")) == 4
    assert field not in ENTRY[:14] or any(INJECTED in words for _, _, data in read.tags for words in data)


def test_the_page_allows_no_script_no_form_and_no_other_base(results_of):
    policy = Read(report(results_of([[]]))).of("meta")[1]["content"].split("; ")
    assert {"default-src 'none'", "form-action 'none'", "base-uri 'none'"} <= set(policy)


def test_on_paper_the_navigation_is_hidden(results_of):
    printed = report(results_of([[]])).partition("@media print")[2]
    assert re.search(r"\n  nav, .told label { display: none; }", printed)


def test_the_page_holds_all_that_it_shows(results_of):
    page = report(results_of([[("a", BOX)], []]))
    read = Read(page)
    assert all(image["src"].startswith("data:image/") and image["alt"] for image in read.of("img"))
    assert "default-src 'none'" in page and not read.of("link") and not read.of("script")
    without_pictures = re.sub('src="data:.*?"', "", page)
    assert "url(" not in page and "@import" not in page and "://" not in without_pictures
    assert all(svg["aria-label"] for svg in read.of("svg"))


def test_names_that_are_not_utf_8_do_not_stop_it(results_of):
    stem = b"a_\xff".decode(errors="surrogateescape")
    page = report(results_of([[("a", BOX)]], stems=[stem]))
    assert "a_<wbr>?" in page


def test_the_same_folder_gives_the_same_page(results_of, tmp_path):
    folder = results_of([[("a", BOX)], []])
    assert report(folder, out=tmp_path / "1.html") == report(folder, out=tmp_path / "2.html")
    assert not (folder / "report.html").exists()


# What is missing, and how to get it


def test_what_was_not_measured_is_named_with_the_command_that_brings_it(results_of):
    page = report(results_of([[("a", BOX)]], name="my results"))
    missing = re.search('<ul class="missing">.*?</ul>', page, re.S)[0]
    lines = [shlex.split(line) for line in Read(missing).text("code")]
    assert [line[1] for line in lines] == ["evaluations/quality.py", "evaluations/box_adherence.py"]
    assert all(line[2].endswith("/my results") for line in lines) and "No layout_statistics.json in" in missing
    assert not section(page, "Scores") and not section(page, "Box-adherence")


@pytest.mark.parametrize("run", [0, 2])
def test_the_command_that_made_the_pictures_is_told(results_of, run):
    folder = results_of([[("a", BOX)]], name="my results", run=run)
    line = Read(section(report(folder), "Commands")).text("pre")[0].replace("\\\n", "")
    _, script, *words = shlex.split(line)
    sampling = flags.parse(SampleRun, "", words)[0]
    assert script == "scripts/image_sample.py" and sampling.diffusion.timestep_respacing == ""
    assert (sampling.sample.sampler, sampling.sample.eta, sampling.sample.num_steps) == ("ddim", 0.5, 25)
    assert (sampling.sample.seed, sampling.sample.s, sampling.sample.precision) == (3, 1.5, "fp32")
    assert sampling.sample.layouts == str(folder / "manifest.jsonl") and sampling.sample.num_runs == run + 1
    assert sampling.sample.results_path == f"{folder}_again"


def test_the_command_draws_the_layouts_as_they_were_drawn(results_of):
    chosen = {"layouts": "sampled", "class_balance": ["a, b=2", "c=1"], "no_overlap": True, "good_parts": -1.0}
    put = {"insert_into": "/good ones", "sampler": "repaint", "eta": 0.0, "box_margin": 0.3, "reject_below": 0.25}
    folder = results_of([[("a", BOX)], [], []], mask_kind="weak", **put)
    rewritten(folder, {0: chosen, 1: chosen, 2: {**chosen, "rejected": True}})
    _, _, *words = shlex.split(Read(section(report(folder), "Commands")).text("pre")[0].replace("\\\n", ""))
    sample = flags.parse(SampleRun, "", words)[0].sample
    assert (sample.layouts, sample.num_samples, sample.class_balance) == ("sampled", 3, ("a, b=2", "c=1"))
    assert (sample.no_overlap, sample.masks, sample.insert_into) == (True, True, "/good ones")
    assert (sample.box_margin, sample.reject_below) == (0.3, 0.25) and "--sampler" not in words


# Folders that cannot be reported on


def test_a_folder_without_samples_is_refused(tmp_path):
    with pytest.raises(ValueError, match=r"no manifest\.jsonl with samples in it \(image_sample\.py makes such"):
        write_report(tmp_path)


def test_of_several_runs_one_is_to_be_named(results_of, tmp_path):
    results_of([[]], name="run0")
    with pytest.raises(ValueError, match=r"a report is of one run: .*run0"):
        write_report(tmp_path)


def test_an_unfinished_folder_is_refused(results_of):
    folder = results_of([[], [], []])
    lines = (folder / "manifest.jsonl").read_text().splitlines()
    (folder / "manifest.jsonl").write_text("\n".join([lines[0], lines[2]]))
    with pytest.raises(ValueError, match=r"lacks image 1: let image_sample\.py finish first"):
        write_report(folder)


@pytest.mark.parametrize("change", [{"stem": "other"}, {"index": 7}, {"boxes": []}], ids=str)
def test_scores_of_other_samples_are_refused(results_of, change):
    folder = results_of([[("a", BOX)]], scores=[[0.5]])
    line = json.loads((folder / "quality.jsonl").read_text())
    (folder / "quality.jsonl").write_text(json.dumps({**line, **change}))
    with pytest.raises(ValueError, match=r"quality\.jsonl: scores other samples \(image \d differs\)"):
        write_report(folder)


def test_box_adherence_of_other_samples_is_refused(results_of):
    folder = results_of([[("a", BOX)]])
    protocol = {"sampler": "ddim", "seed": 4, "image_size": 16}
    (folder / "box_adherence.json").write_text(json.dumps({"ratio": 2.0, "protocol": protocol}))
    with pytest.raises(
        ValueError, match=r"box_adherence\.json: of other samples \(seed 4, here 3\); measure these anew"
    ):
        write_report(folder)


@pytest.mark.parametrize(
    ("name", "told"),
    [("quality.jsonl", "line 1: not a line of scores"), ("box_adherence.json", "not readable as JSON")],
)
def test_files_that_are_torn_are_named(results_of, name, told):
    folder = results_of([[("a", BOX)]])
    (folder / name).write_text('{"index": 0, "st')
    with pytest.raises(ValueError, match=f"{name}.*{told}"):
        write_report(folder)
    assert not (folder / "report.html").exists()


def test_a_sample_that_is_not_there_is_named(results_of):
    folder = results_of([[("a", BOX)]])
    (folder / "samples/s000.png").unlink()
    with pytest.raises(ImageError, match=r"s000\.png: no such image"):
        write_report(folder)
