"""The command for the in/out ratio: the good parts that it samples, what it refuses, what it writes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from stay_diffusion.commands import box_adherence as script
from stay_diffusion.commands import run
from stay_diffusion.commands import sample as image_sample
from stay_diffusion.config import DataConfig, ModelConfig, RunConfig, flags
from stay_diffusion.data.layout import Layout
from stay_diffusion.evaluation import good_parts
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import save_tensors
from stay_diffusion.sampling.generate import image_generators, object_styles

ROOT = Path(__file__).resolve().parents[2]


LAYOUTS = [
    {"stem": "one", "product": "nut", "objects": [{"label": "hole", "box": [0.1, 0.1, 0.6, 0.5]}]},
    {"stem": "good", "product": "bolt", "objects": []},
    {"stem": "two", "product": "bolt", "objects": [{"label": "scratch", "box": [0.5, 0.2, 0.9, 0.9]}] * 2},
]


def make_samples(folder: Path, *flags_given: str, blind: bool = False, **model) -> Path:
    """A results folder of the layouts above, by a tiny network of random weights, `blind` to objects or not."""
    config = RunConfig(
        data=DataConfig(classes=("hole", "scratch"), product_tags=("bolt", "nut")),
        model=ModelConfig(
            **{"image_size": 16, "image_channels": 1, "num_channels": 32, "channel_mult": "1", "num_res_blocks": 1},
            **{"num_heads": 1, "attention_resolutions": "", **model},
        ),
    )
    folder.mkdir(parents=True, exist_ok=True)
    torch.manual_seed(0)
    network = factory.build_model(config)
    for name, parameter in network.named_parameters():
        parameter.data += 0 if blind and name.endswith("project.weight") else 0.1 * torch.randn_like(parameter)
    save_tensors(folder / "ema.pt", network.state_dict())
    (folder / "config.json").write_text(flags.dump(config))
    (folder / "layouts.jsonl").write_text("".join(json.dumps(layout) + "\n" for layout in LAYOUTS))
    results = folder / "results"
    arguments = ["--model_path", folder / "ema.pt", "--layouts", folder / "layouts.jsonl", "--results_path", results]
    with pytest.MonkeyPatch.context() as patch:
        words = ["x", *arguments, "--num_steps", 3, "--device", "cpu", *flags_given]
        patch.setattr(sys, "argv", [str(word) for word in words])
        assert image_sample.main() == 0
    return results


def measure_folder(results: Path, *arguments: str) -> dict:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["x", str(results), "--device", "cpu", *arguments])
        assert script.main() == 0

    def not_json(constant):
        raise AssertionError(f"{constant} is not JSON")

    return json.loads((results / "box_adherence.json").read_text(), parse_constant=not_json)


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    return make_samples(tmp_path_factory.mktemp("seeing"))


@pytest.fixture
def results(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "results")


def rewrite(results: Path, change) -> None:
    """The manifest with change(list of entries) in place of its entries."""
    manifest = results / "manifest.jsonl"
    entries = [json.loads(line) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(entry) + "\n" for entry in change(entries)))


def test_what_a_network_draws_into_boxes_is_measured_and_written(results, capsys):
    report = measure_folder(results)
    assert report["inside"] > 1 and report["outside"] > 0
    assert report["ratio"] == pytest.approx(report["inside"] / report["outside"])
    assert report["layouts"] == 2 and report["boxes"] == 3
    assert {label: figures["boxes"] for label, figures in report["per_class"].items()} == {"hole": 1, "scratch": 2}
    assert report["protocol"]["timestep_respacing"] == "logsnr3" and report["protocol"]["seed"] == 0
    assert f"{report['inside']:.2f} grey levels" in capsys.readouterr().out


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "ddpm"])
def test_good_parts_have_the_noise_product_and_settings_of_their_samples(tmp_path, sampler):
    """A network blind to objects draws the same picture twice, and would not with any of these another."""
    words = ["--sampler", sampler, "--s", "2", "--seed", "5", "--precision", "fp32"]
    blind = make_samples(tmp_path, *words, blind=True)
    report = measure_folder(blind)
    assert good_parts.read_levels(blind / "samples/one.png").std() > 10
    # What the objects' weights of a pixel add up to rounds: a grey level here and there.
    assert report["inside"] < 0.1 and report["outside"] < 0.1
    assert report["empty_boxes"] == report["boxes"] == 3 and report["empty_rate"] == 1


def test_a_second_run_keeps_the_good_parts_of_the_first(results, monkeypatch):
    first = measure_folder(results)
    monkeypatch.setattr(good_parts, "make_all", lambda *_, **__: pytest.fail("sampled again"))
    assert measure_folder(results) == first


def test_an_interrupted_run_makes_only_the_good_parts_it_lacks(results):
    first = measure_folder(results)
    rewrite(results / "good_parts", lambda entries: entries[:2])
    written = {path.name: path.stat().st_mtime_ns for path in (results / "good_parts/samples").iterdir()}
    assert measure_folder(results) == first
    again = {path.name: path.stat().st_mtime_ns for path in (results / "good_parts/samples").iterdir()}
    assert {name for name in again if again[name] != written[name]} == {"two.png"}


def test_changed_weights_are_refused(results, tmp_path):
    other = tmp_path / "other.pt"
    other.write_bytes(b"trained on")
    rewrite(results, lambda entries: [entry | {"checkpoint": str(other)} for entry in entries])
    with pytest.raises(ValueError, match=r"other\.pt: not the weights that made these samples any more \(their sha256"):
        measure_folder(results)


def test_weights_that_are_gone_are_named(results, tmp_path):
    rewrite(results, lambda entries: [entry | {"checkpoint": str(tmp_path / "gone.pt")} for entry in entries])
    with pytest.raises(ValueError, match=r"gone\.pt: the weights that made these samples are not there any more"):
        measure_folder(results)


def test_a_manifest_with_gaps_is_refused(results):
    rewrite(results, lambda entries: [entries[0], entries[2]])
    with pytest.raises(ValueError, match=r"manifest\.jsonl: lacks image 1: let image_sample\.py finish first"):
        measure_folder(results)


def test_a_good_part_keeps_the_noise_of_a_network_with_styles(tmp_path):
    results = make_samples(tmp_path, z_mode="prior")
    measure_folder(results)
    # The layout without objects is its own good part: the same styles and noise draw the same picture.
    drawn, good = (results / folder / "good.png" for folder in ("samples", "good_parts/samples"))
    assert drawn.read_bytes() == good.read_bytes()
    generators = [image_generators(5, [0])[0] for _ in range(2)]
    some, none = (Layout.collate([(torch.rand(n, 4), torch.ones(n).long(), 1)]) for n in (3, 0))
    object_styles(some, generators[:1]), object_styles(none, generators[1:])
    assert generators[0].get_state().equal(generators[1].get_state())


def test_a_batch_size_below_one_is_refused(results):
    with pytest.raises(ValueError, match="--batch_size 0: must be 1 or more"):
        measure_folder(results, "--batch_size", "0")


def test_a_folder_without_samples_ends_the_command_with_one_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["x", str(tmp_path / "nowhere")])
    with pytest.raises(SystemExit) as ended:
        run("box-adherence")
    reason = "no manifest.jsonl with samples in it (image_sample.py makes such folders)"
    assert ended.value.code == 1 and capsys.readouterr().err == f"error: {tmp_path / 'nowhere'}: {reason}\n"
