import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data import synthetic as synthetic_sdi
from stay_diffusion.data.annotations import assign_products, find_product_tags
from stay_diffusion.data.formats import vott

SCRIPT = Path(__file__).resolve().parents[2] / "datasets/synthetic_sdi.py"


SMALL = {"num_train": 6, "num_val": 3}


def contents(folder):
    return {path.relative_to(folder): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def samples():
    return [synthetic_sdi.draw_sample(0, "train", i) for i in range(120)]


@pytest.fixture(scope="module")
def boxes(samples):
    """(box, width, height) of every defect."""
    return [(box, *sample.picture.shape[::-1]) for sample in samples for box in sample.boxes]


def test_the_same_seed_gives_the_same_bytes_with_any_number_of_workers(tmp_path):
    synthetic_sdi.generate(tmp_path / "one", **SMALL, workers=1)
    synthetic_sdi.generate(tmp_path / "three", **SMALL, workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_another_seed_another_split_and_another_index_give_another_picture():
    pictures = {synthetic_sdi.draw_sample(*key).picture.tobytes() for key in [
        (0, "train", 0), (1, "train", 0), (0, "val", 0), (0, "train", 1),
    ]}  # fmt: skip
    assert len(pictures) == 4


def test_a_picture_does_not_depend_on_how_many_are_drawn(tmp_path):
    synthetic_sdi.generate(tmp_path, num_train=2, num_val=1)
    written = np.asarray(Image.open(tmp_path / "train/vott-json-export/train_00001.png"))
    np.testing.assert_array_equal(written, synthetic_sdi.draw_sample(0, "train", 1).picture)


def test_what_is_written_reads_back_as_drawn_with_two_products(tmp_path):
    synthetic_sdi.generate(tmp_path, num_train=12, num_val=1)
    records, tags = vott.read(tmp_path / "train")
    products = find_product_tags(records)
    assert set(products) == {"A", "C"} and tags == [*synthetic_sdi.KINDS, "A", "C"]
    for i, record in enumerate(assign_products(records, products)):
        sample = synthetic_sdi.draw_sample(0, "train", i)
        assert (record.boxes, record.product) == (sample.boxes, sample.product)
        with Image.open(record.path) as image:
            assert image.mode == "L" and image.size == (record.width, record.height)


def test_sides_vary_independently_within_their_range(samples):
    sizes = np.array([sample.picture.shape for sample in samples])
    ratio = sizes[:, 0] / sizes[:, 1]
    assert sizes.min() >= 96 and sizes.max() <= 400 and len(np.unique(sizes)) > 60
    assert ratio.min() < 0.6 and ratio.max() > 1.6 and ratio.min() >= 0.5 and ratio.max() <= 2


def test_every_class_and_product_is_frequent_and_some_parts_are_good(samples):
    labels = Counter(box.label for sample in samples for box in sample.boxes)
    assert len(labels) == 5 and min(labels.values()) > 15
    assert min(Counter(sample.product for sample in samples).values()) > 40
    per_picture = Counter(len(sample.boxes) for sample in samples)
    assert set(per_picture) == {0, 1, 2, 3, 4, 5} and 0.1 < per_picture[0] / len(samples) < 0.15


def test_boxes_lie_inside_and_some_touch_the_border_and_some_overlap(samples, boxes):
    assert all(0 <= b.x0 < b.x1 <= w and 0 <= b.y0 < b.y1 <= h for b, w, h in boxes)
    touching = sum(b.x0 == 0 or b.y0 == 0 or b.x1 == w or b.y1 == h for b, w, h in boxes)
    assert 0.1 < touching / len(boxes) < 0.5
    assert any(
        a.x0 < b.x1 and b.x0 < a.x1 and a.y0 < b.y1 and b.y0 < a.y1
        for sample in samples for i, a in enumerate(sample.boxes) for b in sample.boxes[:i]
    )  # fmt: skip


def test_no_defect_is_mostly_hidden_by_another(samples):
    def area(box):
        return (box.x1 - box.x0) * (box.y1 - box.y0)

    for sample in samples:
        for i, a in enumerate(sample.boxes):
            for b in sample.boxes[:i]:
                w, h = min(a.x1, b.x1) - max(a.x0, b.x0), min(a.y1, b.y1) - max(a.y0, b.y0)
                assert max(w, 0) * max(h, 0) <= 0.5 * min(area(a), area(b))


def test_defects_reach_from_three_percent_of_the_side_to_a_third(boxes):
    sides = np.array([((b.x1 - b.x0) / w, (b.y1 - b.y0) / h) for b, w, h in boxes])
    longest = sides.max(axis=1)
    assert 0.03 <= sides.min() < 0.04 and 0.3 < sides.max() < 0.42
    assert 0.12 < np.median(longest) < 0.18
    assert (longest < 0.08).mean() > 0.1 and (longest > 0.25).mean() > 0.1


def test_a_defect_changes_its_box_clearly_and_little_outside(samples):
    for sample in samples:
        change = np.abs(sample.picture.astype(float) - sample.surface)
        outside = np.ones_like(change, dtype=bool)
        for box in sample.boxes:
            inside = change[box.y0 : box.y1, box.x0 : box.x1]
            texture = sample.surface.astype(float).std()
            assert np.percentile(inside, 95) > 2 * texture, (box, texture)
            assert min(inside.max(axis=axis).min() for axis in (0, 1)) > 10, f"{box} is not tight"
            outside[box.y0 : box.y1, box.x0 : box.x1] = False
        assert change[outside].mean() < 1


def test_the_products_differ_in_brightness_and_in_direction(samples):
    small = {"A": [], "C": []}
    for sample in samples:
        picture = Image.fromarray(sample.surface).resize((64, 64), Image.Resampling.BICUBIC)
        small[sample.product].append(np.asarray(picture, dtype=float) / 255)
    a, c = (np.array(pictures) for pictures in small.values())
    assert a.mean(axis=(1, 2)).max() < c.mean(axis=(1, 2)).min()
    # Streaks vary across but hardly along their direction, the weave along both.
    along, across = (np.abs(np.diff(a, axis=axis)).mean() for axis in (2, 1))
    assert across > 2.5 * along
    along, across = (np.abs(np.diff(c, axis=axis)).mean() for axis in (2, 1))
    assert 0.8 < across / along < 1.25 and along > 0.03


def test_running_again_does_nothing_and_says_so(tmp_path, capsys):
    synthetic_sdi.generate(tmp_path, **SMALL)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert "good parts" in capsys.readouterr().out
    synthetic_sdi.generate(tmp_path, **SMALL)
    assert "already complete" in capsys.readouterr().out
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_an_interrupted_run_is_repaired_by_the_same_command(tmp_path):
    synthetic_sdi.generate(tmp_path, **SMALL)
    before = contents(tmp_path)
    (tmp_path / "train/vott-json-export/train_00003.png").unlink()
    (tmp_path / "val/vott-json-export/synthetic-sdi-val-export.json").unlink()
    synthetic_sdi.generate(tmp_path, **SMALL)
    assert contents(tmp_path) == before


def test_other_settings_or_other_content_are_refused(tmp_path):
    synthetic_sdi.generate(tmp_path / "made", **SMALL)
    with pytest.raises(ValueError, match=r"--out .*made: made with .*\"seed\": 0.*not .*\"seed\": 1"):
        synthetic_sdi.generate(tmp_path / "made", **SMALL, seed=1)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("precious")
    with pytest.raises(ValueError, match=r"--out .*mine: holds something else"):
        synthetic_sdi.generate(tmp_path / "mine", **SMALL)
    assert contents(tmp_path / "mine") == {Path("thesis.txt"): b"precious"}


def test_the_script_runs_from_anywhere_and_ends_with_one_line_on_errors(tmp_path):
    command = [sys.executable, str(SCRIPT), "--out", "here", "--num_train", "2", "--num_val", "1"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0 and "train: 2 images" in done.stdout
    failed = subprocess.run([*command, "--seed", "4"], cwd=tmp_path, capture_output=True, text=True)
    assert failed.returncode == 1 and failed.stderr.startswith("error: --out here") and failed.stderr.count("\n") == 1
