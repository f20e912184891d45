"""How a command ends: one line for what its user can mend, a traceback only for our own mistakes."""

import logging
import os
import sys
from collections.abc import Callable
from typing import NoReturn

# Where launchers tell a process how many of it they have started.
SIZES = ("WORLD_SIZE", "OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE")


def one_process_only() -> None:
    """ValueError in one of several processes of a launcher: they would each do the same."""
    for name in SIZES:
        if os.environ.get(name, "1") not in ("", "1"):
            raise ValueError(f"started as one of {os.environ[name]} processes ({name}), but only one can work so far")


def run_command(main: Callable[[], int | None], continues: bool = True) -> NoReturn:
    """Exits with what `main` returns; with 1 and one line after an error of the user's, with 130 after Ctrl-C.

    `continues` says whether the same command again takes up what was done.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        sys.exit(main())
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; for the evaluations: pip install 'stay-diffusion[eval]'")
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted" + "; the same command continues" * continues, file=sys.stderr)
        sys.exit(130)
