"""Keep messages of libraries that a user cannot act on out of the log and off the screen.

Importing this module is enough for what MMEngine and MMDetection say while they are imported: everything of densessl
that imports MMDetection imports this module first.
"""

import functools
import logging
import re
import sys
import warnings
from importlib.util import find_spec
from typing import Any

from mmengine import logging as mmengine_logging

# What pycocotools prints whenever it reads a file of annotations or results.
COCO_NOISE = (
    "loading annotations",
    "creating index",
    "index created",
    "Loading and preparing results",
    "Done (",
    "DONE (",
)
# From MMEngine about its own older names and about the work dir, which the log has already, and from MMDetection about
# optional packages of its own.
NOISE = re.compile(
    r'"FileClient" will be deprecated|"HardDiskBackend" is the alias|Could not import OneDL|'
    r"faster_coco_eval is not installed|Checkpoints will be saved to|"
    r"method `get_instance` should not accept any other arguments"
)


class NoiseFilter(logging.Filter):
    """Drops the records that match :data:`NOISE`."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not NOISE.search(record.getMessage())


def silence(logger: logging.Logger) -> None:
    """Keep the noise out of a logger."""
    if not any(isinstance(each, NoiseFilter) for each in logger.filters):
        logger.addFilter(NoiseFilter())


def silence_coco() -> None:
    """Keep what pycocotools prints at every load off the screen, if MMDetection, which uses it, is imported."""
    if "mmdet" not in sys.modules or find_spec("pycocotools") is None:
        return
    from pycocotools import coco  # it is not installed everywhere

    coco.print = _print_all_but_loads  # hides the built-in function in that module only


def _print_all_but_loads(*words: Any, **options: Any) -> None:
    if not str(words[0] if words else "").startswith(COCO_NOISE):
        print(*words, **options)


def silence_imports() -> None:
    """Keep the noise out of Python's warnings, and out of what MMEngine's ``print_log`` prints where no logger is
    there yet. ``print_log`` is replaced in ``mmengine.logging`` only: modules imported before keep the original."""
    warnings.filterwarnings("ignore", message=rf".*({NOISE.pattern})")
    printing = mmengine_logging.print_log
    if hasattr(printing, "__wrapped__"):
        return

    @functools.wraps(printing)
    def print_log(msg, *args, **kwargs) -> None:
        if not NOISE.search(str(msg)):
            printing(msg, *args, **kwargs)

    mmengine_logging.print_log = print_log


silence_imports()
