"""evaluate.py: one command, its figures, what they say of themselves, and what they do not depend on."""

import importlib.util
import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

if importlib.util.find_spec("torch_fidelity") is None:
    pytest.skip("torch-fidelity is not installed: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.commands import evaluate
from stay_diffusion.evaluation.features import extractor as features
from stay_diffusion.evaluation.features import inception
from stay_diffusion.evaluation.metrics import fid

# In place of Inception: convolutions, whose last bits can depend on what else is in the batch.
SMALL_NETWORK = """
from stay_diffusion.evaluation.features import inception
import torch
torch.manual_seed(0)
class Small(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.Mixed_6d = torch.nn.Conv2d(3, 8, 3, stride=4)
        self.last = torch.nn.Conv2d(8, 12, 3)
    def forward(self, images):
        x = torch.nn.functional.interpolate(images.float() / 255, size=(32, 32))
        x = self.last(self.Mixed_6d(x).relu())
        return x.mean(dim=(2, 3)), 9 * x.amax(dim=(2, 3))
small = Small()
inception.load_network = lambda weights: small
"""
exec(SMALL_NETWORK.replace("inception.load_network", "load_small"))


@pytest.fixture
def command(tmp_path, monkeypatch):
    """command(*arguments) -> (exit code, JSON) of evaluate.py run in tmp_path with the small network."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(inception, "load_network", load_small)  # noqa: F821
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    torch.save({}, tmp_path / "w.pth")

    def run(*arguments, weights="w.pth") -> tuple[int, dict]:
        words = [*arguments, "--weights", weights, "--device", "cpu", "--json", "out.json"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        code = evaluate.main()
        return code, json.loads((tmp_path / "out.json").read_text())

    return run


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_images(folder: Path, images, suffix: str = ".png", names=None) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{names[i] if names else f'{i:03}'}{suffix}")
    return folder


def save_results(folder: Path, runs: int, layouts: int, seeds=None, size: int = 32) -> Path:
    """What image_sample.py leaves: `layouts` samples in each run, with one box each."""
    for run in range(runs):
        seed = seeds[run] if seeds else run
        images = noise(layouts, size, size, 3, seed=seed)
        save_images(folder / f"run{run}" / "samples", images)
        lines = [
            {
                "index": i,
                "stem": f"{i:03}",
                "file": f"samples/{i:03}.png",
                "layout": {"product": None, "objects": [{"label": "spot", "box": [0.25, 0.25, 0.75, 1.0]}]},
                "source": f"picture {i}",
                "checkpoint": "nowhere.pt",
            }
            for i in range(layouts)
        ]
        (folder / f"run{run}" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def values(report: dict) -> dict[str, float]:
    return {name: figure["value"] for name, figure in report["figures"].items()}


ALL = "fid,kid,is,sfid,prdc"
FIGURES = ["FID", "KID", "IS", "sFID", "precision", "recall", "density", "coverage"]


@pytest.fixture
def sides(tmp_path):
    save_images(tmp_path / "made", [*noise(9, 32, 40, 3), *noise(5, 24, 24, 3, seed=1)])
    save_images(tmp_path / "real", noise(12, 32, 32, 3, seed=2))
    return ["--samples", "made", "--reference", "real", "--metrics", ALL, "--bootstrap", "3"]


def test_each_figure_stands_with_its_whole_protocol(command, sides, tmp_path):
    code, report = command(*sides, "--markdown", "out.md")
    assert code == 0 and list(report["figures"]) == FIGURES and report["not_computed"] == {}
    fid = report["figures"]["FID"]
    assert fid["spread"] > 0 and fid["spread_of"] == "standard error, bootstrap of 3"
    told = fid["protocol"]
    assert told["samples"] == str(tmp_path / "made") and told["samples_images"] == 14
    assert told["samples_sizes"] == "40x32 x 9, 24x24 x 5"
    assert told["reference_images"] == 12 and "bilinear to 299" in told["resize"]
    assert len(told["weights_sha256"]) == 64 and told["versions"]["torch"] == torch.__version__
    assert told["seed"] == 2020 and told["device"] == "cpu"
    assert report["figures"]["precision"]["protocol"]["k"] == 5
    table = (tmp_path / "out.md").read_text()
    assert f"| FID | ↓ | {fid['value']:.4f} ± {fid['spread']:.4f} | standard error, bootstrap of 3 |" in table
    assert f"- weights_sha256: {told['weights_sha256']}" in table


def test_the_fid_is_that_of_the_images_features(command, sides, tmp_path):
    _, report = command(*sides)
    from stay_diffusion.evaluation.image_set import batches, open_set

    both = []
    for name in ("made", "real"):
        with torch.inference_mode():
            found = [load_small(None)(batch)[0] for batch in batches(open_set(tmp_path / name).items, 1, None)]  # noqa: F821
        both.append(torch.cat(found).numpy())
    np.testing.assert_allclose(values(report)["FID"], fid.frechet(*both), rtol=1e-4)


def test_neither_batch_size_nor_names_change_a_figure(command, sides, tmp_path):
    _, expected = command(*sides)
    _, found = command(*sides, "--batch_size", 3, "--feature_cache", "off")
    assert values(found) == pytest.approx(values(expected), rel=1e-4)
    for path in (tmp_path / "made").iterdir():  # the other way round: what order they come in must not matter
        path.rename(path.with_name(f"x{999 - int(path.stem):03}.png"))
    _, found = command(*sides, "--feature_cache", "off")
    assert values(found) == values(expected)


def test_several_processes_give_the_very_same_figures_once(sides, tmp_path, run_script, run_ranks):
    torch.save({}, tmp_path / "w.pth")
    options = {
        "cwd": tmp_path,
        "prelude": SMALL_NETWORK,
        "environment": {"XDG_CACHE_HOME": str(tmp_path / "cache")},
    }
    arguments = [*sides, "--weights", "w.pth", "--device", "cpu", "--batch_size", 4]
    run_script("evaluations/evaluate.py", *arguments, "--feature_cache", "off", "--json", "1.json", **options)
    ended = run_ranks(3, "evaluations/evaluate.py", *arguments, "--json", "n.json", **options)
    expected, found = (json.loads((tmp_path / name).read_text()) for name in ("1.json", "n.json"))
    assert found == expected and ended[0].output.count("| FID |") == 1
    assert [other.output for other in ended[1:]] == ["", ""]


def test_features_are_computed_once_and_again_only_where_an_image_has_changed(command, sides, tmp_path, monkeypatch):
    taken = []
    real = features.batches
    monkeypatch.setattr(features, "batches", lambda items, *rest: taken.append(len(items)) or real(items, *rest))
    _, expected = command(*sides)
    assert sum(taken) == 26
    taken.clear()
    (tmp_path / "made").rename(tmp_path / "elsewhere")  # by content, wherever it lies
    _, found = command("--samples", "elsewhere", *sides[2:])
    assert taken == [] and values(found) == values(expected)
    Image.fromarray(noise(24, 24, 3, seed=7)).save(tmp_path / "elsewhere" / "013.png")
    _, found = command("--samples", "elsewhere", *sides[2:])
    assert sum(taken) == 14 and values(found) != values(expected)


def test_a_damaged_file_of_the_cache_is_computed_again(command, sides, tmp_path):
    _, expected = command(*sides)
    for file in (tmp_path / "cache/stay_diffusion/features").iterdir():
        file.write_bytes(file.read_bytes()[:200])
    _, found = command(*sides)
    assert values(found) == values(expected)


@pytest.fixture(scope="module")
def squeeze(tmp_path_factory) -> Path:
    """Random weights of LPIPS's smallest backbone."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("backbone") / "squeeze.pth"
    torch.save(inception.import_torchvision().models.squeezenet1_1(weights=None).state_dict(), path)
    return path


def test_missing_weights_are_one_line_and_the_other_metrics_still_run(command, tmp_path, monkeypatch, capsys, squeeze):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "hub_home"))
    results = save_results(tmp_path / "results", runs=2, layouts=3)
    options = ["--metrics", "fid,lpips", "--lpips_net", "squeeze", "--backbone_weights", squeeze]
    code, report = command("--samples", results, "--reference", results, *options, weights="")
    assert code == 3 and list(report["figures"]) == ["DS (LPIPS)"]
    (line,) = [line for line in capsys.readouterr().err.splitlines() if line.startswith("not computed")]
    assert line.startswith("not computed: fid: Inception weights pt_inception-2015-12-05-6726825d.pth are not in ")
    assert str(tmp_path / "hub_home/hub/checkpoints") in line and "https://" in line
    assert report["figures"]["DS (LPIPS)"]["protocol"]["backbone_sha256"]
    code, _ = command("--samples", results, "--reference", results, "--metrics", "fid", weights="")
    assert code == 3 and "|" not in capsys.readouterr().out  # no table of nothing


def test_identical_runs_have_no_diversity_and_a_warning(command, tmp_path, squeeze):
    options = ["--metrics", "lpips", "--lpips_net", "squeeze", "--backbone_weights", squeeze]
    same, other = (
        command("--samples", save_results(tmp_path / name, 3, 2, seeds), *options)[1]
        for name, seeds in (("same", (5, 5, 5)), ("other", None))
    )
    assert values(same) == {"DS (LPIPS)": 0.0}
    assert [w for w in same["warnings"] if "2 of 2 layouts, 000 first, have images that do not differ" in w]
    assert values(other)["DS (LPIPS)"] > 0 and not [w for w in other["warnings"] if "do not differ" in w]
    layouts = other["figures"]["DS (LPIPS)"]["details"]["layouts"]
    assert {name: found["pairs"] for name, found in layouts.items()} == {"000": 3, "001": 3}
    assert values(other)["DS (LPIPS)"] == pytest.approx(np.mean([found["mean"] for found in layouts.values()]))


def test_a_set_is_at_no_distance_from_itself_and_copies_are_told(command, tmp_path):
    save_images(tmp_path / "a", noise(8, 32, 32, 3))
    save_images(tmp_path / "b", noise(8, 32, 32, 3))
    _, report = command("--samples", "a", "--reference", "b", "--metrics", "fid,prdc")
    assert values(report)["FID"] < 1e-8 and values(report)["precision"] == values(report)["recall"] == 1
    assert "8 images are on both sides, byte for byte: do the samples hold real pictures?" in report["warnings"]


def test_statistics_will_do_as_a_reference_for_fid_alone(command, tmp_path):
    save_images(tmp_path / "a", noise(8, 32, 32, 3))
    np.savez(tmp_path / "stats.npz", mu=np.zeros(12), sigma=np.eye(12))
    code, report = command("--samples", "a", "--reference", "stats.npz", "--metrics", "fid,kid")
    assert code == 3 and list(report["figures"]) == ["FID"]
    assert report["not_computed"] == {"kid": "needs images on both sides, not statistics"}


def warned(report: dict, *words: str) -> bool:
    return any(all(word in warning for word in words) for warning in report["warnings"])


def test_what_makes_figures_hard_to_compare_is_warned_of(command, tmp_path):
    save_images(tmp_path / "png", noise(7, 32, 32, 3))
    save_images(tmp_path / "jpg", noise(8, 32, 32, 3, seed=1), suffix=".jpg")
    save_images(tmp_path / "large", noise(8, 48, 48, 3, seed=2))
    save_images(tmp_path / "grey", noise(8, 32, 32, seed=3))
    save_images(tmp_path / "twice", [*noise(4, 32, 32, 3, seed=4), *noise(4, 32, 32, 3, seed=4)])

    def report(samples, reference, *more):
        return command("--samples", samples, "--reference", reference, "--metrics", "fid", *more)[1]

    plain = report("png", "png")
    assert len(plain["warnings"]) == 3  # few images, once for each side, and weights that are not the published ones
    assert warned(plain, "7 images, under 2,048") and warned(plain, "compare with nothing published")
    assert warned(report("png", "jpg"), "samples are PNG, the reference JPEG: lossy compression alone moves figures")
    assert warned(report("png", "large"), "several sizes (samples 32x32; reference 48x48)", "--image_size N")
    assert warned(report("png", "png", "--image_size", 16), "all images are resized from 32x32 to 16x16")
    assert warned(report("grey", "grey"), "Inception learnt colour photographs", "--features trained:FILE")
    assert warned(report("png", "grey"), "one side is grey (reference), the other is not")
    assert warned(report("twice", "png"), "4 of its 8 images are copies of others, byte for byte")


# Sense: what a person sees to be worse must be worse in figures


def smooth_pictures(n: int, seed: int) -> np.ndarray:
    rng, found = np.random.default_rng(seed), []
    for _ in range(n):
        small = Image.fromarray(rng.integers(0, 256, (6, 6, 3), dtype=np.uint8))
        fine = rng.integers(-20, 21, (32, 32, 3))
        found.append(np.clip(np.asarray(small.resize((32, 32), Image.Resampling.BICUBIC)) + fine, 0, 255))
    return np.stack(found).astype(np.uint8)


def blurred(images: np.ndarray, strength: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return np.stack([gaussian_filter(image, (strength, strength, 0)) for image in images])


def noisy(images: np.ndarray, strength: float) -> np.ndarray:
    grain = np.random.default_rng(9).normal(0, strength, images.shape)
    return np.clip(images + grain, 0, 255).astype(np.uint8)


def replaced(images: np.ndarray, share: float) -> np.ndarray:
    count = int(share * len(images))
    return np.concatenate([images[:count] // 8, images[count:]])


@pytest.mark.parametrize(
    ("worsened", "steps"), [(blurred, (0, 0.5, 1, 2)), (noisy, (0, 15, 40, 90)), (replaced, (0, 0.1, 0.3, 0.8))]
)
def test_the_distances_rise_with_blur_noise_and_the_share_of_replaced_images(command, tmp_path, worsened, steps):
    save_images(tmp_path / "real", smooth_pictures(40, seed=1))
    made, found = smooth_pictures(40, seed=2), []
    for step in steps:
        np.savez(tmp_path / f"{step}.npz", worsened(made, step) if step else made)
        _, report = command("--samples", f"{step}.npz", "--reference", "real", "--metrics", "fid,kid")
        found.append(values(report))
    for name in ("FID", "KID"):
        distances = [each[name] for each in found]
        assert distances == sorted(distances) and distances[-1] > 3 * distances[0]


# Objects


def test_scene_fid_compares_what_is_in_the_boxes(command, tmp_path):
    """Two sets that differ only outside of their boxes are the same to SceneFID, and not to FID."""
    results = save_results(tmp_path / "results", runs=1, layouts=6) / "run0"
    images = results / "images"
    for path in sorted((results / "samples").iterdir()):
        array = np.array(Image.open(path))
        array[:8] = array[:, :8] = 0  # the box begins at 8 of 32
        array[:, 24:] = 0
        save_images(images, [array], names=[path.stem])
    options = ["--metrics", "fid,scene_fid", "--crop_size", 24]
    _, report = command("--samples", results, "--reference", images, *options)
    assert values(report)["FID"] > 1e-3 and values(report)["SceneFID"] < 1e-8
    told = report["figures"]["SceneFID"]["protocol"]
    assert told["objects"] == "6 of the samples, 6 of the reference" and told["crop"] == "the box, bicubic to 24"


def test_boxes_are_read_from_annotations_too(command, tmp_path, tiny_data):
    folder = tiny_data / "train" / "vott-json-export"
    code, report = command("--samples", folder, "--reference", folder, "--metrics", "scene_fid", "--crop_size", 24)
    assert code == 0 and values(report)["SceneFID"] < 1e-8


def test_a_split_as_the_model_saw_it_is_a_reference(command, tmp_path, tiny_data, tiny_run):
    """Samples that are the very pictures of the split, in the model's size and channels: no distance at all."""
    from stay_diffusion.config import flags
    from stay_diffusion.data.images import to_pil
    from stay_diffusion.layouts.items import from_dataset
    from stay_diffusion.run import factory

    config = tiny_run(
        data={"data_dir": str(tiny_data), "crop_policy": "center", "classes": (), "product_tags": ()},
        model={"image_size": 24},
    )
    records, vocabulary = factory.read_split(config.data, "val")
    config = factory.with_vocabulary(config, vocabulary)
    run, results = tmp_path / "run", tmp_path / "results"
    run.mkdir(), (results / "samples").mkdir(parents=True)
    (run / "config.json").write_text(flags.dump(config))
    lines = []
    for item in from_dataset(factory.build_dataset(records, config, augment=False)):
        to_pil(item.real().image).save(results / "samples" / f"{item.stem}.png")
        objects = [{"label": b.label, "box": [b.x0, b.y0, b.x1, b.y1]} for b in item.objects]
        line = {"stem": item.stem, "file": f"samples/{item.stem}.png", "layout": {"product": None, "objects": objects}}
        lines.append({**line, "source": "x", "checkpoint": str(run / "model.pt")})
    (results / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    options = ["--metrics", "fid,scene_fid", "--crop_size", 24]
    code, report = command("--samples", results, "--reference", "val", *options)
    assert code == 0 and report["figures"]["FID"]["protocol"]["reference_sizes"] == "24x24 x 4"
    assert values(report)["FID"] < 1e-8 and values(report)["SceneFID"] < 1e-8
    _, other = command("--samples", results, "--reference", "train", *options)
    assert other["figures"]["FID"]["protocol"]["reference_images"] == 12 and values(other)["FID"] > 1e-6


def test_a_split_is_no_reference_for_a_mere_folder(command, tmp_path):
    save_images(tmp_path / "a", noise(3, 32, 32, 3))
    with pytest.raises(ValueError, match=r"--reference val: a is no folder that image_sample\.py has made"):
        command("--samples", "a", "--reference", "val")


def test_only_what_was_drawn_into_a_whole_picture_is_an_object_of_it(tmp_path):
    from stay_diffusion.evaluation.objects import of_manifests

    drawn, old = ({"label": "spot", "box": [x, 0.1, x + 0.2, 0.3]} for x in (0.1, 0.6))
    layout = {"product": None, "objects": [drawn, {**old, "in_source": True}]}
    line = {"stem": "a", "file": "samples/a.png", "layout": layout, "source": "x", "source_image": "good.png"}
    (tmp_path / "manifest.jsonl").write_text(json.dumps(line) + "\n")
    ((path, shown),) = of_manifests(tmp_path)
    assert path == tmp_path / "samples/a.png" and [box.x0 for box in shown.objects] == [0.1]
    (tmp_path / "images").mkdir()
    assert list(of_manifests(tmp_path / "images")) == []  # the good picture shows none of them


def test_objects_of_nothing_are_a_reason(command, tmp_path):
    save_images(tmp_path / "a", noise(3, 32, 32, 3))
    code, report = command("--samples", "a", "--reference", "a", "--metrics", "scene_fid")
    assert code == 3 and str(tmp_path / "a") in report["not_computed"]["scene_fid"]


# Protocols of the literature


@pytest.fixture
def small_protocols(monkeypatch):
    """The presets with few layouts, so that a test can fulfil them."""
    import dataclasses

    from stay_diffusion.evaluation import protocols

    for name, preset in protocols.PROTOCOLS.items():
        fewer = {"layouts": min(preset.layouts, 4), "reference": min(preset.reference, 4), "side": 32}
        monkeypatch.setitem(protocols.PROTOCOLS, name, dataclasses.replace(preset, **fewer))


def test_a_protocol_that_is_kept_is_named_beside_the_figures(command, tmp_path, small_protocols):
    results = save_results(tmp_path / "results", runs=5, layouts=4)
    save_images(tmp_path / "real", noise(4, 32, 32, 3, seed=9))
    arguments = ["--samples", results, "--reference", "real", "--protocol", "layoutdiffusion"]
    code, report = command(*arguments, "--metrics", "fid")
    assert code == 0 and report["protocol"] == "layoutdiffusion"
    assert report["figures"]["FID"]["protocol"]["samples_images"] == 20


@pytest.mark.parametrize(
    ("runs", "layouts", "real", "size", "message"),
    [
        (5, 3, 4, 32, "3 layouts instead of 4"),
        (4, 4, 4, 32, r"5 images of each layout are wanted \(4 layouts have 4\)"),
        (5, 4, 3, 32, "a reference of 3 images instead of 4"),
        (5, 4, 4, 48, "samples of 48x48 instead of 32 pixels"),
    ],
)
def test_a_protocol_refuses_other_counts_and_sizes(
    command, tmp_path, small_protocols, runs, layouts, real, size, message
):
    results = save_results(tmp_path / "results", runs, layouts, size=size)
    save_images(tmp_path / "real", noise(real, 32, 32, 3, seed=9))
    with pytest.raises(ValueError, match=rf"^--protocol layoutdiffusion \(arXiv 2303.17189\): {message}"):
        command("--samples", results, "--reference", "real", "--protocol", "layoutdiffusion", "--metrics", "fid")


def test_the_presets_are_those_of_the_papers():
    from stay_diffusion.evaluation.protocols import PROTOCOLS

    wanted = {name: (p.layouts, p.per_layout, p.side, p.lpips_compat) for name, p in PROTOCOLS.items()}
    assert wanted == {
        "layoutdiffusion": (3097, 5, 256, ""),
        "lostgan": (3097, 5, 128, ""),
        "sdm": (0, 10, 256, "sdm"),
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "--samples: needed"),
        (["--samples", "x", "--metrics", "fid,fud"], "--metrics fud: choose from fid, kid"),
        (["--samples", "nowhere"], "nowhere: no such file or folder"),
        (["--samples", "x", "--json", "no/such/folder.json"], "--json no/such/folder.json: no such folder"),
        (["--samples", "x", "--compat", "oasis", "--image_size", "64"], "--compat oasis has its own size"),
    ],
)
def test_a_wrong_flag_is_named_with_its_value(monkeypatch, arguments, message):
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *arguments])
    with pytest.raises(ValueError, match=message):
        evaluate.main()
