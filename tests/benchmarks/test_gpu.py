import json
import time

import gpu
import gpu_parts
import pytest
import torch
from gpu import Plan


@pytest.fixture
def plan(tmp_path):
    return gpu.tiny(Plan(torch.device("cpu"), tmp_path))


@pytest.mark.slow
def test_everything_runs_on_a_cpu_in_tiny_sizes(run_script, tmp_path):
    folder = tmp_path / "re sults"
    # All of torch.compile but the compiler's minutes
    prelude = "from stay_diffusion import compilation; compilation.BACKEND = 'eager'"
    ended = run_script("benchmarks/gpu.py", "--tiny", "--budget", 60, "--results", folder, prelude=prelude)
    (file,) = folder.glob("*.json")
    found = json.loads(file.read_text())["gpu"]
    assert list(gpu_parts.PARTS) == [name for name in found if name != "machine"]
    assert not [name for name, part in found.items() if "note" in part]
    assert found["precision"]["steps"] == 6 and abs(found["precision"]["against_fp32"]["bf16"]) < 0.05
    assert found["compile"]["speed_up"] > 0
    assert (folder / found["syncs"]["trace"]).exists()
    assert "| 11 | training, share" in ended.output


def test_a_share_is_operations_over_time_over_rate(plan, monkeypatch):
    monkeypatch.setattr(gpu_parts, "_timed", lambda step, number, budget: [0.5, 0.5, 0.6])
    found = {"rate": {"matrix_tflops": {"bf16": 0.02}, "copy_gb_a_second": 1.0}}
    figures = gpu_parts.train(plan, found, 10)
    assert figures["share"] == pytest.approx(figures["tflop"] / 0.5 / 0.02)
    assert figures["spread"] == pytest.approx(0.1 / 0.5)
    assert figures["floor_seconds"] == max(figures["floor_of_operations"], figures["floor_of_bytes"])


def test_a_batch_that_does_not_fit_is_halved(plan, monkeypatch):
    found = {"rate": {"matrix_tflops": {"bf16": 0.02}, "copy_gb_a_second": 1.0}}
    tried = []

    def prepare(piece: int):
        tried.append(piece)
        if piece > 2:
            raise torch.OutOfMemoryError
        return lambda: None

    work = gpu_parts.training_work(gpu.NETWORKS["tiny"].config(8), 2, 2)
    assert gpu_parts._against_floor(plan, found, 1, work, 8, prepare)["pieces_of"] == 2
    assert tried == [8, 4, 2]


def test_parts_of_an_earlier_call_stay_and_others_results_too(run_script, tmp_path):
    words = ["--tiny", "--budget", 30, "--results", tmp_path, "--parts"]
    run_script("benchmarks/gpu.py", *words, "rate")
    (file,) = tmp_path.glob("*.json")
    first = json.loads(file.read_text())
    file.write_text(json.dumps({**first, "rows": [1]}))
    run_script("benchmarks/gpu.py", *words, "sample")
    both = json.loads(file.read_text())
    assert both["gpu"]["rate"] == first["gpu"]["rate"] and both["gpu"]["sample"]["share"] > 0 and both["rows"] == [1]


def test_a_part_that_takes_too_long_is_stopped_and_the_next_one_runs(plan, monkeypatch):
    kept = []
    parts = {"slow": lambda *_: time.sleep(60), "quick": lambda *_: {"figure": 1}}
    monkeypatch.setattr(gpu_parts, "PARTS", parts)
    found = gpu.measure(plan, list(parts), 0.4, {}, lambda each: kept.append(dict(each)))
    assert "stopped after" in found["slow"]["note"] and found["quick"]["figure"] == 1
    assert [list(each) for each in kept] == [["slow"], ["slow", "quick"]]


def test_a_part_without_the_rate_says_so(plan):
    found = gpu.measure(plan, ["train"], 30, {}, lambda each: None)
    assert "needs the part rate" in found["train"]["note"]


def test_row_11_holds_shares_spread_and_waits_against_their_targets():
    found = {
        "train": {"share": 0.5, "spread": 0.06},
        "sample": {"share": 0.44},
        "syncs": {"waits_a_step": 0.0, "on_gpu": True},
    }
    assert [row.verdict for row in gpu.rows(found)] == ["met", "missed", "missed", "met"]
    found["syncs"]["on_gpu"] = False
    assert [row.verdict for row in gpu.rows({**found, "train": {}})] == ["not measured", "missed"] + [
        "not measured"
    ] * 2


def test_without_a_gpu_the_command_says_what_to_do(run_script, tmp_path):
    if torch.cuda.is_available():
        pytest.skip("there is a GPU")
    ended = run_script("benchmarks/gpu.py", "--results", tmp_path, code=1)
    assert "no GPU here; --tiny" in ended.output
