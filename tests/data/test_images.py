import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.data.images import ImageError, image_size, read_image, to_pil, to_tensor

ORIENTATION = 274
RAMP = np.linspace(0, 65535, 24).astype(np.uint16).reshape(4, 6)


def save(path, array_or_image, **options):
    image = array_or_image if isinstance(array_or_image, Image.Image) else Image.fromarray(array_or_image)
    image.save(path, **options)
    return path


def exif(orientation):
    tags = Image.Exif()
    tags[ORIENTATION] = orientation
    return tags


@pytest.mark.parametrize("name", ["a.png", "a.tif", "a.TIFF"])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_16_bit_grey_is_neither_clipped_nor_rounded(tmp_path, name, channels):
    image = read_image(save(tmp_path / name, RAMP), channels)
    assert image.mode == "F"
    np.testing.assert_allclose(np.asarray(image), RAMP / 257, rtol=1e-6)
    assert to_tensor(image, channels).amax() == 1 and to_tensor(image, channels).amin() == -1


def test_a_big_endian_16_bit_grey_reads_like_a_little_endian_one(tmp_path):
    big = Image.frombytes("I;16B", (6, 4), RAMP.astype(">u2").tobytes())
    image = read_image(save(tmp_path / "a.tif", big), 1)
    np.testing.assert_allclose(np.asarray(image), RAMP / 257, rtol=1e-6)


def test_a_32_bit_integer_grey_is_taken_as_16_bit(tmp_path):
    image = read_image(save(tmp_path / "a.tif", RAMP.astype(np.int32)), 1)
    np.testing.assert_allclose(np.asarray(image), RAMP / 257, rtol=1e-6)


def test_a_float_grey_is_taken_as_0_to_1(tmp_path):
    image = read_image(save(tmp_path / "a.tif", (RAMP / 65535).astype(np.float32)), 1)
    np.testing.assert_allclose(np.asarray(image), RAMP / 257, rtol=1e-5)


@pytest.mark.parametrize(
    "bad", [np.int32([[0, 65536]]), np.int32([[-1, 5]]), np.float32([[0, 2]]), np.float32([[np.nan]])]
)
def test_values_outside_the_assumed_range_are_refused_with_the_file_named(tmp_path, bad):
    path = save(tmp_path / "odd.tif", bad)
    with pytest.raises(ImageError, match=r"odd\.tif.*expected 0\.\."):
        read_image(path, 1)


def test_every_8_bit_mode_reads_as_the_colour_it_shows(tmp_path):
    rgb = Image.new("RGB", (6, 4), (200, 100, 50))
    files = {
        "rgb.png": rgb,
        "rgba.png": rgb.convert("RGBA"),
        "palette.png": rgb.convert("P", palette=Image.Palette.ADAPTIVE),
        "palette.gif": rgb.convert("P", palette=Image.Palette.ADAPTIVE),
        "cmyk.tif": rgb.convert("CMYK"),
        "rgb.BMP": rgb,
        "rgb.JPG": rgb,
    }
    grey = rgb.convert("L").getpixel((0, 0))
    for name, image in files.items():
        colour, single = (read_image(save(tmp_path / name, image), channels) for channels in (3, 1))
        assert (colour.mode, single.mode) == ("RGB", "L"), name
        np.testing.assert_allclose(colour.getpixel((3, 2)), (200, 100, 50), atol=2, err_msg=name)
        np.testing.assert_allclose(single.getpixel((3, 2)), grey, atol=2, err_msg=name)


@pytest.mark.parametrize(("name", "mode"), [("a.png", "1"), ("a.bmp", "1"), ("a.png", "LA"), ("a.tif", "L")])
def test_a_grey_file_reads_as_one_channel_and_as_three_equal_ones(tmp_path, name, mode):
    pattern = np.uint8([[0, 255, 255], [255, 0, 0]])
    path = save(tmp_path / name, Image.fromarray(pattern).convert(mode))
    np.testing.assert_array_equal(np.asarray(read_image(path, 1)), pattern)
    np.testing.assert_array_equal(np.asarray(read_image(path, 3)), np.repeat(pattern[..., None], 3, axis=-1))


def test_a_grey_stored_as_three_channels_reads_like_the_same_grey_stored_as_one(tmp_path):
    grey = np.arange(256, dtype=np.uint8).reshape(16, 16)
    one, three = save(tmp_path / "one.png", grey), save(tmp_path / "three.png", np.repeat(grey[..., None], 3, axis=-1))
    np.testing.assert_array_equal(np.asarray(read_image(three, 1)), np.asarray(read_image(one, 1)))


def test_a_transparent_palette_keeps_its_colours_without_a_warning(tmp_path, recwarn):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putpixel((1, 0), 1)
    path = save(tmp_path / "a.png", image, transparency=bytes([0, 128]))
    assert [read_image(path, 3).getpixel((x, 0)) for x in (0, 1)] == [(10, 20, 30), (200, 100, 50)]
    assert not recwarn.list


@pytest.mark.parametrize("name", ["a.jpg", "a.png", "a.tif", "a.webp"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_tag_is_applied_and_the_size_agrees(tmp_path, name, orientation):
    upright = np.zeros((24, 40), np.uint8)
    upright[:8, :8] = 255  # one bright corner tells all eight orientations apart on an oblong picture
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_90,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }
    stored = Image.fromarray(upright)
    stored = stored.transpose(undo[orientation]) if orientation in undo else stored
    path = save(tmp_path / name, stored, exif=exif(orientation))
    image = read_image(path, 1)
    assert image.size == image_size(path) == (40, 24)
    np.testing.assert_allclose(np.asarray(image), upright, atol=60)


def test_the_orientation_tag_is_applied_to_a_16_bit_grey(tmp_path):
    image = read_image(save(tmp_path / "a.tif", np.rot90(RAMP), exif=exif(6)), 1)
    np.testing.assert_allclose(np.asarray(image), RAMP / 257, rtol=1e-6)


def test_the_size_is_read_without_decoding_the_picture(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((5, 7), np.uint8))
    monkeypatch.setattr("PIL.ImageFile.ImageFile.load", lambda self: pytest.fail("decoded"))
    assert image_size(path) == (7, 5)


@pytest.mark.parametrize("read", [lambda path: read_image(path, 1), image_size])
def test_a_missing_file_is_named(tmp_path, read):
    with pytest.raises(ImageError, match=r"gone\.png: no such image"):
        read(tmp_path / "gone.png")


@pytest.mark.parametrize("read", [lambda path: read_image(path, 1), image_size])
def test_a_file_that_is_no_picture_is_named_once(tmp_path, read):
    (tmp_path / "text.png").write_text("not a picture")
    with pytest.raises(ImageError) as error:
        read(tmp_path / "text.png")
    assert str(error.value).count("text.png") == 1 and "not an image" in str(error.value)


@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.bmp", "a.tif", "a.webp"])
def test_a_cut_off_file_is_an_error_that_names_it(tmp_path, name):
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), dtype=np.uint8)
    path = save(tmp_path / name, noise)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(ImageError, match=name):
        read_image(path, 1)


def test_black_and_white_become_minus_one_and_one():
    tensor = to_tensor(Image.fromarray(np.uint8([[0, 255]])), 1)
    assert tensor.dtype == torch.float32
    torch.testing.assert_close(tensor, torch.tensor([[[-1.0, 1.0]]]))


def test_a_colour_tensor_has_its_channels_first():
    tensor = to_tensor(Image.new("RGB", (5, 4), (255, 0, 51)), 3)
    assert tensor.shape == (3, 4, 5)
    torch.testing.assert_close(tensor[:, 0, 0], torch.tensor([1.0, -1.0, -0.6]))


def test_a_16_bit_grey_fills_three_equal_channels():
    tensor = to_tensor(Image.fromarray(np.float32([[0, 51, 255]])), 3)
    torch.testing.assert_close(tensor, torch.tensor([[-1.0, -0.6, 1.0]]).expand(3, 1, 3))


@pytest.mark.parametrize("channels", [1, 3])
def test_every_8_bit_value_survives_to_a_tensor_and_back(channels):
    values = np.arange(256, dtype=np.uint8).reshape(16, 16)
    values = values if channels == 1 else np.stack([values, values.T, 255 - values], axis=-1)
    np.testing.assert_array_equal(np.asarray(to_pil(to_tensor(Image.fromarray(values), channels))), values)


def test_a_tensor_becomes_a_picture_by_rounding_and_clamping():
    tensor = torch.tensor([[[-3.0, -1.0, 0.6 / 127.5 - 1, 0.4 / 127.5 - 1, 1.0, 7.0]]])
    np.testing.assert_array_equal(np.asarray(to_pil(tensor)), [[0, 0, 1, 0, 255, 255]])


def test_what_resizing_a_16_bit_grey_overshoots_stays_within_the_range():
    image = Image.fromarray(np.float32([[0, 0, 255, 255]] * 4)).resize((16, 16), Image.Resampling.BICUBIC)
    assert np.asarray(image).max() > 255
    assert to_tensor(image, 1).aminmax() == (-1, 1)
