"""image_sample.py --insert_into and --edit, and the quality gate, from the command line."""

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.data.formats import vott
from stay_diffusion.data.native import read_native, to_picture
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, save_tensors

SAMPLE, SEAMS = "scripts/image_sample.py", "evaluations/seams.py"
FAST = ["--num_steps", 2, "--num_resamples", 2, "--batch_size", 2]
QUICK_GATE = "from stay_diffusion.quality.run_gate import gate_of_run; gate_of_run.__defaults__ = ('cpu', 20)"
BOX_LAYOUT = '{"stem": "one", "product": "%s", "objects": [{"label": "%s", "box": [0.3, 0.3, 0.5, 0.6]}]}\n'


@pytest.fixture(scope="module")
def weights(tiny_run, tiny_data, tmp_path_factory):
    """Weights of a network of 8-pixel crops that was never trained."""
    data = {"data_dir": str(tiny_data), "classes": (), "product_tags": (), "crop_policy": "object"}
    run = tiny_run(data=data)
    run = factory.with_vocabulary(run, factory.read_split(run.data, "train")[1])
    torch.manual_seed(0)
    model = factory.build_model(run)
    torch.nn.init.normal_(model.out[2].weight, std=0.1)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_config(run)
    save_tensors(folder.file("model"), model.state_dict())
    return folder.file("model")


@pytest.fixture(scope="module")
def names(weights):
    run = json.loads((weights.parent / "config.json").read_text())
    return run["classes"], run["product_tags"]


@pytest.fixture(scope="module")
def good(tmp_path_factory, names):
    """Good pictures: 8 and 16 bit, grey and colour, each in the folder of its product."""
    folder, rng = tmp_path_factory.mktemp("good pictures"), np.random.default_rng(0)
    for name, shape, dtype in (("a", (60, 80), np.uint8), ("b", (70, 50), np.uint16), ("c", (50, 60, 3), np.uint8)):
        place = folder / names[1][0]
        place.mkdir(exist_ok=True)
        values = rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)
        to_picture(values).save(place / f"{name}.png")
    return folder


def lines(folder, name="manifest.jsonl"):
    return [json.loads(line) for line in (folder / name).read_text().splitlines()]


def tree(folder):
    skipped = (".lock", "seams.json")
    return {
        p.relative_to(folder).as_posix(): p.read_bytes()
        for p in folder.rglob("*")
        if p.is_file() and p.name not in skipped
    }


@pytest.fixture(scope="module")
def inserted(run_script, weights, good, tmp_path_factory):
    folder = tmp_path_factory.mktemp("inserted") / "results"
    command = [SAMPLE, "--model_path", weights, "--insert_into", good, "--num_samples", 4, "--masks", True, *FAST]
    ended = run_script(*command, "--results_path", folder, "--export", "vott,coco,voc,yolo")
    return folder, command, ended.output


def test_whole_pictures_keep_size_depth_and_all_but_the_surroundings_of_new_objects(inserted, run_script):
    folder, _, output = inserted
    entries = lines(folder)
    assert [entry["stem"] for entry in entries] == ["a", "b", "c", "a_2"] and "s each" in output
    for entry in entries:
        result, source = read_native(folder / entry["file"]), read_native(entry["source_image"])
        assert result.shape == source.shape and result.dtype == source.dtype
        assert (result != source).any() == bool(entry["layout"]["objects"])
        assert entry["sampler"] == "repaint" and entry["source"] == "sampled"
    assert "pixels changed where none may be  0" in run_script(SEAMS, folder).output


def test_their_labels_are_the_objects_of_their_layouts(inserted, names):
    folder, _, _ = inserted
    records, _ = vott.read(folder / "samples", None, [])
    of_stem = {record.stem: record for record in records}
    for entry in lines(folder):
        record, objects = of_stem[entry["stem"]], entry["layout"]["objects"]
        boxes = [box for box in record.boxes if box.label not in names[1]]
        assert [box.label for box in boxes] == [each["label"] for each in objects]
        expected = np.array([each["box"] for each in objects]).reshape(-1, 4) * ([record.width, record.height] * 2)
        np.testing.assert_allclose([[b.x0, b.y0, b.x1, b.y1] for b in boxes] or np.zeros((0, 4)), expected, atol=1e-3)


def test_a_continued_run_and_several_processes_make_the_very_same_folder(inserted, run_script, start_ranks, tmp_path):
    folder, command, _ = inserted
    shutil.copytree(folder, tmp_path / "cut")
    kept = (tmp_path / "cut/manifest.jsonl").read_text().splitlines()[:3]
    (tmp_path / "cut/manifest.jsonl").write_text("\n".join(kept) + "\n")
    (tmp_path / "cut/samples/a_2.png").unlink()
    export = ["--export", "vott,coco,voc,yolo"]
    run_script(*command, *export, "--results_path", tmp_path / "cut")
    assert tree(tmp_path / "cut") == tree(folder)
    for started in start_ranks(2, *command, *export, "--results_path", tmp_path / "two"):
        assert started.end().code == 0
    assert tree(tmp_path / "two") == tree(folder)


def test_pictures_of_a_split_keep_their_labels_and_what_they_show(weights, tiny_data, run_script, tmp_path):
    run_script(
        SAMPLE, "--model_path", weights, "--insert_into", "train", "--num_samples", 3, *FAST, "--results_path", tmp_path
    )
    for entry in lines(tmp_path):
        result, source = read_native(tmp_path / entry["file"]), read_native(entry["source_image"])
        there = [each for each in entry["layout"]["objects"] if each.get("in_source")]
        height, width = source.shape[:2]
        assert there
        for each in there:
            x0, y0, x1, y1 = np.array(each["box"]) * (width, height, width, height)
            part = np.s_[int(np.floor(y0)) : int(np.ceil(y1)), int(np.floor(x0)) : int(np.ceil(x1))]
            assert np.array_equal(result[part], source[part])


def test_one_picture_is_edited_by_a_layout_of_ones_own(weights, names, good, run_script, tmp_path):
    (tmp_path / "wanted.jsonl").write_text(BOX_LAYOUT % (names[1][0], names[0][1]))
    picture = good / names[1][0] / "b.png"
    layout = ["--layout", tmp_path / "wanted.jsonl"]
    run_script(SAMPLE, "--model_path", weights, "--edit", picture, *layout, *FAST, "--results_path", tmp_path / "out")
    (entry,) = lines(tmp_path / "out")
    assert [each["label"] for each in entry["layout"]["objects"]] == [names[0][1]]
    result, source = read_native(tmp_path / "out/samples/b.png"), read_native(picture)
    assert result.dtype == np.uint16
    rows, columns = np.nonzero(result != source)
    assert 14 <= rows.min() < 30 and 35 < rows.max() <= 50 and 8 <= columns.min() < 20 and 20 < columns.max() <= 32


def test_the_gate_draws_again_and_leaves_out_what_never_passes(weights, good, run_script, tmp_path):
    command = [SAMPLE, "--model_path", weights, "--insert_into", good, "--num_samples", 3, *FAST]
    gate = ["--reject_below", 0.99, "--max_attempts", 2]
    output = run_script(*command, *gate, "--results_path", tmp_path, prelude=QUICK_GATE).output
    entries, scores = lines(tmp_path), lines(tmp_path, "quality.jsonl")
    left_out = [entry for entry in entries if "asked" in entry]
    assert left_out and "never passed the gate" in output and sum(entry["redrawn"] for entry in entries)
    for entry, line in zip(entries, scores, strict=True):
        assert [box["label"] for box in line["boxes"]] == [each["label"] for each in entry["layout"]["objects"]]
        assert line["score"] >= 0.99 and entry["quality"]["score"] == line["score"]
        result, source = read_native(tmp_path / entry["file"]), read_native(entry["source_image"])
        assert (result != source).any() == bool(entry["layout"]["objects"])
    again = run_script(*command, *gate, "--results_path", tmp_path, prelude=QUICK_GATE).output
    assert "3 of 3 done already" in again


def test_images_that_never_pass_are_in_no_labelled_set(weights, run_script, tmp_path):
    command = [SAMPLE, "--model_path", weights, "--layouts", "sampled", "--num_samples", 6, "--good_parts", 0.5]
    gate = ["--num_steps", 2, "--reject_below", 0.99, "--max_attempts", 2]
    output = run_script(*command, *gate, "--results_path", tmp_path, prelude=QUICK_GATE).output
    entries = lines(tmp_path)
    rejected = {entry["stem"] for entry in entries if entry.get("rejected")}
    kept = {entry["stem"] for entry in entries} - rejected
    assert rejected and kept and "are in rejected/" in output
    assert {path.stem for path in (tmp_path / "samples").glob("*.png")} == kept
    assert {path.stem for path in (tmp_path / "rejected").glob("*.png")} == rejected
    records, _ = vott.read(tmp_path / "samples", None, [])
    assert {record.stem for record in records} == kept


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--edit", "a.png"], "--edit a.png: needs --layout FILE"),
        (["--edit", "none.png", "--layouts", "sampled"], "--edit none.png: no such file or folder"),
        (["--insert_into", "nowhere"], "--insert_into nowhere: no such file or folder"),
        (["--insert_into", ".", "--sampler", "ddim"], "--sampler ddim: --insert_into and --edit have a sampler"),
        (["--insert_into", ".", "--edit", "a.png"], "--edit a.png and --insert_into .: give one of them"),
        (["--box_margin", "0.3"], "--box_margin 0.3: only --insert_into and --edit have it"),
        (["--reject_below", "1.5"], "--reject_below 1.5: must be at most 1"),
    ],
    ids=str,
)  # fmt: skip
def test_what_cannot_be_is_told_in_one_line(weights, run_script, tmp_path, words, told):
    output = run_script(
        SAMPLE, "--model_path", weights, *words, "--results_path", tmp_path / "out", cwd=tmp_path, code=1
    ).output
    assert told in output and "Traceback" not in output and not (tmp_path / "out").exists()


def test_a_picture_that_cannot_be_read_is_named(weights, run_script, tmp_path):
    (tmp_path / "broken").mkdir()
    Image.new("L", (40, 40)).save(tmp_path / "broken/whole.png")
    data = (tmp_path / "broken/whole.png").read_bytes()
    (tmp_path / "broken/torn.png").write_bytes(data[:40])
    output = run_script(
        SAMPLE,
        "--model_path",
        weights,
        "--insert_into",
        tmp_path / "broken",
        *FAST,
        "--results_path",
        tmp_path / "out",
        code=1,
    ).output
    assert "torn.png" in output and "Traceback" not in output
