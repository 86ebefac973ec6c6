"""Sine and cosine position embeddings of grids, and of the cells of one view in the coordinates of another."""

import torch
import torch.nn.functional as F
from torch import Tensor


def waves(values: Tensor, dim: int) -> Tensor:
    """``[sin(v * w_k), cos(v * w_k)]`` of values (...), at dim / 2 frequencies ``w_k = 10000 ** (-2k / dim)``.

    Returns:
        (..., dim), in at least fp32.
    """
    values = values.to(torch.promote_types(values.dtype, torch.float32))
    exponent = torch.arange(dim // 2, dtype=torch.float64, device=values.device) / (dim // 2)
    angles = values[..., None] * (10000.0**-exponent).to(values.dtype)
    return torch.cat([angles.sin(), angles.cos()], -1)


def point_embedding(points: Tensor, dim: int) -> Tensor:
    """Embedding (..., dim) of points (..., 2), given as (x, y) in cells with cell centres at whole numbers: the waves
    of y, then those of x (SIM's order; MAE's released code has x first). ``dim`` must be a multiple of 4."""
    return waves(points.flip(-1), dim // 2).flatten(-2)


def grid_points(grid: tuple[int, int], like: Tensor) -> Tensor:
    """(x, y) of the cells of a (height, width) grid, row-major, (height*width, 2)."""
    height, width = grid
    y, x = (torch.arange(n, dtype=like.dtype, device=like.device) for n in (height, width))
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)


def relative_embedding(points: Tensor, scale: Tensor, dim: int) -> Tensor:
    """SIM's embedding of the cells of one view in the coordinates of another (released code, ``util/pos_embed.py``).

    Args:
        points: (N, P, 2) centres of the cells, in cells of the other view; see :func:`point_embedding`.
        scale: (N, 2) width and height of a cell, in cells of the other view.
        dim: half the width of the embedding.

    Returns:
        (N, P, 2 dim): the waves of y, x, 10 ln(scale of y), 10 ln(scale of x), dim / 2 of each.
    """
    scales = (10 * scale.log())[:, None].expand_as(points)
    y_first = torch.cat([points.flip(-1), scales.flip(-1)], -1)
    return waves(y_first, dim // 2).flatten(-2)


def resized_table(table: Tensor, grid: tuple[int, int], class_token: bool) -> Tensor:
    """Resample a table of position embeddings for another grid, bicubically as in ViTDet; timm's is antialiased.

    Args:
        table: (1, [1 +] side * side, C) of a square grid, with the row of the class token first if there is one.
        grid: the new (height, width).
        class_token: whether there is a class token.

    Returns:
        (1, [1 +] height * width, C); the table itself where the grid is the same.
    """
    first, cells = table[:, : int(class_token)], table[:, int(class_token) :]
    side = round(cells.shape[1] ** 0.5)
    if grid == (side, side):
        return table
    maps = cells.unflatten(1, (side, side)).permute(0, 3, 1, 2)
    maps = F.interpolate(maps, size=grid, mode="bicubic", align_corners=False)
    return torch.cat([first, maps.flatten(2).mT], 1)
