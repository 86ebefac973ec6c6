"""Masks in COCO's forms: polygons, and run lengths as a list or as compressed text."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

Polygons = list[list[float]]


def usable(mask: Any, width: int, height: int) -> tuple[Any, bool]:
    """Return a mask that MMDetection can read, or None, and whether it had to be changed.

    A polygon needs three points. A flat list of numbers is one polygon; a list of points is flattened. Run lengths need
    the size of the image.
    """
    if type(mask) is list and all(map(_is_plain, mask)) and mask:
        return mask, False
    if isinstance(mask, Mapping):
        return (mask, False) if _are_runs(mask, width, height) else (None, False)
    if not isinstance(mask, Sequence) or isinstance(mask, str) or not mask:
        return None, False
    polygons = [mask] if not any(isinstance(each, Sequence) for each in mask) else list(mask)
    flat = [_flat(polygon) for polygon in polygons]
    good = [polygon for polygon in flat if _is_polygon(polygon)]
    return (good, good != mask) if good else (None, False)


def _is_plain(polygon: Any) -> bool:
    """Whether a polygon is a list of enough numbers, by the fastest test, because files have hundreds of thousands."""
    try:
        return type(polygon) is list and len(polygon) >= 6 and not len(polygon) % 2 and math.isfinite(sum(polygon))
    except (TypeError, OverflowError):
        return False


def _flat(polygon: Any) -> Any:
    """``[[x, y], …]`` as ``[x, y, …]``."""
    if isinstance(polygon, Sequence) and polygon and isinstance(polygon[0], Sequence) and len(polygon[0]) == 2:
        try:
            return [number for x, y in polygon for number in (x, y)]
        except (TypeError, ValueError):
            return None
    return polygon


def _is_polygon(polygon: Any) -> bool:
    if not isinstance(polygon, Sequence) or isinstance(polygon, str) or len(polygon) < 6 or len(polygon) % 2:
        return False
    try:
        return math.isfinite(math.fsum(polygon))
    except (TypeError, ValueError, OverflowError):
        return False


def _are_runs(mask: Mapping[str, Any], width: int, height: int) -> bool:
    counts, size = mask.get("counts"), mask.get("size")
    if not isinstance(size, Sequence) or list(size) != [height, width]:
        return False
    if isinstance(counts, list):
        return all(type(run) is int and run >= 0 for run in counts) and sum(counts) == width * height
    return isinstance(counts, str) and _pixels_of(counts) == width * height


def _pixels_of(text: str) -> int:
    """Return the pixels that compressed run lengths cover; -1 if they are damaged.

    Each run is written in groups of five bits, the lowest first, offset by 48; the sixth bit says that another group
    follows. From the fourth run on, it is the difference from the run before the last one. pycocotools reads beyond its
    memory where runs exceed the image.
    """
    runs: list[int] = []
    value, shift = 0, 0
    for code in text.encode("utf-8"):
        group = code - 48
        if not 0 <= group < 64 or shift > 60:
            return -1
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        value -= (1 << shift) if group & 16 else 0
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        if runs[-1] < 0:
            return -1
        value, shift = 0, 0
    return -1 if shift else sum(runs)


def box_of(mask: Any) -> tuple[float, float, float, float] | None:
    """Return x0, y0, x1, y1 of a usable mask in pixels; None if it is empty."""
    if isinstance(mask, Mapping):
        from pycocotools import mask as coco  # of the det extra

        runs = coco.frPyObjects(dict(mask), *mask["size"]) if isinstance(mask["counts"], list) else dict(mask)
        x, y, width, height = coco.toBbox(runs).tolist()
        return (x, y, x + width, y + height) if width and height else None
    xs, ys = ([number for polygon in mask for number in polygon[axis::2]] for axis in (0, 1))
    return min(xs), min(ys), max(xs), max(ys)


def rectangle(corners: Sequence[float]) -> Polygons:
    """Return a box x0, y0, x1, y1 as a polygon."""
    x0, y0, x1, y1 = map(float, corners)
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def scaled(mask: Any, width: float, height: float) -> Any:
    """Return polygons of relative coordinates in pixels; other masks as they are."""
    if not isinstance(mask, list):
        return mask
    polygons = [mask] if mask and not isinstance(mask[0], Sequence) else mask
    flat = [_flat(polygon) for polygon in polygons]
    return [
        [number * (height if i % 2 else width) for i, number in enumerate(polygon)] if _is_polygon(polygon) else polygon
        for polygon in flat
    ]
