"""Distances between the cells of two views in their source image (PixPro).

PixPro measures distances in *normalised* coordinates: each source axis divided by its length, with inclusive ends
(pixel ``j`` lies at ``j / (W - 1)``). Its official record is a box ``[x1, y1, x2, y2]`` for each view, in which a flip
swaps the ends. Here a *frame* takes its place: the (N, 2, 3) affine map from the unit square of a view to these
coordinates, which also holds for rotated views.
"""

from collections.abc import Callable

import torch
from torch import Tensor

from densessl.geometry.view import ViewGeometry, unit_cells


def pixpro_frame(geometry: ViewGeometry) -> Tensor:
    """Frame of each view in PixPro's normalised coordinates.

    The official ends are the *centres* of the first and last source pixel of the crop, in pixel indices, divided by
    ``W - 1``. For any affine view, that is: inset half a source pixel along each view axis, map to the source, shift by
    half a pixel, divide. For sources one pixel wide, where the official form divides by zero, ``W - 1`` counts as 1.

    Returns:
        (N, 2, 3), unit square of the view to normalised source coordinates.
    """
    linear, shift = geometry.matrix[:, :, :2], geometry.matrix[:, :, 2]
    inset = 0.5 / linear.norm(dim=1)  # (N, 2): half a source pixel in view pixels, along x and y of the view
    origin = (linear @ inset[..., None])[..., 0] + shift - 0.5
    span = linear * (geometry.view_size - 2 * inset)[:, None, :]
    scale = 1 / (geometry.source_size - 1).clamp(min=1)
    return torch.cat([span, origin[..., None]], -1) * scale[..., None]


def edge_frame(geometry: ViewGeometry) -> Tensor:
    """Frame (N, 2, 3) of each view in pixel-edge coordinates divided by the source size, without PixPro's half-pixel
    convention."""
    span = geometry.matrix[:, :, :2] * geometry.view_size[:, None, :]
    return torch.cat([span, geometry.matrix[:, :, 2:]], -1) / geometry.source_size[..., None]


FRAMES: dict[str, Callable[[ViewGeometry], Tensor]] = {"official": pixpro_frame, "edges": edge_frame}


def frame_to_coords(frame: Tensor) -> Tensor:
    """Official PixPro records (N, 4), [x1, y1, x2, y2], of axis-aligned frames; a flipped view has x1 > x2."""
    return torch.cat([frame[:, :, 2], frame[:, :, 2] + frame[:, :, 0] + frame[:, :, 1]], -1)


def coords_to_frame(coords: Tensor) -> Tensor:
    """Frames (N, 2, 3) of official PixPro records (N, 4)."""
    start, end = coords[:, :2], coords[:, 2:]
    return torch.cat([torch.diag_embed(end - start), start[..., None]], -1)


def frame_cells(frame: Tensor, grid: tuple[int, int]) -> tuple[Tensor, Tensor]:
    """Centres (N, S, 2) of the cells of a (height, width) grid, row-major, and the length (N,) of a cell's diagonal,
    sqrt(|ex|² + |ey|²) with ex, ey the sides of a cell."""
    centres = unit_cells(grid, frame) @ frame[:, :, :2].mT + frame[:, None, :, 2]
    sides = frame[:, :, :2] / frame.new_tensor([grid[1], grid[0]])
    return centres, sides.flatten(1).norm(dim=1)


def cell_distances(
    frame_q: Tensor, frame_k: Tensor, grid_q: tuple[int, int], grid_k: tuple[int, int] | None = None
) -> Tensor:
    """Distances between all pairs of cells, in units of the larger cell diagonal of the two views (PixPro, section
    3.1).

    Args:
        frame_q, frame_k: (N, 2, 3) frames of the two views.
        grid_q, grid_k: (height, width) of their feature maps; ``grid_k`` defaults to ``grid_q``.

    Returns:
        (N, S_q, S_k), in at least fp32, without gradient.
    """
    with torch.no_grad(), torch.autocast(frame_q.device.type, enabled=False):
        (centre_q, diagonal_q), (centre_k, diagonal_k) = (
            frame_cells(frame.to(torch.promote_types(frame.dtype, torch.float32)), grid)
            for frame, grid in ((frame_q, grid_q), (frame_k, grid_k or grid_q))
        )
        dx = centre_q[:, :, None, 0] - centre_k[:, None, :, 0]
        dy = centre_q[:, :, None, 1] - centre_k[:, None, :, 1]
        return torch.hypot(dx, dy) / torch.maximum(diagonal_q, diagonal_k)[:, None, None]


def distance_mask(
    frame_q: Tensor,
    frame_k: Tensor,
    grid_q: tuple[int, int],
    grid_k: tuple[int, int] | None = None,
    threshold: float = 0.7,
) -> Tensor:
    """PixPro's positive pairs (N, S_q, S_k) bool: cells at distances strictly below ``threshold``.

    0.7 is slightly less than sqrt(1/2), the distance between adjacent square cells in units of their diagonal.
    """
    return cell_distances(frame_q, frame_k, grid_q, grid_k) < threshold
