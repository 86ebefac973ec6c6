"""ViewGeometry: where every pixel of a view lies in its source image, and the maps that follow from it.

Coordinates are pixel-edge (see :mod:`densessl.geometry.affine`): a view of width ``w`` spans ``[0, w]``, points are
``(x, y)``. *Source* is the upright image at full resolution.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densessl.errors import SettingError


class ViewGeometry(NamedTuple):
    """Geometry of one view of each of N images. It is a NamedTuple of tensors, so that collate, pin_memory and
    MMEngine's ``cast_data`` handle it. Workers compute it in float64, and it must not be computed under autocast.

    Attributes:
        matrix: (N, 2, 3) affine map, view pixel to source pixel.
        view_size: (N, 2) width and height of the view in its own pixels.
        source_size: (N, 2) width and height of the source in source pixels.
    """

    matrix: Tensor
    view_size: Tensor
    source_size: Tensor

    @classmethod
    def stack(cls, items: Sequence[tuple[np.ndarray, tuple, tuple]]) -> "ViewGeometry":
        """Stack N triples (matrix (2, 3), view (w, h), source (w, h)) of the workers, in float64."""
        matrices, views, sources = zip(*items)
        return cls(
            torch.from_numpy(np.stack(matrices).astype(np.float64)),
            torch.tensor(views, dtype=torch.float64).reshape(-1, 2),
            torch.tensor(sources, dtype=torch.float64).reshape(-1, 2),
        )

    @classmethod
    def from_crops(
        cls,
        boxes: Tensor,
        view_size: tuple[int, int],
        source_size: tuple[int, int] | Tensor,
        flipped: Tensor | None = None,
    ) -> "ViewGeometry":
        """Geometry of crops that were cut out, resized and mirrored by other code.

        Args:
            boxes: (N, 4) what was cut out, (x0, y0, x1, y1) in source pixels, ends excluded.
            view_size: (width, height) that every crop was resized to.
            source_size: (width, height) of the sources; (N, 2) where they differ.
            flipped: (N,) bool, which were mirrored left-right after that; None for none.

        Raises:
            SettingError: the boxes have another shape, or a box on the CPU has no area. (To look at boxes on a GPU,
                the CPU would have to wait for it.)
        """
        if boxes.ndim != 2 or boxes.shape[1] != 4:
            raise SettingError(f"boxes: found the shape {tuple(boxes.shape)}, expected (N, 4): x0, y0, x1, y1")
        if not boxes.is_cuda and not (boxes[:, :2] < boxes[:, 2:]).all():
            row = int((boxes[:, :2] >= boxes[:, 2:]).any(1).int().argmax())
            raise SettingError(f"boxes[{row}]: found {boxes[row].tolist()}, expected x0 < x1 and y0 < y1")
        boxes = boxes.double()
        views = torch.tensor(view_size, dtype=torch.float64, device=boxes.device).expand(len(boxes), 2)
        sources = torch.as_tensor(source_size, dtype=torch.float64, device=boxes.device).expand(len(boxes), 2)
        (x0, y0, x1, y1), (width, height) = boxes.unbind(1), view_size
        if flipped is not None:
            x0, x1 = torch.where(flipped, x1, x0), torch.where(flipped, x0, x1)
        zero = torch.zeros_like(x0)
        rows = [torch.stack([(x1 - x0) / width, zero, x0], 1), torch.stack([zero, (y1 - y0) / height, y0], 1)]
        return cls(torch.stack(rows, 1), views, sources)

    def index(self, rows: Tensor) -> "ViewGeometry":
        """The geometry of the given batch rows."""
        return ViewGeometry(*(field[rows] for field in self))


def to_source(geometry: ViewGeometry, points: Tensor) -> Tensor:
    """Map points (N, P, 2) from view pixels to source pixels."""
    matrix = geometry.matrix
    return points.to(matrix.dtype) @ matrix[:, :, :2].mT + matrix[:, None, :, 2]


def to_view(geometry: ViewGeometry, points: Tensor) -> Tensor:
    """Map points (N, P, 2) from source pixels to view pixels."""
    matrix = geometry.matrix
    # Closed-form 2x3 inverse: torch.linalg.inv waits for a GPU to check its error flag.
    (a, b, tx), (c, d, ty) = matrix[:, 0].unbind(-1), matrix[:, 1].unbind(-1)
    x, y = (points.to(matrix.dtype) - torch.stack([tx, ty], -1)[:, None]).unbind(-1)
    determinant = (a * d - b * c)[:, None]
    a, b, c, d = (value[:, None] for value in (a, b, c, d))
    return torch.stack([(d * x - b * y) / determinant, (a * y - c * x) / determinant], -1)


def unit_cells(grid: tuple[int, int], like: Tensor) -> Tensor:
    """Centres (x, y) of the cells of a (height, width) grid on the unit square, (height*width, 2), row-major."""
    height, width = grid
    y = (torch.arange(height, dtype=like.dtype, device=like.device) + 0.5) / height
    x = (torch.arange(width, dtype=like.dtype, device=like.device) + 0.5) / width
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)


def cell_centres(geometry: ViewGeometry, grid: tuple[int, int]) -> Tensor:
    """Positions in the source of the centres of a feature map's cells.

    Args:
        geometry: geometry of N views.
        grid: (height, width) of the feature map, which covers the view.

    Returns:
        (N, height*width, 2) in source pixels, cells row-major.
    """
    cells = unit_cells(grid, geometry.matrix)
    return to_source(geometry, cells * geometry.view_size[:, None])


def source_box(geometry: ViewGeometry) -> Tensor:
    """Axis-aligned bounding box (N, 4) of each view in source pixels, (x0, y0, x1, y1)."""
    corners = geometry.matrix.new_tensor([[0, 0], [1, 0], [0, 1], [1, 1]]) * geometry.view_size[:, None]
    return _around(to_source(geometry, corners))


def overlap(first: ViewGeometry, second: ViewGeometry) -> tuple[Tensor, Tensor]:
    """Overlap of two views in their source.

    Returns:
        Box (N, 4) in source pixels, of non-positive width or height where the views do not overlap, and its area (N,),
        0 in that case. Exact for axis-aligned views; for rotated views it is the overlap of their bounding boxes.
    """
    a, b = source_box(first), source_box(second)
    box = torch.cat([torch.maximum(a[:, :2], b[:, :2]), torch.minimum(a[:, 2:], b[:, 2:])], -1)
    return box, (box[:, 2:] - box[:, :2]).clamp(min=0).prod(-1)


def sampling_grid(geometry: ViewGeometry, points: Tensor) -> Tensor:
    """Source points (N, P, 2) as coordinates (N, P, 2) for ``grid_sample(align_corners=False)``, in [-1, 1] inside the
    view. They are valid for any feature map that covers the view."""
    return 2 * to_view(geometry, points) / geometry.view_size[:, None] - 1


def boxes_to_view(geometry: ViewGeometry, boxes: Tensor) -> tuple[Tensor, Tensor]:
    """Map boxes from the source to each view.

    Args:
        geometry: geometry of N views.
        boxes: (N, B, 4) as (x0, y0, x1, y1) in source pixels.

    Returns:
        Boxes (N, B, 4) in view pixels, clipped to the view, and the share (N, B) of their area that the clipping keeps,
        0 for empty boxes. In a rotated view, boxes are the bounding boxes of the rotated corners.
    """
    x0, y0, x1, y1 = boxes.to(geometry.matrix.dtype).unbind(-1)
    corners = torch.stack([torch.stack(p, -1) for p in ((x0, y0), (x1, y0), (x0, y1), (x1, y1))], -2)
    whole = _around(to_view(geometry, corners.flatten(1, 2)).unflatten(1, corners.shape[1:3]))
    limit = geometry.view_size[:, None]
    clipped = torch.cat([whole[..., :2].clamp(min=0), torch.minimum(whole[..., 2:], limit)], -1)
    before = (whole[..., 2:] - whole[..., :2]).prod(-1)
    after = (clipped[..., 2:] - clipped[..., :2]).clamp(min=0).prod(-1)
    # A box outside the view collapses onto its border instead of having negative sides.
    low = torch.minimum(clipped[..., :2], limit)
    clipped = torch.cat([low, torch.maximum(clipped[..., 2:], low)], -1)
    return clipped, torch.where(before > 0, after / before.clamp(min=torch.finfo(before.dtype).tiny), 0 * before)


def _around(points: Tensor) -> Tensor:
    return torch.cat([points.amin(-2), points.amax(-2)], -1)
