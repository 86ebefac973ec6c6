"""One view's cells as another view of the same image sees them."""

import torch
from torch import Tensor

from densessl.geometry.view import ViewGeometry, to_view, unit_cells

AXIS_TOLERANCE = 1e-6  # of the length of a view's side


def relative_cells(
    first: ViewGeometry, second: ViewGeometry, first_grid: tuple[int, int], second_grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where the second view's cells lie in the first view, and how large they are there, counted in its cells.

    Both follow from the geometry alone: flips of either view need no bookkeeping, views may be of any size and shape.

    Args:
        first, second: geometry of N images' views.
        first_grid, second_grid: (height, width) in cells of the views.

    Returns:
        points (N, P, 2), x and y of the centres, row-major, the first view's own centres being whole numbers from 0;
        scale (N, 2), width and height, positive. (SIM's released code has the same numbers from crop boxes; fact sheet
        of SIM, section 1.1.1.) For turned views scale means nothing: see :func:`axis_aligned`.
    """
    sides, origin = _in_units_of(first, second)
    (height, width), (rows, columns) = first_grid, second_grid
    x, y = (unit_cells(second_grid, sides) @ sides.mT + origin[:, None]).unbind(-1)
    scale = [sides[:, 0, 0].abs() * (width / columns), sides[:, 1, 1].abs() * (height / rows)]
    return torch.stack([x * width - 0.5, y * height - 0.5], -1), torch.stack(scale, -1)


def axis_aligned(first: ViewGeometry, second: ViewGeometry) -> Tensor:
    """Whether the sides of each image's two views are parallel, (N,) bool: the views are turned by the same angle, or
    not at all."""
    sides = _in_units_of(first, second)[0].abs()
    return sides[:, 0, 1] + sides[:, 1, 0] < AXIS_TOLERANCE * sides.amax((1, 2))


def _in_units_of(first: ViewGeometry, second: ViewGeometry) -> tuple[Tensor, Tensor]:
    """The second view's sides, right and down, as columns (N, 2, 2), and its first corner (N, 2), where the first view
    is the unit square."""
    corner, size = second.matrix[:, :, 2], second.view_size
    ends = [corner, *(corner + second.matrix[:, :, axis] * size[:, axis, None] for axis in (0, 1))]
    points = to_view(first, torch.stack(ends, 1)) / first.view_size[:, None]
    return (points[:, 1:] - points[:, :1]).mT, points[:, 0]
