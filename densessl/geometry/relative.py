"""The cells of one view in the coordinates of another view of the same image."""

import torch
from torch import Tensor

from densessl.geometry.view import ViewGeometry, to_view, unit_cells

AXIS_TOLERANCE = 1e-6  # relative to the side of a view


def relative_cells(
    first: ViewGeometry, second: ViewGeometry, first_grid: tuple[int, int], second_grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Positions and size of the second view's cells in units of the first view's cells.

    Both follow from the geometry alone: flips of either view need no bookkeeping, and views may have any size and
    shape.

    Args:
        first, second: geometry of the two views of N images.
        first_grid, second_grid: (height, width) of the views in cells.

    Returns:
        The centres (N, P, 2) as (x, y), row-major, in coordinates in which the centres of the first view's cells are
        whole numbers from 0; and the width and height (N, 2) of a cell, positive. SIM's released code
        (``util/pos_embed.py``) computes the same numbers from crop boxes. If the views are rotated against each other,
        the size has no meaning; see :func:`axis_aligned`.
    """
    sides, origin = _in_units_of(first, second)
    (height, width), (rows, columns) = first_grid, second_grid
    x, y = (unit_cells(second_grid, sides) @ sides.mT + origin[:, None]).unbind(-1)
    scale = [sides[:, 0, 0].abs() * (width / columns), sides[:, 1, 1].abs() * (height / rows)]
    return torch.stack([x * width - 0.5, y * height - 0.5], -1), torch.stack(scale, -1)


def axis_aligned(first: ViewGeometry, second: ViewGeometry) -> Tensor:
    """Whether the sides of the two views are parallel, (N,) bool: both are rotated by the same angle, or neither is."""
    sides = _in_units_of(first, second)[0].abs()
    return sides[:, 0, 1] + sides[:, 1, 0] < AXIS_TOLERANCE * sides.amax((1, 2))


def _in_units_of(first: ViewGeometry, second: ViewGeometry) -> tuple[Tensor, Tensor]:
    """The second view's sides, right and down, as columns (N, 2, 2), and its first corner (N, 2), in coordinates in
    which the first view is the unit square."""
    corner, size = second.matrix[:, :, 2], second.view_size
    ends = [corner, *(corner + second.matrix[:, :, axis] * size[:, axis, None] for axis in (0, 1))]
    points = to_view(first, torch.stack(ends, 1)) / first.view_size[:, None]
    return (points[:, 1:] - points[:, :1]).mT, points[:, 0]
