"""Geometry of views: where they lie in their source images, and which places of two views correspond."""

from densessl.geometry import affine
from densessl.geometry.boxes import box_area, clamp_boxes, jitter_boxes, paired_iou, pairwise_iou
from densessl.geometry.cell_distance import (
    FRAMES,
    cell_distances,
    coords_to_frame,
    distance_mask,
    edge_frame,
    frame_cells,
    frame_to_coords,
    pixpro_frame,
)
from densessl.geometry.rectangle import (
    Rectangle,
    RectangleDraws,
    draw_rectangle,
    place_rectangle,
    rectangle_cells,
    rectangle_mask,
    swap_rectangle,
)
from densessl.geometry.relative import axis_aligned, relative_cells
from densessl.geometry.view import (
    ViewGeometry,
    boxes_to_view,
    cell_centres,
    overlap,
    sampling_grid,
    source_box,
    to_source,
    to_view,
    unit_cells,
)

__all__ = [
    "FRAMES",
    "Rectangle",
    "RectangleDraws",
    "ViewGeometry",
    "affine",
    "axis_aligned",
    "box_area",
    "boxes_to_view",
    "cell_centres",
    "cell_distances",
    "clamp_boxes",
    "coords_to_frame",
    "distance_mask",
    "draw_rectangle",
    "edge_frame",
    "frame_cells",
    "frame_to_coords",
    "jitter_boxes",
    "overlap",
    "paired_iou",
    "pairwise_iou",
    "pixpro_frame",
    "place_rectangle",
    "rectangle_cells",
    "rectangle_mask",
    "relative_cells",
    "sampling_grid",
    "source_box",
    "swap_rectangle",
    "to_source",
    "to_view",
    "unit_cells",
]
