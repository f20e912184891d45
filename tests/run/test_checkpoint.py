import errno
import os
import pathlib
import pickle
import subprocess

import pytest
import torch

from stay_diffusion.config import RunConfig, TrainConfig
from stay_diffusion.run import checkpoint
from stay_diffusion.run.checkpoint import RunFolder, atomic_write, load_tensors, load_weights, save_tensors


@pytest.fixture
def folder(tmp_path):
    folder = RunFolder(tmp_path / "run")
    folder.open()
    return folder


def save(folder, step, keep=0, value=None):
    weights = {"x": torch.full((2,), float(step if value is None else value))}
    optimizer = {"state": {}, "param_groups": []}
    folder.save(step, {"model": weights, "ema_0.9": weights, "opt": optimizer, "state": {"step": step}}, keep)


def disk_full(file):
    file.write(b"half of it")
    raise OSError(errno.ENOSPC, "No space left on device")


def names(folder):
    return sorted(path.name for path in folder.path.iterdir())


def small_model():
    return torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.Linear(3, 1))


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path):
    (tmp_path / "kept").write_bytes(b"old")
    with pytest.raises(OSError, match=r"No space left on device: '.*/kept'$"):
        atomic_write(tmp_path / "kept", disk_full)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("kept", b"old")]


def test_a_file_is_not_seen_under_its_name_before_it_is_complete(tmp_path):
    def write(file):
        file.write(b"new")
        assert not (tmp_path / "late").exists()

    atomic_write(tmp_path / "late", write)
    assert (tmp_path / "late").read_bytes() == b"new"


def test_a_full_disk_while_saving_leaves_the_last_checkpoint_whole(folder, monkeypatch):
    save(folder, 5)
    before = names(folder)
    monkeypatch.setattr(torch, "save", lambda tensors, file: disk_full(file))
    with pytest.raises(OSError, match="No space left"):
        save(folder, 10)
    assert names(folder) == before and folder.steps() == [5]


def test_model_and_averages_name_the_latest_checkpoint(folder):
    save(folder, 5)
    save(folder, 10)
    for name in ("model", "ema_0.9"):
        assert folder.file(name).read_bytes() == folder.file(name, 10).read_bytes()
        assert load_tensors(folder.file(name))["x"][0] == 10


def test_the_latest_names_move_where_there_are_no_hard_links(folder, monkeypatch):
    def no_links(source, target):
        raise OSError(errno.EPERM, "Operation not permitted")

    monkeypatch.setattr(os, "link", no_links)
    save(folder, 5)
    save(folder, 10)
    assert folder.file("model").read_bytes() == folder.file("model", 10).read_bytes()
    assert not list(folder.path.glob("*.tmp"))


def test_naming_the_latest_again_leaves_nothing_behind(folder):
    save(folder, 5)
    before = names(folder)
    folder.point_to(5, ["model", "ema_0.9"])
    assert names(folder) == before


def test_saving_a_step_again_does_not_change_what_an_older_name_holds(folder):
    save(folder, 5)
    kept = folder.path / "kept.pt"
    os.link(folder.file("model", 5), kept)
    save(folder, 5, value=7)
    assert load_tensors(kept)["x"][0] == 5


def test_only_the_last_checkpoints_are_kept(folder):
    for step in (5, 10, 15):
        save(folder, step, keep=2)
    assert folder.steps() == [10, 15]
    assert not list(folder.path.glob("*000005*"))
    assert len(list(folder.path.glob("*000010.pt"))) == 4


@pytest.mark.parametrize("removed", range(5))
def test_what_a_kill_left_of_an_old_checkpoint_goes_with_the_next_pruning(folder, monkeypatch, removed):
    for step in (3, 6):
        save(folder, step)
    before, unlink = len(names(folder)), pathlib.Path.unlink

    def dying(path, missing_ok=False):
        if before - len(names(folder)) == removed:
            raise KeyboardInterrupt
        unlink(path, missing_ok=missing_ok)

    monkeypatch.setattr(pathlib.Path, "unlink", dying)
    with pytest.raises(KeyboardInterrupt):
        folder.prune(6, keep=1)
    monkeypatch.undo()
    folder.prune(6, keep=1)
    assert folder.steps() == [6] and not [name for name in names(folder) if "000003" in name]


def test_zero_keeps_all_checkpoints(folder):
    for step in (5, 10, 15, 20):
        save(folder, step, keep=0)
    assert folder.steps() == [5, 10, 15, 20]


def test_the_best_average_outlives_the_checkpoint_that_it_is_of(folder):
    best = folder.path / "ema_0.9_best.pt"
    save(folder, 5, keep=1)
    save_tensors(best, {"x": torch.full((2,), 5.0)})
    for step in (10, 15):
        save(folder, step, keep=1)
    assert folder.steps() == [15] and load_tensors(best)["x"][0] == 5


def test_dropping_an_old_checkpoint_spares_a_step_that_ends_in_its_digits(folder):
    save(folder, 10000, keep=0)
    save(folder, 1010000, keep=1)
    assert folder.steps() == [1010000]
    assert load_tensors(folder.file("model", 1010000))["x"][0] == 1010000


@pytest.mark.parametrize("missing", ["state", "opt", "model"])
def test_a_checkpoint_counts_only_with_all_its_files(folder, missing):
    save(folder, 5)
    save(folder, 10)
    folder.file(missing, 10).unlink()
    assert folder.steps() == [5]


def test_the_state_that_makes_a_checkpoint_count_is_written_last(folder, monkeypatch):
    written, write = [], checkpoint.atomic_write
    monkeypatch.setattr(checkpoint, "atomic_write", lambda path, *rest: written.append(path.name) or write(path, *rest))
    save(folder, 5)
    files = [name for name in written if "000005" in name]
    assert files[-2:] == ["checkpoint000005.sha256", "state000005.pt"]
    assert set(files[:-2]) == {"model000005.pt", "ema_0.9_000005.pt", "opt000005.pt"}


def test_the_checksums_are_those_of_the_files_and_tell_which_is_damaged(folder):
    save(folder, 5)
    words = ["sha256sum", "-c", "--quiet", "checkpoint000005.sha256"]
    assert subprocess.run(words, cwd=folder.path, capture_output=True).returncode == 0 and folder.damaged(5) == ""
    assert len(folder.sums(5).read_text().splitlines()) == 4
    for name in ("model000005.pt", "ema_0.9_000005.pt", "opt000005.pt", "state000005.pt"):
        whole = (folder.path / name).read_bytes()
        (folder.path / name).unlink()
        assert folder.damaged(5) == name
        (folder.path / name).write_bytes(whole[:-1] + b"x")
        assert folder.damaged(5) == name
        (folder.path / name).write_bytes(whole)
    assert folder.damaged(5) == ""


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"0123  model000005.pt\n"])
def test_checksums_that_are_damaged_themselves_vouch_for_nothing(folder, content):
    save(folder, 5)
    folder.sums(5).write_bytes(content)
    assert folder.damaged(5) == "checkpoint000005.sha256"


def test_a_later_checkpoint_that_is_damaged_does_not_crowd_out_the_good_ones(folder):
    for step in (5, 10):
        save(folder, step)
    folder.file("opt", 10).write_bytes(b"torn")
    assert folder.latest() == 5
    save(folder, 7, keep=1)
    assert folder.steps() == [7, 10] and folder.latest() == 7


def test_opening_a_folder_removes_what_an_interrupted_save_left(folder):
    save(folder, 5)
    (folder.path / "model000010.pt.tmp").write_bytes(b"half")
    before = names(folder)
    folder.open()
    assert set(before) - set(names(folder)) == {"model000010.pt.tmp"}


def test_the_run_folder_is_the_flag_s_then_the_environment_s_then_the_default(monkeypatch):
    monkeypatch.setenv("OPENAI_LOGDIR", "from_environment")
    assert RunFolder.named("from_flag").path.name == "from_flag"
    assert RunFolder.named("").path.name == "from_environment"
    monkeypatch.delenv("OPENAI_LOGDIR")
    assert RunFolder.named("").path.as_posix() == "OUTPUT/stay_diffusion"


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--logdir .*file/run: cannot be made: Not a directory"):
        RunFolder(tmp_path / "file/run").open()


def test_the_saved_configuration_reads_back(folder):
    run = RunConfig(train=TrainConfig(seed=7))
    folder.write_config(run)
    assert checkpoint.config_beside(folder.path / "model.pt") == run


def test_a_torn_file_is_one_line_naming_it(folder):
    save(folder, 5)
    path = folder.file("model", 5)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(ValueError, match=r"model000005.pt: not a readable checkpoint") as error:
        load_tensors(path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("content", [b"", b"<html>not found</html>", b"version https://git-lfs"])
def test_a_file_that_is_no_checkpoint_is_one_line_naming_it(tmp_path, content):
    (tmp_path / "model.pt").write_bytes(content)
    with pytest.raises(ValueError, match=r"model.pt: not a readable checkpoint") as error:
        load_tensors(tmp_path / "model.pt")
    assert "\n" not in str(error.value)


def test_loading_runs_no_code_from_the_file(tmp_path):
    class Trap:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "trapped"),)

    (tmp_path / "pickle.pt").write_bytes(pickle.dumps(Trap(), protocol=2))
    torch.save(Trap(), tmp_path / "torch.pt")
    for name in ("pickle.pt", "torch.pt"):
        with pytest.raises(ValueError, match=f"{name}: not a readable checkpoint"):
            load_tensors(tmp_path / name)
    assert not (tmp_path / "trapped").exists()


def wrong(problem):
    state = small_model().state_dict()
    if problem == "lacks 1.bias":
        del state["1.bias"]
    elif problem == "has the unknown 2.weight":
        state["2.weight"] = torch.zeros(1)
    else:
        state["0.weight"] = torch.zeros(5, 2)
    return state


@pytest.mark.parametrize(
    "problem", ["lacks 1.bias", "has the unknown 2.weight", "has 0.weight as (5, 2) instead of (3, 2)"]
)
def test_weights_that_do_not_fit_are_told_in_one_line(tmp_path, problem):
    save_tensors(tmp_path / "weights.pt", wrong(problem))
    model = small_model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with pytest.raises(ValueError) as error:
        load_weights(model, tmp_path / "weights.pt")
    assert str(error.value) == f"{tmp_path}/weights.pt: does not fit the model of these flags: it {problem}"
    torch.testing.assert_close(model.state_dict(), before, rtol=0, atol=0)


def test_many_misfits_are_counted_instead_of_listed(tmp_path):
    save_tensors(tmp_path / "weights.pt", {"a": torch.zeros(1)})
    with pytest.raises(ValueError, match=r"it lacks 0.weight; it lacks 0.bias; it lacks 1.weight and 2 more$"):
        load_weights(small_model(), tmp_path / "weights.pt")
