import itertools
import os

import numpy as np
import pytest
import reading
import torch
from PIL import Image

from stay_diffusion.data import picture_cache, samples
from stay_diffusion.data.annotations import Box, ImageRecord, MapFiles, Vocabulary
from stay_diffusion.data.codings import CODINGS
from stay_diffusion.data.images import ImageError
from stay_diffusion.data.loader import batches
from stay_diffusion.data.picture_cache import cache_pictures
from stay_diffusion.data.transforms import CROP_POLICIES

VOCABULARY = Vocabulary(("spot",))
KINDS = ("ram", "disk")


@pytest.fixture(autouse=True)
def cache_home(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def records(tmp_path):
    """A grey and a colour JPEG, a PNG and a grey of 16 bits, of odd sizes."""
    values = np.random.default_rng(0).integers(0, 255, (131, 157, 3), dtype=np.uint8)
    pictures = {
        "grey.jpg": Image.fromarray(values[..., 0]),
        "colour.jpg": Image.fromarray(values),
        "colour.png": Image.fromarray(values),
        "deep.png": Image.fromarray(values[..., 0].astype(np.uint16) * 257),
    }
    for name, picture in pictures.items():
        picture.save(tmp_path / name)
    return [ImageRecord(tmp_path / name, 157, 131, (Box("spot", 20, 30, 90, 100),)) for name in pictures]


def dataset(records, **changes):
    return reading.dataset_of(
        records, VOCABULARY, **{"image_size": 16, "image_channels": 3, "random_flip": True, **changes}
    )


def shown(a_dataset, epochs=2):
    return [a_dataset.sample(index, epoch) for epoch in range(epochs) for index in range(len(a_dataset))]


def assert_same(first, second):
    for one, other in zip(first, second, strict=True):
        torch.testing.assert_close(one.image, other.image, rtol=0, atol=0)
        torch.testing.assert_close(one.boxes, other.boxes, rtol=0, atol=0)


def nothing_is_read(monkeypatch):
    monkeypatch.setattr(samples, "read_picture", lambda *_, **__: 1 / 0)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("policy", CROP_POLICIES)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_cache_changes_no_sample(records, kind, policy, channels):
    plain, cached = (dataset(records, crop_policy=policy, image_channels=channels) for _ in range(2))
    cache_pictures(cached, kind)
    assert_same(shown(plain, epochs=3), shown(cached, epochs=3))


@pytest.mark.parametrize("kind", KINDS)
def test_a_picture_is_read_once(records, kind, monkeypatch):
    cached = dataset(records)
    cache_pictures(cached, kind)
    before = shown(cached)
    nothing_is_read(monkeypatch)
    assert_same(before, shown(cached))


def test_without_a_cache_pictures_are_read_each_time(records, monkeypatch):
    plain = dataset(records)
    cache_pictures(plain, "off")
    shown(plain)
    nothing_is_read(monkeypatch)
    with pytest.raises(ZeroDivisionError):
        shown(plain)


def test_a_later_run_finds_the_pictures_on_disk(records, monkeypatch):
    first, second = dataset(records), dataset(records)
    cache_pictures(first, "disk")
    before = shown(first)
    nothing_is_read(monkeypatch)
    cache_pictures(second, "disk")
    assert_same(before, shown(second))


def test_a_moved_picture_is_found_by_its_content_and_a_changed_one_is_read_anew(records, tmp_path, cache_home):
    cached = dataset(records)
    cache_pictures(cached, "disk")
    shown(cached)
    files = set(cache_home.rglob("*"))
    moved = records[0].path.rename(tmp_path / "moved.jpg")
    other = dataset([ImageRecord(moved, 157, 131)])
    cache_pictures(other, "disk")
    shown(other)
    assert set(cache_home.rglob("*")) == files
    Image.new("L", (157, 131), 200).save(moved)
    torch.testing.assert_close(shown(other)[0].image, torch.full((3, 16, 16), 200 / 127.5 - 1), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    "change",
    [{"image_channels": 1}, {"image_size": 8}, {"crop_policy": "object"}, {"value_range": "0,30000"}],
    ids=str,
)
def test_other_settings_do_not_find_each_others_pictures(records, change):
    first, second = dataset(records), dataset(records, **change)
    for each in (first, second):
        cache_pictures(each, "disk")
        shown(each)
    again = dataset(records, **change)
    cache_pictures(again, "disk")
    assert_same(shown(dataset(records, **change)), shown(again))


def test_a_picture_with_maps_is_cached_as_it_is_stored(tmp_path):
    values = np.random.default_rng(0).integers(0, 255, (40, 60), dtype=np.uint8)
    tags = Image.Exif()
    tags[274] = 6
    Image.fromarray(values).save(tmp_path / "a.jpg", exif=tags)
    Image.new("L", (60, 40), 3).save(tmp_path / "a.png")
    stored = ImageRecord(tmp_path / "a.jpg", 0, 0, maps=MapFiles(tmp_path / "a.png", None, CODINGS["celeba"]))
    upright = ImageRecord(tmp_path / "a.jpg", 0, 0)
    for kind in KINDS:
        cached = dataset([stored, upright], image_size=8)
        cache_pictures(cached, kind)
        assert_same(shown(dataset([stored, upright], image_size=8)), shown(cached))


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: data[:-1], lambda data: b"x" + data[1:]])
def test_a_damaged_file_of_the_cache_is_replaced(records, cache_home, damage):
    first, second = dataset(records), dataset(records)
    cache_pictures(first, "disk")
    before = shown(first)
    files = [path for path in cache_home.rglob("*") if path.is_file()]
    whole = {path: path.read_bytes() for path in files}
    for path in files:
        path.write_bytes(damage(path.read_bytes()))
    cache_pictures(second, "disk")
    assert_same(before, shown(second))
    assert {path: path.read_bytes() for path in files} == whole


def test_where_nothing_can_be_written_samples_go_on_with_one_warning(records, cache_home, caplog):
    cache_home.write_text("not a folder")
    cached = dataset(records)
    cache_pictures(cached, "disk")
    assert_same(shown(dataset(records)), shown(cached))
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert str(cache_home) in caplog.text and "no longer kept" in caplog.text


@pytest.mark.parametrize("kind", KINDS)
def test_a_broken_or_missing_picture_is_named(records, kind):
    records[1].path.write_bytes(records[1].path.read_bytes()[:200])
    records[2].path.unlink()
    for index in (1, 2):
        cached = dataset(records[index : index + 1])
        with pytest.raises(ImageError, match=records[index].path.name):
            cache_pictures(cached, kind)
            shown(cached)


def test_pictures_that_memory_cannot_hold_are_refused_with_the_other_way_named(records, monkeypatch):
    monkeypatch.setattr(os, "sysconf", lambda name: 1000 if name == "SC_PHYS_PAGES" else 1)
    with pytest.raises(ValueError, match=r"--cache ram: 4 pictures need about .*--cache disk"):
        cache_pictures(dataset(records), "ram")


def test_workers_share_what_was_read_before_they_started(records, monkeypatch):
    cached = dataset(records)
    cache_pictures(cached, "ram")
    nothing_is_read(monkeypatch)
    images = [images for images, _ in itertools.islice(batches(cached, 2, 0, 0, num_workers=2), 6)]
    assert len(images) == 6


@pytest.mark.parametrize(("policy", "size"), [("resize", (16, 16)), ("center", (16, 16)), ("random", (79, 66))])
def test_a_picture_kept_is_no_larger_than_its_cuts_need(records, policy, size):
    cached = dataset(records, crop_policy=policy)
    cache_pictures(cached, "ram")
    assert {cached.picture_of(record).image.size for record in records} == {size}
    assert picture_cache.size_in_bytes(cached.picture_of(records[0])) == size[0] * size[1]
