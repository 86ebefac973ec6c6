"""Rectangles exchanged between the images of a batch (RegionCL, Xu et al., ECCV 2022, section 3.2).

All images share one rectangle. Its sides are whole *cells* of a feature map, squares of ``cell`` pixels, so that each
cell of the composite's map belongs either to the pasted image or to the canvas.
"""

from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densessl.errors import SettingError


class Rectangle(NamedTuple):
    """Columns from ``left`` to ``left + width`` and rows from ``top`` to ``top + height``, ends excluded, in pixels of
    an image or cells of its map."""

    left: int
    top: int
    width: int
    height: int

    @property
    def slices(self) -> tuple[slice, slice]:
        """Rows and columns as slices for an index into (..., H, W)."""
        return slice(self.top, self.top + self.height), slice(self.left, self.left + self.width)


class RectangleDraws(NamedTuple):
    """The four integers of a rectangle, in the order in which the official code draws them.

    Attributes:
        width, height: sides in cells.
        left, top: start in pixels, anywhere in the view; :func:`place_rectangle` rounds and clamps it.
    """

    width: int
    height: int
    left: int
    top: int


def draw_rectangle(
    rng: np.random.Generator, view: tuple[int, int], cell: int, lower: int, upper: int, whole_cells: bool = False
) -> RectangleDraws:
    """Draw a rectangle with uniform width and height from ``lower`` to ``upper - 1`` cells.

    Args:
        rng: source of random numbers.
        view: (width, height) of the view in pixels.
        cell: side of a cell in pixels.
        lower, upper: range of the sides in cells, the upper end excluded.
        whole_cells: draw the start among the cells from 0 to the last possible one, *excluded* (or 0 if it is the only
            one), as in the open port of RegionCL-D. Otherwise draw it among the pixels of the view, as in RegionCL's
            code.

    Raises:
        SettingError: the range of sides is empty, or the largest side leaves no cell of canvas.
    """
    cells = [side // cell for side in view]
    if not 0 < lower < upper <= min(cells):
        raise SettingError(
            f"lower={lower} and upper={upper} cells of {cell} pixels: a rectangle has lower to upper - 1 cells per "
            f"side, at least 1 and less than the {cells[0]} x {cells[1]} cells of a view of {view[0]} x {view[1]} "
            "pixels"
        )
    width, height = (int(rng.integers(lower, upper)) for _ in range(2))
    if whole_cells:
        starts = [cell * int(rng.integers(0, max(1, n - size))) for n, size in zip(cells, (width, height))]
    else:
        starts = [int(rng.integers(0, side)) for side in view]
    return RectangleDraws(width, height, *starts)


def place_rectangle(draws: RectangleDraws, view: tuple[int, int], cell: int, aligned: bool = False) -> Rectangle:
    """The rectangle in pixels: its start is rounded to a multiple of ``cell``, halves to the even one, and then
    clamped.

    Args:
        draws: the integers from :func:`draw_rectangle`.
        view: (width, height) of the view in pixels.
        cell: side of a cell in pixels.
        aligned: clamp to the last start from which the rectangle covers whole cells of the view. Otherwise clamp to
            ``side - 1 - size`` as in the official code, which is *not* a multiple of the cell: with 224 pixels and
            cells of 32 it moves 50, 64 and 79 % of the starts of sizes 96, 128 and 160 off the grid.

    Raises:
        SettingError: the rectangle is not smaller than the view.
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
    """The cells of a map that stand for a rectangle of pixels. As in the official code the start is rounded down: if it
    is not a multiple of ``cell``, the cells lie up to one cell left of and above the pixels."""
    return Rectangle(*(value // cell for value in rectangle))


def rectangle_mask(rectangle: Rectangle, size: tuple[int, int], device: torch.device | None = None) -> Tensor:
    """Mask (1, H, W) bool, True inside the rectangle; ``size`` is (H, W)."""
    mask = torch.zeros(1, *size, dtype=torch.bool, device=device)
    mask[:, *rectangle.slices] = True
    return mask


def swap_rectangle(images: Tensor, partner: Tensor, rectangle: Rectangle) -> Tensor:
    """Composites: image i, with its rectangle replaced by that of image ``partner[i]``.

    Args:
        images: (N, C, H, W), not changed.
        partner: (N,) batch rows.
        rectangle: rectangle in pixels.

    Returns:
        (N, C, H, W), in the memory layout of ``images``.
    """
    rows, columns = rectangle.slices
    composite = images.clone()
    composite[:, :, rows, columns] = images[:, :, rows, columns][partner]
    return composite
