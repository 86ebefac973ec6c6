"""Images that cannot be read, and what stands in for them."""

from collections.abc import Callable
from typing import NamedTuple, TypeVar

from densessl.data.decode import UnreadableImage
from densessl.data.rng import keyed_rng
from densessl.errors import DataError

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
