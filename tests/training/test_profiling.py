import gzip
import itertools
import json

import pytest
import torch

from stay_diffusion.run import factory
from stay_diffusion.training.noise_batch import noise_batch, with_made_up_names
from stay_diffusion.training.profiling import profile_steps
from stay_diffusion.training.state import TrainingState
from stay_diffusion.training.step_trace import parts_of, read_trace
from stay_diffusion.training.train_loop import PARTS


def span(name, begin, end, cat="user_annotation", **args) -> dict:
    return {"ph": "X", "cat": cat, "name": name, "ts": float(begin), "dur": float(end - begin), "args": args}


def call(name, begin, correlation) -> dict:
    return span(name, begin, begin + 1, "cuda_runtime", correlation=correlation)


def kernel(begin, end, correlation) -> dict:
    return span("some_kernel", begin, end, "kernel", correlation=correlation)


STEPS = [span("ProfilerStep#2", 1000, 2000), span("ProfilerStep#3", 2000, 3000)]
RANGES = [span("forward", 1100, 1400), span("backward", 1400, 1900), span("forward", 2100, 2300)]


def test_parts_and_the_rest_add_up_to_the_step():
    parts = parts_of([*STEPS, *RANGES, span("aten::conv2d", 1150, 1160, "cpu_op")])
    assert parts["forward"].host == pytest.approx(250e-6)
    assert parts["backward"].host == pytest.approx(250e-6)
    assert parts["rest"].host == pytest.approx(500e-6)
    assert sum(part.host for part in parts.values()) == pytest.approx(1000e-6)


def test_what_began_before_the_steps_or_goes_on_after_them_counts_within_them_alone():
    outside = [span("logging", 500, 1050), span("loader", 2950, 4000), span("draws", 4000, 5000)]
    parts = parts_of([*STEPS, *outside])
    assert [parts[name].host for name in ("logging", "loader", "draws")] == pytest.approx([25e-6, 25e-6, 0])


def test_work_on_the_device_belongs_to_the_part_that_launched_it():
    # The backward pass launches from another thread; its kernel runs later than the step itself.
    launches = [call("cudaLaunchKernel", 1120, 1), call("cudaLaunchKernel", 1500, 2), call("cudaLaunchKernel", 500, 3)]
    kernels = [kernel(1800, 2400, 1), kernel(3100, 3200, 2), kernel(1000, 1900, 3)]
    parts = parts_of([*STEPS, *RANGES, *launches, *kernels])
    assert parts["forward"].device == pytest.approx(300e-6)
    assert parts["backward"].device == pytest.approx(50e-6)
    assert sum(part.device for part in parts.values()) == pytest.approx(350e-6)


def test_waits_of_the_host_are_counted_where_they_happen():
    waits = [call("cudaStreamSynchronize", 1150, 1), call("cudaDeviceSynchronize", 2950, 2)]
    others = [call("cudaMemcpyAsync", 1200, 3), call("cudaStreamSynchronize", 3500, 4)]
    parts = parts_of([*STEPS, *RANGES, *waits, *others])
    assert {name: part.syncs for name, part in parts.items() if part.syncs} == {"forward": 0.5, "rest": 0.5}


def test_ranges_as_the_device_sees_them_are_not_counted_again():
    parts = parts_of([*STEPS, *RANGES, span("forward", 1200, 1900, "gpu_user_annotation")])
    assert parts["forward"].host == pytest.approx(250e-6)


def test_a_trace_without_steps_is_refused():
    with pytest.raises(ValueError, match="no steps"):
        parts_of(RANGES)


def test_a_trace_is_read_gzipped_too_and_its_faults_are_named(tmp_path):
    path = tmp_path / "trace.json.gz"
    path.write_bytes(gzip.compress(json.dumps({"traceEvents": STEPS}).encode()))
    assert read_trace(path) == STEPS
    (tmp_path / "broken.json").write_text("{}")
    with pytest.raises(ValueError, match=r"broken\.json: cannot be read as a trace"):
        read_trace(tmp_path / "broken.json")


def profiled(tiny_run, tmp_path, **options):
    config = with_made_up_names(tiny_run(batch_size=2, **options))
    torch.manual_seed(0)
    model, diffusion = factory.build_model(config), factory.build_diffusion(config.diffusion)
    state = TrainingState(config, model, diffusion, torch.device("cpu"))
    seen = iter(itertools.repeat(noise_batch(config, 2, 3)))
    before = [parameter.detach().clone() for parameter in model.parameters()]
    found = profile_steps(state, config, seen, num_steps=4, warm_up=1, trace=tmp_path / "trace.json")
    changed = any(not torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))
    return state, found, changed


def test_the_loop_itself_is_profiled(tiny_run, tmp_path):
    _, found, changed = profiled(tiny_run, tmp_path, log_interval=2)
    assert changed
    assert len(found.seconds) == 4
    events = read_trace(tmp_path / "trace.json")
    counts = {name: sum(event["name"] == name and event.get("ph") == "X" for event in events) for name in PARTS}
    assert counts["loader"] == counts["transfer"] == counts["forward"] == counts["backward"] == counts["averages"] == 4
    assert set(found.parts) == {*PARTS, "rest"}
    assert found.parts["backward"].host > found.parts["averages"].host > 0
    assert found.profiled == pytest.approx(sum(part.host for part in found.parts.values()))
    assert all(part.host >= 0 for part in found.parts.values())


def test_pieces_of_a_batch_are_parts_too(tiny_run, tmp_path):
    profiled(tiny_run, tmp_path, microbatch=1)
    events = read_trace(tmp_path / "trace.json")
    assert sum(event["name"] == "forward" and event.get("ph") == "X" for event in events) == 8


def test_no_run_ends_in_a_save(tiny_run, tmp_path, monkeypatch):
    from stay_diffusion.training.saving import Saver

    monkeypatch.setattr(Saver, "save", lambda self: pytest.fail("saved"))
    state, _, _ = profiled(tiny_run, tmp_path, save_interval=1)
    assert state.step == 1 + 5 + 6


def test_the_script_takes_the_flags_of_training_and_shows_all_of_a_step(run_script, tiny_data, tiny_network, tmp_path):
    trace = tmp_path / "a trace.json.gz"
    words = [*tiny_network, "--batch_size", 2, "--num_steps", 2, "--trace", trace]
    ended = run_script("scripts/profile_step.py", "--data_dir", tiny_data, "--crop_policy", "object", *words)
    lines = [line.split() for line in ended.output.splitlines() if line.endswith("%")]
    shares = {line[0]: float(line[-1].rstrip("%")) for line in lines}
    assert shares["step"] == 100
    assert sum(shares.values()) == pytest.approx(200, abs=1)
    assert {"loader", "forward", "backward", "update", "averages"} <= shares.keys()
    assert parts_of(read_trace(trace))["forward"].host > 0


@pytest.mark.parametrize("conditioning", ["isla_bg", "spade", "none"])
def test_without_data_the_script_takes_noise(conditioning, run_script, tiny_network):
    words = ["--conditioning", conditioning, "--batch_size", 2, "--num_steps", 1, "--max_objects", 3]
    ended = run_script("scripts/profile_step.py", *tiny_network, *words)
    assert "a step takes" in ended.output and "backward" in ended.output


def test_a_trace_in_no_folder_is_refused(run_script, tmp_path):
    ended = run_script("scripts/profile_step.py", "--trace", tmp_path / "none/t.json", code=1)
    assert ended.output.count("\n") == 1 and "no such folder" in ended.output


@pytest.mark.parametrize("name", ["a folder.json", "trace.txt"])
def test_a_trace_that_is_no_json_file_is_refused_before_a_step(run_script, tmp_path, name):
    (tmp_path / "a folder.json").mkdir()
    ended = run_script("scripts/profile_step.py", "--trace", tmp_path / name, code=1)
    assert ended.output == f"error: --trace {tmp_path / name}: expected FILE.json or FILE.json.gz\n"


def test_a_map_of_made_up_boxes_has_their_labels(tiny_run):
    config = with_made_up_names(tiny_run(model={"conditioning": "spade", "image_size": 32}))
    _, layout = noise_batch(config, 2, 1)
    x0, y0, x1, y1 = (32 * layout.boxes[0, 0]).long().tolist()
    assert (layout.semantic_map[0, 0, y0:y1, x0:x1] == layout.labels[0, 0]).all()
    assert layout.semantic_map[0, 0].count_nonzero() == (y1 + 1 - y0) * (x1 + 1 - x0)
