"""How a command ends: one line for what its user can mend, a traceback only for our own mistakes."""

import argparse
import logging
import sys
import traceback
from collections.abc import Callable
from typing import NoReturn

from . import distributed


def argument_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser that shows the description as it is written and takes flags only in full."""
    return argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )


def run_command(main: Callable[[], int | None], continues: bool = True, failure: int = 1) -> NoReturn:
    """Exits with what `main` returns; with `failure` and one line after an error of the user's, with 130 after Ctrl-C.

    `continues` says whether the same command again takes up what was done.
    """
    logging.basicConfig(format="%(levelname)s: %(message)s", level=logging.INFO)
    try:
        code = main()
        distributed.leave()
        sys.exit(code)
    except ModuleNotFoundError as error:
        _end_with(f"{error.name} is not installed; for the evaluations: pip install 'stay-diffusion[eval]'", failure)
    except (ValueError, FloatingPointError, OSError) as error:
        _end_with(str(error), failure)
    except KeyboardInterrupt:
        print("interrupted" + "; the same command continues" * continues, file=sys.stderr)
        if distributed.joined():
            distributed.end_now(130)
        sys.exit(130)
    except Exception as error:  # our own mistake, or the end of another process as it looks from here
        distributed.fail(f"{type(error).__name__}: {error}", traceback.print_exc)
        sys.exit(1)


def _end_with(message: str, code: int) -> NoReturn:
    distributed.fail(message, lambda: print(f"error: {message}", file=sys.stderr, flush=True))
    sys.exit(code)
