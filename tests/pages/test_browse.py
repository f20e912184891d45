"""What the page of looked-at pictures says, held against what the data set gives."""

import re

import numpy as np
import pytest
import torch
from page_reader import Read
from PIL import Image

from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.problems import Problem
from stay_diffusion.pages.browse.browse import Tally, look, picture_of_map, spread
from stay_diffusion.pages.browse.page import clear, page, save_pictures
from stay_diffusion.run import factory
from stay_diffusion.sampling.preview import colour_of

NASTY = """<script>alert("1")</script>'&"""


@pytest.fixture
def records(tmp_path):
    """Six pictures of 60 x 40: three boxes, a sliver, none, one in each corner."""
    drawings = [
        (Box("spot", 5, 5, 20, 30), Box("line", 30.25, 2, 38.5, 38), Box("spot", 50, 10, 59, 20)),
        (Box("line", 10, 3, 10.5, 37), Box("spot", 30, 3, 33, 37)),
        (),
        *((Box("spot", x, y, x + 12, y + 12),) for x, y in ((0, 0), (48, 28), (20, 20))),
    ]
    found = []
    for i, boxes in enumerate(drawings):
        path = tmp_path / f"p{i}.png"
        values = np.random.default_rng(i).integers(0, 255, (40, 60), dtype=np.uint8)
        Image.fromarray(values).save(path)
        found.append(ImageRecord(path, 60, 40, boxes, "A" if i % 2 else None))
    return found


@pytest.fixture
def dataset_of(records, tiny_run):
    def build(model=None, **data):
        config = tiny_run(data={"crop_policy": "random", "random_flip": True, **data}, model={"image_size": 16})
        return factory.build_dataset(records, config, augment=True)

    return build


def seen(dataset, epochs=3):
    entries = [look(dataset, index, epochs, f"p{index}.png")[0] for index in range(len(dataset))]
    return entries, page(entries, dataset, "title", ["fact"])


def by_view(text: str) -> list[str]:
    return re.findall(r'<figure class="seen".*?</figure>', text, re.S)


CUTS = [
    {},
    {"crop_policy": "resize"},
    {"crop_policy": "object", "background_rate": 0.5},
    {"crop_policy": "center", "min_visible": 0.0},
    {"max_objects": 1, "max_objects_policy": "random"},
    {"max_objects": 2, "max_objects_policy": "largest"},
]


@pytest.mark.parametrize("data", CUTS, ids=str)
def test_the_page_shows_exactly_the_boxes_that_the_data_set_gives(dataset_of, data):
    dataset = dataset_of(**data)
    views = by_view(seen(dataset)[1])
    assert len(views) == len(dataset) * 3
    for number, view in enumerate(views):
        sample = dataset.sample(*divmod(number, 3))
        boxes = Read(view).of("b", "box")
        numbers = [[float(word) for word in box["data-box"].split()] for box in boxes]
        assert torch.equal(torch.tensor(numbers).reshape(-1, 4), sample.boxes)
        assert [int(box["data-label"]) for box in boxes] == sample.labels.tolist()


@pytest.mark.parametrize("data", CUTS, ids=str)
def test_an_outline_lies_where_its_numbers_say(dataset_of, data):
    for box in Read(seen(dataset_of(**data))[1]).of("b", "box"):
        left, top, width, height = (float(word) for word in re.findall(r"[-\d.e]+(?=%)", box["style"]))
        if "data-box" in box and max(map(float, box["data-box"].split())) <= 2:  # in shares, not in pixels
            x0, y0, x1, y1 = (100 * float(word) for word in box["data-box"].split())
            assert (left, top, left + width, top + height) == pytest.approx((x0, y0, x1, y1), abs=0.02)


def test_every_annotated_box_is_drawn_on_the_original_and_listed_with_what_became_of_it(dataset_of, records):
    entries, text = seen(dataset_of(max_objects=2, max_objects_policy="largest"), epochs=2)
    originals = re.findall(r'<figure class="original".*?</figure>', text, re.S)
    for record, original in zip(records, originals, strict=True):
        boxes = [[float(word) for word in box["data-box"].split()] for box in Read(original).of("b", "box")]
        assert boxes == [[box.x0, box.y0, box.x1, box.y1] for box in record.boxes]
    for entry, original in zip(entries, originals, strict=True):
        dashed = ["lost" in box["class"].split() for box in Read(original).of("b", "box")]
        assert dashed == [
            all(drawn.lost for drawn in draws) for draws in zip(*(v.objects for v in entry.views), strict=True)
        ]
        for view in entry.views:
            assert len(view.objects) == len(records[entry.index].boxes)
            assert len(view.shown) == min(2, sum(drawn.lost in ("", "max_objects") for drawn in view.objects))


def test_why_a_box_is_lost_is_told_apart(dataset_of):
    views = [entry.views[0] for entry in seen(dataset_of(crop_policy="center", random_flip=False), 1)[0]]
    assert [drawn.lost for drawn in views[0].objects] == ["", "", "crop"]  # the middle 40 of 60 pixels
    assert views[0].objects[2].share == 0
    assert [drawn.lost for drawn in views[1].objects] == ["pixel", ""]
    assert views[1].objects[1].is_tiny and views[1].objects[1].sides == pytest.approx((1.2, 13.6))
    assert not views[0].objects[0].is_tiny and views[0].objects[0].share == pytest.approx(10 / 15)
    limited = seen(dataset_of(crop_policy="resize", max_objects=1, max_objects_policy="largest"), 1)[0]
    assert [drawn.lost for drawn in limited[0].views[0].objects] == ["", "max_objects", "max_objects"]


def test_the_window_shows_in_the_original_what_the_network_sees(dataset_of, records):
    dataset = dataset_of()
    entries, _ = seen(dataset)
    assert {view.mirrored for entry in entries for view in entry.views} == {True, False}
    for entry in entries:
        with Image.open(records[entry.index].path) as picture:
            for view in entry.views:
                cut = np.asarray(picture.resize((16, 16), Image.Resampling.BICUBIC, box=view.window), dtype=np.float32)
                cut = torch.from_numpy(cut[:, ::-1].copy() if view.mirrored else cut)
                expected = dataset.sample(entry.index, view.epoch).image[0]
                torch.testing.assert_close(cut / 127.5 - 1, expected, atol=1e-4, rtol=0)


def test_a_card_can_be_found_by_name_class_product_and_state(dataset_of):
    entries, text = seen(dataset_of(crop_policy="center", random_flip=False), epochs=1)
    cards = Read(text).of("article")
    assert [card["data-name"] for card in cards] == [f"p{i}.png" for i in range(6)]
    labels = [" ".join(map(str, sorted(entry.views[0].labels))) for entry in entries]
    assert [card["data-labels"] for card in cards] == labels and labels[:3] == ["1 2", "1", ""]
    assert [card["data-product"] for card in cards] == ["0", "1"] * 3
    assert [card["data-state"] for card in cards[:3]] == ["lost", "lost tiny", "empty"]


def test_counts_per_class_are_those_of_the_samples_and_an_absent_class_is_named(records, tiny_run):
    config = tiny_run(data={"classes": ("spot", "line", "crack")}, model={"image_size": 16})
    dataset = factory.build_dataset(records, config, augment=True)
    _, text = seen(dataset, epochs=1)
    samples = [dataset.sample(index, 0).labels.tolist() for index in range(len(dataset))]
    buttons = {button["value"]: button for button in Read(text).of("button")}
    assert sorted(buttons) == ["1", "2"]
    for label in (1, 2):
        assert int(buttons[str(label)]["data-objects"]) == sum(labels.count(label) for labels in samples)
        assert int(buttons[str(label)]["data-pictures"]) == sum(label in labels for labels in samples)
    assert "1 class not seen here" in text and "<p>crack</p>" in text


def test_names_that_look_like_html_stay_text(records, tiny_run):
    nasty = [ImageRecord(r.path, 60, 40, tuple(Box(NASTY, *edges(b)) for b in r.boxes), NASTY) for r in records]
    dataset = factory.build_dataset(nasty, tiny_run(data={"classes": (NASTY,), "product_tags": (NASTY,)}), augment=True)
    entries = [look(dataset, index, 1, f"a/{NASTY}.png")[0] for index in range(2)]
    left_out = [Problem(NASTY, NASTY, NASTY, "image skipped")]
    read = Read(page(entries, dataset, NASTY, [NASTY], left_out))
    assert len(read.of("script")) == 1 and 'alert("1")' not in read.text("script")[0]
    assert read.of("article")[0]["data-name"] == f"a/{NASTY}.png".lower()
    assert read.text("h1") == [NASTY] and f"a/{NASTY}.png" in read.text("bdi") and NASTY in read.text("option")
    words = {name for _, attributes, _ in read.tags for name in attributes}
    assert all(re.fullmatch("[a-z-]+", name) and not name.startswith("on") for name in words) and "alert" not in words
    assert all(re.fullmatch(r"index_files/\d{6}(_\d+)?\.(png|jpg)", image["src"]) for image in read.of("img"))


def edges(box: Box) -> tuple[float, float, float, float]:
    return box.x0, box.y0, box.x1, box.y1


def test_the_page_fetches_nothing_from_elsewhere(dataset_of):
    _, text = seen(dataset_of(), epochs=1)
    read = Read(text)
    assert "://" not in text and "//" not in "".join(read.text("script"))
    assert not read.of("link") and "src" not in read.of("script")[0] and "url(" not in text and "@import" not in text


def test_every_picture_on_the_page_is_written_and_is_what_the_network_sees(dataset_of, tmp_path):
    dataset, folder = dataset_of(), tmp_path / "out"
    clear(folder)
    entries = []
    for index in range(2):
        entry, samples, original = look(dataset, index, 2, "name")
        save_pictures(folder, entry, samples, original, dataset)
        entries.append(entry)
    sources = {image["src"] for image in Read(page(entries, dataset, "t", [])).of("img")}
    assert sources == {f"index_files/{file.name}" for file in (folder / "index_files").iterdir()} and len(sources) == 6
    with Image.open(folder / "index_files/000001_1.png") as image:
        values = torch.from_numpy(np.asarray(image, dtype=np.float32)) / 127.5 - 1
    torch.testing.assert_close(values, dataset.sample(1, 1).image[0], atol=1 / 255 + 1e-5, rtol=0)


@pytest.mark.parametrize("policy", ["resize", "center", "random", "object"])
def test_the_original_keeps_its_shape_whatever_is_cut_from_it(dataset_of, policy):
    entry, _, original = look(dataset_of(crop_policy=policy), 0, 1, "x")
    assert original.size == (entry.width, entry.height) == (60, 40)


def test_an_earlier_page_is_cleared_and_a_foreign_one_is_left_alone(tmp_path, dataset_of):
    clear(tmp_path / "out")
    (tmp_path / "out/index.html").write_text(page([], dataset_of(), "t", []))
    for name in ("000012_0.png", "mine.png"):
        (tmp_path / "out/index_files" / name).touch()
    clear(tmp_path / "out")
    assert [file.name for file in (tmp_path / "out/index_files").iterdir()] == ["mine.png"]
    (tmp_path / "out/index.html").write_text("<html>my own page</html>")
    with pytest.raises(ValueError, match=r"--out .*holds an index.html that is not of this script"):
        clear(tmp_path / "out")


def test_a_map_is_shown_in_its_colours_with_the_shares_of_its_classes(tiny_maps, tiny_run):
    data = {"data_dir": str(tiny_maps), "dataset_mode": "ade20k", "product_tags": (), "classes": ()}
    config = tiny_run(data=data, model={"conditioning": "spade", "no_instance": True, "image_size": 16})
    records, vocabulary = factory.read_split(config.data, "train")
    dataset = factory.build_dataset(records, factory.with_vocabulary(config, vocabulary), augment=True)
    entry, (sample,), _ = look(dataset, 0, 1, "x")
    labels = sample.semantic_map[0]
    assert entry.views[0].shares == {int(v): float((labels == v).float().mean()) for v in labels.unique()}
    colours = np.array(picture_of_map(sample, vocabulary.classes))
    assert tuple(colours[8, 8]) == colour_of(vocabulary.classes[labels[8, 8] - 1], vocabulary.classes)
    edged = sample._replace(semantic_map=torch.stack([labels, torch.eye(16, dtype=labels.dtype)]))
    white = (np.array(picture_of_map(edged, vocabulary.classes)) == 255).all(axis=-1)
    assert np.array_equal(white, np.eye(16, dtype=bool))
    read = Read(page([entry], dataset, "t", []))
    assert "index_files/000000_0_map.png" in {image["src"] for image in read.of("img")}
    assert not read.of("b", "box") and len(read.of("figure", "map")) == 1
    listed = [word for word in read.text("li") + read.text("bdi") if word in vocabulary.classes]
    assert set(listed) >= {vocabulary.classes[label - 1] for label in labels.unique().tolist()}


def test_the_tally_adds_up_over_all_draws(dataset_of):
    entries, _ = seen(dataset_of(max_objects=1, max_objects_policy="random"))
    tally = Tally.of(entries)
    assert (tally.pictures, tally.drawn) == (6, 3 * 8) and tally.empty >= 3
    assert tally.objects.total() + tally.lost.total() == tally.drawn and tally.lost["max_objects"] > 0


@pytest.mark.parametrize(("length", "num"), [(100, 7), (10, 9), (3, 64), (5, 5), (1000, 1)])
def test_the_chosen_pictures_are_spread_evenly(length, num):
    chosen = spread(length, num, seed=1)
    assert len(set(chosen)) == len(chosen) == min(length, num) and chosen == sorted(chosen)
    assert max(np.diff([0, *chosen, length]), default=0) <= 2 * -(-length // num)
    assert all(0 <= index < length for index in chosen)


def test_the_seed_decides_which_are_chosen():
    assert spread(1000, 10, 1) == spread(1000, 10, 1) != spread(1000, 10, 2)
