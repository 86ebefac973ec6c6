"""Boxes (..., 4) as (x0, y0, x1, y1) in pixel-edge coordinates: overlap and jitter.

All functions keep the precision of the boxes.
"""

import torch
from torch import Tensor


def box_area(boxes: Tensor) -> Tensor:
    """Areas (...,) of boxes (..., 4)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def paired_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (...,) of boxes (..., 4) and (..., 4), which broadcast; 0 where both are empty."""
    low, high = torch.maximum(first[..., :2], second[..., :2]), torch.minimum(first[..., 2:], second[..., 2:])
    width, height = (high - low).clamp(min=0).unbind(-1)
    shared = width * height
    union = box_area(first) + box_area(second) - shared
    return shared / torch.where(union > 0, union, torch.ones_like(union))


def pairwise_iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union (..., A, B) of all pairs of boxes (..., A, 4) and (..., B, 4)."""
    return paired_iou(first[..., :, None, :], second[..., None, :, :])


def clamp_boxes(boxes: Tensor, limit: Tensor) -> Tensor:
    """Boxes (..., 4) with corners clamped to [0, limit]; ``limit`` (..., 2) is a width and height, and broadcasts."""
    return torch.minimum(boxes.unflatten(-1, (2, 2)).clamp(min=0), limit[..., None, :]).flatten(-2)


def jitter_boxes(boxes: Tensor, uniforms: Tensor, shift: float, stretch: float, limit: Tensor) -> Tensor:
    """J jittered copies of each box, as in the code of CCOP (arXiv 2111.13651).

    The centre moves by up to ``shift / 2`` of the sides in either direction; then each side is scaled by a factor from
    ``exp(-stretch / 2)`` to ``exp(stretch / 2)``. Copies are clamped last, and may become smaller or empty.

    Args:
        boxes: (M, 4).
        uniforms: (M, J, 4) in [0, 1), for x and y of the centre, width and height; four times 0.5 keeps the box.
        shift: width of the range of the centre, relative to the sides.
        stretch: width of the range of the logarithm of the sides.
        limit: (M, 2) width and height of each box's view.

    Returns:
        (M, J, 4).
    """
    move, scale = (uniforms - 0.5).split(2, -1)
    side = (boxes[:, 2:] - boxes[:, :2])[:, None]
    centre = ((boxes[:, :2] + boxes[:, 2:]) / 2)[:, None] + side * (move * shift)
    half = side * (scale * stretch).exp() / 2
    return clamp_boxes(torch.cat([centre - half, centre + half], -1), limit[:, None])
