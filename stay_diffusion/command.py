"""How a command ends: one line for what its user can mend, a traceback only for our own mistakes."""

import logging
import sys
from collections.abc import Callable
from typing import NoReturn


def run_command(main: Callable[[], int | None]) -> NoReturn:
    """Exits with what `main` returns; with 1 and one line after an error of the user's, with 130 after Ctrl-C."""
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        sys.exit(main())
    except ModuleNotFoundError as error:
        sys.exit(f"error: {error.name} is not installed; for the evaluations: pip install 'stay-diffusion[eval]'")
    except (ValueError, FloatingPointError, OSError) as error:
        sys.exit(f"error: {error}")
    except KeyboardInterrupt:
        print("interrupted; the same command continues", file=sys.stderr)
        sys.exit(130)
