"""Several processes as a launcher would start them, without one."""

from concurrent.futures import ThreadPoolExecutor

import pytest


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
