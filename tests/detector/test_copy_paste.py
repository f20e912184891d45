"""Copy-paste augmentation: what is pasted, where, and the folder that is written."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from stay_diffusion.data.annotations import Box, ImageRecord
from stay_diffusion.data.formats import vott
from stay_diffusion.detector import copy_paste as script
from stay_diffusion.detector import data as detector_data

SIDE = 64


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Five training and two validation pictures of noise, two boxes each, of product A or C by turns; VoTT exports."""
    folder = tmp_path_factory.mktemp("noise") / "my data"
    for split, count in (("train", 5), ("val", 2)):
        records = []
        for i in range(count):
            pixels = np.random.default_rng((i, count)).integers(0, 256, (SIDE, SIDE), dtype=np.uint8)
            path = folder / split / f"{split}{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(path)
            boxes = (Box("hole", 3.0, 4.5, 13.0, 12.0), Box("line", 40.0, 41.0, 60.5, 49.0))
            records.append(ImageRecord(path, SIDE, SIDE, boxes, "AC"[i % 2]))
        vott.write(folder / split / "noise-export.json", records, ["A", "C", "hole", "line"], name="noise")
    return folder


def host(pixels: np.ndarray, *boxes, product=None) -> "script.Host":
    """A picture in memory, all its boxes of class 1."""
    values = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    labels = np.ones(len(values), dtype=np.int64)
    item = detector_data.Example(Path(f"/nowhere/{id(pixels)}"), True, values, labels)
    detector_data._kept[item.path, True, None, 1.0] = Image.fromarray(pixels)
    return script.Host(item, product)


def noise(*shape, seed=0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def test_the_crop_is_whole_in_its_box_and_the_host_untouched_past_the_feather():
    ground, donor = noise(50, 60, seed=1), noise(40, 40, seed=2)
    paste = script.Paste(host(donor, (10, 12, 20, 30)), 0, np.array([15, 5]))
    assert paste.box.tolist() == [25, 17, 35, 35]
    made = np.array(script.paste_all(script.Plan(host(ground), (paste,)), feather=3))
    assert (made[17:35, 25:35] == donor[12:30, 10:20]).all()
    changed = np.argwhere(made != ground)
    assert changed.min(axis=0).tolist() == [14, 22] and changed.max(axis=0).tolist() == [37, 37]


def test_the_seam_fades_evenly():
    ground, donor = np.zeros((40, 40), dtype=np.uint8), np.full((40, 40), 200, dtype=np.uint8)
    paste = script.Paste(host(donor, (10, 10, 20, 20)), 0, np.array([5, 5]))
    made = np.array(script.paste_all(script.Plan(host(ground), (paste,)), feather=3))
    assert made[20, 10:17].tolist() == [0, 0, 50, 100, 150, 200, 200]
    assert made[10:17, 20].tolist() == made[20, 10:17].tolist()
    assert made[20, 23:29].tolist() == [200, 200, 150, 100, 50, 0]


def test_crops_at_the_border_of_either_picture_are_cut_there():
    ground, donor = noise(30, 30, seed=1), noise(30, 30, seed=2)
    paste = script.Paste(host(donor, (0, 0, 8, 8)), 0, np.array([22, 22]))
    made = np.array(script.paste_all(script.Plan(host(ground), (paste,)), feather=4))
    assert (made[22:, 22:] == donor[:8, :8]).all()
    assert (made[:22] == ground[:22]).all() and (made[:, :22] == ground[:, :22]).all()  # the donor has nothing there


@pytest.mark.parametrize("mode", ["L", "RGB"])
def test_a_picture_keeps_its_mode_whatever_is_pasted(mode):
    ground = noise(30, 30, 3) if mode == "RGB" else noise(30, 30)
    donors = [
        host(np.full((30, 30), 7, dtype=np.uint8), (5, 5, 9, 9)),
        host(np.full((30, 30, 3), 9, dtype=np.uint8), (5, 5, 9, 9)),
    ]
    pastes = tuple(script.Paste(donor, 0, np.array([10 * i, 0])) for i, donor in enumerate(donors))
    made = script.paste_all(script.Plan(host(ground), pastes), feather=0)
    assert made.mode == mode
    assert np.unique(np.array(made)[5:9, 5:9]).tolist() == [7] and np.unique(np.array(made)[5:9, 15:19]).tolist() == [9]


def test_boxes_are_in_the_picture_and_clear_of_one_another():
    hosts = [host(noise(80, 90, seed=i), (10, 10, 30, 28.5), (50.25, 40, 61, 55)) for i in range(4)]
    pasted = 0
    for seed in range(30):
        one = script.plan(hosts, hosts, feather=2, most=0, rng=script.rng_of(seed, 0))
        boxes = [*one.host.example.boxes, *(paste.box for paste in one.pastes)]
        for i, (x0, y0, x1, y1) in enumerate(boxes):
            assert min(x0, y0) >= 0 and x1 <= 90 and y1 <= 80
            for a0, b0, a1, b1 in boxes[:i]:
                assert max(x0 - a1, a0 - x1, y0 - b1, b0 - y1) >= 4
        pasted += len(one.pastes)
        assert all(paste.donor is not one.host for paste in one.pastes)
    assert pasted > 30


def test_an_object_larger_than_the_picture_is_not_pasted():
    large, small = host(noise(80, 80), (5, 5, 70, 70)), host(noise(40, 40))
    assert script.plan([small], [large], 2, 0, script.rng_of(0, 0)).pastes == ()


def test_no_more_are_pasted_than_asked_for():
    hosts = [host(noise(200, 200, seed=i), *((20 * k, 5, 20 * k + 10, 15) for k in range(8))) for i in range(2)]
    counts = {len(script.plan(hosts, hosts, 1, most, script.rng_of(0, 0)).pastes) for most in (0, 3)}
    assert counts == {8, 3}


def test_defects_stay_on_their_product():
    donors = [host(noise(60, 60, seed=i), (5, 5, 15, 15), product="AC"[i % 2]) for i in range(6)]
    for seed in range(20):
        one = script.plan(donors, donors, 1, 0, script.rng_of(seed, 0))
        assert {paste.donor.product for paste in one.pastes} == {one.host.product}


def test_the_folder_is_a_data_set_that_says_what_it_was_made_from(run_script, data, tmp_path):
    out = tmp_path / "out"
    run_script("evaluations/copy_paste.py", "--data_dir", data, "--out", out, "--num", 6, "--feather", 2)
    entries = [json.loads(line) for line in (out / "manifest.jsonl").read_text().splitlines()]
    assert [entry["index"] for entry in entries] == list(range(6))
    records, tags = vott.read(out / "samples")
    assert tags == ["A", "C", "hole", "line"] and len(records) == 6
    for entry, record in zip(entries, sorted(records, key=lambda r: r.stem), strict=True):
        source = Path(entry["source_image"])
        assert source.parent == (data / "train").resolve() and source not in map(Path, entry["pasted_from"])
        assert all(Path(file).parent == source.parent for file in entry["pasted_from"])
        objects = [(o["label"], [SIDE * edge for edge in o["box"]]) for o in entry["layout"]["objects"]]
        assert len(objects) == 2 + len(entry["pasted_from"])
        assert [
            (b.label, pytest.approx([b.x0, b.y0, b.x1, b.y1])) for b in record.boxes if b.label not in "AC"
        ] == objects
        assert [b.label for b in record.boxes if b.label in "AC"] == [entry["layout"]["product"]]
        original, made = (np.array(Image.open(path)) for path in (source, record.path))
        assert (made[5:12, 3:13] == original[5:12, 3:13]).all()  # its own hole
    assert any(entry["pasted_from"] for entry in entries)


def test_the_same_command_continues_and_changes_nothing(run_script, data, tmp_path):
    out, flags = tmp_path / "out", ["--data_dir", data, "--num", 4, "--num_real", 3]
    run_script("evaluations/copy_paste.py", *flags, "--out", out)
    files = sorted(path for path in out.rglob("*") if path.is_file() and not path.name.startswith("."))
    before = [path.read_bytes() for path in files]
    manifest = (out / "manifest.jsonl").read_text().splitlines(keepends=True)
    (out / "manifest.jsonl").write_text("".join(manifest[:2]) + manifest[2][:20])
    (out / "samples/copy_paste_00003.png").unlink()
    run_script("evaluations/copy_paste.py", *flags, "--out", out)
    assert [path.read_bytes() for path in files] == before
    refused = run_script("evaluations/copy_paste.py", *flags, "--out", out, "--seed", 1, code=1).output
    assert "holds other samples" in refused


def test_defects_are_pasted_onto_good_pictures(run_script, data, tmp_path):
    good = tmp_path / "good parts"
    good.mkdir()
    Image.fromarray(noise(SIDE, SIDE)).save(good / "template.png")
    out = tmp_path / "out"
    flags = ["--data_dir", data, "--out", out, "--num", 3, "--backgrounds", good]
    run_script("evaluations/copy_paste.py", *flags)
    for line in (out / "manifest.jsonl").read_text().splitlines():
        entry = json.loads(line)
        assert entry["source_image"] == str((good / "template.png").resolve())
        assert len(entry["layout"]["objects"]) == len(entry["pasted_from"]) and entry["layout"]["product"] is None


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--num", 0], "--num 0: must be 1 or more"),
        (["--num", 1, "--num_real", 6], "--num_real 6: there are only 5 pictures"),
        (["--num", 1, "--backgrounds", "nowhere"], "--backgrounds nowhere: no pictures in it"),
    ],
)
def test_what_cannot_be_is_refused(run_script, data, tmp_path, flags, message):
    output = run_script("evaluations/copy_paste.py", "--data_dir", data, "--out", tmp_path, *flags, code=1).output
    assert output == f"error: {message}\n"
