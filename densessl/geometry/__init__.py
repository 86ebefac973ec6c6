"""Where views lie in their source images, and what corresponds to what."""

from densessl.geometry import affine
from densessl.geometry.correspondence import (
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
    "Rectangle",
    "RectangleDraws",
    "ViewGeometry",
    "affine",
    "boxes_to_view",
    "cell_centres",
    "cell_distances",
    "coords_to_frame",
    "distance_mask",
    "draw_rectangle",
    "edge_frame",
    "frame_cells",
    "frame_to_coords",
    "overlap",
    "pixpro_frame",
    "place_rectangle",
    "rectangle_cells",
    "rectangle_mask",
    "sampling_grid",
    "source_box",
    "swap_rectangle",
    "to_source",
    "to_view",
    "unit_cells",
]
