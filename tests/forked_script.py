"""Runs one script in a process forked from a server that has imported torch already (see conftest.run_script).

Its globals say what: SCRIPT, ARGUMENTS, CWD, OUTPUT (file for stdout and stderr), ENVIRONMENT (what to add
to it) and PRELUDE, Python to run first.
"""

import atexit
import multiprocessing
import os
import runpy
import sys

import torch

if __name__ == "__main__":  # not when pytest collects
    job = globals()
    output = os.open(job["OUTPUT"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(output, 1)
    os.dup2(output, 2)
    os.chdir(job["CWD"])
    os.environ.update({"OPENAI_LOG_FORMAT": "stdout,log,csv", **job["ENVIRONMENT"]})
    torch.set_num_threads(1)
    multiprocessing.set_start_method(None, force=True)  # the server's is not what a script finds on its own
    sys.argv = [job["SCRIPT"], *job["ARGUMENTS"]]
    sys.path[0] = os.path.dirname(job["SCRIPT"])
    exec(job["PRELUDE"])
    try:
        runpy.run_path(job["SCRIPT"], run_name="__main__")
    finally:
        atexit._run_exitfuncs()  # a child of multiprocessing ends without them
