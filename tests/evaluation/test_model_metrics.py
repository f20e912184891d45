"""evaluate.py's metrics that need the model that made the samples: the in/out ratio and bits per dimension."""

import importlib.util
import json
import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stay_diffusion.config import DataConfig, flags
from stay_diffusion.data.images import to_pil
from stay_diffusion.data.layout import Layout
from stay_diffusion.diffusion.likelihood import bits_per_dim
from stay_diffusion.layouts.items import from_dataset
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import load_tensors, save_tensors
from stay_diffusion.sampling.generate import image_generators

if importlib.util.find_spec("torch_fidelity") is None:
    pytest.skip("torch-fidelity is not installed: pip install 'stay-diffusion[eval]'", allow_module_level=True)

from stay_diffusion.commands import box_adherence, evaluate, nll
from stay_diffusion.evaluation import good_parts
from stay_diffusion.evaluation.image_set import look

SIZE, STEPS = 16, 10


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_data, tiny_run, run_script) -> Path:
    """A folder with the run of a random network, and results/ in it: two runs of its four validation layouts."""
    folder = tmp_path_factory.mktemp("made")
    settings = {"data_dir": str(tiny_data), "num_workers": 0}
    _, vocabulary = factory.read_split(DataConfig(**settings), "train")
    config = tiny_run(
        data={**settings, "classes": (), "product_tags": ()},
        model={"image_size": SIZE},
        diffusion={"diffusion_steps": STEPS},
    )
    config = factory.with_vocabulary(config, vocabulary)
    torch.manual_seed(0)
    network = factory.build_model(config)
    for parameter in network.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)
    save_tensors(folder / "ema.pt", network.state_dict())
    (folder / "config.json").write_text(flags.dump(config))
    words = ["--model_path", folder / "ema.pt", "--results_path", folder / "results", "--num_runs", 2]
    run_script("scripts/image_sample.py", *words, "--num_steps", 2, "--precision", "fp32", "--device", "cpu")
    return folder


@pytest.fixture
def results(made, tmp_path) -> Path:
    return shutil.copytree(made / "results", tmp_path / "results")


@pytest.fixture
def command(tmp_path, monkeypatch):
    """command(*arguments) -> (exit code, JSON) of evaluate.py run in tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments) -> tuple[int, dict]:
        words = [*arguments, "--device", "cpu", "--json", "out.json"]
        monkeypatch.setattr(sys, "argv", ["evaluate.py", *map(str, words)])
        code = evaluate.main()
        return code, json.loads((tmp_path / "out.json").read_text())

    return run


def rewrite(manifest: Path, change) -> None:
    lines = [change(json.loads(line)) for line in manifest.read_text().splitlines()]
    manifest.write_text("".join(json.dumps(line) + "\n" for line in lines))


# In/out ratio


def test_the_in_out_ratio_of_a_run_is_that_of_box_adherence_py(command, results, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["x", str(results / "run0"), "--device", "cpu"])
    assert box_adherence.main() == 0
    expected = json.loads((results / "run0/box_adherence.json").read_text())
    code, report = command("--samples", results / "run0", "--metrics", "in_out_ratio", "--batch_size", 3)
    ratio, empty = report["figures"]["in/out ratio"], report["figures"]["empty boxes"]
    assert code == 0 and ratio["better"] == "higher" and empty["better"] == "lower"
    assert (ratio["value"], empty["value"]) == (expected["ratio"], expected["empty_rate"])
    assert ratio["details"] == {name: expected[name] for name in ("inside", "outside", "per_class")}
    assert ratio["spread"] > 0 and ratio["spread_of"] == "standard error, jackknife"
    told = ratio["protocol"]
    assert told["boxes"] == expected["boxes"] and told["checkpoint_sha256"] == expected["protocol"]["checkpoint_sha256"]


def test_the_old_name_of_the_in_out_ratio_is_accepted_with_a_notice(command, results, caplog):
    code, report = command("--samples", results / "run0", "--metrics", "adherence,in_out_ratio")
    assert code == 0 and list(report["figures"]) == ["in/out ratio", "empty boxes"]
    assert "--metrics adherence: now called in_out_ratio" in caplog.text


def test_runs_are_measured_together_and_their_good_parts_kept(command, results, monkeypatch):
    _, both = command("--samples", results, "--metrics", "in_out_ratio")
    monkeypatch.setattr(good_parts, "make_all", lambda *_, **__: pytest.fail("sampled again"))
    found = [command("--samples", results / f"run{i}", "--metrics", "in_out_ratio")[1]["figures"] for i in range(2)]
    details = [each["in/out ratio"]["details"] for each in found]
    assert details[0]["inside"] != details[1]["inside"]
    together = both["figures"]["in/out ratio"]
    assert together["details"]["inside"] == pytest.approx(np.mean([each["inside"] for each in details]))
    assert together["protocol"]["boxes"] == 2 * found[0]["in/out ratio"]["protocol"]["boxes"]


def test_images_that_no_model_made_have_no_in_out_ratio(command, results, tiny_data):
    folder = tiny_data / "val" / "vott-json-export"
    code, report = command("--samples", folder, "--metrics", "in_out_ratio")
    assert code == 3 and report["figures"] == {}
    assert report["not_computed"]["in_out_ratio"].startswith(f"{folder}: no model made these pictures")
    run = results / "run0"
    rewrite(run / "manifest.jsonl", lambda line: {name: v for name, v in line.items() if name != "checkpoint"})
    _, report = command("--samples", run, "--metrics", "in_out_ratio")
    assert report["not_computed"]["in_out_ratio"].endswith("names no weights: no model made these pictures")


def test_weights_that_are_gone_or_changed_are_reasons(command, results, made):
    run = results / "run0"
    rewrite(run / "manifest.jsonl", lambda line: line | {"checkpoint_sha256": "0" * 64})
    code, report = command("--samples", run, "--reference", "val", "--metrics", "in_out_ratio,nll")
    assert code == 3 and len(report["not_computed"]) == 2
    for reason in report["not_computed"].values():
        assert reason.endswith("not the weights that made these samples any more (their sha256 differs)")
    rewrite(run / "manifest.jsonl", lambda line: line | {"checkpoint": str(made / "gone.pt")})
    _, report = command("--samples", run, "--reference", run / "images", "--metrics", "in_out_ratio,nll")
    assert all(str(made / "gone.pt") in reason for reason in report["not_computed"].values())


# Bits per dimension


def real_images(made: Path):
    """The validation pictures as the model sees them with their layouts, in the order of their content."""
    config = flags.load(made / "config.json")
    records, vocabulary = factory.read_split(config.data, "val")
    items = from_dataset(factory.build_dataset(records, config, augment=False))
    found = []
    for item in items:
        image = item.real().image
        array = np.asarray(to_pil(image))[..., None]
        found.append((look(array).digest, image, Layout.collate([item.tensors(vocabulary)])))
    return config, sorted(found, key=lambda each: each[0])


def by_hand(made: Path, seed: int = 2020, product: bool = True) -> list[float]:
    """The bound of each image, taken one by one."""
    config, images = real_images(made)
    model = factory.load_trained(config, made / "ema.pt", "cpu")
    diffusion, found = factory.build_diffusion(config.diffusion), []
    for i, (_, image, layout) in enumerate(images):
        (generator,) = image_generators(seed, [i])
        rounded = ((image + 1) * 127.5).round() / 127.5 - 1
        if not product:
            layout = Layout(layout.boxes, layout.labels, layout.valid, torch.zeros_like(layout.product))

        def draw_noise(generator=generator, shape=image.shape):
            return torch.randn(shape, generator=generator)[None]

        found.append(bits_per_dim(diffusion, model, rounded[None], draw_noise, True, {"layout": layout}).total.item())
    return found


def test_bits_per_dimension_are_the_mean_bound_of_the_references_images(command, made):
    samples = made / "results"
    code, report = command("--samples", samples, "--reference", "val", "--metrics", "nll", "--batch_size", 3)
    expected, found = by_hand(made), report["figures"]["bits per dimension"]
    assert code == 0 and len(expected) == 4
    assert found["value"] == pytest.approx(np.mean(expected), abs=1e-4)
    assert found["spread"] == pytest.approx(np.std(expected, ddof=1) / 2, abs=1e-4)
    told = found["protocol"]
    assert told["images_measured"] == 4 and told["steps"] == STEPS and told["model"] == str(made / "ema.pt")
    assert found["details"]["vb_bpd"] + found["details"]["prior_bpd"] == pytest.approx(found["value"], abs=1e-5)
    assert abs(np.mean(by_hand(made, product=False)) - np.mean(expected)) > 1e-3  # else a lost product went unnoticed

    # The first of them, other noise, a shorter process
    words = ["--samples", samples, "--reference", "val", "--metrics", "nll"]
    _, two = command(*words, "--nll_images", 2, "--seed", 7)
    assert two["figures"]["bits per dimension"]["value"] == pytest.approx(np.mean(by_hand(made, 7)[:2]), abs=1e-4)
    _, short = command(*words, "--nll_respacing", 5)
    assert short["figures"]["bits per dimension"]["protocol"]["steps"] == 5
    with pytest.raises(ValueError, match="--nll_respacing five: expects 250"):
        command(*words, "--nll_respacing", "five")


def test_the_bits_of_a_split_are_those_of_nll_py_to_the_last_bit(command, made, tmp_path, monkeypatch):
    words = ["--samples", made / "results", "--reference", "val", "--metrics", "nll", "--seed", 3, "--batch_size", 3]
    _, report = command(*words)
    words = ["--model_path", made / "ema.pt", "--seed", 3, "--batch_size", 3, "--device", "cpu", "--out", tmp_path]
    monkeypatch.setattr(sys, "argv", ["x", *map(str, words)])
    assert nll.main() == 0
    alone, among = json.loads((tmp_path / "nll.json").read_text()), report["figures"]["bits per dimension"]
    assert (among["value"], among["spread"]) == (alone["bpd"], alone["standard_error"])
    assert among["details"]["vb_bpd_per_quartile_of_t"] == alone["vb_bpd_per_quartile_of_t"]


def save_reference(folder: Path, names: list[str], classes=("Pits", "Spots"), size: int = SIZE) -> Path:
    """Noise with a box of each class, as image_sample.py leaves samples."""
    (folder / "samples").mkdir(parents=True)
    lines = []
    for i, name in enumerate(names):
        array = np.random.default_rng(i).integers(0, 256, (size, size), dtype=np.uint8)
        Image.fromarray(array).save(folder / f"samples/{name}.png")
        objects = [{"label": label, "box": [0.1, 0.1 + 0.4 * k, 0.7, 0.5 + 0.4 * k]} for k, label in enumerate(classes)]
        layout = {"product": "AC"[i % 2], "objects": objects}
        lines.append({"index": i, "stem": name, "file": f"samples/{name}.png", "layout": layout, "source": "x"})
    (folder / "manifest.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def test_names_change_no_figure_and_neither_does_the_batch_size(command, made, tmp_path):
    one, other = (save_reference(tmp_path / "".join(n), list(n)) for n in ("abcde", "edbca"))
    words = ["--samples", one, "--metrics", "nll", "--model_path", made / "ema.pt", "--nll_images", 4]
    found = [
        command(*words, "--reference", reference, "--batch_size", size)[1]["figures"]["bits per dimension"]
        for reference, size in ((one, 32), (other, 32), (one, 3))
    ]
    assert found[1]["value"] == found[0]["value"] and found[1]["protocol"]["images_measured"] == 4
    assert found[2]["value"] == pytest.approx(found[0]["value"], rel=1e-5)


def test_what_a_model_cannot_be_asked_is_one_line(command, made, tmp_path):
    fitting = save_reference(tmp_path / "fitting", list("abc"))
    large = save_reference(tmp_path / "large", list("abc"), size=24)
    strange = save_reference(tmp_path / "strange", list("abc"), classes=("hole",))

    def reason(reference, *more) -> str:
        code, report = command("--samples", fitting, "--reference", reference, "--metrics", "nll", *more)
        assert code == 3 and report["figures"] == {}
        return report["not_computed"]["nll"]

    of_model = ["--model_path", made / "ema.pt"]
    assert "needs --model_path FILE: no model made" in reason(fitting)
    assert "an image of 24x24, but ema.pt knows 16x16: --reference val" in reason(large, *of_model)
    assert "hole" in reason(strange, *of_model)
    assert "no such weights" in reason(fitting, "--model_path", "nowhere.pt")
    shutil.copy(made / "ema.pt", tmp_path / "bare.pt")
    assert "no config.json beside it" in reason(fitting, "--model_path", tmp_path / "bare.pt")


def test_a_bound_that_is_not_finite_is_a_reason(command, made, tmp_path):
    run = tmp_path / "broken"
    run.mkdir()
    weights = {name: value * float("nan") for name, value in load_tensors(made / "ema.pt").items()}
    save_tensors(run / "ema.pt", weights)
    shutil.copy(made / "config.json", run)
    reference = save_reference(tmp_path / "set", list("abc"))
    words = ["--samples", reference, "--reference", reference, "--metrics", "nll", "--model_path", run / "ema.pt"]
    code, report = command(*words)
    assert code == 3 and report["not_computed"] == {"nll": f"{run / 'ema.pt'}: the bound of some image is not finite"}


def test_several_processes_give_the_same_figures(made, results, run_script, run_ranks, tmp_path):
    alone = shutil.copytree(results, tmp_path / "alone" / "results")
    words = ["--reference", "val", "--metrics", "in_out_ratio,nll", "--batch_size", 1, "--device", "cpu"]
    run_script("evaluations/evaluate.py", "--samples", alone, *words, "--json", "1.json", cwd=tmp_path)
    run_ranks(2, "evaluations/evaluate.py", "--samples", results, *words, "--json", "n.json", cwd=tmp_path)
    expected, found = (json.loads((tmp_path / name).read_text())["figures"] for name in ("1.json", "n.json"))
    assert set(found) == {"in/out ratio", "empty boxes", "bits per dimension"}
    for name in found:
        assert (found[name]["value"], found[name]["spread"]) == (expected[name]["value"], expected[name]["spread"])


# The gate of the run


def test_samples_of_a_run_are_judged_by_its_own_gate(command, made, results, monkeypatch):
    from stay_diffusion.evaluation import gate_choice
    from stay_diffusion.quality.run_gate import training_split
    from stay_diffusion.quality.training import train_gate

    asked = []

    def quick(config, folder, device):
        asked.append((config.data.data_dir, config.model.image_size, folder))
        return train_gate(training_split(config), seed=0, flip=False, steps=1)

    monkeypatch.setattr(gate_choice, "gate_of_run", quick)
    code, report = command("--samples", results, "--metrics", "recognised")
    data_dir = flags.load(made / "config.json").data.data_dir
    assert code == 0 and asked == [(data_dir, SIZE, made)]
    told = report["figures"]["class probability"]["protocol"]
    assert told["gate"] == f"of the run {made}"
