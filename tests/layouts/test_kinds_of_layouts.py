"""image_sample.py beyond boxes: label maps, several runs, models without layouts, other splits."""

import json

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.data.annotations import Vocabulary
from stay_diffusion.data.codings import CODINGS
from stay_diffusion.layouts.items import from_nothing
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, save_tensors
from stay_diffusion.sampling.generate import image_generators
from stay_diffusion.sampling.preview import colour_of

SAMPLE = "scripts/image_sample.py"
FAST = ["--num_steps", 2, "--batch_size", 2]


def untrained(tiny_run, folder, data, **model):
    """The path of a random network's weights, in a run folder."""
    run = factory.with_assumed_names(tiny_run(data={"classes": (), "product_tags": (), **data}, model=model))
    torch.manual_seed(0)
    network = factory.build_model(run)
    for parameter in network.parameters():
        if not parameter.any():  # zero-initialised: nothing would depend on anything
            torch.nn.init.normal_(parameter, std=0.1)
    folder.mkdir(parents=True)
    RunFolder(folder).write_config(run)
    save_tensors(folder / "model.pt", network.state_dict())
    return folder / "model.pt"


@pytest.fixture(scope="module", params=["spade", "isla_bg"])
def of_maps(request, tiny_run, tiny_maps, tmp_path_factory):
    """A random network's weights for the maps of tiny_maps."""
    data = {"data_dir": str(tiny_maps), "dataset_mode": "ade20k"}
    model = {"conditioning": request.param, "image_channels": 3, "image_size": 16, "no_instance": True}
    return untrained(tiny_run, tmp_path_factory.mktemp("maps") / request.param, data, **model)


def ids(path) -> np.ndarray:
    return np.asarray(Image.open(path))


def test_labels_of_label_maps_carry_the_ids_of_their_source(run_script, of_maps, tiny_maps, tmp_path):
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path, *FAST)
    for i in range(2):
        stem = f"ADE_validation_{i:04d}"
        written, source = ids(tmp_path / f"labels/{stem}.png"), ids(tiny_maps / f"annotations/validation/{stem}.png")
        assert written.shape == (16, 16) and set(np.unique(written)) == set(np.unique(source))
        centres = (np.arange(16) + 0.5) / 16
        assert np.array_equal(written, source[(centres * 40).astype(int)][:, (centres * 48).astype(int)])
        assert (tmp_path / f"images/{stem}.png").exists() and (tmp_path / f"samples/{stem}.png").exists()


def test_the_map_and_not_another_one_is_what_the_network_sees(run_script, tiny_run, tiny_maps, tmp_path):
    data = {"data_dir": str(tiny_maps), "dataset_mode": "ade20k"}
    model = {"conditioning": "spade", "image_channels": 3, "image_size": 16, "no_instance": True}
    weights = untrained(tiny_run, tmp_path / "run", data, **model)
    run_script(SAMPLE, "--model_path", weights, "--results_path", tmp_path / "whole", *FAST)
    run_script(SAMPLE, "--model_path", weights, "--results_path", tmp_path / "cut", *FAST, "--crop_policy", "center")
    whole, cut = (ids(tmp_path / name / "samples/ADE_validation_0000.png") for name in ("whole", "cut"))
    assert not np.array_equal(whole, cut)  # the same noise


def test_boxes_alone_are_refused_where_a_map_is_needed(run_script, tiny_run, tiny_maps, tmp_path):
    data = {"data_dir": str(tiny_maps), "dataset_mode": "ade20k"}
    model = {"conditioning": "spade", "image_channels": 3, "image_size": 16, "no_instance": True}
    weights = untrained(tiny_run, tmp_path / "run", data, **model)
    layouts = tmp_path / "layouts.jsonl"
    layouts.write_text(json.dumps({"objects": [{"label": "wall", "box": [0, 0, 1, 1]}]}) + "\n")
    ended = run_script(SAMPLE, "--model_path", weights, "--layouts", layouts, "--results_path", tmp_path, code=1)
    assert "layouts.jsonl: holds boxes, but the model (--conditioning spade)" in ended.output.splitlines()[-1]
    assert not (tmp_path / "samples").exists()


def test_weak_masks_need_boxes_that_the_network_sees(run_script, tiny_run, tiny_maps, tmp_path):
    data = {"data_dir": str(tiny_maps), "dataset_mode": "ade20k"}
    model = {"conditioning": "spade", "image_channels": 3, "image_size": 16, "no_instance": True}
    weights = untrained(tiny_run, tmp_path / "run", data, **model)
    ended = run_script(SAMPLE, "--model_path", weights, "--results_path", tmp_path / "x", "--masks", True, code=1)
    assert "--masks True: a model that sees no boxes (--conditioning spade)" in ended.output.splitlines()[-1]
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("conditioning", "told"), [("spade", "wants label maps: --layouts val or"), ("none", "sees none")]
)
def test_no_boxes_are_sampled_for_a_model_that_sees_none(run_script, tiny_run, tiny_maps, tmp_path, conditioning, told):
    data = {"data_dir": str(tiny_maps), "dataset_mode": "ade20k"}
    model = {"conditioning": conditioning, "image_channels": 3, "image_size": 16, "no_instance": True}
    weights = untrained(tiny_run, tmp_path / "run", data, **model)
    words = ["--layouts", "sampled", "--num_samples", 2, "--results_path", tmp_path]
    ended = run_script(SAMPLE, "--model_path", weights, *words, code=1)
    assert f"--layouts sampled: draws boxes, but the model {told}" in ended.output.splitlines()[-1]


def test_boxes_of_label_maps_are_sampled(run_script, of_maps, tmp_path):
    if "isla_bg" not in str(of_maps):
        return
    words = ["--layouts", "sampled", "--num_samples", 4, "--results_path", tmp_path]
    ended = run_script(SAMPLE, "--model_path", of_maps, *words, *FAST)
    assert "counted in 4 training pictures" in ended.output
    lines = [json.loads(line) for line in (tmp_path / "manifest.jsonl").read_text().splitlines()]
    found = {each["label"] for line in lines for each in line["layout"]["objects"]}
    assert found == {"sky", "chair", "flag"}  # ids 3, 20 and 150
    assert all(line["layout"]["objects"] for line in lines)


def test_spade_says_where_its_instance_maps_are_missing(run_script, tiny_maps, tiny_network, tmp_path):
    words = ["--data_dir", tiny_maps, "--dataset_mode", "ade20k", "--conditioning", "spade", "--logdir", tmp_path]
    ended = run_script("scripts/image_train.py", *tiny_network, *words, "--max_steps", 1, code=1)
    assert "give --no_instance True" in ended.output.splitlines()[-1]


def test_spade_says_that_boxes_have_no_maps(run_script, tiny_data, tiny_network, tmp_path):
    words = ["--data_dir", tiny_data, "--conditioning", "spade", "--logdir", tmp_path, "--max_steps", 1]
    ended = run_script("scripts/image_train.py", *tiny_network, *words, code=1)
    assert "--dataset_mode sdi has no label maps" in ended.output.splitlines()[-1]


def test_the_names_of_another_data_set_are_refused(run_script, of_maps, tiny_maps, tmp_path):
    words = ["--dataset_mode", "celeba", "--data_dir", tiny_maps, "--results_path", tmp_path]
    ended = run_script(SAMPLE, "--model_path", of_maps, *words, code=1)
    assert "its class 1 is 'background', but the model's is 'wall'" in ended.output.splitlines()[-1]


def test_a_limit_of_objects_does_not_concern_a_model_of_maps(run_script, of_maps, tmp_path):
    words = ["--results_path", tmp_path, *FAST, "--max_objects", 1]
    of_boxes = "isla_bg" in str(of_maps)
    ended = run_script(SAMPLE, "--model_path", of_maps, *words, code=int(of_boxes))
    assert ("more than --max_objects 1" in ended.output) == of_boxes


def test_box_adherence_says_that_a_model_of_maps_sees_no_boxes(run_script, of_maps, tmp_path):
    if "spade" not in str(of_maps):
        return
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path, *FAST)
    ended = run_script("evaluations/box_adherence.py", tmp_path, code=1)
    assert "a model that sees no boxes (--conditioning spade)" in ended.output.splitlines()[-1]
    assert not (tmp_path / "good_parts").exists()


def test_a_dry_run_draws_what_the_network_will_see(run_script, tiny_maps, tiny_network, tmp_path):
    words = ["--data_dir", tiny_maps, "--dataset_mode", "ade20k", "--no_instance", True, "--batch_size", 2, "--dry_run"]
    for conditioning in ("spade", "isla_bg"):
        logdir = ["--conditioning", conditioning, "--logdir", tmp_path / conditioning]
        run_script("scripts/image_train.py", *tiny_network, *words, *logdir)
    seen = {
        name: {colour for _, colour in Image.open(tmp_path / name / "dry_run.png").getcolors(1 << 20)}
        for name in ("spade", "isla_bg")
    }
    sky, floor = (colour_of(name, CODINGS["ade20k"].classes) for name in ("sky", "floor"))
    assert sky in seen["spade"] and sky in seen["isla_bg"] and floor not in seen["spade"]
    assert Image.open(tmp_path / "spade/dry_run.png").width > Image.open(tmp_path / "isla_bg/dry_run.png").width


def test_several_runs_are_the_same_layouts_with_other_noise(run_script, of_maps, tmp_path):
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path / "three", *FAST, "--num_runs", 3)
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path / "one", *FAST)
    name = "samples/ADE_validation_0000.png"
    pictures = [(tmp_path / f"three/run{i}" / name).read_bytes() for i in range(3)]
    assert len(set(pictures)) == 3
    assert pictures[0] == (tmp_path / "one" / name).read_bytes()
    layouts = [(tmp_path / f"three/run{i}" / name.replace("samples", "labels")).read_bytes() for i in range(3)]
    assert len(set(layouts)) == 1


def test_an_interrupted_series_of_runs_continues(run_script, of_maps, tmp_path):
    command = [SAMPLE, "--model_path", of_maps, "--results_path", tmp_path, *FAST, "--num_runs"]
    run_script(*command, 2)
    first = {path: path.stat().st_mtime_ns for path in tmp_path.glob("run*/samples/*.png")}
    ended = run_script(*command, 3)
    assert ended.output.count("2 of 2 done already") == 2 and ended.output.count("0 of 2 done already") == 1
    assert {path: path.stat().st_mtime_ns for path in first} == first
    assert len(list((tmp_path / "run2/samples").glob("*.png"))) == 2


def test_the_run_is_part_of_the_noise_and_the_first_run_is_the_plain_one():
    def drawn(*arguments):
        return [torch.rand(2, generator=generator) for generator in image_generators(*arguments)]

    for seed in (0, 7, 2**40, 2**63 - 1):
        plain, first, second = drawn(seed, [0, 5]), drawn(seed, [0, 5], 0), drawn(seed, [0, 5], 1)
        assert all(torch.equal(a, b) for a, b in zip(plain, first, strict=True))
        assert not any(torch.equal(a, b) for a, b in zip(plain, second, strict=True))


def test_is_train_is_the_training_split(run_script, of_maps, tmp_path):
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path, *FAST, "--is_train", True)
    assert len(list((tmp_path / "samples").glob("ADE_training_*.png"))) == 4


def test_is_train_contradicts_another_split(run_script, of_maps, tmp_path):
    words = ["--is_train", True, "--layouts", "val", "--results_path", tmp_path]
    ended = run_script(SAMPLE, "--model_path", of_maps, *words, code=1)
    assert "--is_train True contradicts --layouts val" in ended.output


def test_training_with_is_train_false_sees_the_validation_split(run_script, tiny_maps, tiny_network, tmp_path):
    words = ["--data_dir", tiny_maps, "--dataset_mode", "ade20k", "--logdir", tmp_path, "--is_train", False]
    ended = run_script("scripts/image_train.py", *tiny_network, *words, "--max_steps", 1, "--batch_size", 2)
    assert "data: 2 training" in ended.output


def test_a_model_without_boxes_is_sampled_without_data(run_script, tiny_run, tmp_path):
    weights = untrained(tiny_run, tmp_path / "run", {"num_classes": 3}, conditioning="none")
    run_script(SAMPLE, "--model_path", weights, "--results_path", tmp_path / "out", *FAST, "--num_samples", 5)
    lines = [json.loads(line) for line in (tmp_path / "out/manifest.jsonl").read_text().splitlines()]
    assert [line["stem"] for line in lines] == [f"{i:06d}" for i in range(5)]
    assert {line["layout"]["product"] for line in lines} <= {"0", "1", "2"}
    ended = run_script(SAMPLE, "--model_path", weights, "--results_path", tmp_path / "none", code=1)
    assert "--num_samples: needed" in ended.output


def test_products_drawn_from_nothing_depend_on_the_seed_and_the_index_alone():
    names = Vocabulary((), tuple("abcdefgh"))
    products = [item.product for item in from_nothing(40, names, seed=3)]
    assert products[:10] == [item.product for item in from_nothing(10, names, seed=3)]
    assert products != [item.product for item in from_nothing(40, names, seed=4)]
    assert set(products) == set("abcdefgh")
    assert [item.product for item in from_nothing(2, Vocabulary(()), seed=0)] == [None, None]


def test_a_bare_checkpoint_of_label_maps_works_with_the_whole_command(run_script, of_maps, tiny_maps, tmp_path):
    trained = json.loads((of_maps.parent / "config.json").read_text())
    names = ["image_size", "image_channels", "num_channels", "num_res_blocks", "channel_mult", "num_heads"]
    names += ["attention_resolutions", "conditioning", "no_instance", "diffusion_steps", "noise_schedule"]
    flags = [word for name in names for word in (f"--{name}", trained[name])]
    (tmp_path / "bare.pt").write_bytes(of_maps.read_bytes())
    words = ["--data_dir", tiny_maps, "--dataset_mode", "ade20k", "--num_classes", 151, *FAST]
    run_script(SAMPLE, "--model_path", tmp_path / "bare.pt", "--results_path", tmp_path / "bare", *words, *flags)
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path / "known", *FAST)
    bare, known = (ids(tmp_path / name / "samples/ADE_validation_0001.png") for name in ("bare", "known"))
    np.testing.assert_array_equal(bare, known)


def test_a_contradicted_number_of_classes_is_one_line(run_script, of_maps, tmp_path):
    words = ["--num_classes", 150, "--results_path", tmp_path]
    ended = run_script(SAMPLE, "--model_path", of_maps, *words, code=1)
    assert "--num_classes 150 contradicts the trained model's 151" in ended.output.splitlines()[-1]


def test_gradient_checkpointing_and_dropout_may_differ_from_run_to_run(run_script, of_maps, tmp_path):
    words = ["--use_checkpoint", True, "--dropout", 0.5, *FAST]
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path / "other", *words)
    run_script(SAMPLE, "--model_path", of_maps, "--results_path", tmp_path / "plain", *FAST)
    name = "samples/ADE_validation_0000.png"
    assert (tmp_path / "other" / name).read_bytes() == (tmp_path / "plain" / name).read_bytes()
