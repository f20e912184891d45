"""KID, Frechet distance, inception score, precision and recall on the same features as torch-fidelity and SciPy."""

import importlib.util

import numpy as np
import pytest
import torch

from stay_diffusion.evaluation.metrics import fid, inception_score, kid, prdc
from stay_diffusion.system.torchvision_cpu import import_torchvision


def features(n: int, d: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(99).normal(size=(d, d)) / d**0.5  # the same for all: sides of one kind
    return scale * rng.normal(size=(n, d)) @ mix + shift


@pytest.fixture(scope="module")
def fidelity():
    """torch-fidelity's function of a metric."""
    if importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed: pip install 'stay-diffusion[eval]'")
    import_torchvision()
    return lambda metric: importlib.import_module(f"torch_fidelity.metric_{metric}")


# Agreement with others' code


@pytest.mark.parametrize(("n", "m", "d"), [(200, 150, 16), (12, 20, 32), (12, 90, 32)])
def test_the_frechet_distance_of_features_is_scipys(n, m, d):
    linalg = pytest.importorskip("scipy.linalg")
    one, other = features(n, d, seed=1), features(m, d, seed=2, shift=0.3)
    mu1, sigma1, mu2, sigma2 = one.mean(axis=0), np.cov(one.T), other.mean(axis=0), np.cov(other.T)
    root = linalg.sqrtm(sigma1 + 1e-15 * np.eye(d)).real
    common = np.trace(linalg.sqrtm(root @ sigma2 @ root + 1e-15 * np.eye(d)).real)
    expected = ((mu1 - mu2) ** 2).sum() + np.trace(sigma1) + np.trace(sigma2) - 2 * common
    np.testing.assert_allclose(fid.frechet(one, other), expected, rtol=1e-6)
    np.testing.assert_allclose(fid.frechet_distance(mu1, sigma1, mu2, sigma2), expected, rtol=1e-6)


@pytest.mark.parametrize(("n", "d"), [(300, 64), (40, 64)])
def test_the_frechet_distance_of_features_is_torch_fidelitys(fidelity, n, d):
    one, other = features(n, d, seed=3), features(n, d, seed=4, shift=0.2)
    theirs = [fidelity("fid").fid_features_to_statistics(torch.from_numpy(side)) for side in (one, other)]
    expected = fidelity("fid").fid_statistics_to_metric(*theirs, verbose=False)["frechet_inception_distance"]
    np.testing.assert_allclose(fid.frechet(one, other), expected, rtol=1e-6)


def test_kid_over_subsets_is_torch_fidelitys_draw_for_draw(fidelity):
    one, other = features(90, 16, seed=5), features(70, 16, seed=6, shift=0.5)
    expected = fidelity("kid").kid_features_to_metric(
        torch.from_numpy(one), torch.from_numpy(other), kid_subsets=7, kid_subset_size=40, rng_seed=2020, verbose=False
    )
    mean, deviation = kid.kid_of_subsets(one, other, subsets=7, size=40)
    np.testing.assert_allclose(mean, expected["kernel_inception_distance_mean"], rtol=1e-4)
    np.testing.assert_allclose(deviation, expected["kernel_inception_distance_std"], rtol=1e-4)


def test_kid_of_all_images_is_torch_fidelitys_of_one_subset_that_is_all(fidelity):
    one, other = features(60, 16, seed=7), features(60, 16, seed=8, shift=0.5)
    expected = fidelity("kid").kid_features_to_metric(
        torch.from_numpy(one), torch.from_numpy(other), kid_subsets=1, kid_subset_size=60, verbose=False
    )["kernel_inception_distance_mean"]
    np.testing.assert_allclose(kid.kid(one, other).value, expected, rtol=1e-9)


def test_the_inception_score_is_torch_fidelitys(fidelity):
    logits = 3 * features(205, 30, seed=9)
    expected = fidelity("isc").isc_features_to_metric(torch.from_numpy(logits), splits=10)
    found = inception_score.inception_score(logits)
    np.testing.assert_allclose(found, list(expected.values()), rtol=1e-9)


def test_precision_and_recall_are_torch_fidelitys(fidelity):
    generated, real = features(120, 8, seed=10, scale=0.8), features(150, 8, seed=11, shift=0.4)
    expected = fidelity("prc").prc_features_to_metric(torch.from_numpy(generated), torch.from_numpy(real))
    found = prdc.prdc(real, generated, k=3, chunk=37)
    assert 0.2 < expected["precision"] < 0.98 and 0.2 < expected["recall"] < 0.98
    np.testing.assert_allclose(found["precision"].value, expected["precision"], rtol=1e-6)
    np.testing.assert_allclose(found["recall"].value, expected["recall"], rtol=1e-6)


@pytest.mark.parametrize("chunk", [7, 1000])
def test_prdc_is_that_of_its_definition(chunk):
    real, generated, k = features(31, 4, seed=12), features(23, 4, seed=13, shift=0.5), 4

    def apart(a, b):
        return float(((a - b) ** 2).sum() ** 0.5)

    def reach(side):
        return [sorted(apart(x, y) for j, y in enumerate(side) if j != i)[k - 1] for i, x in enumerate(side)]

    of_real, of_generated = reach(real), reach(generated)
    inside = [[apart(x, y) <= of_real[i] for i, x in enumerate(real)] for y in generated]  # generated x real
    met = [any(apart(x, y) <= of_generated[j] for j, y in enumerate(generated)) for x in real]
    expected = {
        "precision": np.mean([any(row) for row in inside]),
        "recall": np.mean(met),
        "density": np.sum(inside) / k / len(generated),
        "coverage": np.mean(np.any(inside, axis=0)),
    }
    found = {name: share.value for name, share in prdc.prdc(real, generated, k, chunk).items()}
    assert len(set(expected.values())) == 4 and all(0 < value < 1 for value in expected.values())
    assert found == pytest.approx(expected, abs=1e-12)


# What is known beforehand


@pytest.mark.parametrize("n", [10, 100])  # fewer and more than features
def test_the_frechet_distance_of_a_set_to_itself_is_zero_and_no_side_comes_first(n):
    one, other = features(n, 20, seed=14), features(n + 5, 20, seed=15, shift=1.0)
    assert fid.frechet(one, one) < 1e-9
    np.testing.assert_allclose(fid.frechet(one, other), fid.frechet(other, one), rtol=1e-9)


def test_a_shift_alone_costs_its_square():
    one = features(50, 6, seed=16)
    np.testing.assert_allclose(fid.frechet(one, one + 0.5), 6 * 0.25, rtol=1e-9)


def test_kid_of_two_halves_of_one_distribution_is_zero_on_average_for_any_number_of_images():
    for n in (5, 40):
        found = [kid.kid(features(n, 8, seed), features(n, 8, seed + 1)).value for seed in range(0, 400, 2)]
        error = np.std(found, ddof=1) / len(found) ** 0.5
        assert abs(np.mean(found)) < 3 * error
        assert min(found) < 0  # a squared distance that is unbiased must go below


def test_kid_does_not_grow_as_images_become_fewer_while_the_frechet_distance_does():
    distances = {}
    for n in (20, 400):
        pairs = [(features(n, 12, seed), features(n, 12, seed + 1, shift=0.4)) for seed in range(0, 40, 2)]
        distances[n] = [np.mean([metric(*pair) for pair in pairs]) for metric in (fid.frechet, kid_value)]
    assert distances[20][0] > 1.5 * distances[400][0]
    np.testing.assert_allclose(distances[20][1], distances[400][1], rtol=0.2)


def kid_value(one, other) -> float:
    return kid.kid(one, other).value


@pytest.mark.parametrize("estimate", ["kid", "frechet"])
@pytest.mark.parametrize(("n", "m"), [(80, 60), (400, 25), (25, 400)])  # both sides' chance counts, or nearly one's
def test_the_standard_error_is_the_spread_over_repeated_experiments(estimate, n, m):
    def both(seed):
        one, other = features(n, 6, seed), features(m, 6, seed + 1, shift=0.5)
        if estimate == "kid":
            return kid.kid(one, other)
        return fid.frechet(one, other), fid.standard_error(one, other, 20, seed)

    found = [both(seed) for seed in range(0, 160, 2)]
    spread = np.std([value for value, _ in found], ddof=1)
    assert 0.75 < np.mean([error for _, error in found]) / spread < 1.4


def test_kids_chunks_change_nothing(monkeypatch):
    one, other = features(45, 8, seed=17), features(33, 8, seed=18)
    expected = kid.kid(one, other)
    monkeypatch.setattr(kid, "CHUNK", 7)
    np.testing.assert_allclose(kid.kid(one, other), expected, rtol=1e-9)


def test_the_inception_score_counts_the_classes_of_sure_pictures():
    logits = 200.0 * np.eye(5)[np.arange(500) % 5]
    mean, _ = inception_score.inception_score(logits, splits=1)
    np.testing.assert_allclose(mean, 5, rtol=1e-9)
    assert inception_score.inception_score(np.zeros((50, 5)), splits=5) == pytest.approx((1, 0))


def test_copies_of_the_real_pictures_are_precise_and_cover_everything():
    real = features(40, 6, seed=19)
    found = prdc.prdc(real, real.copy(), k=3)
    assert found["precision"].value == found["recall"].value == found["coverage"].value == 1
    repeated = np.concatenate([real[:1]] * 20)  # balls without extent: even these hold their own copies
    assert prdc.prdc(repeated, repeated.copy(), k=3)["precision"].value == 1


def test_a_dropped_mode_lowers_recall_and_coverage_but_not_precision():
    def modes(seed, which):
        return np.concatenate([features(60, 6, seed + mode, shift=20.0 * mode) for mode in which])

    real, whole, half = modes(100, (0, 1)), modes(200, (0, 1)), modes(300, (0, 0))
    full, dropped = prdc.prdc(real, whole), prdc.prdc(real, half)
    assert abs(full["precision"].value - dropped["precision"].value) < 0.1 and dropped["precision"].value > 0.85
    for name in ("recall", "coverage"):
        assert full[name].value > 0.85 and 0.35 < dropped[name].value <= 0.5


def test_a_sides_order_changes_none_of_the_distances():
    one, other = features(50, 8, seed=20), features(40, 8, seed=21, shift=0.3)
    shuffled = one[np.random.default_rng(0).permutation(len(one))]
    np.testing.assert_allclose(fid.frechet(shuffled, other), fid.frechet(one, other), rtol=1e-9)
    np.testing.assert_allclose(kid.kid(shuffled, other), kid.kid(one, other), rtol=1e-9)
    of_shuffled, of_one = prdc.prdc(shuffled, other), prdc.prdc(one, other)
    assert [share.value for share in of_shuffled.values()] == [share.value for share in of_one.values()]


def test_tensors_are_as_good_as_arrays():
    one, other = features(30, 5, seed=22), features(30, 5, seed=23)
    tensors = torch.from_numpy(one), torch.from_numpy(other)
    assert fid.frechet(*tensors) == fid.frechet(one, other)
    assert kid.kid(*tensors) == kid.kid(one, other)
    assert prdc.prdc(*tensors) == prdc.prdc(one, other)


@pytest.mark.parametrize(
    ("metric", "arguments", "message"),
    [
        (kid.kid, (features(1, 3, 0), features(9, 3, 0)), "at least 2 images on each side, not 1 and 9"),
        (kid.kid_of_subsets, (features(9, 3, 0), features(8, 3, 0)), "KID over subsets of 1000: the sets hold 9 and 8"),
        (inception_score.inception_score, (features(9, 3, 0),), "over 10 parts: there are only 9 images"),
        (prdc.prdc, (features(5, 3, 0), features(9, 3, 0)), "--prdc_k 5: needs more than 5 images on each side"),
    ],
)
def test_too_few_images_are_said_with_the_flag(metric, arguments, message):
    with pytest.raises(ValueError, match=message):
        metric(*arguments)
