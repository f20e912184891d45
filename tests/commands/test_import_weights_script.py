"""scripts/import_weights.py as a command: what it accepts, refuses, writes, and what the written run is good for."""

import json
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from stay_diffusion.config import flags
from stay_diffusion.data.layout import Layout
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import load_tensors
from stay_diffusion.run.import_weights import published_config

GOLDEN = Path(__file__).resolve().parents[2] / "../shared/golden"
NETWORKS = sorted(path.stem for path in GOLDEN.glob("*.pt"))
SCRIPT, SAMPLE, TRAIN = "scripts/import_weights.py", "scripts/image_sample.py", "scripts/image_train.py"
SMALL = {"image_size": 16, "image_channels": 1, "num_channels": 32, "num_res_blocks": 1, "channel_mult": "1,1"}
SMALL |= {"num_heads": 2, "attention_resolutions": "8"}


class Published(NamedTuple):
    weights: Path
    flags: Path
    verify: Path

    def arguments(self, logdir: Path, *more, kind: str = "guided") -> list:
        return ["--kind", kind, "--weights", self.weights, "--flags", self.flags, "--logdir", logdir, *more]


@torch.no_grad()
def publish(folder: Path, **given) -> Published:
    """Weights, flags and an example of a tiny grey guided-diffusion model."""
    config = published_config("guided", {**SMALL, **given})
    torch.manual_seed(0)
    model = factory.build_model(config).eval()
    for parameter in model.parameters():
        parameter += 0.05 * torch.randn_like(parameter)
    files = Published(folder / "theirs.pt", folder / "flags.json", folder / "example.npz")
    torch.save(model.state_dict(), files.weights)
    files.flags.write_text(json.dumps({**SMALL, **given}))
    x, t = torch.randn(2, 1, 16, 16), torch.tensor([3, 700])
    numbers, layout = {"x": x, "t": t}, None
    if config.model.class_cond:
        numbers["y"] = torch.tensor([0, 2])
        layout = Layout.collate([(torch.zeros(0, 4), torch.zeros(0).long(), product) for product in (1, 3)])
    np.savez(files.verify, **numbers, out=model(x, t, layout))
    return files


@pytest.fixture(scope="module")
def plain(tmp_path_factory) -> Published:
    return publish(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def classes(tmp_path_factory) -> Published:
    return publish(tmp_path_factory.mktemp("classes"), class_cond=True, num_classes=3)


def error_of(ended) -> str:
    lines = [line for line in ended.output.splitlines() if line.startswith("error: ")]
    assert len(lines) == 1 and "Traceback" not in ended.output, ended.output
    return lines[0]


# Published files


@pytest.mark.skipif(not NETWORKS, reason="needs ../shared/golden, published state dicts")
@pytest.mark.parametrize("name", NETWORKS)
def test_a_published_file_is_imported_and_its_output_verified(run_script, tmp_path, name):
    file = Published(*(GOLDEN / f"{name}.{ending}" for ending in ("pt", "json", "npz")))
    kind = name.partition("_")[0]
    output = run_script(SCRIPT, *file.arguments(tmp_path / "run", "--verify", file.verify, kind=kind)).output
    relative = float(output.partition("largest error ")[2].split()[1])
    assert "verified against" in output and relative < 1e-4
    assert "num_heads 2" in output and "use_new_attention_order" in output  # what no shape reveals is said
    assert (
        load_tensors(tmp_path / "run/model.pt").keys()
        == factory.build_model(flags.load(tmp_path / "run/config.json")).state_dict().keys()
    )


def test_typed_flags_win_over_those_of_the_file(run_script, plain, tmp_path):
    run_script(SCRIPT, *plain.arguments(tmp_path / "run", "--diffusion_steps", 250, "--dropout", 0.1))
    config = flags.load(tmp_path / "run/config.json")
    assert (config.diffusion.diffusion_steps, config.model.dropout, config.model.num_channels) == (250, 0.1, 32)


def test_a_dry_run_writes_nothing(run_script, plain, tmp_path):
    run_script(SCRIPT, *plain.arguments(tmp_path / "run", "--verify", plain.verify, "--dry_run"))
    assert not (tmp_path / "run").exists()


# Errors


def without_y(path: Path, source: Path) -> Path:
    with np.load(source) as arrays:
        np.savez(path, **{name: arrays[name] for name in arrays.files if name != "y"})
    return path


ERRORS = {
    "no_kind": (["--weights", "{plain.weights}"], "--kind: needed"),
    "no_weights": (["--kind", "guided"], "--weights: needed"),
    "missing_file": (["--kind", "guided", "--weights", "{tmp}/none.pt"], "{tmp}/none.pt: no such file"),
    "no_checkpoint": (["--kind", "guided", "--weights", "{plain.flags}"], "{plain.flags}: not a readable checkpoint"),
    "nested": (["--kind", "guided", "--weights", "{tmp}/nested.pt"], "{tmp}/nested.pt: not a flat state dict"),
    "wrong_kind": (
        ["--kind", "sdm", "--weights", "{plain.weights}", "--flags", "{plain.flags}"],
        "its norms are guided-diffusion's (--kind guided)",
    ),
    "wrong_shape": (
        ["--kind", "guided", "--weights", "{plain.weights}", "--flags", "{plain.flags}", "--num_channels", 64],
        "{plain.weights}: does not fit the flags: --num_channels 64, but the file has 32",
    ),
    "unknown_flag_in_the_file": (
        ["--kind", "guided", "--weights", "{plain.weights}", "--flags", "{tmp}/typo.json"],
        "unknown option num_chanels; did you mean num_channels?",
    ),
    "into_with_sdm": (
        ["--kind", "sdm", "--into", "isla_bg", "--weights", "{plain.weights}"],
        "--into isla_bg: only guided-diffusion's weights (--kind guided) can become a start",
    ),
    "no_example": (
        ["--kind", "guided", "--weights", "{plain.weights}", "--flags", "{plain.flags}", "--verify", "{tmp}/none.npz"],
        "--verify {tmp}/none.npz: cannot be read as an npz",
    ),
    "torn_example": (
        ["--kind", "guided", "--weights", "{plain.weights}", "--flags", "{plain.flags}", "--verify", "{tmp}/torn.npz"],
        "--verify {tmp}/torn.npz: cannot be read as an npz",
    ),
    "example_of_another_shape": (
        ["--kind", "guided", "--weights", "{plain.weights}", "--flags", "{plain.flags}", "--verify", "{tmp}/rgb.npz"],
        "--verify {tmp}/rgb.npz: x (2, 3, 16, 16), t (2,), out (2, 3, 16, 16) do not fit the model: ",
    ),
    "y_missing": (
        ["--kind", "guided", "--weights", "{classes.weights}", "--flags", "{classes.flags}", "--verify", "{no_y}"],
        "--verify {no_y}: has no y; needed are x, t, out, y",
    ),
    "logdir_in_use": (
        ["--kind", "guided", "--weights", "{plain.weights}", "--flags", "{plain.flags}", "--logdir", "{tmp}/used"],
        "--logdir {tmp}/used: holds a run already; choose another folder",
    ),
}


@pytest.mark.parametrize(("arguments", "message"), ERRORS.values(), ids=ERRORS)
def test_what_cannot_be_is_an_error_in_one_line(run_script, plain, classes, tmp_path, arguments, message):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "nested.pt")
    (tmp_path / "typo.json").write_text('{"num_chanels": 32}')
    (tmp_path / "torn.npz").write_bytes(plain.verify.read_bytes()[:-100])
    np.savez(tmp_path / "rgb.npz", x=np.zeros((2, 3, 16, 16)), t=np.zeros(2, dtype=int), out=np.zeros((2, 3, 16, 16)))
    (tmp_path / "used").mkdir()
    (tmp_path / "used/config.json").write_text("{}")
    places = {"plain": plain, "classes": classes, "tmp": tmp_path}
    places["no_y"] = without_y(tmp_path / "no_y.npz", classes.verify)
    words = [str(word).format(**places) for word in arguments]
    assert message.format(**places) in error_of(run_script(SCRIPT, *words, code=1))
    assert (tmp_path / "used/config.json").read_text() == "{}"


@pytest.mark.parametrize("wrong", [["--num_heads", 4], ["--use_new_attention_order", True]], ids=["heads", "order"])
def test_a_flag_that_no_shape_reveals_loads_but_does_not_verify(run_script, plain, tmp_path, wrong):
    run_script(SCRIPT, *plain.arguments(tmp_path / "silent", *wrong))
    ended = run_script(SCRIPT, *plain.arguments(tmp_path / "run", "--verify", plain.verify, *wrong), code=1)
    assert "is a flag wrong that no shape reveals" in error_of(ended)
    assert not (tmp_path / "run").exists()


def test_an_untrained_networks_output_which_is_zero_can_be_verified(run_script, plain, tmp_path):
    state = load_tensors(plain.weights)
    torch.save({name: tensor * (not name.startswith("out.2.")) for name, tensor in state.items()}, tmp_path / "zero.pt")
    with np.load(plain.verify) as arrays:
        np.savez(tmp_path / "zero.npz", x=arrays["x"], t=arrays["t"], out=np.zeros_like(arrays["out"]))
    zero = plain._replace(weights=tmp_path / "zero.pt")
    output = run_script(SCRIPT, *zero.arguments(tmp_path / "run", "--verify", tmp_path / "zero.npz")).output
    assert "largest error 0.00e+00, 0.00e+00" in output


# What the run folder is good for


def layouts(tmp_path: Path, **entry) -> Path:
    path = tmp_path / "layouts.jsonl"
    path.write_text(json.dumps({"objects": [], **entry}) + "\n")
    return path


def sample(run_script, run: Path, *more) -> list[dict]:
    """The manifest of what is sampled from a run folder."""
    run_script(SAMPLE, "--model_path", run / "model.pt", "--num_steps", 2, *more)
    return [json.loads(line) for line in (run / "samples/manifest.jsonl").read_text().splitlines()]


def test_an_unconditional_import_is_sampled_from_without_data_and_fine_tuned(run_script, plain, tiny_data, tmp_path):
    run = tmp_path / "run"
    run_script(SCRIPT, *plain.arguments(run))
    assert len(sample(run_script, run, "--num_samples", 2)) == 2
    train = ["--resume_checkpoint", run / "model.pt", "--data_dir", tiny_data, "--max_steps", 1, "--val_interval", 0]
    train += ["--preview_interval", 0, "--logdir", tmp_path / "fine", "--dataset_mode", "sdi", "--batch_size", 2]
    output = run_script(TRAIN, *train).output
    assert f"starting from {run / 'model.pt'}" in output and (tmp_path / "fine/model000001.pt").exists()
    started, ended = load_tensors(run / "model.pt"), load_tensors(tmp_path / "fine/model000001.pt")
    moved = max((started[name] - ended[name]).abs().max().item() for name in started)
    assert started.keys() == ended.keys() and 0 < moved < 1e-3  # one step of 1e-4 away from where it started


def test_a_class_conditional_import_is_sampled_from_with_drawn_and_with_given_classes(run_script, classes, tmp_path):
    run_script(SCRIPT, *classes.arguments(tmp_path / "run"))
    assert flags.load(tmp_path / "run/config.json").data.product_tags == ("0", "1", "2")
    drawn = sample(run_script, tmp_path / "run", "--num_samples", 4)
    assert {entry["layout"]["product"] for entry in drawn} <= {"0", "1", "2"}
    run_script(SCRIPT, *classes.arguments(tmp_path / "again"))
    given = sample(run_script, tmp_path / "again", "--layouts", layouts(tmp_path, product="2"))
    assert [entry["layout"]["product"] for entry in given] == ["2"]


def test_an_isla_start_without_names_takes_those_of_the_data_it_is_trained_on(run_script, plain, tiny_data, tmp_path):
    run = tmp_path / "run"
    output = run_script(SCRIPT, *plain.arguments(run, "--into", "isla_bg", "--verify", plain.verify)).output
    assert "without objects: largest error" in output and flags.load(run / "config.json").data.classes == ()
    train = ["--resume_checkpoint", run / "model.pt", "--data_dir", tiny_data, "--max_steps", 1, "--val_interval", 0]
    run_script(TRAIN, *train, "--preview_interval", 0, "--logdir", tmp_path / "fine", "--batch_size", 2)
    config = flags.load(tmp_path / "fine/config.json")
    assert config.model.conditioning == "isla_bg" and config.data.product_tags == ("A", "C")
    assert len(config.data.classes) == config.data.num_classes == 5


def test_an_isla_start_keeps_the_names_it_was_given_or_found_in_the_data(run_script, plain, tiny_data, tmp_path):
    into = ["--into", "isla_bg", "--verify", plain.verify]
    named = ["--classes", "spot,line", "--product_tags", "A"]
    output = run_script(SCRIPT, *plain.arguments(tmp_path / "named", *into, *named)).output
    assert ", with random boxes: largest error" in output
    data = flags.load(tmp_path / "named/config.json").data
    assert (data.classes, data.product_tags, data.num_classes) == (("spot", "line"), ("A",), 2)
    run_script(SCRIPT, *plain.arguments(tmp_path / "found", *into, "--data_dir", tiny_data))
    data = flags.load(tmp_path / "found/config.json").data
    assert len(data.classes) == 5 and data.product_tags == ("A", "C")
    box = {"label": "spot", "box": [0.1, 0.1, 0.4, 0.5]}
    made = sample(run_script, tmp_path / "named", "--layouts", layouts(tmp_path, product="A", objects=[box]))
    assert made[0]["layout"]["objects"][0]["label"] == "spot"
