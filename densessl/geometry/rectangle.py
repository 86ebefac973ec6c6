"""Rectangles exchanged between the images of a batch (RegionCL, Xu et al., ECCV 2022, section 3.2).

One rectangle serves all images. It measures whole *cells* of a feature map, squares of ``cell`` pixels: a cell of the
composite's map is then either of the pasted image or of the canvas.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densessl.errors import SettingError


class Rectangle(NamedTuple):
    """Columns ``left`` to ``left + width`` and rows ``top`` to ``top + height``, the ends not included, of an image
    (pixels) or of its map (cells)."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns, to index (..., H, W)."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class RectangleDraws(NamedTuple):
    """The four integers a rectangle is made of, in the order of the official code's draws.

    Attributes:
        width, height: in cells.
        left, top: in pixels, anywhere in the view: :func:`place_rectangle` rounds and clamps them.
    """

    width: int
    height: int
    left: int
    top: int


def draw_rectangle(
    rng: np.random.Generator, view: tuple[int, int], cell: int, lower: int, upper: int, whole_cells: bool = False
) -> RectangleDraws:
    """Draw a rectangle: width and height uniform in ``lower`` to ``upper - 1`` cells.

    Args:
        view: (width, height) in pixels.
        cell: side of a cell in pixels.
        whole_cells: draw the start among the cells from 0 to the last legal one *exclusive* (0 if that is all), as
            the open port of RegionCL-D does, instead of among the pixels of the view, as RegionCL's code does.

    Raises:
        ValueError: sizes are empty, or the largest leaves no cell of canvas beside it.
    """
    cells = [side // cell for side in view]
    if not 0 < lower < upper <= min(cells):
        raise SettingError(
            f"lower={lower} and upper={upper} cells of {cell} pixels: a rectangle has lower to upper - 1 cells a side, "
            f"at least 1 and less than the {cells[0]} x {cells[1]} cells of a view of {view[0]} x {view[1]} pixels"
        )
    width, height = (int(rng.integers(lower, upper)) for _ in range(2))
    if whole_cells:
        starts = [cell * int(rng.integers(0, max(1, n - size))) for n, size in zip(cells, (width, height))]
    else:
        starts = [int(rng.integers(0, side)) for side in view]
    return RectangleDraws(width, height, *starts)


def place_rectangle(draws: RectangleDraws, view: tuple[int, int], cell: int, aligned: bool = False) -> Rectangle:
    """The rectangle in pixels: the start rounded to a multiple of ``cell``, halves to the even one, then clamped.

    Args:
        view: (width, height) in pixels.
        aligned: clamp to the last start from which the rectangle covers whole cells of the view. Otherwise to ``side -
            1 - size`` as the official code does, which is *not* a multiple of the cell: with 224 pixels and cells of
            32 that moves 50, 64 and 79 % of the starts of sizes 96, 128 and 160 off the grid.

    Raises:
        ValueError: the rectangle is not smaller than the view.
    """
    starts, sizes = [], [draws.width * cell, draws.height * cell]
    for start, size, side in zip((draws.left, draws.top), sizes, view):
        if size >= side:
            raise SettingError(
                f"a rectangle of {sizes[0]} x {sizes[1]} pixels is not smaller than its view of {view[0]} x {view[1]}"
            )
        last = side // cell * cell - size if aligned else side - 1 - size
        starts.append(min(cell * round(start / cell), last))
    return Rectangle(*starts, *sizes)


def rectangle_cells(rectangle: Rectangle, cell: int) -> Rectangle:
    """The cells of a map taken for a rectangle of pixels: the start rounded down, as the official code does. Where the
    start is no multiple of ``cell``, they lie up to a cell left of and above the pixels."""
    return Rectangle(*(value // cell for value in rectangle))


def rectangle_mask(rectangle: Rectangle, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """(1, H, W) bool, True inside; ``size`` is (H, W)."""
    mask = torch.zeros(1, *size, dtype=torch.bool, device=device)
    mask[:, *rectangle.slices] = True
    return mask


def swap_rectangle(images: Tensor, partner: Tensor, rectangle: Rectangle) -> Tensor:
    """Composites: image i with the rectangle of image ``partner[i]`` in the place of its own.

    Args:
        images: (N, C, H, W), left as they are.
        partner: (N,) rows.
        rectangle: in pixels.

    Returns:
        (N, C, H, W), in the memory layout of ``images``.
    """
    rows, columns = rectangle.slices
    composite = images.clone()
    composite[:, :, rows, columns] = images[:, :, rows, columns][partner]
    return composite
