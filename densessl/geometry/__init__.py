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
    "ViewGeometry",
    "affine",
    "boxes_to_view",
    "cell_centres",
    "cell_distances",
    "coords_to_frame",
    "distance_mask",
    "edge_frame",
    "frame_cells",
    "frame_to_coords",
    "overlap",
    "pixpro_frame",
    "sampling_grid",
    "source_box",
    "to_source",
    "to_view",
    "unit_cells",
]
