"""What users are told in a line or two: errors whose cause lies in settings, data or files, not in densessl.

Each has the exit code that a command ends with. Everything else is a fault of the program, and keeps its traceback.
"""

from typing import Any

DONE, SETTINGS, DISK = 0, 2, 5  # exit codes of every command


class DensesslError(Exception):
    """Base of what a user can cause, and mend. The message says all there is to know.

    Attributes:
        exit_code: of the command that it ends.
    """

    exit_code = SETTINGS


class SettingError(DensesslError, ValueError):
    """Words of the command line, or entries of the config, do not fit."""


class MissingPackage(DensesslError, ModuleNotFoundError):
    """Something is asked for that needs a package that is not installed; the message names the extra that has it."""


class FileMissing(DensesslError, FileNotFoundError):
    """There is no file or folder of a name that was given."""


class CheckpointError(DensesslError, ValueError):
    """A file is no checkpoint, is damaged, or does not fit what it is for."""


class UnsafeCheckpointError(CheckpointError):
    """A file would have to execute code to be read, and was not."""


class ExportError(DensesslError, ValueError):
    """A checkpoint does not hold what was asked for, or the format cannot express it."""


class LoadError(DensesslError, RuntimeError):
    """Weights do not fit the model they were meant for. The model is left untouched.

    Attributes:
        report: the :class:`densessl.weights.load_report.LoadReport` of the load, where there is one.
    """

    def __init__(self, message: str, report: Any = None) -> None:
        super().__init__(message)
        self.report = report
