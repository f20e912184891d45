"""The results folder of image_sample.py: complete, continued, refused."""

import json
import shutil
import signal

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.data.annotations import Box, RelativeBox, Vocabulary, assign_products
from stay_diffusion.data.formats import vott
from stay_diffusion.layouts.items import LayoutItem
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, save_tensors
from stay_diffusion.sampling.results import ResultsFolder

SAMPLE = "scripts/image_sample.py"
VOCABULARY = Vocabulary(("spot", "line"), ("A",))
PICTURE = Image.new("L", (16, 16), 128)
FAST = ["--num_steps", 2, "--batch_size", 2, "--num_samples", 5]


@pytest.fixture(scope="module")
def weights(tiny_run, tiny_data, tmp_path_factory):
    """Weights of a network that was never trained, in a run folder of their own."""
    run = tiny_run(data={"data_dir": str(tiny_data), "classes": (), "product_tags": ()}, model={"conditioning": "isla"})
    run = factory.with_vocabulary(run, factory.read_split(run.data, "train")[1])
    torch.manual_seed(0)
    model = factory.build_model(run)
    torch.nn.init.normal_(model.out[2].weight, std=0.1)
    folder = RunFolder(tmp_path_factory.mktemp("run"))
    folder.write_config(run)
    save_tensors(folder.file("model"), model.state_dict())
    return folder.file("model")


@pytest.fixture(scope="module")
def complete(run_script, weights, tmp_path_factory):
    """A finished folder of 5 samples from 4 layouts, and what the script said."""
    folder = tmp_path_factory.mktemp("results")
    ended = run_script(SAMPLE, "--model_path", weights, "--results_path", folder, *FAST, "--save_npz", True)
    return folder, ended.output


@pytest.fixture
def copied(complete, tmp_path):
    return shutil.copytree(complete[0], tmp_path / "copy")


def tree(folder):
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def pixels(path):
    """Without what the file says of its making, which names the weights' file."""
    return np.asarray(Image.open(path))


def entries(folder):
    return [json.loads(line) for line in (folder / "manifest.jsonl").read_text().splitlines()]


def test_exactly_as_many_images_as_asked_for_with_names_of_their_own(complete):
    folder, _ = complete
    stems = {path.stem for path in (folder / "samples").glob("*.png")}
    assert stems == {f"val_{i:05d}" for i in range(4)} | {"val_00000_2"}
    assert {path.stem for path in (folder / "images").glob("*.png")} == stems
    assert {path.stem for path in (folder / "labels").glob("*.png")} == stems
    pictures = {(folder / f"samples/{stem}.png").read_bytes() for stem in stems}
    assert len(pictures) == 5


def test_the_manifest_says_how_each_image_was_made(complete, weights):
    lines = entries(complete[0])
    assert [line["index"] for line in lines] == [0, 1, 2, 3, 4]
    assert lines[4]["stem"] == "val_00000_2" and lines[4]["layout"] == lines[0]["layout"]
    assert {(x["seed"], x["s"], x["sampler"], x["timestep_respacing"], x["precision"]) for x in lines} == {
        (0, 1.0, "dpmpp_2m", "logsnr2", "fp32")
    }
    assert lines[0]["checkpoint"] == str(weights)


def test_the_samples_are_a_data_set_with_the_same_boxes_and_products(complete):
    folder, _ = complete
    records, _ = vott.read(folder / "samples")
    records = {record.stem: record for record in assign_products(records, ("A", "C"))}
    assert len(records) == 5
    for line in entries(folder):
        record = records[line["stem"]]
        assert (record.width, record.height, record.product) == (8, 8, line["layout"]["product"])
        drawn = [(o["label"], *(8 * min(max(x, 0), 1) for x in o["box"])) for o in line["layout"]["objects"]]
        assert [box.label for box in record.boxes] == [box[0] for box in drawn]
        found = [(box.x0, box.y0, box.x1, box.y1) for box in record.boxes]
        np.testing.assert_allclose(
            np.reshape(found, (-1, 4)), np.reshape([box[1:] for box in drawn], (-1, 4)), rtol=0, atol=1e-4
        )


def test_the_npz_holds_the_images_in_order(complete):
    folder, _ = complete
    images = np.load(folder / "samples_5x8x8x1.npz")["arr_0"]
    assert images.dtype == np.uint8 and images.shape == (5, 8, 8, 1)
    last = np.asarray(Image.open(folder / "samples/val_00000_2.png"))
    np.testing.assert_array_equal(images[4, :, :, 0], last)


def test_sampling_says_where_everything_is(complete):
    folder, output = complete
    assert "5 images from 4 layouts (val)" in output
    assert f"samples, labels and manifest: {folder.resolve()}" in output
    assert (folder / "preview.png").exists()


KILL_AFTER = """
import os, signal
from stay_diffusion.sampling import results as export
save_png, saved = export.save_png, []
def killing(image, path, *rest):
    save_png(image, path, *rest)
    saved.append(path)
    if len(saved) == {count}:
        os.kill(os.getpid(), signal.SIGKILL)
export.save_png = killing
"""


@pytest.mark.parametrize("count", [4, 9])  # after the second image's sample; after the third image's last picture
def test_a_killed_run_continues_to_the_very_same_folder(run_script, weights, complete, tmp_path, count):
    command = [SAMPLE, "--model_path", weights, "--results_path", tmp_path, *FAST, "--save_npz", True]
    run_script(*command, prelude=KILL_AFTER.format(count=count), code=-signal.SIGKILL)
    assert len(entries(tmp_path)) == (count - 1) // 3
    run_script(*command)
    assert tree(tmp_path) == tree(complete[0])


def test_a_finished_folder_is_left_as_it_is_even_after_a_torn_last_line(run_script, weights, complete, copied):
    manifest = copied / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-40])
    (copied / "samples/val_00001.png").unlink()
    output = run_script(SAMPLE, "--model_path", weights, "--results_path", copied, *FAST).output
    assert "3 of 5 done already" in output
    assert tree(copied) == tree(complete[0])


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--seed", 1], "seed of image 0 is 0, now 1"),
        (["--s", 2], "s of image 0 is 1.0, now 2.0"),
        (["--num_steps", 3], "timestep_respacing of image 0 is 'logsnr2', now 'logsnr3'"),
        (["--layouts", "train"], "stem of image 0 is 'val_00000', now 'train_00000'"),
        (["--num_samples", 2], "image 2, beyond the 2 asked for"),
        (["--precision", "bf16"], "precision of image 0 is 'fp32', now 'bf16'"),
    ],
    ids=str,
)
def test_samples_of_other_settings_are_not_mixed_in(run_script, weights, copied, arguments, told):
    before = tree(copied)
    command = [SAMPLE, "--model_path", weights, "--results_path", copied, *FAST, *arguments]
    output = run_script(*command, code=1).output
    last = output.splitlines()[-1]
    assert last.startswith(f"error: {copied}: holds other samples") and told in last
    assert tree(copied) == before


def test_other_weights_under_the_same_name_are_noticed(run_script, weights, copied, tmp_path):
    shutil.copytree(weights.parent, tmp_path / "run")
    state = torch.load(weights)
    state["out.2.bias"] += 1
    save_tensors(tmp_path / "run/model.pt", state)
    command = [SAMPLE, "--model_path", tmp_path / "run/model.pt", "--results_path", copied, *FAST]
    assert "holds other samples (checkpoint_sha256 of image 0" in run_script(*command, code=1).output


def test_more_samples_can_be_added_to_a_folder(run_script, weights, complete, copied):
    run_script(SAMPLE, "--model_path", weights, "--results_path", copied, *FAST, "--num_samples", 6)
    assert [line["stem"] for line in entries(copied)][4:] == ["val_00000_2", "val_00001_2"]
    kept = {name: content for name, content in tree(complete[0]).items() if name.startswith("samples/val")}
    assert kept.items() <= tree(copied).items()


def test_a_manifest_is_a_file_of_layouts(run_script, weights, complete, tmp_path):
    command = [SAMPLE, "--model_path", weights, *FAST, "--layouts", complete[0] / "manifest.jsonl"]
    run_script(*command, "--results_path", tmp_path)
    assert [line["layout"] for line in entries(tmp_path)] == [line["layout"] for line in entries(complete[0])]
    assert not list((tmp_path / "images").iterdir())
    first, second = (pixels(folder / "samples/val_00003.png") for folder in (tmp_path, complete[0]))
    np.testing.assert_array_equal(first, second)


# Flags of the model


def test_the_tradition_s_model_flags_are_accepted_where_they_are_right(run_script, weights, tmp_path):
    flags = ["--image_size", 8, "--num_channels", 32, "--noise_schedule", "cosine", "--class_cond", "True", "--dry_run"]
    output = run_script(SAMPLE, "--model_path", weights, "--results_path", tmp_path / "new", *FAST, *flags).output
    assert '"sampler": "dpmpp_2m"' in output and not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (
            "--num_channels 64 --image_size 16",
            "--image_size 16 contradicts the trained model's 8; --num_channels 64 con",
        ),
        ("--noise_schedule linear", "--noise_schedule linear contradicts the trained model's cosine"),
        ("--classes Spots", "--classes Spots contradicts the trained model's Spots,Scratches"),
        ("--model_path nowhere.pt", "--model_path nowhere.pt: no such file"),
        ("--model_path=", "--model_path: needed"),
        ("--layouts nowhere.json", "--layouts nowhere.json: no such file"),
        ("--num_samples -1", "--num_samples -1: must be at least 0"),
        ("--seed -1", "--seed -1: must be at least 0"),
        ("--use_ddim True --sampler heun", "--use_ddim True contradicts --sampler heun"),
        ("--guidance_interval 0.3,5", "--guidance_interval 0.3,5: without guidance (--s 1) it does nothing"),
        ("--guidance_interval 5 --s 2", "--guidance_interval 5: expected LO,HI"),
        ("--guidance_interval 1e8,1e9 --s 2", "--guidance_interval 1e8,1e9: the noise level of no step lies there"),
        ("--eta 0.5", "--eta 0.5: only ddim takes it, not dpmpp_2m"),
        ("--timestep_respacing 10", "--num_steps 2 and --timestep_respacing 10: give one of them"),
        ("--device cuda:99", "--device cuda:99: not available here"),
    ],
)
def test_a_flag_that_cannot_be_is_one_line(run_script, weights, tmp_path, arguments, told):
    command = [SAMPLE, "--model_path", weights, "--results_path", tmp_path / "new", *FAST, *arguments.split()]
    output = run_script(*command, code=1).output
    assert output.splitlines()[-1].startswith("error: ") and told in output.splitlines()[-1]
    assert "Traceback" not in output and not (tmp_path / "new").exists()


def test_a_bare_checkpoint_works_with_the_whole_command_and_not_without(run_script, weights, complete, tmp_path):
    shutil.copy(weights, tmp_path / "bare.pt")
    trained = json.loads((weights.parent / "config.json").read_text())
    names = ["data_dir", "image_size", "image_channels", "num_channels", "num_res_blocks", "channel_mult", "num_heads"]
    names += ["attention_resolutions", "conditioning", "diffusion_steps", "noise_schedule"]
    arguments = [word for name in names for word in (f"--{name}", trained[name])]
    command = [SAMPLE, "--model_path", tmp_path / "bare.pt", "--results_path", tmp_path / "out", *FAST, *arguments]
    without = run_script(*command, "--num_res_blocks", 2, code=1).output
    assert "bare.pt: does not fit the model of these flags" in without.splitlines()[-1]
    run_script(*command)
    for name in ("samples/val_00000.png", "samples/val_00003.png"):
        np.testing.assert_array_equal(pixels(tmp_path / "out" / name), pixels(complete[0] / name))


# The folder by itself


@pytest.fixture
def item():
    boxes = (RelativeBox("spot", -0.25, 0.5, 0.5, 1.5), RelativeBox("line", 0.0, 0.0, 1.0, 0.25))
    return LayoutItem("one", "A", boxes, "test")


def test_exported_boxes_are_clipped_to_the_picture(tmp_path, item):
    folder = ResultsFolder(tmp_path, VOCABULARY)
    folder.open()
    folder.add(0, item, PICTURE, {})
    folder.finish([item], save_npz=False)
    (record,) = assign_products(vott.read(tmp_path / "samples")[0], ["A"])
    assert record.boxes == (Box("spot", 0, 8, 8, 16), Box("line", 0, 0, 16, 4)) and record.product == "A"
    assert entries(tmp_path)[0]["layout"]["objects"][0]["box"] == [-0.25, 0.5, 0.5, 1.5]  # as it was asked for


def test_a_broken_line_inside_a_manifest_is_named(tmp_path, item):
    folder = ResultsFolder(tmp_path, VOCABULARY)
    folder.open()
    folder.add(0, item, PICTURE, {})
    folder.manifest.write_text("{torn\n" + folder.manifest.read_text())
    with pytest.raises(ValueError, match=r"manifest.jsonl, line 1: not a line of a manifest"):
        folder.entries()


def test_the_label_picture_shows_each_object_in_its_place(tmp_path, item):
    folder = ResultsFolder(tmp_path, VOCABULARY)
    folder.open()
    folder.add(0, item, PICTURE, {})
    label = np.asarray(Image.open(tmp_path / "labels/one.png"))
    assert label.shape == (16, 16, 3)
    colours = [tuple(label[12, 4]), tuple(label[2, 8]), tuple(label[6, 12])]  # the spot, the line, nothing
    assert len(set(colours)) == 3 and colours[2] == (0, 0, 0)
