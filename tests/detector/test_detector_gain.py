"""The comparison of detectors: which pictures each sees, what is refused, kept and concluded."""

import importlib
import importlib.util
import json
import shutil
from dataclasses import replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.annotations import Box, ImageRecord, Vocabulary
from stay_diffusion.data.formats import vott

if importlib.util.find_spec("pycocotools") is None or importlib.util.find_spec("torchvision") is None:
    pytest.skip("needs pycocotools and torchvision: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.commands import gain as script
from stay_diffusion.detector import gain_figures as figures
from stay_diffusion.detector import gain_runs as runs
from stay_diffusion.detector import gain_sets as sets
from stay_diffusion.detector.data import Example
from stay_diffusion.detector.options import DetectorConfig, GainConfig
from stay_diffusion.pages import gain_plot as plot

SCRIPT = "evaluations/detector_gain.py"
CLASSES = ["bright", "dark"]
NAMES = Vocabulary(("hole",))
TINY = ["--steps", "2", "--batch_size", "2", "--crop_size", "32"]


def draw(folder: Path, stems, seed: int, classes=CLASSES) -> Path:
    """Pictures of 48 x 48, each with an object of every class, in a VoTT export."""
    folder.mkdir(parents=True, exist_ok=True)
    records = []
    for number, stem in enumerate(stems):
        pixels = np.random.default_rng((seed, number)).integers(100, 156, (48, 48), dtype=np.uint8)
        boxes = tuple(Box(label, 2.0 + 22 * k, 4.0, 20.0 + 22 * k, 30.0) for k, label in enumerate(classes))
        for k, box in enumerate(boxes):
            pixels[4:30, int(box.x0) : int(box.x1)] = (250, 5)[k]
        Image.fromarray(pixels).save(folder / f"{stem}.png")
        records.append(ImageRecord(folder / f"{stem}.png", 48, 48, boxes))
    vott.write(folder / "drawn-export.json", records, classes, name="drawn")
    return folder


@pytest.fixture
def real(tmp_path):
    """A data set of four training and two validation pictures."""
    draw(tmp_path / "real set/train", ["r0", "r1", "r2", "r3"], seed=1)
    draw(tmp_path / "real set/val", ["t0", "t1"], seed=2)
    return tmp_path / "real set"


@pytest.fixture
def synthetic(tmp_path):
    """A folder as image_sample.py makes it, of eight samples."""
    folder = tmp_path / "results"
    draw(folder / "samples", [f"s{i}" for i in range(8)], seed=3)
    write_manifest(folder)
    return folder


def write_manifest(folder: Path, **of_s3) -> None:
    layout = {"product": None, "objects": []}
    entries = [
        {"index": i, "stem": f"s{i}", "file": f"samples/s{i}.png", "layout": layout, "source": "sampled"}
        for i in range(8)
    ]
    entries[3] |= of_s3
    (folder / "manifest.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


# Which pictures


def some(count: int, name: str) -> "sets.ExampleSet":
    items = [Example(Path(f"{name}{i}"), True, np.zeros((0, 4), np.float32), np.zeros(0, int)) for i in range(count)]
    return sets.ExampleSet(items, [f"{name}{i}" for i in range(count)])


def test_the_arms_hold_as_many_pictures_as_the_ratios_say():
    arms = sets.list_arms(50, [0, 0.5, 1, 2])
    assert [(arm.name, arm.num_real, arm.num_synthetic) for arm in arms] == [
        ("real", 50, 0),
        ("real + 0.5 synthetic", 50, 25),
        ("real + 1 synthetic", 50, 50),
        ("real + 2 synthetic", 50, 100),
        ("synthetic only", 0, 100),
    ]


def test_an_arm_sees_all_real_pictures_and_its_share_of_the_synthetic_ones():
    real, synthetic = some(5, "r"), some(20, "s")
    of_gain = sets.GainSets(NAMES, real, synthetic, some(2, "t"))
    for arm in sets.list_arms(5, [0, 1, 2]):
        chosen = sets.choose_images(arm, of_gain, seed=0)
        assert [d for d in chosen.digests if d[0] == "r"] == (real.digests if arm.num_real else [])
        assert len({d for d in chosen.digests if d[0] == "s"}) == arm.num_synthetic
        assert [item.path.name for item in chosen.items] == chosen.digests


def test_larger_ratios_see_what_smaller_ones_see_and_other_seeds_see_others():
    of_gain = sets.GainSets(NAMES, some(5, "r"), some(40, "s"), some(2, "t"))
    small, large = sets.Arm(1, 5, 5), sets.Arm(2, 5, 10)
    seen = {
        (arm.ratio, seed): set(sets.choose_images(arm, of_gain, seed).digests)
        for arm in (small, large)
        for seed in (0, 1)
    }
    assert seen[1, 0] < seen[2, 0] and seen[1, 1] < seen[2, 1] and seen[2, 0] != seen[2, 1]


def planned(arm, seed=0, config=None, synthetic="s", folder=Path("runs")):
    of_gain = sets.GainSets(NAMES, some(3, "r"), some(9, synthetic), some(2, "t"))
    return runs.plan(arm, seed, of_gain, config or DetectorConfig(), "cpu", folder)


def test_a_run_is_known_by_all_that_decides_its_result_and_nothing_else():
    arm, config = sets.Arm(1, 3, 3), DetectorConfig()
    file = planned(arm).file
    assert planned(arm).file == file
    others = [planned(arm, seed=1), planned(sets.Arm(2, 3, 6)), planned(arm, synthetic="z")]
    others += [
        planned(arm, config=replace(config, **change)) for change in ({"steps": 7}, {"lr": 0.5}, {"flips": "none"})
    ]
    assert len({file, *(run.file for run in others)}) == 7


def test_real_pictures_alone_are_the_same_run_whatever_the_synthetic_ones_are():
    arm = sets.Arm(0, 3, 0)
    assert planned(arm).file == planned(arm, synthetic="z").file


# What is concluded


def test_a_paired_difference_has_its_known_error_and_interval():
    found = figures.difference([0.5, 0.6, 0.7], [0.4, 0.4, 0.4])
    assert found.mean == pytest.approx(0.2) and found.error == pytest.approx(0.1 / 3**0.5)
    assert found.high - found.mean == pytest.approx(4.302653 * 0.1 / 3**0.5)  # Student's t of 2 degrees at 97.5 %
    assert found.mean - found.low == pytest.approx(found.high - found.mean)


def test_pairs_cancel_what_seeds_have_in_common():
    found = figures.difference([0.11, 0.51, 0.91], [0.1, 0.5, 0.9])
    assert found.mean == pytest.approx(0.01) and found.error == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("values", "baseline", "verdict"),
    [
        ([0.50, 0.51, 0.52], [0.40, 0.41, 0.42], "gain"),
        ([0.41, 0.52, 0.43], [0.40, 0.40, 0.42], "cannot be told"),
        ([0.401, 0.412, 0.419], [0.40, 0.41, 0.42], "no gain"),
        ([0.30, 0.31, 0.32], [0.40, 0.41, 0.42], "no gain"),
        ([0.40, 0.41], [0.40, 0.41], "no gain"),
        ([0.9], [0.1], "cannot be told"),
    ],
    ids=["higher", "one lucky seed", "equal", "lower", "the same", "a single seed"],
)
def test_the_verdict_follows_the_interval(values, baseline, verdict):
    assert figures.difference(values, baseline).verdict == verdict


def result(value: float) -> dict:
    of_class = {"ap": value, "ap50": value, "recall": value, "recall50": value, "objects": 3}
    none = {"ap": None, "ap50": None, "recall": None, "recall50": None, "objects": 0}
    return {
        "map": value,
        "ap50": value,
        "recall": value,
        "recall50": value,
        "per_class": {"hole": of_class, "line": none},
    }


def summary(*values) -> list[dict]:
    """Of real alone, then ratios 1, 2 ..., each with its values over the seeds."""
    arms = sets.list_arms(10, range(len(values)))[:-1]
    return figures.summarise(arms, [[result(value) for value in of_arm] for of_arm in values])


@pytest.mark.parametrize(
    ("values", "sentence"),
    [
        (
            ([0.4, 0.5], [0.5, 0.6], [0.39, 0.49]),
            "Gain: the synthetic pictures help at ratio 1 (+0.100 mAP); at the other 1 not.",
        ),
        (([0.4, 0.5], [0.4, 0.5]), "No gain: at no ratio do the synthetic pictures add 0.01 mAP or more."),
        (
            ([0.4, 0.5], [0.3, 0.4]),
            "No gain: at no ratio do the synthetic pictures add 0.01 mAP or more; they harm at ratio 1 (-0.100 mAP).",
        ),
        (
            ([0.4, 0.5], [0.3, 0.7], [0.4, 0.5]),
            "Cannot be told from 2 seeds: the largest difference is +0.050 mAP (standard error 0.150) at ratio 1.",
        ),
        (([0.4], [0.5]), "Cannot be told from one seed: there is no spread to hold a difference against."),
    ],
    ids=["gain", "none", "harm", "untold", "one seed"],
)
def test_the_conclusion_is_one_plain_sentence(values, sentence):
    assert figures.conclusion(summary(*values)) == sentence


def test_synthetic_pictures_alone_have_no_part_in_the_conclusion():
    arms = sets.list_arms(10, [0, 1])
    entries = figures.summarise(arms, [[result(v) for v in values] for values in ([0.4, 0.5], [0.4, 0.5], [0.9, 1.0])])
    assert entries[2]["difference"]["verdict"] == "gain"
    assert figures.conclusion(entries).startswith("No gain")


def test_means_and_deviations_are_over_the_seeds_and_classes_without_objects_have_none():
    first, second = summary([0.4, 0.6], [0.5, 0.5])
    assert first["map"] == {"mean": 0.5, "std": pytest.approx(0.02**0.5), "values": [0.4, 0.6]}
    assert "difference" not in first and second["difference"]["mean"] == 0
    assert second["per_class"]["hole"]["recall50"]["values"] == [0.5, 0.5] and second["per_class"]["line"]["ap"] is None


def test_the_plot_shows_every_training_where_its_figure_is():
    entries = summary([0.4, 0.6], [0.5, 0.8])
    tree = ElementTree.fromstring(plot.svg(entries))
    dots = [float(node.get("cy")) for node in tree.iter("{http://www.w3.org/2000/svg}circle")]
    assert len(dots) == 8  # two panels
    assert dots[0] > dots[2] > dots[1] > dots[3]  # 0.4, 0.5, 0.6, 0.8 from below
    assert dots[0] - dots[1] == pytest.approx(dots[1] - dots[3], abs=0.2)
    assert min(dots) > 0 and max(dots) < float(tree.get("height"))


@pytest.mark.parametrize("values", [[0.0, 0.0], [1.0, 1.0], [0.31, 0.32], [0.0, 1.0]])
def test_an_axis_holds_its_values(values):
    axis = plot.axis(values)
    step = axis.ticks[1][0] - axis.ticks[0][0]
    assert 0 <= axis.low <= min(values) and max(values) <= axis.high <= 1.0001 and axis.high - axis.low >= step > 0


# What is refused


def refused(run_script, real, synthetic, out, *flags) -> str:
    return run_script(
        SCRIPT, "--real", real, "--synthetic", synthetic, "--out", out, "--dry_run", "--ratios", "0,1,2", *flags, code=1
    ).output


def test_counts_are_said_before_anything_is_trained(run_script, real, synthetic, tmp_path):
    flags = ["--real", real, "--synthetic", synthetic, "--out", tmp_path / "out", "--dry_run", "--num_real", 3]
    output = run_script(SCRIPT, *flags, "--ratios", "0,1,2").output
    assert "real: 3 pictures; bright 3, dark 3" in output and "synthetic: 8 pictures; bright 8, dark 8" in output
    assert "test: 2 pictures" in output and "real + 2 synthetic (3 + 6); synthetic only (0 + 6)" in output
    assert not (tmp_path / "out").exists()


def test_a_test_picture_among_the_synthetic_ones_is_refused_under_any_name(run_script, real, synthetic, tmp_path):
    Image.open(real / "val/t1.png").convert("RGB").save(synthetic / "samples/s5.png")
    output = refused(run_script, real, synthetic, tmp_path / "out", "--allow_test_sources", "True")
    assert f"{synthetic}/samples/s5.png is a test picture, {real}/val/t1.png" in output


def test_a_test_picture_among_the_real_ones_is_refused(run_script, real, synthetic, tmp_path):
    shutil.copy(real / "val/t0.png", real / "train/r2.png")
    assert f"--real {real}" in refused(run_script, real, synthetic, tmp_path / "out")


@pytest.mark.parametrize("key", ["source_image", "source", "pasted_from"])
def test_pictures_made_from_test_pictures_are_refused_unless_allowed(run_script, real, synthetic, tmp_path, key):
    source = str((real / "val/t0.png").resolve())
    write_manifest(synthetic, **{key: [source] if key == "pasted_from" else source})
    output = refused(run_script, real, synthetic, tmp_path / "out")
    assert f"1 of its 8 pictures were made from test pictures (s3: {key} {source})" in output
    allowed = ["--real", real, "--synthetic", synthetic, "--out", tmp_path / "out", "--dry_run", "--ratios", "0,1"]
    run_script(SCRIPT, *allowed, "--allow_test_sources", "True")


def test_templates_that_lie_with_the_test_pictures_belong_to_them(run_script, real, synthetic, tmp_path):
    write_manifest(synthetic, source_image=str(real / "val/templates/t0_temp.png"))
    assert "made from test pictures" in refused(run_script, real, synthetic, tmp_path / "out")


def test_pictures_made_from_training_pictures_are_accepted(run_script, real, synthetic, tmp_path):
    write_manifest(synthetic, source_image=str(real / "train/r0.png"), source=str(real / "train/r1.png"))
    flags = ["--real", real, "--synthetic", synthetic, "--out", tmp_path / "out", "--dry_run", "--ratios", "0,1"]
    run_script(SCRIPT, *flags)


def test_unknown_classes_are_refused(run_script, real, tmp_path):
    other = draw(tmp_path / "other", ["a", "b", "c", "d", "e", "f", "g", "h"], seed=4, classes=["bright", "crack"])
    assert "unknown class 'crack'; known: bright, dark" in refused(run_script, real, other, tmp_path / "out")


def test_missing_classes_are_warned_of(run_script, real, tmp_path):
    other = draw(tmp_path / "other", [f"s{i}" for i in range(8)], seed=4, classes=["bright"])
    # bright alone would be taken for a product if it covered the pictures; here it is a class like any other
    flags = ["--real", real, "--synthetic", other, "--out", tmp_path / "out", "--dry_run"]
    assert "warning: synthetic: no object of dark" in run_script(SCRIPT, *flags).output


def test_too_few_synthetic_pictures_are_refused_with_the_counts(run_script, real, synthetic, tmp_path):
    output = refused(run_script, real, synthetic, tmp_path / "out", "--ratios", "0,3")
    assert "8 pictures, but --ratios 3 of 4 real ones needs 12" in output


def test_an_empty_folder_is_refused(run_script, real, tmp_path):
    (tmp_path / "empty").mkdir()
    assert f"{tmp_path}/empty: no VoTT export" in refused(run_script, real, tmp_path / "empty", tmp_path / "out")


@pytest.mark.parametrize("ratios", ["1,2", "0", ""])
def test_ratios_need_zero_and_another(ratios):
    with pytest.raises(ValueError, match=f"--ratios {ratios}: needs 0"):
        script.read_ratios(ratios)


def test_a_folder_without_splits_is_tested_on_whole(real, synthetic, tmp_path):
    test = draw(tmp_path / "apart", ["x", "y", "z"], seed=9)
    gain = GainConfig(real=str(real), synthetic=str(synthetic), test=str(test))
    found = sets.read_sets(gain)
    assert found.vocabulary.classes == ("bright", "dark")
    assert [len(some.items) for some in found.by_name().values()] == [4, 8, 3]


def test_one_folder_without_splits_is_parted_by_name(synthetic, tmp_path):
    both = draw(tmp_path / "both", [f"p{i}" for i in range(40)], seed=9)
    gain = GainConfig(real=str(both), synthetic=str(synthetic), test=str(both), val_fraction=0.3)
    found = sets.read_sets(gain)
    assert not set(found.real.digests) & set(found.test.digests)
    assert len(found.real.items) + len(found.test.items) == 40


# The whole command


def test_the_whole_comparison_and_what_an_interruption_leaves(run_script, real, synthetic, tmp_path):
    out, flags = tmp_path / "out", ["--real", real, "--synthetic", synthetic, "--ratios", "0,2", "--seeds", 2, *TINY]
    output = run_script(SCRIPT, *flags, "--out", out).output
    report, page = json.loads((out / "gain.json").read_text()), (out / "gain.md").read_text()
    assert [arm["name"] for arm in report["arms"]] == ["real", "real + 2 synthetic", "synthetic only"]
    assert [len(arm["map"]["values"]) for arm in report["arms"]] == [2, 2, 2]
    assert report["conclusion"] in page and report["conclusion"].startswith(("Gain", "No gain", "Cannot be told"))
    assert report["protocol"]["real_images"] == 4 and report["protocol"]["test_objects"] == {"bright": 2, "dark": 2}
    ElementTree.parse(out / "gain.svg")
    assert "[6/6]" in output and "(kept)" not in output

    kept = sorted((out / "runs").iterdir())
    results = [json.loads(file.read_text()) for file in kept]
    assert len(kept) == 6 and {result["steps"] for result in results} == {2}
    assert {result["settings"]["images"] for result in results} == {4, 12, 8}

    kept[2].unlink()  # as if interrupted before
    times = {file: file.stat().st_mtime_ns for file in kept if file.exists()}
    again = run_script(SCRIPT, *flags, "--out", out).output
    assert again.count("(kept)") == 5 and times == {file: file.stat().st_mtime_ns for file in times}
    without_seconds = [{**json.loads((out / "gain.json").read_text()), "protocol": 0}, {**report, "protocol": 0}]
    assert without_seconds[0] == without_seconds[1]

    other = ["--real", real, "--synthetic", synthetic, "--ratios", "0,1", "--seeds", 1, *TINY, "--runs", out / "runs"]
    shared = run_script(SCRIPT, *other, "--out", tmp_path / "other").output
    assert shared.count("(kept)") == 1 and "[1/3] real, seed 0" in shared


def test_a_result_that_cannot_be_read_is_named(tmp_path):
    run = planned(sets.Arm(0, 3, 0), folder=tmp_path)
    run.file.write_text("{")
    with pytest.raises(ValueError, match="not readable; remove it"):
        run.result()


@pytest.mark.slow  # each process imports torch and torchvision by itself
def test_trainings_side_by_side_find_the_same(run_script, real, synthetic, tmp_path):
    flags = ["--real", real, "--synthetic", synthetic, "--ratios", "0,1", "--seeds", 1, *TINY]
    for jobs in (1, 2):
        run_script(SCRIPT, *flags, "--out", tmp_path / str(jobs), "--jobs", jobs)
    one, two = (json.loads((tmp_path / jobs / "gain.json").read_text()) for jobs in ("1", "2"))
    assert one["arms"] == two["arms"]
