"""FID: the distance against SciPy and torch-fidelity, which images are taken, and what the command says."""

import importlib.util
import json
import runpy
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

if importlib.util.find_spec("torch_fidelity") is None:
    pytest.skip("torch-fidelity is not installed: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.commands import evaluate
from stay_diffusion.commands import fid as script
from stay_diffusion.evaluation import image_set
from stay_diffusion.evaluation.features import inception
from stay_diffusion.evaluation.features.extractor import Extractor, Reading, features_of
from stay_diffusion.evaluation.metrics.fid import fit_gaussian, frechet_distance

EVALUATIONS = Path(__file__).resolve().parents[2] / "evaluations"


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_images(folder: Path, images, suffix: str = ".png") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for i, image in enumerate(images):
        Image.fromarray(image).save(folder / f"{i:03}{suffix}")
    return folder


def random_features(n: int, d: int, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(n, d)) @ rng.normal(size=(d, d)) / d**0.5 + rng.normal(size=d)


def statistics(features) -> tuple[np.ndarray, np.ndarray]:
    mu, root = fit_gaussian(features)
    return mu, root @ root.T


def stored_statistics(path: Path, d: int = 3, shift: float = 0.0) -> Path:
    np.savez(path, mu=np.full(d, shift), sigma=np.eye(d))
    return path


class MeanColour(torch.nn.Module):
    """Stands in for Inception where its 2048 features would only cost time."""

    def forward(self, images):
        colours = images.float().mean(dim=(2, 3))
        return colours, colours


@pytest.mark.parametrize(("n", "d"), [(200, 16), (12, 32)])
def test_the_distance_is_that_of_the_matrix_square_root(n, d):
    linalg = pytest.importorskip("scipy.linalg")
    (mu1, sigma1), (mu2, sigma2) = (statistics(random_features(n, d, seed)) for seed in (1, 2))
    # The symmetric form has the same trace as sqrtm(sigma1 sigma2), and exists for singular covariances too.
    root = linalg.sqrtm(sigma1 + 1e-15 * np.eye(d)).real
    common = np.trace(linalg.sqrtm(root @ sigma2 @ root + 1e-15 * np.eye(d)).real)
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * common
    assert expected > 1
    np.testing.assert_allclose(frechet_distance(mu1, sigma1, mu2, sigma2), expected, rtol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 64), (40, 64)])
def test_the_distance_is_torch_fidelitys_on_the_same_features(n, d):
    inception.import_torchvision()
    from torch_fidelity import metric_fid

    one, other = random_features(n, d, seed=3), random_features(n, d, seed=4)
    theirs = [metric_fid.fid_features_to_statistics(torch.from_numpy(x)) for x in (one, other)]
    expected = metric_fid.fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    found = frechet_distance(*statistics(one), *statistics(other))
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_the_distance_of_commuting_covariances_is_known():
    mu, variances1, variances2 = np.array([3.0, 0.0, 4.0]), np.array([4.0, 9.0, 0.0]), np.array([1.0, 0.0, 25.0])
    found = frechet_distance(mu, np.diag(variances1), np.zeros(3), np.diag(variances2))
    np.testing.assert_allclose(found, 25 + ((variances1**0.5 - variances2**0.5) ** 2).sum(), rtol=1e-12)


def test_the_distance_of_singular_statistics_to_themselves_is_zero():
    mu, sigma = statistics(random_features(30, 200, seed=5))
    assert abs(frechet_distance(mu, sigma, mu, sigma)) < 1e-9 * np.trace(sigma)


def test_the_distance_to_statistics_without_spread_is_the_trace():
    np.testing.assert_allclose(frechet_distance(np.zeros(2), np.eye(2), np.zeros(2), np.zeros((2, 2))), 2.0)


def test_statistics_of_float32_features_are_taken_in_float64():
    features = (random_features(500, 4, seed=6) * 1e-3 + 1000).astype(np.float32)
    mu, sigma = statistics(features)
    assert mu.dtype == sigma.dtype == np.float64
    np.testing.assert_allclose(sigma, np.cov(features.astype(np.float64), rowvar=False), rtol=1e-9)


def test_a_side_is_measured_over_all_its_images_of_whatever_size(tmp_path):
    images = [*noise(2, 32, 32, 3), *noise(1, 20, 48, 3, seed=1), *noise(1, 32, 32, 3, seed=2)]
    network = MeanColour()
    extractor = Extractor(lambda batch, kinds: {"pool": network(batch)[0]}, ("pool",), 3, facts={})
    side = image_set.looked_at(image_set.open_set(save_images(tmp_path / "a", images)))
    mu, sigma = statistics(features_of(side, extractor, ["pool"], Reading(batch_size=4))["pool"])
    colours = np.stack([image.mean(axis=(0, 1)) for image in images])
    assert side.sizes == {"32x32": 3, "48x20": 1}
    np.testing.assert_allclose(mu, colours.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(sigma, np.cov(colours, rowvar=False), rtol=1e-3, atol=1e-3)


# In place of Inception: a convolution, whose last bits can depend on what else is in the batch.
SMALL_NETWORK = """
from stay_diffusion.evaluation.features import inception
import torch
torch.manual_seed(0)
convolution = torch.nn.Conv2d(3, 8, 3)
inception.load_network = lambda weights: torch.nn.Sequential(Colours(), convolution, Pooled())
class Colours(torch.nn.Module):
    def forward(self, images): return images.float() / 255
class Pooled(torch.nn.Module):
    def forward(self, x): return x.relu().mean(dim=(2, 3)), x.relu().amax(dim=(2, 3))
"""


@pytest.fixture(scope="module")
def shared_sides(tmp_path_factory, run_script):
    """A folder with sides a (7 images of two sizes) and b (2 images), weights, and out.json of one process."""
    folder = tmp_path_factory.mktemp("sides")
    torch.save({}, folder / "w.pth")
    save_images(folder / "a", [*noise(3, 32, 40, 3), *noise(4, 24, 24, 3, seed=1)])
    save_images(folder / "b", noise(2, 32, 32, 3, seed=2))
    arguments = ["a", "b", "--weights", "w.pth", "--batch_size", 2, "--device", "cpu", "--json"]
    run_script("evaluations/test_with_FID.py", *arguments, "out.json", cwd=folder, prelude=SMALL_NETWORK)
    return folder, arguments


@pytest.mark.parametrize("ranks", [2, 3])
def test_several_processes_give_the_very_same_number_once(shared_sides, run_ranks, ranks):
    folder, arguments = shared_sides  # b is one batch: all processes but one have nothing to do
    ended = run_ranks(
        ranks, "evaluations/test_with_FID.py", *arguments, f"{ranks}.json", cwd=folder, prelude=SMALL_NETWORK
    )
    expected, found = (json.loads((folder / name).read_text()) for name in ("out.json", f"{ranks}.json"))
    assert found == expected
    assert found["fid"] > 0 and found["protocol"]["path1_sizes"] == "40x32 x 3, 24x24 x 4"
    assert ended[0].output.count("FID: ") == 1 and "warning: " in ended[0].output
    assert [other.output for other in ended[1:]] == [""] * (ranks - 1)


def test_the_number_is_that_of_evaluate_to_the_last_bit(shared_sides, run_script):
    folder, _ = shared_sides
    arguments = ["--samples", "b", "--reference", "a", "--metrics", "fid", "--bootstrap", 0, "--feature_cache", "off"]
    arguments += ["--weights", "w.pth", "--batch_size", 2, "--device", "cpu", "--json", "evaluate.json"]
    run_script("evaluations/evaluate.py", *arguments, cwd=folder, prelude=SMALL_NETWORK)
    report = json.loads((folder / "evaluate.json").read_text())
    assert report["figures"]["FID"]["value"] == json.loads((folder / "out.json").read_text())["fid"]


def test_stored_statistics_of_both_sides_give_evaluate_the_same_number(tmp_path, monkeypatch):
    paths = [str(stored_statistics(tmp_path / name, shift=shift)) for name, shift in (("a.npz", 0.1), ("b.npz", 0.4))]
    found = [str(tmp_path / "fid.json"), str(tmp_path / "evaluate.json")]
    monkeypatch.setattr(sys, "argv", ["x", *paths, "--device", "cpu", "--json", found[0]])
    script.main()
    words = ["--samples", paths[1], "--reference", paths[0], "--metrics", "fid", "--device", "cpu", "--json", found[1]]
    monkeypatch.setattr(sys, "argv", ["x", *words])
    assert evaluate.main() == 0
    alone, among = (json.loads(Path(file).read_text()) for file in found)
    assert among["figures"]["FID"]["value"] == alone["fid"] and alone["protocol"]["features"] == "as stored"


def test_an_error_of_all_processes_is_said_once(shared_sides, run_ranks):
    folder, arguments = shared_sides
    ended = run_ranks(2, "evaluations/test_with_FID.py", "a", "nowhere", *arguments[2:], "x.json", cwd=folder, code=1)
    said = "".join(each.output for each in ended)
    assert said.count("error: nowhere: no such file or folder") == 1


@pytest.mark.skipif(shutil.which("mpiexec") is None, reason="mpiexec is not installed")
def test_two_processes_of_mpiexec_print_one_number(tmp_path):
    np.savez(tmp_path / "a.npz", mu=np.zeros(3), sigma=np.eye(3))
    np.savez(tmp_path / "b.npz", mu=np.ones(3), sigma=np.eye(3))
    command = ["mpiexec", "-n", "2", sys.executable, EVALUATIONS / "test_with_FID.py", "a.npz", "b.npz"]
    ended = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout.count("FID: 3.0000") == 1


def test_an_npz_holds_its_images_under_arr_0(tmp_path):
    images = noise(5, 16, 24, 3)
    np.savez(tmp_path / "b.npz", images)
    np.testing.assert_array_equal(image_set.open_set(tmp_path / "b.npz").items, images)


def test_all_images_are_used_sorted_by_name(tmp_path):
    folder = save_images(tmp_path / "a", noise(53, 4, 4))
    (folder / "notes.txt").write_text("no image")
    items = image_set.open_set(folder).items
    assert [path.name for path in items] == [f"{i:03}.png" for i in range(53)]


def save_results(folder: Path, **runs: int) -> Path:
    """What image_sample.py leaves, of so many images a run; the run "here" is the folder itself."""
    for run, count in runs.items():
        place = folder if run == "here" else folder / run
        save_images(place / "samples", noise(count, 4, 4)), save_images(place / "images", noise(2, 4, 4))
        (place / "manifest.jsonl").touch()
        Image.fromarray(noise(4, 4)).save(place / "preview.png")
    return folder


def test_a_results_folder_stands_for_its_samples(tmp_path):
    items = image_set.open_set(save_results(tmp_path / "results", here=3)).items
    assert [path.relative_to(tmp_path).as_posix() for path in items] == [
        f"results/samples/{i:03}.png" for i in range(3)
    ]


def test_the_runs_of_a_results_folder_are_one_side_together(tmp_path):
    side = image_set.open_set(save_results(tmp_path / "results", run0=3, run1=3, run2=3))
    parents = [path.relative_to(tmp_path / "results").parent.as_posix() for path in side.items]
    assert parents == ["run0/samples"] * 3 + ["run1/samples"] * 3 + ["run2/samples"] * 3
    assert side.runs == {"run0": 3, "run1": 3, "run2": 3}


@pytest.mark.parametrize(("second", "warned"), [(3, False), (2, True)])
def test_the_protocol_counts_the_images_of_each_run(tmp_path, monkeypatch, capsys, second, warned):
    torch.save({}, tmp_path / "w.pth")
    monkeypatch.setattr(inception, "load_network", lambda weights: MeanColour())
    results = save_results(tmp_path / "results", run0=3, run1=second)
    arguments = [results / "run0/images", results, "--weights", tmp_path / "w.pth", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    script.main()
    printed = capsys.readouterr()
    assert f"path1_images: 2\n  path1_sizes: 4x4 x 2\n  path2: {results}\n" in printed.out
    assert f"path2_images: {3 + second}\n" in printed.out
    assert f"path2_runs: run0 x 3, run1 x {second}\n" in printed.out
    assert ("its runs hold different numbers of images" in printed.err) is warned


@pytest.mark.parametrize(("n", "used"), [(53, 50), (100, 100), (7, 7)])
def test_compat_oasis_drops_the_remainder_of_fifty(tmp_path, n, used):
    assert len(image_set.open_set(save_images(tmp_path / "a", noise(n, 4, 4)), "oasis").items) == used


def bad_sides(folder: Path) -> dict[str, tuple[Path, str]]:
    (folder / "empty" / "inside").mkdir(parents=True)
    np.savez(folder / "float.npz", np.zeros((3, 4, 4, 3)))
    np.savez(folder / "mu.npz", mu=np.zeros(3), sigma=np.eye(4))
    np.savez(folder / "other.npz", x=np.zeros(3))
    (folder / "broken.npz").write_bytes(b"not a zip")
    return {
        "missing": (folder / "nowhere", "no such file or folder"),
        "empty": (folder / "empty", r"not searched: folders inside: inside"),
        "single": (save_images(folder / "single", noise(1, 4, 4)), "at least 2 images, found 1"),
        "float": (folder / "float.npz", r"arr_0 as uint8 .* found arr_0 float64 \(3, 4, 4, 3\)"),
        "mu": (folder / "mu.npz", r"found mu float64 \(3,\), sigma float64 \(4, 4\)"),
        "other": (folder / "other.npz", "needs arr_0"),
        "broken": (folder / "broken.npz", "needs arr_0"),
    }


@pytest.mark.parametrize("case", ["missing", "empty", "single", "float", "mu", "other", "broken"])
def test_a_side_that_cannot_be_used_is_named(tmp_path, case):
    path, message = bad_sides(tmp_path)[case]
    with pytest.raises(ValueError, match=message) as raised:
        image_set.open_set(path)
    assert str(raised.value).startswith(f"{path}: ") and "\n" not in str(raised.value)


def test_missing_weights_are_one_line_that_says_what_to_do(tmp_path, run_script):
    save_images(tmp_path / "a", noise(2, 8, 8, 3))
    environment = {"TORCH_HOME": str(tmp_path / "hub_home")}
    done = run_script("evaluations/test_with_FID.py", "a", "a", cwd=tmp_path, environment=environment, code=1)
    (line,) = done.output.splitlines()
    assert line.startswith("error: Inception weights pt_inception-2015-12-05-6726825d.pth are not in ")
    assert str(tmp_path / "hub_home/hub/checkpoints") in line
    assert "https://" in line and "--weights FILE" in line and "--download" in line


def test_two_files_of_statistics_need_no_weights_and_give_json(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["x", "a.npz", "b.npz", "--json", "out.json", "--device", "cpu"])
    stored_statistics(tmp_path / "a.npz"), stored_statistics(tmp_path / "b.npz", shift=2.0)
    script.main()
    report = json.loads((tmp_path / "out.json").read_text())
    np.testing.assert_allclose(report["fid"], 12.0)
    assert report["protocol"]["path2"] == str(tmp_path / "b.npz")
    assert capsys.readouterr().out.startswith("FID: 12.0000\n")


def test_statistics_of_different_features_are_refused(tmp_path, monkeypatch):
    paths = stored_statistics(tmp_path / "a.npz", d=3), stored_statistics(tmp_path / "b.npz", d=4)
    monkeypatch.setattr(sys, "argv", ["x", *map(str, paths), "--device", "cpu"])
    with pytest.raises(ValueError, match=r"a\.npz has 3 and .*b\.npz has 4"):
        script.main()


def test_the_protocol_names_counts_sizes_weights_and_cautions(tmp_path, monkeypatch, capsys):
    torch.save({}, tmp_path / "w.pth")
    monkeypatch.setattr(inception, "load_network", lambda weights: MeanColour())
    save_images(tmp_path / "a", noise(2, 8, 8, 3)), save_images(tmp_path / "b", noise(3, 8, 16, 3))
    arguments = [tmp_path / "a", tmp_path / "b", "--weights", tmp_path / "w.pth", "--device", "cpu"]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, arguments)])
    script.main()
    printed = capsys.readouterr()
    assert f"path1: {tmp_path / 'a'}\n  path1_images: 2\n  path1_sizes: 8x8 x 2" in printed.out
    assert "path2_images: 3\n  path2_sizes: 16x8 x 3" in printed.out
    assert "weights_sha256: " in printed.out and "torch-fidelity" in printed.out
    assert printed.err.count("under 2,048") == 2
    assert "compares with nothing published" in printed.err and "--image_size N" in printed.err


def test_the_paths_edited_in_the_file_are_used_where_none_are_given(tmp_path, monkeypatch, capsys):
    path1, path2 = stored_statistics(tmp_path / "a.npz"), stored_statistics(tmp_path / "b.npz", shift=1.0)
    text = (EVALUATIONS / "test_with_FID.py").read_text().replace('path1=""', f'path1="{path1}"')
    edited = tmp_path / "test_with_FID.py"
    edited.write_text(text.replace('path2=""', f'path2="{path2}"'))
    monkeypatch.setattr(sys, "argv", ["x", "--device", "cpu"])
    with pytest.raises(SystemExit) as ended:
        runpy.run_path(str(edited), run_name="__main__")
    assert not ended.value.code
    assert "FID: 3.0000" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--batch_size", "0"], "--batch_size 0: must be 1 or more"),
        (["--image_size", "-1"], "--image_size -1: must be 1 or more"),
        (["--compat", "oasis", "--image_size", "128"], "--compat oasis has its own size, 256"),
        (["--device", "nonsense"], "--device nonsense: "),
        (["--json", "no/such/folder.json"], "no such folder"),
        (["--dist_timeout", "0"], "--dist_timeout 0: must be 1 or more"),
    ],
)
def test_a_wrong_flag_is_named_with_its_value(monkeypatch, flags, message):
    monkeypatch.setattr(sys, "argv", ["x", "a.npz", "b.npz", "--device", "cpu", *flags])
    with pytest.raises(ValueError, match=message):
        script.main()


def test_one_path_alone_is_refused(monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", "only"])
    with pytest.raises(ValueError, match="two paths are needed, got 1"):
        script.main()
