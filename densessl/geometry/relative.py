"""One view's cells as another view of the same image sees them."""

from torch import Tensor

from densessl.geometry.view import ViewGeometry, cell_centres, to_source, to_view

AXIS_TOLERANCE = 1e-6  # of the length of a cell's side


def relative_cells(
    first: ViewGeometry, second: ViewGeometry, first_grid: tuple[int, int], second_grid: tuple[int, int]
) -> tuple[Tensor, Tensor]:
    """Where the second view's cells lie in the first view, and how large they are there, counted in its cells.

    Both count from the geometry alone: flips of either view need no bookkeeping, views may be of any size and shape.

    Args:
        first, second: geometry of N images' views.
        first_grid, second_grid: (height, width) in cells of the views.

    Returns:
        points (N, P, 2), x and y of the centres, row-major, the first view's own centres being whole numbers from 0;
        scale (N, 2), width and height, positive. (SIM's released code has the same numbers from crop boxes; fact sheet
        of SIM, section 1.1.1.) For turned views neither scale means anything: see :func:`axis_aligned`.
    """
    cells = first.matrix.new_tensor(first_grid[::-1])
    per_pixel = (cells / first.view_size)[:, None]
    points = to_view(first, cell_centres(second, second_grid)) * per_pixel - 0.5
    return points, _steps(first, second, first_grid, second_grid).diagonal(dim1=1, dim2=2).abs()


def axis_aligned(first: ViewGeometry, second: ViewGeometry) -> Tensor:
    """Whether the sides of each image's two views are parallel, (N,) bool: the views are turned by the same angle, or
    not at all."""
    steps = _steps(first, second, (1, 1), (1, 1)).abs()
    lengths = steps.amax((1, 2))
    return (steps[:, 0, 1] + steps[:, 1, 0]) < AXIS_TOLERANCE * lengths


def _steps(
    first: ViewGeometry, second: ViewGeometry, first_grid: tuple[int, int], second_grid: tuple[int, int]
) -> Tensor:
    """Steps of one cell to the right and one down in the second view, columns of (N, 2, 2), in the first's cells."""
    height, width = second_grid
    corners = second.matrix.new_tensor([[0, 0], [1 / width, 0], [0, 1 / height]]) * second.view_size[:, None]
    ends = to_view(first, to_source(second, corners))
    in_cells = ends * (first.matrix.new_tensor(first_grid[::-1]) / first.view_size)[:, None]
    return (in_cells[:, 1:] - in_cells[:, :1]).mT
