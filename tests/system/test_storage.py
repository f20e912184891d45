"""Data and run folders behind a URL, with a folder of this machine standing in for the store."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from stay_diffusion.system import storage

STAND_IN = """
import blobfile
from stay_diffusion.system import storage

class StandIn:
    '''The URLs near://PATH as the files below a folder, by blobfile's own functions.'''

    def __init__(self, root):
        self.root, self.copied = root, []

    def path(self, name):
        return self.root + "/" + name.removeprefix("near://") if name.startswith("near://") else name

    def copy(self, source, target, overwrite):
        self.copied.append(source)
        blobfile.copy(self.path(source), self.path(target), overwrite=overwrite)

    def scandir(self, name):
        return blobfile.scandir(self.path(name))

    def __getattr__(self, name):
        return lambda url: getattr(blobfile, name)(self.path(url))
"""


@pytest.fixture
def store(tmp_path, monkeypatch):
    """What knows near://, a folder `there`."""
    names: dict = {}
    exec(STAND_IN, names)
    (tmp_path / "there").mkdir()
    made = names["StandIn"](str(tmp_path / "there"))
    monkeypatch.setitem(storage.STORES, "near", lambda: made)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return made


@pytest.fixture
def there(store, tmp_path):
    return tmp_path / "there"


def fill(folder, **texts):
    """Files by their names with / for __, .txt added."""
    for name, text in texts.items():
        path = folder / f"{name.replace('__', '/')}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def texts(folder):
    paths = sorted(path for path in folder.rglob("*") if path.is_file() and not path.name.startswith("."))
    return {path.relative_to(folder).as_posix(): path.read_text() for path in paths}


def push(folder, name):
    storage.push(folder, name, last=lambda each: each.startswith("state"))


def test_a_local_path_passes_through_and_nothing_is_imported_for_it(tmp_path):
    code = (
        "import sys; from stay_diffusion.system import storage; p = storage.local('a/b'); q = storage.weights('c.pt')"
    )
    code += "; print(p, q, storage.working_copy('d'), 'blobfile' in sys.modules)"
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert ended.stdout.split() == ["a/b", "c.pt", "d", "False"]


def test_a_folder_is_there_with_its_sub_folders_but_for_hidden_files(store, there):
    fill(there, data__a="1", data__train__b="2", data__train__deep__c="3", other__x="4")
    (there / "data/.hidden").write_text("5")
    copy = storage.local("near://data/")
    assert texts(copy) == {"a.txt": "1", "train/b.txt": "2", "train/deep/c.txt": "3"}
    assert not (copy / ".hidden").exists()


def test_what_has_not_changed_is_not_fetched_again(store, there):
    fill(there, data__a="1", data__b="2")
    copy = storage.local("near://data")
    store.copied.clear()
    assert storage.local("near://data") == copy and store.copied == []
    fill(there, data__b="22", data__c="3")
    storage.local("near://data")
    assert texts(copy) == {"a.txt": "1", "b.txt": "22", "c.txt": "3"} and len(store.copied) == 2


FETCHING = """
import os, sys, time
fetch = StandIn.copy

def slow(self, source, target, overwrite):
    os.write(1, f"{source}\\n".encode())  # at once: several threads fetch
    time.sleep(0.3)
    fetch(self, source, target, overwrite)

StandIn.copy = slow
storage.STORES["near"] = lambda: StandIn(sys.argv[1])
storage.local("near://data")
"""


def test_of_several_processes_one_fetches_and_the_others_wait_for_it(store, there, tmp_path):
    fill(there, data__a="1", data__b="2")
    words = [sys.executable, "-c", STAND_IN + FETCHING, str(there)]
    started = [subprocess.Popen(words, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    fetched = "".join(process.communicate(timeout=60)[0] for process in started).split()
    assert [process.returncode for process in started] == [0, 0, 0]
    assert sorted(fetched) == ["near://data/a.txt", "near://data/b.txt"]
    assert texts(storage.copy_of("near://data")) == {"a.txt": "1", "b.txt": "2"}


def test_a_copy_that_was_spoilt_here_is_fetched_again(store, there):
    fill(there, data__a="right")
    copy = storage.local("near://data")
    (copy / "a.txt").write_text("spoilt")
    assert texts(storage.local("near://data")) == {"a.txt": "right"}


def test_an_interrupted_fetch_goes_on_where_it_stopped(store, there, monkeypatch):
    fill(there, data__a="1", data__b="2", data__c="3")
    real = store.copy

    def fails_at_c(source, target, overwrite):
        if source.endswith("c.txt"):
            raise OSError("the line is dead")
        real(source, target, overwrite)

    monkeypatch.setattr(store, "copy", fails_at_c, raising=False)
    with pytest.raises(ValueError, match="near://data: cannot be read: the line is dead"):
        storage.local("near://data")
    copy = storage.copy_of("near://data")
    had = texts(copy)
    assert "c.txt" not in had and not list(copy.glob(".*.tmp"))
    monkeypatch.setattr(store, "copy", real)
    store.copied.clear()
    storage.local("near://data")
    assert len(store.copied) == 3 - len(had) and len(texts(copy)) == 3


def test_weights_come_with_their_configuration_and_nothing_else(store, there):
    fill(there, run__model="w", run__other="x")
    (there / "run/config.json").write_text("{}")
    path = storage.weights("near://run/model.txt")
    assert path.read_text() == "w" and texts(path.parent) == {"config.json": "{}", "model.txt": "w"}


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("near://data/nothing.txt", "near://data/nothing.txt: nothing is there"),
        ("s3://bucket/x", "s3://bucket/x: s3:// is not known; gs://, az://"),
        ("near://", "near://: not the address"),
        ("near://data/../x", "not the address"),
    ],
)
def test_a_url_of_nothing_is_named(store, there, name, message):
    fill(there, data__a="1")
    with pytest.raises(ValueError, match=message):
        storage.local(name)


def test_a_store_that_does_not_answer_is_one_line(store, monkeypatch):
    def dead(name):
        raise RuntimeError("no route\nto host")

    monkeypatch.setattr(store, "isdir", dead, raising=False)
    with pytest.raises(ValueError, match=r"near://data: cannot be read: no route$"):
        storage.local("near://data")


def test_a_push_sends_what_changed_removes_what_went_and_sends_states_last(store, there, tmp_path):
    run = tmp_path / "run"
    fill(run, a="1", state1="s", z="2", previews__p="3")
    (run / ".lock").write_text("")
    (run / "half.pt.tmp").write_text("")
    push(run, "near://runs/r/")
    assert sorted(texts(there / "runs/r")) == ["a.txt", "previews/p.txt", "state1.txt", "z.txt"]
    assert [os.path.basename(name) for name in store.copied][-1] == "state1.txt" and len(store.copied) == 4

    store.copied.clear()
    fill(run, a="11")
    (run / "state1.txt").unlink()
    push(run, "near://runs/r")
    assert [os.path.basename(name) for name in store.copied] == ["a.txt"]
    assert texts(there / "runs/r") == {"a.txt": "11", "previews/p.txt": "3", "z.txt": "2"}


def test_what_was_pushed_is_not_fetched_back(store, there):
    copy = storage.working_copy("near://runs/r")
    fill(copy, a="1")
    push(copy, "near://runs/r")
    store.copied.clear()
    assert storage.working_copy("near://runs/r") == copy and store.copied == []


def test_a_run_trains_resumes_elsewhere_and_is_sampled_behind_urls(run_script, tiny_data, tiny_network, tmp_path):
    there = tmp_path / "there"
    shutil.copytree(tiny_data, there / "data")
    prelude = f"{STAND_IN}\nmade = StandIn({str(there)!r})\nstorage.STORES['near'] = lambda: made"

    def run(script, *words, machine, code=0):
        environment = {"XDG_CACHE_HOME": str(tmp_path / machine)}
        return run_script(script, *words, prelude=prelude, environment=environment, code=code).output

    train = ["--data_dir", "near://data", "--logdir", "near://runs/one", *tiny_network, "--batch_size", 2]
    first = run("scripts/image_train.py", *train, "--max_steps", 2, machine="a")
    assert "run folder: near://runs/one, starting from scratch" in first
    config = json.loads((there / "runs/one/config.json").read_text())
    assert config["data_dir"] == "near://data" and (there / "runs/one/state000002.pt").exists()

    second = run("scripts/image_train.py", *train, "--max_steps", 3, "--keep_checkpoints", 1, machine="b")
    assert "continuing from step 2" in second
    assert [path.name for path in there.glob("runs/one/state*.pt")] == ["state000003.pt"]

    sample = ["--model_path", "near://runs/one/ema_0.9.pt", "--num_steps", 1, "--num_samples", 2]
    assert "--results_path: needed" in run("scripts/image_sample.py", *sample, machine="c", code=1)
    run("scripts/image_sample.py", *sample, "--results_path", tmp_path / "results", machine="c")
    assert len(list(tmp_path.glob("results/samples/*.png"))) == 2


def test_a_store_that_fails_during_training_costs_nothing_but_a_warning(run_script, tiny_data, tiny_network, tmp_path):
    (tmp_path / "there").mkdir()
    prelude = f"{STAND_IN}\nmade = StandIn({str(tmp_path / 'there')!r})\nstorage.STORES['near'] = lambda: made"
    prelude += "\ndef full(*a, **k): raise OSError('quota exceeded')\nmade.copy = full"
    words = ["--data_dir", tiny_data, "--logdir", "near://run", *tiny_network, "--batch_size", 2, "--max_steps", 1]
    environment = {"XDG_CACHE_HOME": str(tmp_path / "cache")}
    ended = run_script("scripts/image_train.py", *words, prelude=prelude, environment=environment)
    assert "near://run: cannot be written: quota exceeded; kept in" in ended.output and "finished" in ended.output
    assert list((tmp_path / "cache").rglob("state000001.pt"))


@pytest.mark.parametrize(
    ("script", "words"),
    [
        ("check_data", ["--json"]),
        ("browse_data", ["--out"]),
        ("image_sample", ["--model_path", "model.pt", "--results_path"]),
    ],
)
def test_what_is_written_on_this_machine_only_is_not_given_an_address(run_script, tiny_data, tmp_path, script, words):
    words = ["--data_dir", tiny_data, *words, "gs://bucket/x"]
    last = run_script(f"scripts/{script}.py", *words, code=1 + (script == "check_data"), cwd=tmp_path).output
    assert f"{words[-2]} gs://bucket/x: needs a place on this machine" in last.splitlines()[-1]
    assert not any(tmp_path.glob("gs*"))
