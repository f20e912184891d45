import json
import shutil

import pytest
import samplers
import torch
from sampler_settings import Setting, cost
from samplers import Measured

from stay_diffusion.diffusion.gaussian_diffusion import GaussianDiffusion, respace
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, save_tensors

# By a script: tests of the gate have a smaller network in this process.
QUICK_GATE = "from stay_diffusion.quality.run_gate import gate_of_run; gate_of_run.__defaults__ = ('cpu', 1)"


@pytest.fixture(scope="module")
def compared(tiny_run, synthetic_sdi, run_script, tmp_path_factory):
    """A comparison of a network that was never trained, by features and a gate that hardly were."""
    from stay_diffusion.evaluation.features.own_features import Network, Recipe, save

    folder = tmp_path_factory.mktemp("compared")
    synthetic_sdi.generate(folder / "da ta", num_train=8, num_val=8)
    run = tiny_run(data={"data_dir": str(folder / "da ta"), "classes": (), "product_tags": ()}, drop_rate=0.1)
    run = factory.with_vocabulary(run, factory.read_split(run.data, "train")[1])
    for name in ("run", "out"):
        (folder / name).mkdir()
    torch.manual_seed(0)
    model, run_folder = factory.build_model(run), RunFolder(folder / "run")
    torch.nn.init.normal_(model.out[2].weight, std=0.1)
    run_folder.write_config(run)
    save_tensors(run_folder.file("model"), model.state_dict())
    vocabulary = factory.vocabulary_of(run)
    network = Network(1, len(vocabulary.classes), len(vocabulary.products))
    save(folder / "out/features.pt", network, Recipe(16, 1, vocabulary.classes, vocabulary.products, "", 0, 0, 8, {}))
    words = ["--model_path", run_folder.file("model"), "--out", folder / "out", "--precision", "fp32"]
    words += ["--settings", "ddim:2", "heun:logsnr3:0.1,9"]
    return folder, words, run_script("studies/samplers.py", *words, prelude=QUICK_GATE).output


def test_a_comparison_ends_with_a_line_for_each_setting(compared):
    folder, _, output = compared
    found = json.loads((folder / "out/samplers.json").read_text())
    names = ["real windows", "ddim, 2 steps even in time", "heun, 3 steps even in log-SNR, guided in 0.1,9"]
    assert [line["name"] for line in found["settings"]] == names
    assert [line["calls"] for line in found["settings"]] == [0, 2, 5]
    assert all(f"| {name} | " in output for name in names)
    assert found["knee"] in names[1:]
    assert found["protocol"]["windows"].startswith("4 of 8 x 8")  # half of the validation pictures, each once
    assert (folder / "out/samplers.md").read_text() in output


def test_what_an_earlier_comparison_has_sampled_is_kept(compared, run_script, tmp_path):
    folder, words, _ = compared
    again = shutil.copytree(folder / "out", tmp_path / "out")
    shutil.rmtree(again / "ddim_2")
    words = [again if word == folder / "out" else word for word in words]
    told = run_script("studies/samplers.py", *words).output
    assert "ddim, 2 steps even in time: 4 pictures" in told and "guided in 0.1,9: " not in told
    assert (again / "samplers.md").read_bytes() == (folder / "out/samplers.md").read_bytes()


@pytest.mark.parametrize(
    "name, flags",
    [
        ("ddim_2", "--sampler ddim --timestep_respacing 2"),
        ("heun_logsnr3_guided_0.1,9", "--sampler heun --num_steps 3"),
    ],
)
def test_the_samples_are_image_sample_s_own(compared, run_script, name, flags):
    folder, words, _ = compared
    flags += " --guidance_interval 0.1,9" if "guided" in name else ""
    options = ["--layouts", folder / "out/real/manifest.jsonl", "--results_path", folder / "out" / name]
    flags = [*flags.split(), "--s", 1.5, "--precision", "fp32"]
    told = run_script("scripts/image_sample.py", "--model_path", words[1], *options, *flags).output
    assert "4 of 4 done already" in told


@pytest.mark.parametrize("interval, was, now", [("", "'0.1,9'", "None"), ("0.1,8", "'0.1,9'", "'0.1,8'")])
def test_samples_of_another_interval_are_not_continued(compared, run_script, interval, was, now):
    folder, words, _ = compared
    options = ["--layouts", folder / "out/real/manifest.jsonl", "--guidance_interval", interval, "--s", 1.5]
    options += ["--results_path", folder / "out/heun_logsnr3_guided_0.1,9", "--sampler", "heun", "--num_steps", 3]
    told = run_script("scripts/image_sample.py", "--model_path", words[1], *options, "--precision", "fp32", code=1)
    assert f"guidance_interval of image 0 is {was}, now {now}" in told.output


@pytest.mark.parametrize(
    "word, s, calls, passes",
    [
        ("dpmpp_2m:logsnr20", 1.5, 20, 40),
        ("dpmpp_2m:logsnr20", 1.0, 20, 20),
        ("heun:logsnr5", 1.5, 9, 18),
        ("ddpm:1000", 1.5, 1000, 2000),
        ("ddim:10:1e8,1e9", 1.5, 10, 10),
    ],
)
def test_calls_and_passes_are_counted(word, s, calls, passes):
    assert cost(GaussianDiffusion.create("cosine", 1000), Setting.of(word), s) == (calls, passes)


def test_guidance_in_an_interval_costs_two_passes_in_it_and_one_outside():
    whole = GaussianDiffusion.create("cosine", 1000)
    short = respace(whole, "10")
    inside = (short.tables["sigma"] / short.tables["signal"] >= 0.3).sum()
    assert 0 < inside < 10
    assert cost(whole, Setting.of("ddpm:10:0.3,1e6"), 2.0) == (10, 10 + inside)


def lines(**found) -> list[Measured]:
    """name=(calls, class probability, KID-own), each figure with a standard error of 0.03."""
    return [
        Measured(name, calls, 2 * calls, {"class probability": of(likely), "KID-own": of(distance)})
        for name, (calls, likely, distance) in found.items()
    ]


def of(value: float) -> dict:
    return {"value": value, "spread": 0.03}


@pytest.mark.parametrize(
    "few, knee",
    [
        ((10, 0.86, 0.14), "few"),  # within 0.03 * sqrt(2) of the best in both
        ((10, 0.85, 0.10), "many"),  # boxes are worse
        ((10, 0.90, 0.15), "many"),  # pictures are worse
        ((10, 0.99, 0.01), "few"),  # better is not worse
    ],
)
def test_the_knee_is_the_cheapest_that_nothing_beats_by_more_than_the_errors(few, knee):
    assert samplers.knee(lines(many=(40, 0.9, 0.1), few=few)).name == knee


def test_there_is_no_knee_where_each_setting_is_beaten():
    assert samplers.knee(lines(boxes=(10, 0.9, 0.9), pictures=(20, 0.1, 0.1))) is None


@pytest.mark.parametrize("word", ["ddim", "euler:20", "ddim:20:1,2:3"])
def test_a_setting_that_is_none_is_refused(word):
    with pytest.raises(ValueError, match=f"--settings {word}: .*dpmpp_2m"):
        Setting.of(word)
