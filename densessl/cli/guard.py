"""How every command ends: an exit code, and for an error that the user can fix, one to a few lines."""

import argparse
import errno
import os
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from densessl.errors import DISK, DONE, SETTINGS, DensesslError

INTERRUPTED = 130  # after Ctrl-C, as shells do
EXIT_CODES = """exit codes:
  0    done
  1    a fault of the program (please report the traceback), or a run of a comparison failed
  2    settings, files or weights do not fit
  5    the disk is full
  130  stopped by Ctrl-C
"""
_HOME = str(Path(__file__).parents[1]) + os.sep


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that shows tracebacks."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")


def guarded(run: Callable[[], int | None], debug: bool = False, after_interrupt: str = "") -> int:
    """Run a command.

    Args:
        run: returns the exit code; None counts as 0.
        debug: raise errors with their tracebacks.
        after_interrupt: how to continue after Ctrl-C, appended to the message.

    Returns:
        The exit code. An error that the user can fix is printed to standard error, in one to a few lines. A fault of
        the program is raised, with its traceback.
    """
    try:
        return run() or DONE
    except KeyboardInterrupt:
        print(f"stopped{after_interrupt}", file=sys.stderr)
        return INTERRUPTED
    except Exception as error:
        code = exit_code_of(error)
        if debug or code is None:
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        return code


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an error that the user can fix; None for a fault of the program."""
    if isinstance(error, DensesslError):
        return error.exit_code
    if isinstance(error, OSError):
        return DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else SETTINGS
    # Constructors and readers of densessl raise a ValueError with a clear message for arguments that do not fit. One
    # raised further inside, in a library that densessl called, is a fault of the program.
    frames = traceback.extract_tb(error.__traceback__)
    if isinstance(error, ValueError) and frames and frames[-1].filename.startswith(_HOME):
        return SETTINGS
    return None


def message_of(error: BaseException) -> str:
    """The message of an error; if a loader's worker raised it, without the worker's traceback."""
    text = str(error) or type(error).__name__
    if text.startswith("Caught ") and "Original Traceback" in text:
        last = text.strip().splitlines()[-1]
        return last.partition(": ")[2] or last
    return text
