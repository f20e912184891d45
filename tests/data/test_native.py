import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.data.images import ImageError, read_image, to_tensor
from stay_diffusion.data.native import changed, read_native, seen_by_model, to_picture

EVERYWHERE = (slice(None), slice(None))


def random_values(shape, dtype):
    return np.random.default_rng(0).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.mark.parametrize(("shape", "dtype"), [((5, 7), np.uint8), ((5, 7), np.uint16), ((5, 7, 3), np.uint8)])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_value_is_read_and_written_as_it_is_stored(tmp_path, shape, dtype, suffix):
    values = random_values(shape, dtype)
    to_picture(values).save(tmp_path / f"a{suffix}")
    read = read_native(tmp_path / f"a{suffix}")
    assert read.dtype == dtype and np.array_equal(read, values)


def test_a_sideways_picture_is_read_upright(tmp_path):
    exif = Image.Exif()
    exif[274] = 6
    to_picture(random_values((5, 7), np.uint8)).save(tmp_path / "a.png", exif=exif)
    assert read_native(tmp_path / "a.png").shape == (7, 5)


@pytest.mark.parametrize("mode", ["P", "RGBA", "LA", "1", "CMYK"])
def test_other_kinds_of_pictures_keep_their_colours(tmp_path, mode):
    picture = Image.fromarray(random_values((5, 7, 3), np.uint8)).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    picture.save(path)
    expected = np.array(read_image(path, 3))
    native = read_native(path)
    assert np.array_equal(native if native.ndim == 3 else np.stack([native] * 3, axis=-1), expected)


def test_pictures_that_no_png_can_hold_are_refused_by_name(tmp_path):
    Image.fromarray(np.ones((4, 4), dtype=np.float32)).save(tmp_path / "deep.tif")
    with pytest.raises(ImageError, match=r"deep\.tif.*mode F"):
        read_native(tmp_path / "deep.tif")
    with pytest.raises(ImageError, match="no such image"):
        read_native(tmp_path / "none.png")


@pytest.mark.parametrize(("shape", "dtype"), [((5, 7), np.uint8), ((5, 7), np.uint16), ((5, 7, 3), np.uint8)])
@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("value_range", [None, (1000, 40000)])
def test_the_model_sees_what_training_shows_it(tmp_path, shape, dtype, channels, value_range):
    values = random_values(shape, dtype)
    to_picture(values).save(tmp_path / "a.png")
    trained = to_tensor(read_image(tmp_path / "a.png", channels, value_range=value_range), channels)
    # Pillow rounds the grey of colours to whole levels.
    torch.testing.assert_close(seen_by_model(values, channels, value_range), trained, atol=1 / 127, rtol=0)


@pytest.mark.parametrize(("shape", "dtype"), [((5, 7), np.uint8), ((5, 7), np.uint16), ((5, 7, 3), np.uint8)])
@pytest.mark.parametrize("channels", [1, 3])
def test_a_change_to_white_gives_white(shape, dtype, channels):
    grey = np.full(shape, 100, dtype=dtype)
    change = torch.ones(channels, 5, 7) - seen_by_model(grey, channels, None)
    assert (changed(grey, change, EVERYWHERE, None) == np.iinfo(dtype).max).all()


def test_nothing_changes_where_the_change_is_zero_and_outside_of_its_place():
    values = random_values((6, 8), np.uint16)
    change = torch.zeros(1, 3, 4)
    change[0, 1, 2] = 0.5
    result = changed(values, change, (slice(2, 5), slice(3, 7)), None)
    different = np.argwhere(result != values).tolist()
    assert different in ([[3, 5]], [])
    assert result[3, 5] == min(int(values[3, 5]) + round(0.25 * 65535), 65535)


def test_a_grey_picture_takes_the_mean_of_a_colour_models_change():
    change = torch.tensor([0.2, 0.4, 0.6]).view(3, 1, 1).expand(3, 2, 2)
    result = changed(np.full((2, 2), 100, dtype=np.uint8), change, EVERYWHERE, None)
    assert (result == 151).all()
