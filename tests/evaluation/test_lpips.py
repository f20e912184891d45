"""LPIPS of several runs: the runs found, the pairs made, the distance itself."""

import importlib.util
import json
import sys
import warnings
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.system.torchvision_cpu import import_torchvision

# Not importorskip: that would import torchvision before its remedy.
if importlib.util.find_spec("lpips") is None:
    pytest.skip("lpips is not installed: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.commands import evaluate
from stay_diffusion.commands import lpips as script
from stay_diffusion.evaluation import groups
from stay_diffusion.evaluation.features import lpips_network
from stay_diffusion.evaluation.metrics import lpips


def save_images(folder: Path, names: str, seed: int, size: int = 64) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    for name in names:
        Image.fromarray(rng.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(folder / f"{name}.png")
    return folder


@pytest.fixture(scope="module")
def backbone(tmp_path_factory) -> Path:
    """Random AlexNet weights in the file that torchvision would have fetched."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("hub") / "checkpoints" / "alexnet-owt-7be5be79.pth"
    path.parent.mkdir()
    features = import_torchvision().models.alexnet(weights=None).features
    torch.save({f"features.{name}": value for name, value in features.state_dict().items()}, path)
    return path


@pytest.fixture(scope="module")
def model(backbone):
    linear = Path(lpips_network.import_lpips().__file__).parent / "weights/v0.1/alex.pth"
    return lpips_network.load_model("alex", linear, backbone)


@pytest.fixture(scope="module")
def report(tmp_path_factory, backbone, run_script):
    """One run of the command from another folder: three runs, two of them alike, and names not in all of them."""
    root = tmp_path_factory.mktemp("generated")
    save_images(root / "samples0", "abc", seed=0)
    save_images(root / "samples1", "abc", seed=0)
    save_images(root / "samples2", "abd", seed=2)
    arguments = [".", "--image_size", "64", "--device", "cpu", "--json", "out.json"]
    arguments += ["--backbone_weights", backbone]
    done = run_script("evaluations/lpips.py", *arguments, cwd=root)
    return json.loads((root / "out.json").read_text()), done.output


def test_the_distance_is_that_of_the_lpips_package(model, tmp_path, backbone):
    package = lpips_network.import_lpips()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = package.LPIPS(net="alex", pnet_rand=True, verbose=False)
    stored = torch.load(backbone, weights_only=True)
    reference.net.load_state_dict({k: stored[f"features.{k.partition('.')[2]}"] for k in reference.net.state_dict()})
    one, other = torch.rand(2, 3, 3, 64, 64, generator=torch.Generator().manual_seed(1)) * 2 - 1
    with torch.no_grad():
        expected = reference(one, other).flatten()
        found = lpips.distance(model, lpips.embed(model, one), lpips.embed(model, other))
    assert expected.min() > 1e-4
    torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-6)


def test_same_named_images_of_all_pairs_of_runs_are_averaged(model, report):
    result, _ = report
    folders = [Path(run) for run in result["protocol"]["runs"]]
    pairs = [(0, 1, "abc"), (0, 2, "ab"), (1, 2, "ab")]
    expected = []
    with torch.no_grad():
        for i, j, names in pairs:
            for name in names:
                one, other = (lpips.prepare(folders[run] / f"{name}.png", 64, None)[None] for run in (i, j))
                expected.append(lpips.distance(model, lpips.embed(model, one), lpips.embed(model, other)).item())
    assert result["image_pairs"] == 7 and result["run_pairs"] == 3
    torch.testing.assert_close(result["lpips"], float(np.mean(expected)), rtol=1e-5, atol=1e-7)
    torch.testing.assert_close(result["std_over_images"], float(np.std(expected)), rtol=1e-5, atol=1e-7)


def test_the_diversity_score_weighs_each_layout_once_however_many_images_it_has(report):
    result, _ = report
    layouts = result["layouts"]
    assert {name: found["pairs"] for name, found in layouts.items()} == {"a.png": 3, "b.png": 3, "c.png": 1}
    means = [found["mean"] for found in layouts.values()]
    torch.testing.assert_close(result["ds"], float(np.mean(means)))
    assert abs(result["ds"] - result["lpips"]) > 1e-6


def test_layouts_of_a_manifest_belong_together_whatever_their_images_are_called(tmp_path):
    layouts = [{"product": None, "objects": []}, {"product": "A", "objects": []}]
    for run in (0, 1):
        folder = tmp_path / f"run{run}"
        folder.mkdir()
        lines = [
            {"stem": stem, "file": f"samples/{stem}.png", "layout": layouts[which], "source": "x"}
            for stem, which in (("one", 0), ("one_2", 0), ("two", 1))
        ]
        lines.append({**lines[0], "stem": "bad", "file": "rejected/bad.png", "rejected": True})
        (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    of_layouts = groups.find_groups(tmp_path)
    found = {name: [str(path.relative_to(tmp_path)) for path in images.values()] for name, images in of_layouts}
    assert found == {
        "one": ["run0/samples/one.png", "run0/samples/one_2.png", "run1/samples/one.png", "run1/samples/one_2.png"],
        "two": ["run0/samples/two.png", "run1/samples/two.png"],
    }


def test_identical_runs_are_warned_of_by_name(report):
    warned = [line for line in report[1].splitlines() if "identical" in line]
    assert len(warned) == 1 and "samples0" in warned[0] and "samples1" in warned[0]


def test_names_missing_from_a_run_are_counted_and_named(report):
    assert "warning: 2 file names are not in every run" in report[1]
    assert "c.png, d.png" in report[1]


def test_the_number_and_its_protocol_are_printed(report):
    result, output = report
    assert f"LPIPS: {result['lpips']:.4f}\n" in output
    assert result["protocol"]["backbone_sha256"] in output


@pytest.mark.parametrize("ranks", [2, 4])
def test_several_processes_give_the_very_same_number_once(report, backbone, run_ranks, tmp_path, ranks):
    result, _ = report
    folders = list(result["protocol"]["runs"])  # three names are in more than one of them
    arguments = [*folders, "--image_size", "64", "--device", "cpu", "--json", "out.json"]
    arguments += ["--backbone_weights", backbone]
    first, *others = run_ranks(ranks, "evaluations/lpips.py", *arguments, cwd=tmp_path)
    assert json.loads((tmp_path / "out.json").read_text()) == result
    assert "\nwarning: 2 file names" in first.output
    assert [other.output for other in others] == [""] * (ranks - 1)


def test_the_numbers_are_those_of_evaluate_to_the_last_bit(tmp_path, backbone, monkeypatch):
    for run in (0, 1, 2):  # of a manifest whose layouts are in another order than the names of their images
        save_images(tmp_path / f"run{run}" / "samples", "edcba", seed=run)
        lines = [
            {"stem": stem, "file": f"samples/{stem}.png", "layout": {"product": stem, "objects": []}, "source": "x"}
            for stem in "caebd"
        ]
        (tmp_path / f"run{run}" / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    common = ["--device", "cpu", "--backbone_weights", str(backbone), "--json"]
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path), *common, str(tmp_path / "lpips.json")])
    script.main()
    words = ["--samples", str(tmp_path), "--metrics", "lpips", *common, str(tmp_path / "evaluate.json")]
    monkeypatch.setattr(sys, "argv", ["x", *words])
    assert evaluate.main() == 0
    alone, among = (json.loads((tmp_path / name).read_text()) for name in ("lpips.json", "evaluate.json"))
    details = among["figures"]["DS (LPIPS)"]["details"]
    assert among["figures"]["DS (LPIPS)"]["value"] == alone["ds"]
    for name in ("lpips", "ds", "std_over_images", "std_over_run_pairs", "ds_std_over_layouts"):
        assert details[name] == alone[name]


def test_missing_backbone_weights_are_one_line_that_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    with pytest.raises(ValueError, match=r"^ImageNet weights alexnet-owt-7be5be79\.pth are not in") as raised:
        lpips_network.find_backbone("alex", None)
    message = str(raised.value)
    assert "\n" not in message and "--backbone_weights FILE" in message
    assert str(tmp_path / "hub/checkpoints") in message and "https://" in message


def test_weights_in_the_hub_cache_are_found(backbone, monkeypatch, tmp_path):
    (tmp_path / "hub").symlink_to(backbone.parents[1])
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    assert lpips_network.find_backbone("alex", None).samefile(backbone)


def test_weights_of_another_network_are_refused(backbone):
    with pytest.raises(ValueError, match=r"alexnet-owt-7be5be79\.pth: not these weights"):
        lpips_network.load_model("alex", backbone, backbone)


def test_runs_are_samples_folders_before_anything_else_in_a_results_folder(tmp_path):
    runs = [save_images(tmp_path / name, "x", seed=0) for name in ("samples_0", "samples_1")]
    save_images(tmp_path / "labels", "x", seed=0)
    assert groups.find_runs(tmp_path) == runs


def test_runs_are_the_samples_inside_each_results_folder(tmp_path):
    runs = [save_images(tmp_path / name / "samples", "x", seed=0) for name in ("run0", "run1")]
    save_images(tmp_path / "run0" / "labels", "x", seed=0)
    assert groups.find_runs(tmp_path) == runs


def test_a_single_set_of_samples_does_not_hide_the_runs_beside_it(tmp_path):
    save_images(tmp_path / "samples", "x", seed=0)
    runs = [save_images(tmp_path / name / "samples", "x", seed=0) for name in ("run0", "run1")]
    assert groups.find_runs(tmp_path) == runs


def test_runs_are_plain_folders_of_images_or_the_folder_itself(tmp_path):
    runs = [save_images(tmp_path / name, "x", seed=0) for name in ("one", "two")]
    assert groups.find_runs(tmp_path) == runs
    assert groups.find_runs(runs[0]) == [runs[0]]


def test_one_run_alone_is_refused(tmp_path, monkeypatch):
    save_images(tmp_path / "samples", "x", seed=0)
    monkeypatch.setattr(sys, "argv", ["lpips.py", str(tmp_path)])
    with pytest.raises(ValueError, match=r"found 1 run\(s\), 2 or more are needed"):
        script.main()


def test_compat_sdm_normalises_for_imagenet_at_299(tmp_path):
    folder = tmp_path / "a"
    folder.mkdir()
    Image.new("RGB", (64, 64), (255, 0, 51)).save(folder / "x.png")
    prepared = lpips.prepare(folder / "x.png", 256, "sdm")
    assert prepared.shape == (3, 299, 299)
    expected = (torch.tensor([1.0, 0.0, 0.2]) - torch.tensor([0.485, 0.456, 0.406])) / torch.tensor(
        [0.229, 0.224, 0.225]
    )
    torch.testing.assert_close(prepared, expected[:, None, None].expand(3, 299, 299))
