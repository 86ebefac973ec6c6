"""Graph-based segmentation (Felzenszwalb & Huttenlocher, IJCV 2004), from which selective search starts.

Pixels are joined along the edges to their eight neighbours, in order of increasing edge length, which is the colour
difference. Two components merge if the edge between them is no longer than the longest edge so far of each, plus
``scale / size``. Components smaller than ``min_size`` then join the neighbour at the shortest edge.

Edge lengths are rounded to 1/128 of a grey level, so that a counting sort orders them in linear time, and several
scales can share one sort. Edges of equal length are in raster order of the pixels that they start from.
"""

import math

import numpy as np
from numba import njit

STEPS = 128  # steps of an edge length per grey level
LENGTHS = 1 << 16  # number of rounded edge lengths: three channels differ by at most 442 grey levels
# Edges of a pixel, in this order: right, down, down right, up right.
DOWN = (0, 1, 1, -1)
RIGHT = (1, 0, 1, 1)


def half_gaussian(sigma: float) -> np.ndarray:
    """(r + 1,) float32: the Gaussian's weights from its centre outwards, cut at 4 sigma; (1,) where ``sigma`` is 0."""
    radius = math.ceil(4 * sigma)
    weights = np.exp(-0.5 * (np.arange(radius + 1) / sigma) ** 2) if radius else np.ones(1)
    return (weights / (2 * weights.sum() - weights[0])).astype(np.float32)


@njit(cache=True, nogil=True)
def smooth(planes: np.ndarray, weights: np.ndarray) -> np.ndarray:
    """Filter (C, h, w) float32 planes with the weights of :func:`half_gaussian`, replicating the border pixels."""
    depth, height, width = planes.shape
    radius = len(weights) - 1
    out = np.empty_like(planes)
    line = np.empty(width + 2 * radius, np.float32)
    for c in range(depth):
        for y in range(height):
            inner = line[radius : radius + width]
            inner[:] = weights[0] * planes[c, y]
            for t in range(1, radius + 1):
                inner += weights[t] * (planes[c, max(y - t, 0)] + planes[c, min(y + t, height - 1)])
            line[:radius] = line[radius]
            line[radius + width :] = line[radius + width - 1]
            row = out[c, y]
            row[:] = weights[0] * inner
            for t in range(1, radius + 1):
                row += weights[t] * (line[radius - t : radius - t + width] + line[radius + t : radius + t + width])
    return out


@njit(cache=True, nogil=True)
def sort_edges(planes: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Sort the edges of the eight-connected grid by their length.

    Args:
        planes: (C, h, w) float32, values 0 to 255, C up to 3.

    Returns:
        (E,) int32 edges in ascending order of length, each as 4 times the pixel that it starts from plus its direction;
        and (LENGTHS + 1,) int64, the position of the first edge of each rounded length.
    """
    depth, height, width = planes.shape
    lengths = np.zeros((height, 4, width), np.int32)
    starts = np.zeros(LENGTHS + 1, np.int64)
    square = np.empty(width, np.float32)
    for y in range(height):
        for direction in range(4):
            other, reach = y + DOWN[direction], width - RIGHT[direction]
            if not 0 <= other < height:
                continue
            square[:] = 0
            for c in range(depth):
                step = planes[c, other, width - reach :] - planes[c, y, :reach]
                square[:reach] += step * step
            for x in range(reach):
                length = min(int(math.sqrt(np.float64(square[x])) * STEPS + 0.5), LENGTHS - 1)
                lengths[y, direction, x] = length
                starts[length + 1] += 1
    starts = np.cumsum(starts)
    place = starts[:-1].copy()
    order = np.empty(starts[-1], np.int32)
    for y in range(height):
        for x in range(width):
            for direction in range(4):
                if 0 <= y + DOWN[direction] < height and x + RIGHT[direction] < width:
                    length = lengths[y, direction, x]
                    order[place[length]] = 4 * (y * width + x) + direction
                    place[length] += 1
    return order, starts


@njit(cache=True, nogil=True)
def _root(parent: np.ndarray, node: int) -> int:
    while parent[node] != node:
        parent[node] = parent[parent[node]]
        node = parent[node]
    return node


@njit(cache=True, nogil=True)
def join_edges(
    order: np.ndarray, starts: np.ndarray, height: int, width: int, scale: float, min_size: int
) -> np.ndarray:
    """Join pixels along sorted edges into components: (h, w) int32 labels from 0, in raster order of first pixels.

    Args:
        order, starts: results of :func:`sort_edges`.
        scale: k of the paper, in grey levels; a larger k gives larger components.
        min_size: least size of a component in pixels.
    """
    count = height * width
    ahead = width * np.array(DOWN) + np.array(RIGHT)
    parent = np.arange(count, dtype=np.int32)
    size = np.ones(count, np.int32)
    # Longest edge that may join the component: its longest edge so far, which is the last one joined, plus k / size.
    limit = np.full(count, scale * STEPS)
    for length in range(LENGTHS):
        for edge in order[starts[length] : starts[length + 1]]:
            a = _root(parent, edge >> 2)
            b = _root(parent, (edge >> 2) + ahead[edge & 3])
            if a != b and length <= limit[a] and length <= limit[b]:
                if size[a] < size[b]:
                    a, b = b, a
                parent[b] = a
                size[a] += size[b]
                limit[a] = length + scale * STEPS / size[a]
    for edge in order:
        a = _root(parent, edge >> 2)
        b = _root(parent, (edge >> 2) + ahead[edge & 3])
        if a != b and (size[a] < min_size or size[b] < min_size):
            if size[a] < size[b]:
                a, b = b, a
            parent[b] = a
            size[a] += size[b]
    labels = np.full(count, -1, np.int32)
    found = 0
    for pixel in range(count):
        root = _root(parent, pixel)
        if labels[root] < 0:  # the first pixel of a component numbers its root
            labels[root] = found
            found += 1
        labels[pixel] = labels[root]
    return labels.reshape(height, width)


def felzenszwalb(planes: np.ndarray, scale: float, sigma: float = 0.8, min_size: int = 50) -> np.ndarray:
    """Segment one image.

    Args:
        planes: (C, h, w) float32, values 0 to 255, C up to 3.
        scale: k of the paper; a larger k gives larger segments. It equals scikit-image's ``scale`` for images with
            values from 0 to 1.
        sigma: sigma of the Gaussian that smooths the image first, in pixels.
        min_size: least size of a segment in pixels.

    Returns:
        (h, w) int32 labels, consecutive from 0.
    """
    order, starts = sort_edges(smooth(planes, half_gaussian(sigma)))
    return join_edges(order, starts, *planes.shape[1:], float(scale), min_size)
