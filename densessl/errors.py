"""Errors that a user can fix, because their cause is in settings, data or files, not in densessl.

A command prints their message in one to a few lines and ends with their exit code. Every other error is a fault of the
program, and keeps its traceback.
"""

from typing import Any

DONE, SETTINGS, DATA, DISK = 0, 2, 3, 5  # exit codes of every command


class DensesslError(Exception):
    """Base class of errors that a user can cause and fix. The message alone must say how.

    Attributes:
        exit_code: exit code of a command that ends with this error.
    """

    exit_code = SETTINGS


class SettingError(DensesslError, ValueError):
    """Options of the command line, or entries of the config, do not fit."""


class MissingPackage(DensesslError, ModuleNotFoundError):
    """A feature needs a package that is not installed; the message names the extra that installs it."""


class FileMissing(DensesslError, FileNotFoundError):
    """A given file or folder does not exist."""


class DataError(DensesslError, RuntimeError):
    """More of the data is bad than the run may replace."""

    exit_code = DATA


class CheckpointError(DensesslError, ValueError):
    """A file is no checkpoint, is damaged, or does not fit its purpose."""


class UnsafeCheckpointError(CheckpointError):
    """Reading a file would execute code, so it was not read."""


class ExportError(DensesslError, ValueError):
    """A checkpoint does not hold what should be exported, or the format cannot express it."""


class LoadError(DensesslError, RuntimeError):
    """Weights do not fit the model that should load them. The model is unchanged.

    Attributes:
        report: the :class:`densessl.weights.load_report.LoadReport` of the load, or None.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report
