"""Several processes as a launcher would start them, without one; and where the evaluations are found."""

import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

# Last: the script lpips.py must not stand for the package of that name.
sys.path.append(str(Path(__file__).resolve().parents[2] / "evaluations"))


@pytest.fixture(scope="session")
def run_ranks(run_script):
    """run(number, path below the repository, *arguments) -> one Ended per rank; named options go to run_script."""

    def run(number: int, script: str, *arguments, **options) -> list:
        def run_rank(rank: int):
            environment = {"PMI_RANK": str(rank), "PMI_SIZE": str(number), **options.get("environment", {})}
            return run_script(script, *arguments, **{**options, "environment": environment})

        with ThreadPoolExecutor(number) as threads:
            return list(threads.map(run_rank, range(number)))

    return run
