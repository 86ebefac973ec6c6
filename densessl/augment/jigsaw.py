"""Jigsaw tiles of a view: a grid of cells, a randomly placed tile inside each, in random order (PIRL, Misra & van der
Maaten, CVPR 2020, section 3.2; DetCo's local patches).

Legend: N images, T = grid * grid tiles of each.
"""

import torch
from torch import Tensor

from densessl.errors import SettingError
from densessl.geometry import ViewGeometry, to_source


def jigsaw_corners(uniforms: Tensor, size: tuple[int, int], grid: int, tile: int) -> Tensor:
    """Positions of the tiles, from random numbers that data workers drew.

    Args:
        uniforms: (N, 3 * T) in [0, 1), float64: a column and a row offset for each cell, row-major, then T numbers
            that sort the tiles: the tile with the smallest number comes first.
        size: (height, width) of the view. Cells have whole pixels; remaining pixels at the right and bottom are unused.
        grid: number of cells along a side.
        tile: side of the tiles in pixels.

    Returns:
        (N, T, 2) upper left corners (x, y) in view pixels, int64, in shuffled order.

    Raises:
        SettingError: a tile is larger than a cell, or ``uniforms`` does not have 3 * T columns.
    """
    count, cell = grid * grid, (size[1] // grid, size[0] // grid)
    if tile > min(cell):
        raise SettingError(f"jigsaw tile={tile}: the {grid}x{grid} cells of a {size[1]}x{size[0]} view are {cell}")
    if uniforms.shape[1] != 3 * count:
        raise SettingError(
            f"jigsaw grid={grid} takes {3 * count} numbers per view (its `uniforms`), got {uniforms.shape[1]}"
        )
    room = uniforms.new_tensor([side - tile + 1 for side in cell])
    offsets = (uniforms[:, : 2 * count].unflatten(1, (count, 2)) * room).long()
    index = torch.arange(count, device=uniforms.device)
    corners = offsets + torch.stack([index % grid * cell[0], index // grid * cell[1]], -1)
    order = uniforms[:, 2 * count :].argsort(stable=True, dim=1)
    return corners.gather(1, order[..., None].expand(-1, -1, 2))


def cut_tiles(images: Tensor, corners: Tensor, tile: int) -> Tensor:
    """The tiles (N * T, C, tile, tile) of images (N, C, H, W) at ``corners`` (N, T, 2), grouped by image, in
    channels-last memory."""
    steps = torch.arange(tile, device=corners.device)
    columns, rows = (corners[..., None, :] + steps[:, None]).unbind(-1)
    image = torch.arange(len(images), device=images.device)[:, None, None, None]
    tiles = images.permute(0, 2, 3, 1)[image, rows[..., :, None], columns[..., None, :]]
    return tiles.flatten(0, 1).permute(0, 3, 1, 2)


def tile_geometry(geometry: ViewGeometry, corners: Tensor, tile: int) -> ViewGeometry:
    """Geometry of the N * T tiles at ``corners`` (N, T, 2) of N views, in the order of :func:`cut_tiles`."""
    tiles = corners.shape[1]
    linear = geometry.matrix[:, None, :, :2].expand(-1, tiles, -1, -1)
    matrix = torch.cat([linear, to_source(geometry, corners)[..., None]], -1).flatten(0, 1)
    size = torch.full_like(matrix[:, :, 0], tile)
    return ViewGeometry(matrix, size, geometry.source_size.repeat_interleave(tiles, 0))
