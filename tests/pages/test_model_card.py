"""Model cards: every fact is the run folder's, and what is not known is said to be not known."""

import hashlib
import json
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from PIL import Image

from stay_diffusion.config import RunConfig, SampleRun, flags
from stay_diffusion.pages.model_card import write_card
from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import load_tensors
from stay_diffusion.training.memory import parameter_count

ROOT = Path(__file__).resolve().parents[2]
TRAIN = "scripts/image_train.py"
OPTIONS = """
--drop_rate 0.1 --num_workers 0 --diffusion_steps 12 --noise_schedule cosine --batch_size 3 --save_interval 2
--log_interval 1 --val_interval 2 --val_images 2 --preview_interval 3 --preview_images 2 --max_steps 3 --seed 5
"""
FIGURES = {
    "FD-own": {
        "value": 12.345678,
        "spread": 0.25,
        "spread_of": "standard error",
        "better": "lower",
        "protocol": {"samples": "/somewhere/else/made", "k": None, "weights_sha256": "abc"},
    },
    "recall-own": {"value": 0.5, "spread": None, "better": "higher", "protocol": {"k": 5, "weights_sha256": "abc"}},
}


@pytest.fixture(scope="module")
def trained(run_script, tiny_data, tiny_network, tmp_path_factory):
    """A run of three steps."""
    folder = tmp_path_factory.mktemp("with a space") / "my run"
    run_script(TRAIN, "--data_dir", tiny_data, *tiny_network, *OPTIONS.split(), "--logdir", folder)
    return folder


@pytest.fixture
def run(trained, tmp_path):
    """A copy that a test may change."""
    return Path(shutil.copytree(trained, tmp_path / "my run"))


def card_of(run: Path, **options) -> str:
    return write_card(run, **options).read_text()


def section(card: str, title: str) -> str:
    return card.partition(f"## {title}\n")[2].partition("\n## ")[0]


def test_the_command_writes_the_card_into_the_run_folder(run):
    done = subprocess.run(
        [sys.executable, ROOT / "scripts/model_card.py", "my run"], cwd=run.parent, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"written: {run / 'model_card.md'}\n"
    assert (run / "model_card.md").read_text() == card_of(run)


def test_a_folder_that_is_no_run_is_one_line(tmp_path):
    words = [sys.executable, ROOT / "scripts/model_card.py", str(tmp_path)]
    done = subprocess.run(words, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == f"error: {tmp_path}: not the folder of a run: no config.json in it\n"
    assert not list(tmp_path.iterdir())


def test_its_head_is_yaml_and_its_title_the_folders_name(run):
    _, head, page = card_of(run).split("---\n", 2)
    assert yaml.safe_load(head)["library_name"] == "stay_diffusion"
    assert "layout-to-image" in yaml.safe_load(head)["tags"]
    assert page.startswith("\n# my run\n")


def test_weights_stand_with_their_sizes_and_checksums_the_best_first(run):
    rows = re.findall(r"^\| (\S+\.pt) \| ([\d,]+) \| (\w{64}) \|$", section(card_of(run), "Files"), flags=re.M)
    assert [name for name, *_ in rows] == ["ema_0.9_best.pt", "ema_0.9.pt", "model.pt"]
    for name, size, digest in rows:
        content = (run / name).read_bytes()
        assert int(size.replace(",", "")) == len(content) and digest == hashlib.sha256(content).hexdigest()


def test_what_the_best_weights_are_best_by_is_what_the_checkpoint_says(run):
    (best,) = load_tensors(run / "state000003.pt")["best"].values()
    assert f"best average by the validation loss, {best[0]:.4g} at step {best[1]}." in card_of(run)
    for step in (2, 3):
        (run / f"state{step:06d}.pt").unlink()
    assert "The first is the best average so far; by what is not known." in card_of(run)


def test_the_network_is_counted_rightly(run):
    count = parameter_count(factory.build_model(flags.load(run / "config.json")))
    assert f"network: {count / 1e6:.2f} million weights" in section(card_of(run), "What it is")


def test_the_sampling_command_parses_and_names_the_best_weights(run):
    command = section(card_of(run), "How to sample").split("```\n")[1]
    script, *words = shlex.split(command)[1:]
    assert (ROOT / script).is_file()
    options, _, _ = flags.parse(SampleRun, "", words)
    assert options.sample.model_path == "my run/ema_0.9_best.pt" and options.sample.s == 1.5


def test_a_model_that_was_not_trained_for_guidance_says_so(run):
    saved = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**saved, "drop_rate": 0.0}))
    card = card_of(run)
    assert "--s 1.5" not in card and "- Not trained for guidance: `--s` must stay 1." in card
    (run / "config.json").write_text(json.dumps(saved))
    assert "Not trained for guidance" not in card_of(run)


def test_classes_are_counted_as_the_annotations_have_them(run, tiny_data):
    config = flags.load(run / "config.json")
    records, vocabulary = factory.read_split(config.data, "train")
    boxes = [box for record in records for box in record.boxes]
    data = section(card_of(run), "Training data")
    bare = sum(not record.boxes for record in records)
    assert f"- 12 training pictures with {len(boxes)} boxes, {bare} of them without any box" in data
    limits = section(card_of(run), "Use and limits")
    for name in vocabulary.classes:
        widths = sorted(box.x1 - box.x0 for box in boxes if box.label == name)
        if not widths:
            assert re.search(rf"^- Never seen .*\b{name}", limits, flags=re.M)
            continue
        row = next(line for line in data.splitlines() if line.startswith(f"| {name} "))
        count, spread = [cell.strip() for cell in row.split("|")[2:4]]
        assert int(count) == len(widths) and f"{name} ({len(widths)})" in limits  # few: under 100
        middle = (widths[(len(widths) - 1) // 2] + widths[len(widths) // 2]) / 2
        assert float(spread.split()[0]) == pytest.approx(middle, rel=0.01)


def test_classes_with_many_boxes_are_not_called_rare(run):
    file = run / "layout_statistics.json"
    values = json.loads(file.read_text())
    values["training_objects"] = [100.0, 0.0, 99.0, *[1000.0] * (len(values["training_objects"]) - 3)]
    file.write_text(json.dumps(values))
    limits, names = section(card_of(run), "Use and limits"), values["classes"]
    assert f"- Under 100 training boxes: {names[2]} (99).\n" in limits
    assert f"- Never seen in the training data, though known by name: {names[1]}.\n" in limits


def test_without_statistics_the_data_are_counted_anew_and_without_data_nothing_is_known(run):
    before = section(card_of(run), "Training data")
    (run / "layout_statistics.json").unlink()
    assert section(card_of(run), "Training data") == before
    saved = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**saved, "data_dir": "/nowhere/at/all"}))
    card = card_of(run)
    assert section(card, "Training data").startswith("\nNot known: no layout_statistics.json")
    assert "- How often each class was seen is not known." in card and "--layouts sampled" not in card


def test_training_is_told_as_progress_csv_has_it(run):
    text = "step,samples,seconds_per_step,loss,val_loss\n1,3,2,0.9,\n2,6,2,0.8,0.25\n3,9,3600,0.75,0.5\n"
    (run / "progress.csv").write_text(text)
    told = section(card_of(run), "Training")
    for line in (
        "- steps: 3",
        "- pictures a step: 3",
        "- time: about 3 hours, 3.6e+03 s a step (the mean since it last started)",
        "- training loss: 0.75 at step 3",
        "- validation loss: 0.5 at step 3, lowest 0.25 at step 2",
        "- precision: auto (bf16 where the GPU has it, else fp32)",
        "- seed: 5",
        "- started from: scratch",
    ):
        assert f"{line}\n" in told
    assert re.search(r"^- versions: torch \d", told, flags=re.M)


def test_a_run_that_has_not_ended_says_so(run):
    config = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**config, "max_steps": 5000}))
    assert "- steps: 3 of 5,000: not finished\n" in card_of(run)


def test_of_a_folder_with_a_configuration_alone_all_else_is_said_to_be_unknown(tmp_path):
    (tmp_path / "config.json").write_text(flags.dump(RunConfig()))
    card = card_of(tmp_path)
    for line in (
        "Not yet: the run folder holds no weights.",
        "- steps: not known: neither progress.csv nor a checkpoint",
        "- time: not known: no progress.csv",
        "- training loss: not known: not in progress.csv",
        "- validation loss: not known: not in progress.csv",
        "- versions: not known: the run does not record it",
        "None: nothing was measured, or its files are not here",
        "No preview: `--preview FILE` names one.",
        "No weights in the folder.",
        "- How good its pictures are has not been measured, as far as this folder says.",
    ):
        assert line in card


def test_figures_of_the_run_and_of_files_given_stand_with_their_protocols(run, tmp_path):
    (run / "evaluations/000002").mkdir(parents=True)
    found = {"figures": {"KID-own": {"value": 0.125, "spread": None, "better": "lower", "protocol": {}}}, "step": 2}
    (run / "evaluations/000002/figures.json").write_text(json.dumps(found))
    (tmp_path / "mine.json").write_text(json.dumps({"figures": FIGURES}))
    told = section(card_of(run, figures=[tmp_path / "mine.json"]), "Figures")
    first, second = told.split("`evaluations/000002/figures.json`")
    assert "`mine.json`" in first and "| KID-own | ↓ | 0.125 |  |" in second and "- step: 2" in second
    assert "| FD-own | ↓ | 12.35 ± 0.25 | standard error |" in first and "| recall-own | ↑ | 0.5 |  |" in first
    assert "- weights_sha256: abc\n" in first and "- k: 5 (recall-own)" in first
    assert "- samples: made (FD-own)" in first and "/somewhere" not in first  # paths of this machine stay here
    assert "has not been measured" not in card_of(run, figures=[tmp_path / "mine.json"])


def test_box_adherence_is_a_figure_too(run):
    (run / "samples").mkdir()
    told = {"inside": 50.0, "outside": 4.0, "ratio": 12.5, "empty_boxes": 1, "boxes": 4, "empty_rate": 0.25}
    told |= {"layouts": 3, "per_class": {}, "protocol": {"s": 1.5}}
    (run / "samples/box_adherence.json").write_text(json.dumps(told))
    found = section(card_of(run), "Figures")
    assert "| box adherence, in/out | ↑ | 12.5 |" in found
    assert "| box adherence, share of empty boxes | ↓ | 0.25 |" in found and "- s: 1.5" in found


@pytest.mark.parametrize(
    ("content", "told"), [("{]", "cannot be read as figures"), ('{"lr": 1}', "no figures in it"), (None, "No such")]
)
def test_a_file_without_figures_is_one_line(run, tmp_path, content, told):
    if content:
        (tmp_path / "mine.json").write_text(content)
    with pytest.raises(ValueError, match=told) as raised:
        card_of(run, figures=[tmp_path / "mine.json"])
    assert "mine.json" in str(raised.value) and "\n" not in str(raised.value)


def test_the_preview_is_the_runs_latest_or_the_one_given_as_a_link_from_where_the_card_lies(run, tmp_path):
    assert "![samples](previews/000003.png)" in card_of(run)
    (run / "evaluations/000002").mkdir(parents=True)
    Image.new("L", (4, 4)).save(run / "evaluations/000002/preview.png")
    shutil.copytree(run / "evaluations/000002", run / "evaluations/check")  # real pictures, before the first step
    card = card_of(run, out=tmp_path / "card.md")
    assert "![samples](my%20run/evaluations/000002/preview.png)" in card
    Image.new("L", (4, 4)).save(tmp_path / "mine.png")
    assert "![samples](../mine.png)" in card_of(run, preview=tmp_path / "mine.png")
    with pytest.raises(ValueError, match=r"--preview .*nothing\.png: no such file"):
        card_of(run, preview=tmp_path / "nothing.png")
    with pytest.raises(ValueError, match=r"--preview .*config\.json: no picture that a page shows"):
        card_of(run, preview=run / "config.json")


def test_a_card_that_cannot_be_written_is_refused_by_its_flag(run, tmp_path):
    with pytest.raises(ValueError, match=r"--out .*none/card\.md: no such folder"):
        card_of(run, out=tmp_path / "none/card.md")
    with pytest.raises(ValueError, match=r"--out .*: a folder; name a file in it"):
        card_of(run, out=tmp_path)
