"""Images that cannot be read: what stands in for them, and the list of them."""

import json
import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import NamedTuple, TypeVar

from densessl.data.decode import UnreadableImage
from densessl.data.rng import keyed_rng
from densessl.errors import DataError

FILE = "bad_images.jsonl"  # in the work folder of a run
REPLACED, GREY = "another image", "grey"  # what was trained on or evaluated instead
TRIES = 32  # replacements of one image before the data set counts as unreadable

Made = TypeVar("Made")


class BadImage(NamedTuple):
    """An image that could not be read.

    Attributes:
        path: its file.
        reason: what is wrong with it.
        epoch, index: when it was asked for, and which image of the data set it is.
    """

    path: str
    reason: str
    epoch: int
    index: int


def read_or_replace(
    make: Callable[[int], Made], seed: int, epoch: int, index: int, length: int
) -> tuple[Made, tuple[BadImage, ...]]:
    """Make the sample of an image or, where it cannot be read, of another one.

    The other one is drawn from (seed, epoch, index): it is the same for any number of workers and after resuming.

    Args:
        make: the sample of an index; raises UnreadableImage.
        length: number of images to draw from.

    Returns:
        The sample, and the images that could not be read.

    Raises:
        DataError: none of the first 32 images drawn can be read.
    """
    bad: list[BadImage] = []
    others = keyed_rng(seed, "bad image", epoch, index)
    place = index
    for _ in range(TRIES):
        try:
            return make(place), tuple(bad)
        except UnreadableImage as error:
            bad.append(BadImage(error.path, error.reason, epoch, place))
            place = int(others.integers(length))
    raise DataError(
        f"none of {TRIES} images drawn one after the other can be read; the last: {bad[-1].path}: {bad[-1].reason}"
    )


def record(file: str | Path, bad: Iterable[BadImage], instead: str = REPLACED, step: int | None = None) -> None:
    """Append bad images to a list, a JSON object a line. Several processes may append at the same time.

    Args:
        instead: what was used in their place, ``REPLACED`` or ``GREY``.
        step: iteration of the run; None where a loader's worker, which does not know it, writes.
    """
    lines = "".join(json.dumps({**each._asdict(), "instead": instead, "step": step}) + "\n" for each in bad)
    Path(file).parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        os.write(descriptor, lines.encode("ascii"))
    finally:
        os.close(descriptor)


def recorded(file: str | Path) -> dict[str, dict]:
    """The lines of a list of bad images by their paths; empty if there is no list. Broken lines are left out."""
    found: dict[str, dict] = {}
    if not os.path.isfile(file):
        return found
    with open(file, encoding="utf-8", errors="replace") as lines:
        for line in lines:
            try:
                entry = json.loads(line)
                found.setdefault(entry["path"], entry)
            except (ValueError, KeyError, TypeError):
                continue
    return found
