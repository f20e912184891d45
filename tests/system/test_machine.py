"""The package on a machine without POSIX: every module imports, every command explains itself, folders are locked."""

import subprocess
import sys

import pytest

from stay_diffusion.commands import COMMANDS
from stay_diffusion.system import machine
from stay_diffusion.system.lock import lock, one_at_a_time

# In a process that has torch already: others have branches of their own for Windows, by sys.platform.
WITHOUT_POSIX = """
import os, signal, sys
for name in [name for name in sys.modules if name.startswith("stay_diffusion")]:
    del sys.modules[name]
for name in ("fcntl", "resource", "pwd", "grp", "termios"):
    sys.modules[name] = None
for name in ("fork", "getuid", "getpgid", "killpg", "sched_getaffinity", "sysconf", "uname", "statvfs", "mkfifo"):
    delattr(os, name)
for name in ("SIGALRM", "SIGCHLD", "SIGHUP", "SIGKILL", "SIGUSR1", "SIGUSR2"):
    delattr(signal, name)
"""
EXPLAIN_ALL = """
import importlib, pkgutil, sys
import stay_diffusion
from stay_diffusion import commands
for module in pkgutil.walk_packages(stay_diffusion.__path__, "stay_diffusion."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
for name in commands.COMMANDS:
    sys.argv = ["stay-diffusion", name, "--help"]
    try:
        commands.main()
    except SystemExit as ended:
        print("ended", name, ended.code)
"""


def test_every_module_imports_and_every_command_explains_itself(run_script, tmp_path):
    script = tmp_path / "explain_all.py"
    script.write_text(EXPLAIN_ALL)
    lines = run_script(script, prelude=WITHOUT_POSIX).output.splitlines()
    assert [line for line in lines if line.startswith("ended ")] == [f"ended {name} 0" for name in COMMANDS]
    assert sum(line.startswith("usage: stay-diffusion ") for line in lines) == len(COMMANDS)


@pytest.fixture(params=["fcntl", "filelock"])
def locks(request, monkeypatch):
    if request.param == "filelock":
        monkeypatch.setitem(sys.modules, "fcntl", None)
    return request.param


LOCK = "from pathlib import Path; from stay_diffusion.system.lock import lock; lock(Path(sys.argv[1]))"


@pytest.mark.parametrize("prelude", ["import sys; ", "import sys; sys.modules['fcntl'] = None; "])
def test_a_folder_in_use_is_refused_to_another_process(prelude, tmp_path):
    hold = f"{prelude}{LOCK}; print('held', flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", hold, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as holder:
        assert holder.stdout.readline() == "held\n"
        refused = subprocess.run([sys.executable, "-c", prelude + LOCK, tmp_path], capture_output=True, text=True)
        assert f"{tmp_path}: another process is writing to this folder" in refused.stderr
        holder.communicate("")
    subprocess.run([sys.executable, "-c", prelude + LOCK, tmp_path], check=True)


@pytest.mark.filterwarnings("ignore:only soft file lock")
def test_turns_end_with_their_block(locks, tmp_path):
    for _ in range(2):
        with one_at_a_time(tmp_path):
            assert (tmp_path / ".turn").exists()


def test_a_file_system_without_locks_locks_nothing(monkeypatch, tmp_path):
    def refuse(*_):
        raise OSError(37, "No locks available")

    monkeypatch.setattr("fcntl.lockf", refuse)
    lock(tmp_path)
    with one_at_a_time(tmp_path):
        pass


def test_memory_is_known_without_proc(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "Path", lambda name: tmp_path / "absent")
    assert 2**27 < machine.free_memory() < 2**45
    monkeypatch.delattr("os.sysconf")
    assert machine.free_memory() == sys.maxsize


def test_an_interface_is_none_where_it_cannot_be_asked_for(monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    assert machine.interface_towards("10.1.2.3") is None
