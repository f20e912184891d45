import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.config import DataConfig
from stay_diffusion.data.images import ImageError, image_size, read_image, read_picture
from stay_diffusion.data.transforms import CROP_POLICIES, apply, cut_image, reduction


def by(factor):
    return lambda width, height: factor


def saved(path, image, **options):
    image.save(path, **options)
    return path


@pytest.fixture
def smooth():
    """A grey 203x157 picture of waves with one bright box."""
    y, x = np.mgrid[:157, :203]
    values = 110 + 60 * np.sin(x / 17) * np.cos(y / 23)
    values[40:90, 120:180] = 250
    return Image.fromarray(values.astype(np.uint8))


@pytest.mark.parametrize(
    ("policy", "width", "height", "size", "factor"),
    [
        ("resize", 640, 640, 64, 4),
        ("resize", 640, 640, 128, 2),
        ("resize", 640, 640, 320, 1),
        ("resize", 4096, 255, 64, 1),
        ("resize", 4096, 256, 64, 2),
        ("center", 5000, 4096, 64, 32),
        ("random", 640, 319, 64, 1),  # may show four fifths of the short side
        ("random", 640, 320, 64, 2),
        ("object", 640, 640, 64, 1),  # unscaled
        ("resize", 30, 20, 64, 1),
    ],
)
def test_pictures_stay_twice_as_large_as_they_are_shown(policy, width, height, size, factor):
    assert reduction(width, height, CROP_POLICIES[policy], size) == factor


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.webp", "a.tif"])
@pytest.mark.parametrize("factor", [2, 4, 8, 16])
@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_reduced_picture_has_the_means_of_the_pixels(tmp_path, smooth, name, factor, mode):
    options = {"quality": 100} | ({"lossless": True} if name == "a.webp" else {})
    path = saved(tmp_path / name, smooth.convert(mode), **options)
    picture = read_picture(path, 3 if mode == "RGB" else 1, reduction=by(factor))
    width, height = -(-203 // factor), -(-157 // factor)
    assert picture.image.size == (width, height)
    assert picture[1:] == (203, 157, (0, 0, width * factor, height * factor))
    inside = np.asarray(smooth.convert(mode), float)[: 157 // factor * factor, : 203 // factor * factor]
    means = inside.reshape(157 // factor, factor, 203 // factor, factor, -1).mean(axis=(1, 3))
    found = np.asarray(picture.image, float).reshape(*picture.image.size[::-1], -1)
    assert np.abs(found[: 157 // factor, : 203 // factor] - means).mean() < 2


@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
@pytest.mark.parametrize("factor", [2, 8])
def test_what_is_cut_from_a_reduced_picture_lies_where_it_lies_in_the_whole(tmp_path, smooth, orientation, factor):
    tags = Image.Exif()
    tags[274] = orientation
    path = saved(tmp_path / "a.jpg", smooth, quality=100, exif=tags)
    whole, reduced = (read_picture(path, 1, reduction=by(f)) for f in (1, factor))
    assert reduced[1:3] == whole[1:3] == whole.image.size
    window = (0, 0, whole.width, whole.height)
    differences = np.subtract(*(np.asarray(cut_image(p, window, 16), float) for p in (whole, reduced)))
    assert np.abs(differences).mean() < 4


def test_boxes_stay_on_their_objects_in_a_reduced_picture(smooth, tmp_path):
    path, data = saved(tmp_path / "a.png", smooth), DataConfig(min_visible=0, random_flip=True)
    for seed in range(20):
        picture = read_picture(path, 1, reduction=by(4))
        cut = apply(
            picture, np.array([[120, 40, 180, 90]]), CROP_POLICIES["random"], 16, data, np.random.default_rng(seed)
        )
        rows, columns = np.nonzero(np.asarray(cut.image) > 210)
        if len(cut.kept) and (cut.boxes[0] > 0).all() and (cut.boxes[0] < 1).all():
            found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) / 16
            np.testing.assert_allclose(found, cut.boxes[0], atol=1.6 / 16)


def test_a_grey_picture_stays_of_one_channel_until_it_is_shown(tmp_path, smooth):
    path = saved(tmp_path / "a.jpg", smooth)
    assert read_picture(path, 3).image.mode == "L"
    assert read_image(path, 3).mode == "RGB"


def test_a_deep_grey_is_reduced_without_rounding(tmp_path):
    values = np.array([[0, 1], [2, 3]], dtype=np.uint16)
    picture = read_picture(saved(tmp_path / "a.png", Image.fromarray(values)), 1, reduction=by(2))
    np.testing.assert_allclose(np.asarray(picture.image), 1.5 * 255 / 65535, rtol=1e-6)


@pytest.mark.parametrize("kind", [np.uint16, np.int32, np.float32])
def test_the_range_given_is_black_and_white_and_what_lies_outside_is_cut(tmp_path, kind):
    values = np.array([[0, 100, 2100, 4100, 60000]]).astype(kind)
    path = saved(tmp_path / "a.tif", Image.fromarray(values))
    picture = read_image(path, 1, value_range=(100, 4100))
    np.testing.assert_allclose(np.asarray(picture), [[0, 0, 127.5, 255, 255]])


def test_the_range_does_not_concern_pictures_of_8_bits(tmp_path, smooth):
    path = saved(tmp_path / "a.png", smooth)
    np.testing.assert_array_equal(np.asarray(read_image(path, 1, value_range=(0, 4095))), np.asarray(smooth))


def test_a_value_that_is_no_number_is_black_within_a_range(tmp_path):
    path = saved(tmp_path / "a.tif", Image.fromarray(np.float32([[np.nan, 2]])))
    np.testing.assert_array_equal(np.asarray(read_image(path, 1, value_range=(1, 2))), [[0, 255]])


def test_a_picture_of_several_frames_from_a_phone_is_read(tmp_path, smooth):
    path = saved(tmp_path / "a.jpg", smooth, format="MPO", save_all=True, append_images=[smooth])
    picture = read_picture(path, 1, reduction=by(2))
    assert picture.image.size == (102, 79) and picture[1:] == (203, 157, (0, 0, 204, 158))


def test_a_program_called_a_picture_is_not_started(tmp_path):
    (tmp_path / "a.png").write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n")
    with pytest.raises(ImageError, match=r"a\.png: not an image"):
        read_image(tmp_path / "a.png", 1)


def test_a_decompression_bomb_is_refused_by_its_name(tmp_path):
    header = struct.pack(">IIBBBBB", 60000, 60000, 8, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0")), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body)) for name, body in chunks
    )
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + data)
    with pytest.raises(ImageError, match=r"bomb\.png: too many pixels .*3600000000"):
        read_image(tmp_path / "bomb.png", 1)


def test_a_large_picture_is_read_without_a_warning(tmp_path):
    path = saved(tmp_path / "long.png", Image.new("1", (100_000, 900)))
    code = f"from stay_diffusion.data.images import read_image; print(read_image({str(path)!r}, 1).size)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (ended.stdout, ended.stderr) == ("(100000, 900)\n", "")


def test_a_picture_smaller_than_its_reduction_is_still_one_pixel(tmp_path):
    for name in ("a.jpg", "a.png"):
        picture = read_picture(saved(tmp_path / name, Image.new("L", (5, 3), 90)), 1, reduction=by(16))
        assert picture.image.size == (1, 1) and picture[1:] == (5, 3, (0, 0, 16, 16))
        assert abs(picture.image.getpixel((0, 0)) - 90) <= 1


@pytest.mark.parametrize("read", [lambda path: read_image(path, 1), image_size])
def test_a_pipe_called_a_picture_is_not_waited_for(tmp_path, read):
    os.mkfifo(tmp_path / "a.png")
    with pytest.raises(ImageError, match=r"a\.png: .*not a file"):
        read(tmp_path / "a.png")
