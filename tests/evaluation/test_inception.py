"""Inception for FID: its features, which pixels it is given, and where its weights are found."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

if importlib.util.find_spec("torch_fidelity") is None:
    pytest.skip("torch-fidelity is not installed: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.evaluation import image_set
from stay_diffusion.evaluation.features import inception


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_images(folder: Path, images) -> list[Path]:
    paths = [folder / f"{i:03}.png" for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        Image.fromarray(image).save(path)
    return paths


@pytest.fixture(scope="module")
def network():
    """Random weights whose features are of order 1: torch's own initial ones shrink every image to nearly 0."""
    torch.manual_seed(0)
    model = inception.load_network(None)
    for layer in model.modules():
        if isinstance(layer, torch.nn.Conv2d):
            torch.nn.init.kaiming_normal_(layer.weight)
    return model


def test_features_do_not_depend_on_the_batch_size(network):
    images = noise(3, 32, 40, 3)
    with torch.inference_mode():
        one, two = (
            torch.cat([inception.pool3(network, batch) for batch in image_set.batches(images, size, None)])
            for size in (1, 2)
        )
    assert one.shape == (3, 2048) and one.std(dim=0).mean() > 1e-3
    torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-5)


def test_pool_logits_and_spatial_features_come_of_one_pass(network):
    """Spatial: guided-diffusion's, the first 7 channels of the 1x1 branch of Mixed_6d, 17 x 17 each."""
    images, kept = torch.from_numpy(noise(2, 3, 64, 64)), []
    hook = network.Mixed_6d.branch1x1.register_forward_hook(lambda module, inputs, output: kept.append(output))
    with torch.inference_mode():
        found = inception.outputs(network, images, ("pool", "logits", "spatial"))
        hook.remove()
        torch.testing.assert_close(found["pool"], inception.pool3(network, images), rtol=0, atol=0)
        assert list(inception.outputs(network, images, ("logits",))) == ["logits"]
    torch.testing.assert_close(found["logits"], found["pool"] @ network.fc.weight.T)
    assert len(kept) == 1 and found["spatial"].shape == (2, 7 * 17 * 17)
    torch.testing.assert_close(found["spatial"], kept[0][:, :7].flatten(1), rtol=0, atol=0)


def test_only_neighbours_of_one_size_share_a_batch(tmp_path):
    images = [*noise(3, 32, 32, 3), *noise(1, 20, 48, 3, seed=1), *noise(1, 32, 32, 3, seed=2)]
    found = [batch.shape for batch in image_set.batches(save_images(tmp_path, images), 2, None)]
    assert found == [(2, 3, 32, 32), (1, 3, 32, 32), (1, 3, 20, 48), (1, 3, 32, 32)]


def test_files_and_an_array_of_the_same_images_give_the_same_batches(tmp_path):
    images = noise(5, 16, 24, 3)
    files, array = (
        torch.cat(list(image_set.batches(items, 2, None))) for items in (save_images(tmp_path, images), images)
    )
    torch.testing.assert_close(files, array)
    torch.testing.assert_close(array, torch.from_numpy(images).permute(0, 3, 1, 2))


def test_image_size_resizes_every_image_first(tmp_path):
    (batch,) = image_set.batches(save_images(tmp_path, [*noise(2, 8, 8, 3), *noise(2, 12, 20, 3)]), 8, 16)
    assert batch.shape == (4, 3, 16, 16)


def test_compat_oasis_takes_the_same_features_of_a_picture_that_no_resize_changes(network):
    flat = torch.tensor([10, 120, 250], dtype=torch.uint8)[None, :, None, None].expand(1, 3, 40, 300)
    with torch.inference_mode():
        ours, theirs = inception.pool3(network, flat), inception.oasis_pool3(network, flat)
    # (x - 128) / 128 against 2 x / 255 - 1: nearly the same input, so nearly the same features.
    assert (theirs - ours).norm() < 0.05 * ours.norm()
    assert not torch.equal(theirs, ours)


def test_compat_oasis_resizes_with_half_pixel_centres_and_anti_aliasing():
    ramp = torch.arange(512.0).div(2).to(torch.uint8).expand(3, 128, 512)
    resized = inception._skimage_resize(ramp)
    assert resized.shape == (3, 256, 256)
    torch.testing.assert_close(resized[0, 7, 20:-20], torch.arange(256.0)[20:-20], rtol=0, atol=0.05)
    grain = torch.from_numpy(noise(3, 1024, 1024))
    assert inception._skimage_resize(grain).std() < 0.25 * grain.float().std()  # 0.5 without anti-aliasing


def test_grey_is_repeated_and_sixteen_bits_do_not_saturate(tmp_path):
    values = np.array([[0, 257, 25700, 65535]], dtype=np.uint16)
    Image.fromarray(values).save(tmp_path / "deep.png")
    Image.fromarray((values // 257).astype(np.uint8)).save(tmp_path / "grey.png")
    expected = np.array([0, 1, 100, 255])[None, :, None].repeat(3, axis=2)
    for name in ("deep.png", "grey.png"):
        np.testing.assert_array_equal(image_set.pixels(tmp_path / name), expected)


def test_an_unreadable_image_is_named(tmp_path):
    (tmp_path / "x.png").write_bytes(b"not a picture")
    with pytest.raises(ValueError, match=r"x\.png: "):
        image_set.pixels(tmp_path / "x.png")


def test_weights_that_are_not_inceptions_are_refused(tmp_path):
    torch.save({"fc.weight": torch.zeros(2)}, tmp_path / "w.pth")
    with pytest.raises(ValueError, match=r"w\.pth: cannot be loaded as pt_inception") as raised:
        inception.load_network(tmp_path / "w.pth")
    assert "\n" not in str(raised.value)


def test_weights_given_are_loaded(network, tmp_path):
    torch.save(network.state_dict(), tmp_path / "w.pth")
    loaded = inception.load_network(tmp_path / "w.pth")
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)


@pytest.mark.parametrize("name", ["pt_inception-2015-12-05-6726825d.pth", "weights-inception-2015-12-05-6726825d.pth"])
def test_weights_in_the_hub_cache_are_found_under_either_name(tmp_path, monkeypatch, name):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    cached = tmp_path / "hub" / "checkpoints" / name
    cached.parent.mkdir(parents=True)
    cached.touch()
    assert inception.find_weights(None, download=False) == cached
