"""Geometric operations on an image that keep track of where its pixels come from.

Each takes a :class:`Placed` and returns a new one whose map describes exactly what was done to the pixels, including
rounding. No other part of the data path stores crop coordinates.
"""

from typing import Literal, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

from densessl.geometry import affine
from densessl.wording import choose

Interpolation = Literal["bilinear", "bicubic"]
_PIL = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}


class Placed(NamedTuple):
    """An image and its affine map to the source image.

    Attributes:
        image: (h, w, 3) uint8, upright RGB.
        to_source: (2, 3) float64, maps pixel coordinates of this image to those of the source.
        source_size: (width, height) of the source: the upright file at full resolution.
    """

    image: np.ndarray
    to_source: np.ndarray
    source_size: tuple[int, int]

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) of the image."""
        return self.image.shape[1], self.image.shape[0]

    def moved(self, image: np.ndarray, step: np.ndarray) -> "Placed":
        """The result of an operation that made ``image``; ``step`` (2, 3) maps its pixels to those of this image."""
        return Placed(image, affine.compose(self.to_source, step), self.source_size)


def crop(placed: Placed, left: int, top: int, width: int, height: int) -> Placed:
    """Cut out a box, given in pixels of the image.

    Raises:
        ValueError: the box is not inside the image; call :func:`pad` first.
    """
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > placed.size[0] or top + height > placed.size[1]:
        raise ValueError(f"crop box {(left, top, width, height)} is not inside an image of {placed.size}")
    return placed.moved(placed.image[top : top + height, left : left + width], affine.crop(left, top))


def pad(placed: Placed, left: int, top: int, right: int, bottom: int, fill: int | tuple[int, int, int] = 0) -> Placed:
    """Add a border of constant colour; the widths are in pixels."""
    width, height = placed.size
    image = np.empty((top + height + bottom, left + width + right, 3), np.uint8)
    image[:] = fill
    image[top : top + height, left : left + width] = placed.image
    return placed.moved(image, affine.crop(-left, -top))


def resize(
    placed: Placed, size: tuple[int, int], interpolation: Interpolation = "bilinear", backend: str = "fast"
) -> Placed:
    """Resize to ``size`` = (width, height) with antialiasing.

    Args:
        backend: ``"pil"`` equals Pillow bit for bit. ``"fast"`` is torch's vectorised uint8 filter, about 8 times as
            fast: the same kernel in another fixed-point arithmetic, within 1/255 of Pillow for bilinear and 2/255 for
            bicubic, and 0.03/255 on average (tests/data_path/test_placed.py).

    Raises:
        SettingError: ``backend`` is unknown.
    """
    if choose("resample backend", backend, ("fast", "pil")) == "pil":
        image = np.asarray(Image.fromarray(np.ascontiguousarray(placed.image)).resize(size, _PIL[interpolation]))
    else:
        pixels = torch.from_numpy(_writeable(placed.image))  # the vectorised kernel needs dense channels-last rows
        # Permuted after the batch dimension is added; otherwise torch assumes channels-first and transposes twice.
        output = F.interpolate(
            pixels[None].permute(0, 3, 1, 2), size[::-1], mode=interpolation, align_corners=False, antialias=True
        )
        image = output[0].permute(1, 2, 0).contiguous().numpy()
    return placed.moved(image, affine.resize(placed.size, size))


def central_square(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the largest central square of an image of ``size`` = (width, height)."""
    side = min(size)
    return (size[0] - side) // 2, (size[1] - side) // 2, side, side


def hflip(placed: Placed) -> Placed:
    """Mirror left-right."""
    # Copied by torch: NumPy takes 20 times as long to reverse rows of three bytes, here or when views are stacked.
    pixels = torch.from_numpy(_writeable(placed.image)).flip(1)
    return placed.moved(pixels.numpy(), affine.hflip(placed.size[0]))


def vflip(placed: Placed) -> Placed:
    """Mirror top-bottom."""
    return placed.moved(placed.image[::-1], affine.vflip(placed.size[1]))


def warp(
    placed: Placed, step: np.ndarray, size: tuple[int, int], fill: tuple[int, int, int] = (124, 116, 104)
) -> Placed:
    """Resample bilinearly through an affine map, without antialiasing; meant for maps that do not shrink the image.

    Args:
        step: (2, 3), maps pixels of the result to pixels of ``placed``.
        size: (width, height) of the result.
        fill: colour outside ``placed``. The default is the ImageNet mean, which normalises to about zero.
    """
    # Not Pillow's transform, which truncates interpolated values instead of rounding them.
    width, height = size
    centres = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) + 0.5
    grid = torch.from_numpy(2 * affine.apply(step, centres) / np.array(placed.size) - 1)[None].float()
    colour = torch.tensor(fill, dtype=torch.float32)
    pixels = (torch.from_numpy(_writeable(placed.image)).float() - colour).permute(2, 0, 1)[None]
    output = F.grid_sample(pixels, grid, align_corners=False)[0].permute(1, 2, 0) + colour
    return placed.moved(output.round_().clamp_(0, 255).byte().numpy(), step)


def rotate(placed: Placed, degrees: float) -> Placed:
    """Rotate counter-clockwise about the centre, keeping the size."""
    return warp(placed, affine.rotate(degrees, placed.size), placed.size)


def _writeable(image: np.ndarray) -> np.ndarray:
    """The image if it is contiguous and writeable, as torch requires, otherwise a copy."""
    return image if image.flags.c_contiguous and image.flags.writeable else image.copy()
