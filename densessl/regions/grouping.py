"""Hierarchical grouping of segments (Uijlings et al., IJCV 2013, section 3).

The two most similar neighbours are merged until one region is left.

Histograms are counts, and a histogram intersection is a sum of integers with one division at the end, so results are
equal bit for bit whatever the order of addition. Pairs of equal similarity are merged in order of their indices.
"""

import heapq

import numpy as np
from numba import njit

COLOUR_BINS = 25
ORIENTATIONS = 8
TEXTURE_BINS = 10


@njit(cache=True, nogil=True)
def colour_codes(planes: np.ndarray) -> np.ndarray:
    """The colour bins, out of C * 25, that each pixel counts towards.

    Args:
        planes: (C, h, w) float32, values 0 to 255.

    Returns:
        (h, w, C) uint16.
    """
    depth, height, width = planes.shape
    codes = np.empty((height, width, depth), np.uint16)
    for y in range(height):
        for c in range(depth):
            for x in range(width):
                codes[y, x, c] = COLOUR_BINS * c + min(int(planes[c, y, x] * (COLOUR_BINS / 256)), COLOUR_BINS - 1)
    return codes


@njit(cache=True, nogil=True)
def texture_codes(planes: np.ndarray) -> np.ndarray:
    """The texture bins, out of C * 8 * 10, that each pixel counts towards.

    Texture is the slope of each plane in eight directions; negative slopes, which half of them are, count as 0. Ten
    bins divide the range from 0 to the plane's steepest slope in the direction evenly.

    Args:
        planes: (C, h, w) float32, smoothed, so that central differences are Gaussian derivatives.

    Returns:
        (h, w, C * 8) uint16.
    """
    depth, height, width = planes.shape
    half = ORIENTATIONS // 2
    codes = np.empty((height, width, depth * ORIENTATIONS), np.uint16)
    slopes = np.empty((height, width, half), np.float32)
    turns = np.arange(half) * np.pi / half
    cosines, sines = np.cos(turns).astype(np.float32), np.sin(turns).astype(np.float32)
    steepest = np.empty(ORIENTATIONS, np.float32)
    for c in range(depth):
        steepest[:] = 0
        for y in range(height):
            above, below = planes[c, max(y - 1, 0)], planes[c, min(y + 1, height - 1)]
            for x in range(width):
                across = planes[c, y, min(x + 1, width - 1)] - planes[c, y, max(x - 1, 0)]
                down = below[x] - above[x]
                for k in range(half):
                    slope = cosines[k] * across + sines[k] * down
                    slopes[y, x, k] = slope
                    steepest[k] = max(steepest[k], slope)
                    steepest[k + half] = max(steepest[k + half], -slope)
        for k in range(ORIENTATIONS):
            first = TEXTURE_BINS * (ORIENTATIONS * c + k)
            scale = (TEXTURE_BINS if k < half else -TEXTURE_BINS) / max(steepest[k], np.float32(1e-6))
            for y in range(height):
                for x in range(width):
                    level = min(int(max(slopes[y, x, k % half] * scale, 0.0)), TEXTURE_BINS - 1)
                    codes[y, x, ORIENTATIONS * c + k] = first + level
    return codes


@njit(cache=True, nogil=True)
def describe(labels: np.ndarray, codes: np.ndarray, bins: int) -> np.ndarray:
    """Histograms of the codes of each segment's pixels: (n, bins) uint32 counts.

    Args:
        labels: (h, w) int32, consecutive from 0.
        codes: (h, w, F) integers below ``bins``.
    """
    counts = np.zeros((labels.max() + 1, bins), np.uint32)
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            row = counts[labels[y, x]]
            for code in codes[y, x]:
                row[code] += 1
    return counts


@njit(cache=True, nogil=True)
def outline(labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Sizes, boxes and neighbours of segments.

    Args:
        labels: (h, w) int32, consecutive from 0.

    Returns:
        (n,) int64 sizes in pixels; (n, 4) int64 boxes (x0, y0, x1, y1), pixel-edge; and (P, 2) int64 pairs i < j,
        without duplicates, of segments that share the edge of a pixel.
    """
    height, width = labels.shape
    count = labels.max() + 1
    sizes = np.zeros(count, np.int64)
    boxes = np.empty((count, 4), np.int64)
    boxes[:, :2], boxes[:, 2:] = max(height, width), 0
    # For each segment, a linked list of its pixel edges to segments of higher labels.
    heads, links, others, found = (
        np.full(count, -1),
        np.empty(2 * labels.size, np.int64),
        np.empty(2 * labels.size, np.int64),
        0,
    )
    for y in range(height):
        for x in range(width):
            label = labels[y, x]
            box = boxes[label]
            sizes[label] += 1
            box[0], box[1], box[2], box[3] = min(box[0], x), min(box[1], y), max(box[2], x + 1), max(box[3], y + 1)
            for below in range(2):
                if (y + 1 == height) if below else (x + 1 == width):
                    continue
                other = labels[y + below, x + 1 - below]
                low, high = min(label, other), max(label, other)
                if low != high and not (heads[low] >= 0 and others[heads[low]] == high):
                    others[found], links[found], heads[low] = high, heads[low], found
                    found += 1
    pairs = np.empty((found, 2), np.int64)
    seen = np.full(count, -1)
    total = 0
    for low in range(count):
        entry = heads[low]
        while entry >= 0:
            if seen[others[entry]] != low:
                seen[others[entry]] = low
                pairs[total] = low, others[entry]
                total += 1
            entry = links[entry]
    return sizes, boxes, pairs[:total]


@njit(cache=True, nogil=True)
def _intersection(counts: np.ndarray, a: int, b: int, size_a: int, size_b: int) -> float:
    """Intersection of two regions' normalised histograms, summed over the bins of all F histograms: 0 to F."""
    total = np.uint64(0)
    for bin in range(counts.shape[1]):
        total += min(np.uint64(counts[a, bin]) * np.uint64(size_b), np.uint64(counts[b, bin]) * np.uint64(size_a))
    return total / (np.float64(size_a) * np.float64(size_b))


@njit(cache=True, nogil=True)
def _similarity(
    i: int,
    j: int,
    weights: np.ndarray,
    area: int,
    size: np.ndarray,
    box: np.ndarray,
    row: np.ndarray,
    colour: np.ndarray,
    texture: np.ndarray,
) -> float:
    total = 0.0
    if weights[0]:
        shared = _intersection(colour, row[i], row[j], size[i], size[j])
        total += weights[0] * shared * COLOUR_BINS / colour.shape[1]
    if weights[1]:
        shared = _intersection(texture, row[i], row[j], size[i], size[j])
        total += weights[1] * shared * TEXTURE_BINS / texture.shape[1]
    if weights[2]:
        total += weights[2] * (1 - (size[i] + size[j]) / area)
    if weights[3]:
        a, b = box[i], box[j]
        common = (max(a[2], b[2]) - min(a[0], b[0])) * (max(a[3], b[3]) - min(a[1], b[1]))
        total += weights[3] * (1 - (common - size[i] - size[j]) / area)
    return total


@njit(cache=True, nogil=True)
def group(
    sizes: np.ndarray,
    boxes: np.ndarray,
    pairs: np.ndarray,
    colour: np.ndarray,
    texture: np.ndarray,
    weights: np.ndarray,
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """All regions of the hierarchy: n segments, then n - 1 merges, each of the two most similar remaining neighbours.

    The similarity is a weighted sum of four terms, each from 0 to 1: the intersection of colour histograms; that of
    texture histograms; 1 minus the pair's share of the image's area, so that small regions merge early; and 1 minus the
    share that is in the pair's common bounding box but not in the pair, so that regions that fit together merge early.

    Args:
        sizes, boxes, pairs: results of :func:`outline`.
        colour: (n, C * 25) uint32 counts.
        texture: (n, C * 8 * 10) uint32 counts.
        weights: (4,) float64, weights of colour, texture, size and fill.

    Returns:
        (2n - 1, 4) int64 boxes; (2n - 1,) int64 levels, 1 for a segment, and 1 more than the higher level of its parts
        for a merge; and (n - 1, 2) int64, the parts i < j of each merge.
    """
    count, last, area = len(sizes), 2 * len(sizes) - 1, sizes.sum()
    colour, texture = colour.copy(), texture.copy()
    size, box = np.empty(last, np.int64), np.empty((last, 4), np.int64)
    size[:count], box[:count] = sizes, boxes
    levels, parts = np.ones(last, np.int64), np.empty((count - 1, 2), np.int64)
    row = np.arange(last)  # each region's row in the histograms; a merge reuses the row of its first part
    whole = np.arange(last)  # the merge that each region is part of, or itself if it is not merged yet
    # Neighbours of region i are near[first[i] : first[i + 1]]; they may have been merged since.
    first = np.zeros(last + 1, np.int64)
    near = np.empty(4 * len(pairs) + count, np.int64)
    for i, j in pairs:
        first[i + 1] += 1
        first[j + 1] += 1
    first[: count + 1] = np.cumsum(first[: count + 1])
    place = first[:count].copy()
    heap = [(0.0, 0, 0) for _ in range(0)]
    for i, j in pairs:
        near[place[i]], near[place[j]] = j, i
        place[i] += 1
        place[j] += 1
        heap.append((-_similarity(i, j, weights, area, size, box, row, colour, texture), i, j))
    heapq.heapify(heap)
    seen = np.full(last, -1)
    new = count
    while new < last:
        _, i, j = heapq.heappop(heap)
        if whole[i] != i or whole[j] != j:
            continue  # one of them has been merged already
        parts[new - count] = i, j
        whole[i] = whole[j] = new
        size[new], levels[new] = size[i] + size[j], max(levels[i], levels[j]) + 1
        for k in range(2):
            box[new, k], box[new, k + 2] = min(box[i, k], box[j, k]), max(box[i, k + 2], box[j, k + 2])
        row[new] = row[i]
        colour[row[i]] += colour[row[j]]
        texture[row[i]] += texture[row[j]]
        seen[new] = new
        start = first[new]
        needed = start + first[i + 1] - first[i] + first[j + 1] - first[j]
        if needed > len(near):
            near = np.concatenate((near, np.empty(max(needed, len(near)), np.int64)))
        for part in (i, j):
            for entry in range(first[part], first[part + 1]):
                other = near[entry]
                while whole[other] != other:
                    whole[other] = whole[whole[other]]
                    other = whole[other]
                if seen[other] != new:
                    seen[other] = new
                    near[start] = other
                    start += 1
                    pair = -_similarity(other, new, weights, area, size, box, row, colour, texture)
                    heapq.heappush(heap, (pair, other, new))
        first[new + 1] = start
        new += 1
    return box, levels, parts


@njit(cache=True, nogil=True)
def novel_first(boxes: np.ndarray, iou: float) -> np.ndarray:
    """Order boxes (M, 4) so that those whose IoU with an earlier chosen one exceeds ``iou`` come last.

    Returns:
        (M,) int64 indices; the given order is kept among the chosen boxes and among the rest.
    """
    chosen, rest = np.empty(len(boxes), np.int64), np.empty(len(boxes), np.int64)
    found = 0
    for i in range(len(boxes)):
        x0, y0, x1, y1 = boxes[i]
        novel = True
        for entry in range(found):
            a0, b0, a1, b1 = boxes[chosen[entry]]
            across, down = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
            if across > 0 and down > 0:
                shared = across * down
                if shared > iou * ((x1 - x0) * (y1 - y0) + (a1 - a0) * (b1 - b0) - shared):
                    novel = False
                    break
        if novel:
            chosen[found] = i
            found += 1
        else:
            rest[i - found] = i
    chosen[found:] = rest[: len(boxes) - found]
    return chosen
