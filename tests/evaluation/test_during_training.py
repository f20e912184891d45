"""Evaluations during training: evaluate.py's figures of image_sample.py's pictures; training does not notice them."""

import csv
import importlib.util
import json
import shutil
import signal
import sys
from pathlib import Path

import pytest
import torch

from stay_diffusion.commands import evaluate
from stay_diffusion.config import DataConfig, RunConfig
from stay_diffusion.config.flags import load
from stay_diffusion.evaluation.comparison import Comparison
from stay_diffusion.evaluation.during_training import full_precision, undisturbed
from stay_diffusion.evaluation.features.extractor import Extractor
from stay_diffusion.evaluation.features.own_features import Network, Recipe, save
from stay_diffusion.run.checkpoint import RunFolder, load_tensors, sha256
from stay_diffusion.system.launchers import ALONE

TRAIN, SAMPLE = "scripts/image_train.py", "scripts/image_sample.py"
OPTIONS = """
--dropout 0.2 --drop_rate 0.3 --random_flip True --crop_policy object --num_workers 1 --diffusion_steps 6
--noise_schedule cosine --batch_size 4 --save_interval 2 --log_interval 1 --val_interval 2 --val_images 2
--preview_interval 0 --lr 0.001 --max_steps 5 --z_mode prior
"""
STEPS = 5
EVALUATED = ["--eval_interval", "2", "--eval_metrics", "kid,prdc,scene_fid", "--eval_images", "6", "--eval_s", "1.5"]


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory):
    """Where the scripts here keep features."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        yield


@pytest.fixture(scope="module")
def features(tmp_path_factory):
    """A file as train_features.py writes it, of a network that has learnt nothing."""
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("some features") / "features.pt"
    save(path, Network(1, 2, 1), Recipe(16, 1, ("spot", "line"), ("A",), "object", 0, 0, 12, {}))
    return path


@pytest.fixture(scope="module")
def data(tmp_path_factory, synthetic_sdi):
    """A folder of 8 training and 7 validation images."""
    folder = tmp_path_factory.mktemp("pictures") / "data"
    synthetic_sdi.generate(folder, num_train=8, num_val=7)
    return folder


@pytest.fixture(scope="module")
def command(data, tiny_network):
    return ["--data_dir", data, *tiny_network, *OPTIONS.split()]


@pytest.fixture(scope="module")
def evaluated(run_script, command, features, cache, tmp_path_factory):
    """The folder of a run with evaluations, after 2, 4 and 5 steps."""
    folder = tmp_path_factory.mktemp("a run")
    run_script(TRAIN, *command, *EVALUATED, "--eval_features", f"trained:{features}", "--logdir", folder)
    return folder


def rows(folder: Path) -> list[dict]:
    with open(folder / "progress.csv", newline="") as file:
        return list(csv.DictReader(file))


def column(folder: Path, name: str) -> dict[int, float]:
    """A figure by step."""
    return {int(row["step"]): float(row[name]) for row in rows(folder) if row.get(name)}


def kept_figures(folder: Path) -> dict[int, dict]:
    files = folder.glob("evaluations/*/figures.json")
    return {int(file.parent.name): json.loads(file.read_text()) for file in files}


def best_of(folder: Path) -> dict[str, list]:
    return load_tensors(RunFolder(folder).file("state", STEPS))["best"]


def end_of(folder: Path) -> dict:
    """All that a run ends with, but for words and times."""
    names = ("model", "ema_0.9", "opt", "state")
    found = {name: load_tensors(RunFolder(folder).file(name, STEPS)) for name in names}
    del found["state"]["config"], found["state"]["versions"]
    return found


def test_training_with_evaluations_ends_with_the_same_bits_as_without(run_script, command, evaluated, tmp_path):
    told = "import atexit, sys; atexit.register(lambda: print('loaded' * ('comparison' in sys.modules)))"
    output = run_script(TRAIN, *command, "--logdir", tmp_path, prelude=told).output
    assert "loaded" not in output  # evaluations/ is for those who ask
    ours, others = end_of(evaluated), end_of(tmp_path)
    assert ours["state"].pop("best") != others["state"].pop("best")
    torch.testing.assert_close(ours, others, rtol=0, atol=0)
    assert [row["loss"] for row in rows(evaluated)] == [row["loss"] for row in rows(tmp_path)]


def test_the_figures_are_those_of_evaluate_py_on_the_folder_that_is_kept(
    evaluated, features, monkeypatch, tmp_path, capsys
):
    (step,) = kept_figures(evaluated).keys() & {STEPS}
    monkeypatch.chdir(tmp_path)
    samples = str(evaluated / f"evaluations/{step:06d}")
    words = ["--reference", "val", "--metrics", "kid,prdc,scene_fid", "--device", "cpu", "--json", "out.json"]
    words += ["--samples", samples, "--features", f"trained:{features}"]
    monkeypatch.setattr(sys, "argv", ["evaluate.py", *words])
    assert evaluate.main() == 0, capsys.readouterr().err
    theirs = json.loads((tmp_path / "out.json").read_text())["figures"]
    ours = kept_figures(evaluated)[step]["figures"]
    assert {name: figure["value"] for name, figure in ours.items()} == pytest.approx(
        {name: figure["value"] for name, figure in theirs.items()}, rel=1e-6
    )
    assert ours["KID-own"]["protocol"]["reference_images"] == 7 and ours["KID-own"]["protocol"]["samples_images"] == 6
    for name, figure in ours.items():
        assert column(evaluated, name)[STEPS] == pytest.approx(figure["value"], rel=1e-5)


def test_the_samples_are_those_that_image_sample_makes_of_the_kept_weights(run_script, evaluated, tmp_path):
    ours = evaluated / f"evaluations/{STEPS:06d}"
    weights = evaluated / f"ema_0.9_{STEPS:06d}_evaluated.pt"
    words = ["--num_samples", "6", "--s", "1.5", "--num_steps", "6", "--batch_size", "1"]
    run_script(SAMPLE, "--model_path", weights, "--results_path", tmp_path, *words)
    for part in ("manifest.jsonl", *(f"{kind}/*.png" for kind in ("samples", "images", "labels"))):
        names = {path.relative_to(ours) for path in ours.glob(part)}
        assert names == {path.relative_to(tmp_path) for path in tmp_path.glob(part)} and names
        assert all((ours / name).read_bytes() == (tmp_path / name).read_bytes() for name in names)
    assert json.loads((ours / "manifest.jsonl").read_text().splitlines()[0])["checkpoint_sha256"] == sha256(weights)


def test_the_best_weights_are_those_of_the_lowest_first_figure_and_only_they_and_the_last_stay(evaluated):
    values = column(evaluated, "KID-own")
    best = min(values, key=values.get)
    assert set(values) == {2, 4, 5}
    assert set(kept_figures(evaluated)) == {best, STEPS}
    assert len(list(evaluated.glob("*_evaluated.pt"))) == len({best, STEPS})
    (by, (value, step)), *_ = best_of(evaluated).items()
    assert by.startswith("KID-own ") and step == best and value == pytest.approx(values[best], rel=1e-5)
    expected = load_tensors(evaluated / f"ema_0.9_{best:06d}_evaluated.pt")
    torch.testing.assert_close(load_tensors(evaluated / "ema_0.9_best.pt"), expected, rtol=0, atol=0)


def test_the_weights_of_an_evaluation_are_the_averages_of_its_step(evaluated):
    expected = load_tensors(RunFolder(evaluated).file("ema_0.9", STEPS))
    found = load_tensors(evaluated / f"ema_0.9_{STEPS:06d}_evaluated.pt")
    torch.testing.assert_close(dict(found), expected, rtol=0, atol=0)


def test_other_options_of_evaluate_py_come_from_a_file(run_script, from_weights, tmp_path):
    (tmp_path / "options.json").write_text('{"prdc_k": 2, "bootstrap": 3}')
    words = [*from_weights, "--eval_config", "options.json", "--eval_metrics", "prdc,fid", "--logdir", tmp_path / "run"]
    run_script(TRAIN, *words, cwd=tmp_path)
    figures = kept_figures(tmp_path / "run")[1]["figures"]
    assert figures["precision-own"]["protocol"]["k"] == 2
    assert figures["FD-own"]["spread_of"] == "standard error, bootstrap of 3"
    assert load(tmp_path / "run/config.json").train.eval_config == str(tmp_path / "options.json")


# A metric that says what it is told to say, first of the stand-ins for the samples.
MADE_UP = """
from stay_diffusion.evaluation.metrics import prdc
from dataclasses import replace
from stay_diffusion.evaluation.figures import Figure
values = iter({values})
of_pair = lambda comparison, pair: [Figure("made up", next(values), {better!r})]
prdc.METRIC = replace(prdc.METRIC, figures=of_pair)
"""


@pytest.mark.parametrize(("better", "values"), [("higher", (9, 0.1, 0.8, 0.5)), ("lower", (-9, 0.5, 0.1, 0.8))])
def test_another_metric_can_decide_and_a_figure_knows_its_better_direction(
    run_script, command, features, tmp_path, better, values
):
    words = [*EVALUATED, "--eval_metrics", "kid,prdc", "--best_by", "prdc", "--eval_features", f"trained:{features}"]
    prelude = MADE_UP.format(evaluations=str(Path(evaluate.__file__).parent), values=values, better=better)
    run_script(TRAIN, *command, *words, "--val_interval", 0, "--logdir", tmp_path, prelude=prelude)
    (by, best), *_ = best_of(tmp_path).items()
    assert by.startswith("made up ") and best == [values[2], 4]
    assert column(tmp_path, "made up") == dict(zip((2, 4, 5), values[1:], strict=True))
    assert set(kept_figures(tmp_path)) == {4, STEPS} and column(tmp_path, "KID-own")
    assert sha256(tmp_path / "ema_0.9_best.pt") == sha256(tmp_path / "ema_0.9_000004_evaluated.pt")


def test_the_best_by_validation_loss_stays_so_where_it_is_asked_for(run_script, command, features, tmp_path):
    words = [*EVALUATED, "--best_by", "val_loss", "--eval_features", f"trained:{features}"]
    run_script(TRAIN, *command, *words, "--logdir", tmp_path)
    losses = column(tmp_path, "val_loss")
    assert best_of(tmp_path)["val_loss"] == pytest.approx([min(losses.values()), min(losses, key=losses.get)], rel=1e-5)
    assert STEPS in kept_figures(tmp_path)


# Stops the process the hard way after the evaluation of step 4, which no checkpoint knows of yet.
KILL = """
import os, signal
from stay_diffusion.run.logger import Logger
line = Logger.line
def killing(self, text):
    line(self, text)
    if text.startswith("step 4: "): os.kill(os.getpid(), signal.SIGKILL)
Logger.line = killing
"""


def test_a_run_killed_after_an_evaluation_continues_bit_for_bit(run_script, command, features, evaluated, tmp_path):
    words = [*command, *EVALUATED, "--eval_features", f"trained:{features}", "--logdir", tmp_path]
    run_script(TRAIN, *words, prelude=KILL, code=-signal.SIGKILL)
    assert (tmp_path / "evaluations/000004/manifest.jsonl").exists()
    run_script(TRAIN, *words)
    torch.testing.assert_close(end_of(tmp_path), end_of(evaluated), rtol=0, atol=0)
    for name in ("KID-own", "precision-own", "SceneFD-own"):
        assert column(tmp_path, name) == column(evaluated, name)
    assert sha256(tmp_path / "ema_0.9_best.pt") == sha256(evaluated / "ema_0.9_best.pt")
    assert set(kept_figures(tmp_path)) == set(kept_figures(evaluated))


@pytest.fixture(scope="module")
def from_weights(evaluated, command, features):
    """Flags of a run of one step that changes no weight, so that any number of processes evaluates the same."""
    still = ["--lr", 0, "--ema_rate", "0.5", "--max_steps", 1, "--resume_checkpoint", evaluated / "model.pt"]
    return [*command, *EVALUATED, *still, "--eval_images", 7, "--eval_features", f"trained:{features}"]


# Notes which samples a process makes.
NOTE = """
from stay_diffusion.sampling import results as export
add = export.ResultsFolder.add
def noting(self, index, *rest, **named):
    if self.path.name == "000001": print(index, file=open({note!r}, "a"))
    add(self, index, *rest, **named)
export.ResultsFolder.add = noting
"""


def test_two_processes_sample_their_shares_and_find_the_same_figures(start_ranks, from_weights, tmp_path):
    for size, folder in ((1, tmp_path / "one"), (2, tmp_path / "two")):
        words = [*from_weights, "--batch_size", 4 // size, "--logdir", folder, "--dist_timeout", 60]
        preludes = {rank: NOTE.format(note=str(tmp_path / f"{size} {rank}")) for rank in range(size)}
        ended = [each.end(120) for each in start_ranks(size, TRAIN, *words, preludes=preludes)]
        assert [each.code for each in ended] == [0] * size, ended
    made = {name: sorted((tmp_path / name).read_text().split()) for name in ("1 0", "2 0", "2 1")}
    assert made == {"1 0": list("0123456"), "2 0": list("0246"), "2 1": list("135")}
    one, two = (kept_figures(tmp_path / name)[1]["figures"] for name in ("one", "two"))
    assert {name: figure["value"] for name, figure in two.items()} == {
        name: figure["value"] for name, figure in one.items()
    }
    manifest = (tmp_path / "two/evaluations/000001/manifest.jsonl").read_text().splitlines()
    assert [json.loads(line)["index"] for line in manifest] == [*range(7)]


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        (["--eval_metrics", "kid,kidd"], "--eval_metrics kidd: choose from fid, kid"),
        (["--eval_features", "nonsense"], "--eval_features nonsense: choose inception or trained:FILE"),
        (["--eval_features", "trained:nowhere.pt"], "--eval_features trained:nowhere.pt: no such file"),
        (["--eval_config", "nowhere.json"], "nowhere.json: cannot be read as a configuration"),
        (["--best_by", "fid"], "--best_by fid: choose from val_loss, kid, prdc, scene_fid"),
        (["--eval_metrics", "lpips"], "--eval_metrics lpips with --eval_features trained"),
        (["--eval_metrics", "kid,is"], "--eval_metrics is with --eval_features trained"),
        (["--eval_images", "5"], "--eval_metrics prdc with --eval_features trained"),
        (["--eval_metrics", "kid", "--eval_features", "inception"], "Inception weights"),
    ],
)
def test_what_cannot_be_measured_is_said_in_one_line_before_the_first_step(
    run_script, command, features, tmp_path, flags, told
):
    if flags[-1] == "inception" and importlib.util.find_spec("torch_fidelity") is None:
        pytest.skip("torch-fidelity is not installed: pip install 'stay-diffusion[eval]'")
    words = [*command, *EVALUATED, "--eval_features", f"trained:{features}", *flags, "--logdir", tmp_path / "run"]
    output = run_script(TRAIN, *words, code=1, environment={"TORCH_HOME": str(tmp_path)}).output
    assert "Traceback" not in output and "\nstep " not in output
    assert output.splitlines()[-1].startswith("error: ") and told in output.splitlines()[-1]
    assert not list(tmp_path.glob("run/evaluations/*")) and not list(tmp_path.glob("run/*_evaluated.pt"))


def test_what_others_have_put_beside_the_evaluations_stays(run_script, from_weights, tmp_path):
    mine, old = tmp_path / "evaluations/mine/figures.json", tmp_path / "evaluations/000000/figures.json"
    for file in (mine, old):
        file.parent.mkdir(parents=True)
        file.write_text("{}")
    (tmp_path / "evaluations/notes.txt").write_text("read me")
    run_script(TRAIN, *from_weights, "--logdir", tmp_path)
    assert {path.name for path in (tmp_path / "evaluations").iterdir()} == {"000001", "mine", "notes.txt"}
    assert mine.read_text() == "{}"


def test_without_validation_pictures_there_is_nothing_to_sample(run_script, command, data, features, tmp_path):
    shutil.copytree(data, tmp_path / "data")
    shutil.rmtree(tmp_path / "data/val")
    words = [*command, *EVALUATED, "--eval_features", f"trained:{features}", "--data_dir", tmp_path / "data"]
    output = run_script(TRAIN, *words, "--val_fraction", 0, "--logdir", tmp_path / "run", code=1).output
    assert output.splitlines()[-1] == "error: --eval_interval 2: 0 validation pictures; needs 2"


def test_other_samples_meet_the_reference_as_it_was_opened_and_their_features_are_not_kept(evaluated, tmp_path):
    counted = []

    def measure(images, kinds):
        counted.append(len(images))
        return {"pool": images.float().flatten(1)[:, :8].clone()}

    options = evaluate.EvaluateConfig(
        samples=str(evaluated / f"evaluations/{STEPS:06d}"), reference="val", feature_cache=str(tmp_path / "kept")
    )
    first = Comparison(options, DataConfig(), {}, torch.device("cpu"), ALONE)
    first.extractor = Extractor(measure, ("pool",), 8, {"weights_sha256": "none"})
    first.kinds = ["pool"]
    _, reference = first.pair("pool")
    assert sum(counted) == 6 + 7
    kept = sorted((tmp_path / "kept").iterdir())
    other = first.with_samples(str(evaluated / f"evaluations/{STEPS:06d}/images"))
    other.kinds = ["pool"]
    samples, again = other.pair("pool")
    assert other.given_reference is first.given_reference and sum(counted) == 6 + 7 + 6
    assert len(samples) == 6 and (again == reference).all()
    assert sorted((tmp_path / "kept").iterdir()) == kept


def test_what_is_drawn_in_an_evaluation_and_how_exactly_it_computes_is_nothing_to_training(monkeypatch):
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", True)
    torch.manual_seed(1)
    before = torch.get_rng_state()
    drawn = []
    for _ in range(2):
        with undisturbed(torch.device("cpu")), full_precision():
            drawn.append(torch.rand(3))
            assert not torch.backends.cudnn.allow_tf32
        torch.manual_seed(1)
    assert torch.equal(*drawn)
    with undisturbed(torch.device("cpu")):
        torch.rand(3)
    assert torch.equal(torch.get_rng_state(), before) and torch.backends.cudnn.allow_tf32


def test_the_run_remembers_where_its_features_are(evaluated, features):
    saved: RunConfig = load(evaluated / "config.json")
    assert saved.train.eval_features == f"trained:{features.resolve()}"
