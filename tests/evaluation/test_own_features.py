"""Features of one's own data: what they learn, that they are kept exactly, and what their figures are called."""

import importlib.util
import json
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.commands import features as train_features
from stay_diffusion.config import DataConfig, RunConfig
from stay_diffusion.data.layout import Layout
from stay_diffusion.evaluation.features import degradations
from stay_diffusion.evaluation.features.own_features import Network, Recipe, extractor, load, save
from stay_diffusion.evaluation.features.training import covered, examine, train
from stay_diffusion.evaluation.options import FeaturesConfig
from stay_diffusion.quality import run_gate
from stay_diffusion.quality.training import train_gate
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import load_tensors, save_tensors

RECIPE = Recipe(16, 1, ("spot", "line"), ("A",), "resize", 2, 0, 12, {"absent": 1.0})


@pytest.fixture(scope="module")
def tiny_set(tiny_data):
    """(training, validation) pictures of 16 grey pixels, and the vocabulary."""
    run = train_features.FeaturesRun(
        FeaturesConfig(image_size=16, image_channels=1), DataConfig(data_dir=str(tiny_data), num_workers=0)
    )
    records, vocabulary = factory.read_split(run.data, "train")
    held_out, _ = factory.read_split(factory.with_names(run.data, vocabulary), "val")
    return *(train_features.build_dataset(part, vocabulary, run, False) for part in (records, held_out)), vocabulary


def network_of(vocabulary, seed: int = 0) -> Network:
    torch.manual_seed(seed)
    return Network(1, len(vocabulary.classes), len(vocabulary.products))


def test_it_learns_to_tell_products_and_degradations_apart(tiny_set):
    training, _, vocabulary = tiny_set
    network = network_of(vocabulary)
    options = FeaturesConfig(image_size=16, image_channels=1, steps=50, batch_size=12)
    train(network, training, options, torch.device("cpu"), num_workers=0)
    found = examine(network.eval(), training, options, torch.device("cpu"))
    assert found["product"] == 1  # of 12
    assert found["degradation"] > 0.4  # a quarter by chance


def test_the_same_seed_gives_the_same_weights_and_another_others(tiny_set):
    training, _, vocabulary = tiny_set
    weights = []
    for seed in (3, 3, 4):
        network = network_of(vocabulary, seed)
        train(network, training, FeaturesConfig(steps=2, batch_size=4, seed=seed), torch.device("cpu"), 0)
        weights.append(torch.cat([value.flatten() for value in network.state_dict().values()]))
    assert torch.equal(weights[0], weights[1]) and not torch.equal(weights[0], weights[2])


def test_a_file_holds_network_and_recipe_exactly(tmp_path):
    torch.manual_seed(0)
    network = Network(1, 2, 1).eval()
    save(tmp_path / "f.pt", network, RECIPE)
    loaded, recipe = load(tmp_path / "f.pt")
    assert recipe == RECIPE
    torch.testing.assert_close(loaded.state_dict(), network.state_dict(), rtol=0, atol=0)
    images = torch.randint(256, (3, 1, 16, 16), dtype=torch.uint8)
    found = extractor(tmp_path / "f.pt", "cpu").measure(images, ("pool",))["pool"]
    torch.testing.assert_close(found, network.features(images.float()), rtol=0, atol=0)
    assert found.shape == (3, 128)


def test_a_file_of_something_else_is_refused(tmp_path):
    save_tensors(tmp_path / "f.pt", {"weight": torch.zeros(2)})
    with pytest.raises(
        ValueError, match=r"--features trained:.*f\.pt: neither train_features\.py's nor a quality_gate"
    ):
        extractor(tmp_path / "f.pt", "cpu")


def test_boxes_are_spread_over_the_cells_that_they_cover():
    boxes = torch.tensor([[[0.0, 0.0, 0.5, 1.0], [0.9, 0.9, 0.91, 0.91]], [[0.0, 0.0, 1.0, 1.0], [0.0, 0.0, 1.0, 1.0]]])
    labels, valid = torch.tensor([[2, 1], [2, 1]]), torch.tensor([[True, True], [False, True]])
    found = covered(Layout(boxes, labels, valid, torch.zeros(2, dtype=torch.long)), 2, 4, 4)
    expected = torch.zeros(2, 2, 4, 4)
    expected[0, 1, :, :2] = 1  # the left half
    expected[0, 0, 3, 3] = 1  # smaller than a cell
    expected[1, 0] = 1  # the padding object beside it counts for nothing
    torch.testing.assert_close(found, expected)


def test_degradations_are_what_they_are_called_and_drawn_from_seed_and_step_alone():
    images = torch.rand(64, 1, 24, 24, generator=torch.Generator().manual_seed(0)) * 1.2 - 0.6
    shown, how = degradations.degraded(images, seed=5, step=7)
    torch.testing.assert_close(degradations.degraded(images.clone(), seed=5, step=7)[0], shown, rtol=0, atol=0)
    assert not torch.equal(degradations.degraded(images, seed=5, step=8)[0], shown)
    kinds = {name: how == i for i, name in enumerate(degradations.DEGRADATIONS)}
    assert all(which.sum() > 4 for which in kinds.values())
    torch.testing.assert_close(shown[kinds["none"]], images[kinds["none"]])

    def roughness(x):
        return (x[..., 1:] - x[..., :-1]).abs().mean()

    assert roughness(shown[kinds["blur"]]) < 0.5 * roughness(images)
    assert roughness(shown[kinds["pixels"]]) < 0.7 * roughness(images)
    assert roughness(shown[kinds["noise"]]) > 1.02 * roughness(images)
    torch.testing.assert_close(shown[kinds["blur"]].mean(), images[kinds["blur"]].mean(), rtol=0, atol=0.02)


def test_shifted_pictures_are_moved_by_a_sixteenth_at_most():
    ramp = torch.arange(32.0).expand(5, 1, 32, 32)
    moved = degradations.shifted(ramp, seed=0, step=3)
    offsets = (moved - ramp)[..., 8:24].flatten(1)
    assert (offsets == offsets[:, :1]).all() and offsets.abs().max() <= 2 and len(offsets[:, 0].unique()) > 1


@pytest.mark.skipif(importlib.util.find_spec("torch_fidelity") is None, reason="torch-fidelity is not installed")
def test_figures_of_own_features_are_called_own_and_never_fid(tmp_path, monkeypatch, tiny_data):
    from stay_diffusion.commands import evaluate

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))

    def command(script, *arguments):
        monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
        return script.main()

    learn = ["--data_dir", tiny_data, "--image_channels", 1, "--image_size", 16, "--steps", 2, "--num_workers", 0]
    for name in ("a.pt", "b.pt"):
        assert command(train_features, *learn, "--out", f"my files/{name}", "--device", "cpu") == 0
    assert (tmp_path / "my files/a.pt").read_bytes() == (tmp_path / "my files/b.pt").read_bytes()

    real, made = (tiny_data / split / "vott-json-export" for split in ("val", "train"))
    options = ["--features", "trained:my files/a.pt", "--prdc_k", 2, "--json", "out.json", "--device", "cpu"]
    metrics = ["--metrics", "fid,kid,prdc,scene_fid,is,sfid"]
    assert command(evaluate, "--samples", made, "--reference", real, *options, *metrics) == 3
    report = json.loads((tmp_path / "out.json").read_text())
    shares = ["precision-own", "recall-own", "density-own", "coverage-own"]
    assert list(report["figures"]) == ["FD-own", "KID-own", *shares, "SceneFD-own"]
    assert sorted(report["not_computed"]) == ["is", "sfid"]
    told = report["figures"]["FD-own"]["protocol"]
    assert told["resize"] == "bicubic to 16" and len(told["weights_sha256"]) == 64
    assert "trained (128), 12 pictures, 2 steps" in told["features"]
    assert not [warning for warning in report["warnings"] if "2,048" in warning]


def test_a_run_folder_gives_data_cut_and_size(tmp_path, tiny_data, tiny_run, capsys, monkeypatch):
    from stay_diffusion.config import flags

    config = tiny_run(data={"data_dir": str(tiny_data), "crop_policy": "center", "classes": (), "product_tags": ()})
    (tmp_path / "config.json").write_text(flags.dump(config))
    monkeypatch.setattr(sys, "argv", ["x", "--run", str(tmp_path), "--image_size", "24", "--print_config"])
    assert train_features.main() == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["crop_policy"], shown["image_size"], shown["image_channels"]) == ("center", 24, 1)


def test_a_quality_gate_gives_features_of_objects_with_what_is_around_them(tmp_path, tiny_data, monkeypatch):
    from stay_diffusion.commands import evaluate

    config = RunConfig(data=DataConfig(data_dir=str(tiny_data)))
    records, vocabulary = factory.read_split(config.data, "train")
    dataset = factory.build_dataset(records, factory.with_vocabulary(config, vocabulary), augment=False)
    gate = train_gate(dataset, seed=0, flip=False, steps=2)
    save_tensors(tmp_path / "quality_gate.pt", run_gate.content_of(gate, {}))

    # The same objects, once with their surroundings changed far away, once near by: only near by is seen.
    results = {}
    for name, near in (("far", False), ("near", True)):
        folder = tmp_path / name
        (folder / "samples").mkdir(parents=True)
        (folder / "images").mkdir()
        lines = []
        for i in range(3):
            array = np.random.default_rng(i).integers(0, 256, (96, 96, 3), dtype=np.uint8)
            Image.fromarray(array).save(folder / "images" / f"{i}.png")
            array[(slice(28, 32) if near else slice(0, 8))] = 0
            Image.fromarray(array).save(folder / "samples" / f"{i}.png")
            box = {"label": "Spots", "box": [0.34, 0.34, 0.66, 0.66]}
            layout = {"product": None, "objects": [box]}
            lines.append({"index": i, "stem": str(i), "file": f"samples/{i}.png", "layout": layout, "source": "x"})
        (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
        words = ["--samples", folder, "--reference", folder / "images", "--metrics", "scene_fid,fid"]
        words += ["--features", f"trained:{tmp_path / 'quality_gate.pt'}", "--feature_cache", "off", "--device", "cpu"]
        words += ["--json", tmp_path / "out.json"]
        monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
        assert evaluate.main() == 3
        report = json.loads((tmp_path / "out.json").read_text())
        assert "has no pool features" in report["not_computed"]["fid"]
        results[name] = report["figures"]["SceneFD-own"]["value"]
    assert results["far"] < 1e-9 < results["near"]
    assert load_tensors(tmp_path / "quality_gate.pt")["digest"]
