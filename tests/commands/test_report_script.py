"""evaluations/report.py on a folder that image_sample.py has made; the commands that it tells do what they say."""

import json
import re
import shlex
from collections import Counter
from html import unescape

import pytest
import torch
from PIL import Image

from stay_diffusion.run import factory
from stay_diffusion.run.checkpoint import RunFolder, save_tensors

REPORT = "evaluations/report.py"


@pytest.fixture
def results(run_script, tiny_run, tiny_data, tmp_path):
    """Four samples, by a network that was never trained."""
    run = tiny_run(data={"data_dir": str(tiny_data), "classes": (), "product_tags": ()}, model={"conditioning": "isla"})
    run = factory.with_vocabulary(run, factory.read_split(run.data, "train")[1])
    torch.manual_seed(0)
    model = factory.build_model(run)
    torch.nn.init.normal_(model.out[2].weight, std=0.1)
    folder = RunFolder(tmp_path / "a run")
    folder.open()
    folder.write_config(run)
    save_tensors(folder.file("model"), model.state_dict())
    words = ["--results_path", tmp_path / "results", "--sampler", "ddim", "--eta", 0.5, "--num_steps", 3, "--seed", 4]
    run_script("scripts/image_sample.py", "--model_path", folder.file("model"), *words)
    return tmp_path / "results"


def samples(folder):
    """Their pixels: what a file says of its making names where its layout was read."""
    return {path.name: Image.open(path).tobytes() for path in (folder / "samples").glob("*.png")}


def test_the_page_is_written_and_its_command_makes_the_same_pictures_again(run_script, results, tmp_path):
    ended = run_script(REPORT, "results", "--per_group", 2, cwd=tmp_path)
    assert f"written: {results / 'report.html'}" in ended.output
    page = (results / "report.html").read_text(encoding="utf-8")
    lines = [json.loads(line) for line in (results / "manifest.jsonl").read_text().splitlines()]
    boxes = Counter(box["label"] for line in lines for box in line["layout"]["objects"])
    assert page.count('class="crop"') == sum(min(number, 3 * 2) for number in boxes.values()) > 0
    command = unescape(re.search("<pre>(.*?)</pre>", page, re.S)[1]).replace("\\\n", "")
    run_script(*shlex.split(command)[1:])
    assert samples(tmp_path / "results_again") == samples(results)


def test_what_cannot_be_is_one_line_and_an_error(run_script, tmp_path):
    last = run_script(REPORT, tmp_path, code=1).output.splitlines()[-1]
    assert last.startswith(f"error: {tmp_path}: no manifest.jsonl")
    assert "--per_group 0: must be 1 or more" in run_script(REPORT, tmp_path, "--per_group", 0, code=1).output
    assert not (tmp_path / "report.html").exists()
