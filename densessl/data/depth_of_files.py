"""One range for the samples of a data set whose images have more than 8 bits."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Literal

import numpy as np

from densessl.data.decode import Reading, UnreadableImage, open_image
from densessl.data.depth import STRETCH, DepthRange, estimate
from densessl.errors import SettingError

DepthSetting = Literal["auto", "stretch", "file"] | tuple[float, float]
LOOKED_AT = 32  # images, evenly spaced
# Suffixes of formats that can hold more than 8 bits.
DEEP = (".avif", ".heic", ".heif", ".j2k", ".jp2", ".jpx", ".pfm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff")


def depth_of_files(
    path: Callable[[int], Path], length: int, setting: str | DepthRange, reading: Reading
) -> DepthRange | None:
    """What becomes black and white in the images of a data set that have more than 8 bits.

    Args:
        path: of an image by its index.
        length: number of images.
        setting: "auto", "stretch", "file", or a range; see :class:`densessl.data.dataset.ImageDataset`.

    Returns:
        None: each file's own range, or no image of those looked at has more than 8 bits.
    """
    if isinstance(setting, DepthRange):
        return setting
    if setting == "file":
        return None
    places = np.unique(np.linspace(0, length - 1, min(length, LOOKED_AT)).astype(int))
    return estimate(_samples(map(path, map(int, places)), reading), STRETCH if setting == "stretch" else None)


def checked_depth(setting: DepthSetting) -> str | DepthRange:
    """Return a setting that fits, two numbers as a range.

    Raises:
        SettingError: it is something else.
    """
    if setting in ("auto", "stretch", "file"):
        return setting
    if isinstance(setting, list | tuple) and len(setting) == 2 and setting[0] < setting[1]:
        return DepthRange(*map(float, setting))
    raise SettingError(
        f"dataset.depth_range is {setting!r}, expected 'auto', 'stretch', 'file' or two numbers (black, white), "
        "the lower first"
    )


def _samples(paths: Iterator[Path], reading: Reading) -> Iterator[np.ndarray]:
    for path in paths:
        if os.path.splitext(path)[1].lower() in DEEP:
            try:
                samples = open_image(path, reading).samples()
            except UnreadableImage:
                continue  # told when it is trained on
            if samples is not None:
                yield samples
