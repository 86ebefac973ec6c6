"""Geometric operations on an image that carry along where its pixels come from.

Each takes a :class:`Placed` and returns a new one whose map is exact for what was done to the pixels, rounding
included. Nothing else in the data path remembers a crop.
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
    """An image and where it lies.

    Attributes:
        image: (h, w, 3) uint8, upright RGB.
        to_source: (2, 3) float64, pixel of this image to pixel of the source.
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
        """The result of an operation with pixels ``image`` and map ``step`` (new pixel to old pixel)."""
        return Placed(image, affine.compose(self.to_source, step), self.source_size)


def crop(placed: Placed, left: int, top: int, width: int, height: int) -> Placed:
    """Cut out a box inside the image, in its pixels.

    Raises:
        ValueError: when the box leaves the image; :func:`pad` first.
    """
    if left < 0 or top < 0 or width < 1 or height < 1 or left + width > placed.size[0] or top + height > placed.size[1]:
        raise ValueError(f"crop box {(left, top, width, height)} is not inside an image of {placed.size}")
    return placed.moved(placed.image[top : top + height, left : left + width], affine.crop(left, top))


def pad(placed: Placed, left: int, top: int, right: int, bottom: int, fill: int | tuple[int, int, int] = 0) -> Placed:
    """Add a border of constant colour."""
    width, height = placed.size
    image = np.empty((top + height + bottom, left + width + right, 3), np.uint8)
    image[:] = fill
    image[top : top + height, left : left + width] = placed.image
    return placed.moved(image, affine.crop(-left, -top))


def resize(
    placed: Placed, size: tuple[int, int], interpolation: Interpolation = "bilinear", backend: str = "fast"
) -> Placed:
    """Antialiased resampling to ``size`` = (width, height).

    Args:
        backend: ``"pil"`` is Pillow's filter bit for bit; ``"fast"`` is torch's vectorised uint8 filter, the same
            kernel in another fixed-point arithmetic: within 1/255 of Pillow's for bilinear and 2/255 for bicubic, and
            0.03/255 on average (tests/data_path/test_placed.py), at about 8 times the speed.
    """
    if choose("resample backend", backend, ("fast", "pil")) == "pil":
        image = np.asarray(Image.fromarray(np.ascontiguousarray(placed.image)).resize(size, _PIL[interpolation]))
    else:
        pixels = torch.from_numpy(_writeable(placed.image))  # the vectorised kernel wants dense channels-last rows
        # Permuted after the new dimension, not before: else torch takes it for channels-first and transposes twice.
        output = F.interpolate(
            pixels[None].permute(0, 3, 1, 2), size[::-1], mode=interpolation, align_corners=False, antialias=True
        )
        image = output[0].permute(1, 2, 0).contiguous().numpy()
    return placed.moved(image, affine.resize(placed.size, size))


def central_square(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of the largest central square of an image of (width, height)."""
    side = min(size)
    return (size[0] - side) // 2, (size[1] - side) // 2, side, side


def hflip(placed: Placed) -> Placed:
    """Mirror left-right."""
    # Copied by torch: NumPy takes 20 times as long over rows of three bytes in reverse, now or when views are stacked.
    pixels = torch.from_numpy(_writeable(placed.image)).flip(1)
    return placed.moved(pixels.numpy(), affine.hflip(placed.size[0]))


def vflip(placed: Placed) -> Placed:
    """Mirror top-bottom."""
    return placed.moved(placed.image[::-1], affine.vflip(placed.size[1]))


def warp(
    placed: Placed, step: np.ndarray, size: tuple[int, int], fill: tuple[int, int, int] = (124, 116, 104)
) -> Placed:
    """Resample bilinearly through any affine map, without antialiasing: for maps that do not shrink.

    Args:
        step: (2, 3) new pixel to pixel of ``placed``.
        size: (width, height) of the result.
        fill: colour of what lies outside; the ImageNet mean by default, which normalises to about zero.
    """
    # Not Pillow's transform, which cuts the interpolated value off instead of rounding it.
    width, height = size
    centres = np.stack(np.meshgrid(np.arange(width), np.arange(height)), -1) + 0.5
    grid = torch.from_numpy(2 * affine.apply(step, centres) / np.array(placed.size) - 1)[None].float()
    colour = torch.tensor(fill, dtype=torch.float32)
    pixels = (torch.from_numpy(_writeable(placed.image)).float() - colour).permute(2, 0, 1)[None]
    output = F.grid_sample(pixels, grid, align_corners=False)[0].permute(1, 2, 0) + colour
    return placed.moved(output.round_().clamp_(0, 255).byte().numpy(), step)


def rotate(placed: Placed, degrees: float) -> Placed:
    """Turn counter-clockwise about the centre, keeping the size."""
    return warp(placed, affine.rotate(degrees, placed.size), placed.size)


def _writeable(image: np.ndarray) -> np.ndarray:
    """The image, or a copy of one that is a window of a larger array or read-only, which torch does not take."""
    return image if image.flags.c_contiguous and image.flags.writeable else image.copy()
