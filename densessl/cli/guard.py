"""How every command ends: an exit code, and for an error that the user can fix, one to a few lines."""

import argparse
import errno
import sys
from collections.abc import Callable

from densessl.cli.options import tell_errors_in_a_line
from densessl.errors import DISK, DONE, SETTINGS, DensesslError, MissingPackage
from densessl.extras import missing, missing_package

INTERRUPTED = 130  # after Ctrl-C, as shells do
# What stands where something else is wanted; Python's own words are "File exists" for a folder that cannot be made.
_IN_THE_WAY = {
    errno.EEXIST: "is a file, expected a folder",
    errno.ENOTDIR: "leads through a file, expected a folder",
    errno.EISDIR: "is a folder, expected a file",
}
EXIT_CODES = """exit codes:
  0    done
  1    a fault of the program (please report the traceback), or a run of a comparison failed
  2    settings, files or weights do not fit
  3    more images are missing or damaged than the run may replace (--bad-images)
  5    the disk is full
  130  stopped by Ctrl-C
"""


def add_debug(parser: argparse.ArgumentParser) -> None:
    """Give a command the option that shows tracebacks; without it, errors are a line or a few."""
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    tell_errors_in_a_line(parser)


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
    except Exception as raised:
        error = of_missing_package(raised) or raised
        code = exit_code_of(error)
        if debug or code is None:
            raise
        print(f"error: {message_of(error)}", file=sys.stderr)
        return code


def of_missing_package(error: Exception) -> MissingPackage | None:
    """The error that says how to install the package of an extra without which an import failed somewhere, often inside
    another library; None for other errors."""
    package = missing_package(error) if isinstance(error, ImportError) else None
    return None if package is None or isinstance(error, DensesslError) else missing(package, "this command")


def exit_code_of(error: BaseException) -> int | None:
    """The exit code of an error that the user can fix; None for a fault of the program."""
    if isinstance(error, DensesslError):
        return error.exit_code
    if isinstance(error, OSError):
        return DISK if error.errno in (errno.ENOSPC, errno.EDQUOT) else SETTINGS
    return None


def message_of(error: BaseException) -> str:
    """The message of an error; if a loader's worker raised it, without the worker's traceback."""
    if isinstance(error, OSError) and not isinstance(error, DensesslError) and error.filename:
        return f"{error.filename}: {_IN_THE_WAY.get(error.errno, (error.strerror or str(error)).lower())}"
    text = str(error) or type(error).__name__
    if text.startswith("Caught ") and "Original Traceback" in text:
        last = text.strip().splitlines()[-1]
        return last.partition(": ")[2] or last
    return text
