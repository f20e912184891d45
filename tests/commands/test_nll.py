"""The command for bits per dimension: which images, which model, what it refuses and what it writes."""

import functools
import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from stay_diffusion.commands import nll as script
from stay_diffusion.config import DataConfig, flags
from stay_diffusion.data.images import to_pil
from stay_diffusion.data.loader import collate
from stay_diffusion.diffusion.gaussian_diffusion import respace
from stay_diffusion.diffusion.likelihood import bits_per_dim
from stay_diffusion.evaluation.image_set import look
from stay_diffusion.evaluation.metrics import nll
from stay_diffusion.evaluation.metrics.nll import Bounds, summarise
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import save_tensors
from stay_diffusion.sampling.generate import image_generators

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory, tiny_data, tiny_run):
    """run_folder(data={}, model={}, diffusion={}) -> folder of weights.pt, all random, and config.json: 10 steps."""

    def build(data=None, model=None, diffusion=None) -> Path:
        settings = {"data_dir": str(tiny_data), "random_flip": True, "num_workers": 0, **(data or {})}
        _, vocabulary = factory.read_split(DataConfig(**settings), "train")
        config = tiny_run(
            data={**settings, "classes": (), "product_tags": ()},
            model=model,
            diffusion={"diffusion_steps": 10, "learn_sigma": True, **(diffusion or {})},
        )
        config = factory.with_vocabulary(config, vocabulary)
        torch.manual_seed(0)
        network = factory.build_model(config)
        for parameter in network.parameters():
            parameter.data += 0.1 * torch.randn_like(parameter)
        folder = tmp_path_factory.mktemp("run")
        save_tensors(folder / "weights.pt", network.state_dict())
        (folder / "config.json").write_text(flags.dump(config))
        return folder

    return build


@pytest.fixture(scope="module")
def run(run_folder) -> Path:
    return run_folder()


def command(*arguments) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["nll.py", *map(str, arguments)])
        return script.main()


def measured(folder: Path, *arguments, out="out") -> tuple[dict, dict]:
    """nll.json and the three terms (T,) of a run folder."""

    def not_json(constant):
        raise AssertionError(f"{constant} is not JSON")

    out = folder / out
    assert command("--model_path", folder / "weights.pt", "--device", "cpu", "--out", out, *arguments) == 0
    terms = {name: np.load(out / f"{name}_terms.npz")["arr_0"] for name in ("vb", "mse", "xstart_mse")}
    return json.loads((out / "nll.json").read_text(), parse_constant=not_json), terms


@functools.cache
def by_hand(folder: Path, split="val", seed=0, steps="", clip=True, layouts=True, most=None) -> list:
    """The bound of each image of a split in the order of content, taken one by one and never mirrored."""
    config = flags.load(folder / "config.json")
    config = replace(config, data=replace(config.data, random_flip=False))
    dataset = factory.build_dataset(factory.read_split(config.data, split)[0][:most], config, augment=False)
    model = factory.load_trained(config, folder / "weights.pt", "cpu")
    diffusion = respace(factory.build_diffusion(config.diffusion), steps)
    found = []
    samples = [dataset.sample(i, epoch=0) for i in range(len(dataset))]
    for i, sample in enumerate(sorted(samples, key=lambda sample: digest(sample.image))):
        image, layout = collate([sample])
        (generator,) = image_generators(seed, [i])
        kwargs = {"layout": layout if layouts else layout.good_part()}

        def draw_noise(shape=image.shape[1:], generator=generator):
            return torch.randn(shape, generator=generator)[None]

        found.append(bits_per_dim(diffusion, model, image, draw_noise, clip, kwargs))
    return found


def digest(image: torch.Tensor) -> str:
    return look(np.atleast_3d(to_pil(image))).digest


def mean_total(found: list) -> float:
    return float(np.mean([bound.total.item() for bound in found]))


# The number


@pytest.mark.parametrize("split, images", [("val", 4), ("train", 12)])
def test_the_number_is_the_mean_bound_of_the_split_s_images_unmirrored(run, split, images):
    report, terms = measured(run, "--split", split, "--seed", 3)
    found = by_hand(run, split, seed=3)
    assert report["protocol"]["images"] == len(found) == images
    assert report["bpd"] == pytest.approx(mean_total(found), abs=1e-4)
    totals = [bound.total.item() for bound in found]
    assert report["standard_error"] == pytest.approx(np.std(totals, ddof=1) / np.sqrt(images), abs=1e-4)
    for name, attribute in (("vb", "vb"), ("mse", "mse"), ("xstart_mse", "x_start_mse")):
        expected = torch.cat([getattr(bound, attribute) for bound in found]).mean(dim=0)
        np.testing.assert_allclose(terms[name], expected, rtol=1e-3, atol=1e-5)


def test_the_images_layouts_count(run):
    # Otherwise the test above would not notice a command that forgets them.
    assert abs(mean_total(by_hand(run)) - mean_total(by_hand(run, layouts=False))) > 0.01


def test_the_figures_add_up(run):
    report, terms = measured(run)
    assert report["bpd"] == pytest.approx(report["prior_bpd"] + report["vb_bpd"], rel=1e-6)
    assert report["vb_bpd"] == pytest.approx(terms["vb"].sum())
    assert report["vb_bpd"] == pytest.approx(sum(report["vb_bpd_per_quartile_of_t"]))
    assert report["vb_bpd_per_quartile_of_t"][0] == pytest.approx(terms["vb"][-3:].sum())  # t = 0, 1, 2 of 10


@pytest.mark.parametrize("z_mode", ["off", "prior"])
def test_the_batch_size_does_not_change_the_number(run_folder, z_mode):
    folder = run_folder(model={"z_mode": z_mode})
    (one, one_terms), (three, three_terms) = (measured(folder, "--batch_size", size) for size in (1, 3))
    assert one["bpd"] == pytest.approx(three["bpd"], abs=1e-4)
    assert one["standard_error"] == pytest.approx(three["standard_error"], abs=1e-4)
    for name, values in one_terms.items():
        np.testing.assert_allclose(values, three_terms[name], rtol=1e-3, atol=1e-5)


def test_another_seed_draws_other_noise(run):
    assert abs(measured(run)[0]["bpd"] - measured(run, "--seed", 1)[0]["bpd"]) > 1e-4


def test_the_first_images_are_measured_where_not_all_are_asked_for(run):
    report, _ = measured(run, "--num_samples", 2)
    assert report["protocol"]["images"] == 2
    assert report["bpd"] == pytest.approx(mean_total(by_hand(run, most=2)), abs=1e-4)
    assert [measured(run, "--num_samples", n)[0]["protocol"]["images"] for n in (0, 100)] == [4, 4]


def test_a_single_image_has_no_standard_error(run, capsys):
    report, _ = measured(run, "--num_samples", 1)
    assert report["standard_error"] is None
    assert "a single image: no standard error" in capsys.readouterr().out


def test_images_that_are_not_clamped_have_another_bound(run):
    report, _ = measured(run, "--clip_denoised", "False")
    assert report["protocol"]["clip_denoised"] is False
    assert report["bpd"] == pytest.approx(mean_total(by_hand(run, clip=False)), rel=1e-4)
    assert report["bpd"] > mean_total(by_hand(run)) + 0.1


def test_a_random_crop_is_always_the_same(run_folder):
    folder = run_folder(data={"crop_policy": "random"})
    assert measured(folder)[0]["bpd"] == pytest.approx(mean_total(by_hand(folder)), abs=1e-4)


def test_bf16_is_near_and_said(run_folder):
    folder = run_folder(model={"conditioning": "none"})  # nothing but the network itself runs in bf16
    near, exact = (measured(folder, "--precision", precision)[0] for precision in ("bf16", "fp32"))
    assert (near["protocol"]["precision"], exact["protocol"]["precision"]) == ("bf16", "fp32")
    assert 0 < abs(near["bpd"] / exact["bpd"] - 1) < 0.02


def test_quartiles_part_the_steps_as_in_training(capsys):
    report = summarise(Bounds([1.0, 3.0], [0.25, 0.75], {"vb": np.array([32.0, 16, 8, 4, 2, 1])}))
    assert report["vb_bpd_per_quartile_of_t"] == [1 + 2, 4, 8 + 16, 32]
    assert (report["bpd"], report["standard_error"], report["prior_bpd"], report["vb_bpd"]) == (2, 1, 0.5, 63)
    script.show(report, 6)
    shown = capsys.readouterr().out
    assert [line.split() for line in shown.splitlines()[-4:]] == [
        ["t", "0", "to", "1", "3.0000"],
        ["t", "2", "to", "2", "4.0000"],
        ["t", "3", "to", "4", "24.0000"],
        ["t", "5", "to", "5", "32.0000"],
    ]


# The model


def test_a_shorter_process_has_fewer_steps(run):
    report, terms = measured(run, "--timestep_respacing", 5)
    assert report["protocol"]["steps"] == 5
    assert {values.shape for values in terms.values()} == {(5,)}
    assert report["bpd"] == pytest.approx(mean_total(by_hand(run, steps="5")), abs=1e-4)
    assert abs(report["bpd"] - mean_total(by_hand(run))) > 0.01


def test_the_process_is_the_trained_one_unless_another_is_named(run_folder):
    folder = run_folder(diffusion={"timestep_respacing": "4"})
    steps = [
        measured(folder, *flags_given)[0]["protocol"]["steps"] for flags_given in ((), ("--timestep_respacing", ""))
    ]
    assert steps == [4, 10]


@pytest.mark.parametrize(
    "model, diffusion",
    [({"class_cond": False}, {}), ({"conditioning": "none"}, {}), ({}, {"learn_sigma": False, "prediction": "v"})],
    ids=str,
)
def test_every_kind_of_model_is_measured(run_folder, model, diffusion):
    folder = run_folder(model=model, diffusion=diffusion)
    assert measured(folder)[0]["bpd"] == pytest.approx(mean_total(by_hand(folder)), abs=1e-4)


def test_without_a_config_the_model_is_what_the_flags_say(run, tmp_path, tiny_data, capsys):
    (tmp_path / "weights.pt").write_bytes((run / "weights.pt").read_bytes())
    network = "--image_size 8 --image_channels 1 --num_channels 32 --num_res_blocks 1 --channel_mult 1 --num_heads 1"
    old = "--learn_sigma True --diffusion_steps 10 --noise_schedule cosine --use_fp16 False --batch_size 1"
    words = [*network.split(), *old.split(), "--attention_resolutions", "", "--data_dir", tiny_data]
    assert measured(tmp_path, *words)[0]["bpd"] == pytest.approx(measured(run)[0]["bpd"], abs=1e-4)
    assert "the model is what the flags say" in capsys.readouterr().out


# What is refused


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--image_size", 16], r"weights\.pt: --image_size 16 contradicts the trained model's 8"),
        (["--learn_sigma", "False"], r"--learn_sigma False contradicts the trained model's True"),
        (["--classes", "other"], "--classes other contradicts"),
        (["--data_dir", "nowhere"], "--data_dir nowhere: no such folder"),
        (["--model_path", ""], "--model_path: needed"),
        (["--model_path", "nowhere.pt"], r"--model_path nowhere\.pt: no such file"),
        (["--precision", "fp16"], "needs a GPU"),
        (["--num_samples", -1], "--num_samples -1: must be at least 0"),
        (["--timestep_respacing", 11], "11"),
    ],
    ids=str,
)
def test_what_cannot_be_measured_is_said(run, arguments, message):
    with pytest.raises(ValueError, match=message):
        command("--model_path", run / "weights.pt", "--device", "cpu", *arguments)


def test_a_file_in_the_folder_s_place_is_refused_before_the_work(run, tmp_path, monkeypatch):
    monkeypatch.setattr(nll, "measure", lambda *_: pytest.fail("measured"))
    (tmp_path / "taken").write_text("")
    with pytest.raises(ValueError, match=r"--out .*taken: cannot be made: File exists"):
        command("--model_path", run / "weights.pt", "--device", "cpu", "--out", tmp_path / "taken")


def test_a_bound_that_is_not_a_number_is_an_error_and_nothing_is_written(run, tmp_path):
    weights = torch.load(run / "weights.pt")
    save_tensors(tmp_path / "weights.pt", {name: tensor * torch.nan for name, tensor in weights.items()})
    (tmp_path / "config.json").write_text((run / "config.json").read_text())
    with pytest.raises(FloatingPointError, match="the bound is not finite"):
        measured(tmp_path)
    assert not (tmp_path / "out/nll.json").exists()


# As a command


@pytest.mark.parametrize("ranks, size, model", [(2, 1, {"z_mode": "prior"}), (3, 3, {})], ids=str)
def test_several_processes_give_the_very_same_numbers(run_folder, run_ranks, ranks, size, model):
    folder = run_folder(model=model)  # and 4 images: with batches of 3 the last holds one, and a process has none
    expected, expected_terms = measured(folder, "--batch_size", size)
    words = ["--model_path", folder / "weights.pt", "--device", "cpu", "--batch_size", size]
    words += ["--out", folder / "shared"]
    first, *others = run_ranks(ranks, "evaluations/nll.py", *words)
    assert json.loads((folder / "shared/nll.json").read_text()) == expected
    for name, values in expected_terms.items():
        np.testing.assert_array_equal(np.load(folder / f"shared/{name}_terms.npz")["arr_0"], values)
    assert first.output.count("bits per dimension: ") == 1
    assert [other.output for other in others] == [""] * (ranks - 1)


def test_a_trained_run_is_measured_by_one_command(run_script, tiny_data, tiny_network, tmp_path):
    train = ["--data_dir", tiny_data, "--max_steps", 2, "--batch_size", 2, "--diffusion_steps", 10]
    train += ["--noise_schedule", "cosine"]
    train += ["--random_flip", "True", "--val_interval", 0, "--preview_interval", 0, "--logdir", tmp_path / "run"]
    run_script("scripts/image_train.py", *tiny_network, *train)
    words = ["--model_path", tmp_path / "run/ema_0.9.pt", "--out", tmp_path / "bits"]
    output = run_script("evaluations/nll.py", *words).output
    report = json.loads((tmp_path / "bits/nll.json").read_text())
    assert (report["protocol"]["images"], report["protocol"]["steps"]) == (4, 10)
    assert f"bits per dimension: {report['bpd']:.4f} (+- {report['standard_error']:.4f}" in output
    assert f"weights_sha256       {report['protocol']['weights_sha256'][:12]}\n" in output
    assert sorted(path.name for path in (tmp_path / "bits").iterdir()) == [
        "mse_terms.npz",
        "nll.json",
        "vb_terms.npz",
        "xstart_mse_terms.npz",
    ]

    contradiction = run_script("evaluations/nll.py", *words, "--num_channels", 64, code=1).output
    assert contradiction.count("\n") == 1 and "--num_channels 64 contradicts the trained model's 32" in contradiction
