"""Non-maximum suppression with the signatures of ``mmcv._ext``."""

import torch
import torchvision
from torch import Tensor

from densessl.compat.numerics import widest


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Greedy suppression of boxes whose IoU with a better one exceeds the threshold.

    Args:
        boxes: `(N, 4)`, x1 y1 x2 y2 in pixels.
        scores: `(N,)`.
        iou_threshold: overlap above which the lower scored box goes.
        offset: 0, or 1 for the convention where a box's width is ``x2 - x1 + 1``.

    Returns:
        `(K,)` int64 indices of the kept boxes, by falling score.
    """
    boxes, scores = widest(boxes, scores)
    # Widths x2 - x1 + 1 are the plain widths of boxes that end one pixel later, intersections included.
    return torchvision.ops.nms(boxes + boxes.new_tensor([0, 0, offset, offset]), scores, iou_threshold)


NAIVE, LINEAR, GAUSSIAN = range(3)


def softnms(
    boxes: Tensor,
    scores: Tensor,
    dets: Tensor,
    iou_threshold: float,
    sigma: float,
    min_score: float,
    method: int,
    offset: int,
) -> Tensor:
    """Soft-NMS (Bodla et al., 2017, Fig. 2): overlapping boxes lose score instead of being dropped at once.

    Repeatedly takes the best remaining box, multiplies every other score by a weight f(IoU), and drops those that fall
    below ``min_score``. f is ``0`` (naive) or ``1 - IoU`` (linear, Eq. 3's step) where IoU >= ``iou_threshold``, and 1
    elsewhere; or ``exp(-IoU^2 / sigma)`` (gaussian). Among equal scores the lowest index goes first. Two boxes without
    area do not overlap.

    Args:
        boxes: `(N, 4)`, x1 y1 x2 y2 in pixels.
        scores: `(N,)`.
        dets: `(N, 5)`, filled in its first K rows with the kept boxes and their decayed scores.
        iou_threshold: of the naive and linear methods.
        sigma: of the gaussian method.
        min_score: a box whose decayed score is below is dropped; the very first box taken never is.
        method: 0 naive, 1 linear, 2 gaussian.
        offset: 0, or 1 for the convention where a box's width is ``x2 - x1 + 1``.

    Returns:
        `(K,)` int64 indices of the kept boxes in the order they were taken.
    """
    corners, scores = widest(boxes, scores)
    corners = corners + corners.new_tensor([0, 0, offset, offset])
    areas = (corners[:, 2:] - corners[:, :2]).prod(dim=1)
    left = torch.arange(len(corners), device=corners.device)
    scores, taken = scores.clone(), []
    while len(left):
        best = left[scores[left].argmax()]
        taken.append(best)
        dets[len(taken) - 1] = torch.cat([boxes[best].to(dets), scores[best, None].to(dets)])
        left = left[left != best]
        top_left = torch.maximum(corners[best, :2], corners[left, :2])
        bottom_right = torch.minimum(corners[best, 2:], corners[left, 2:])
        shared = (bottom_right - top_left).clamp(min=0).prod(dim=1)
        overlap = (shared / (areas[best] + areas[left] - shared)).nan_to_num(0.0)
        if method == GAUSSIAN:
            weight = torch.exp(-overlap.square() / sigma)
        else:
            decayed = 1 - overlap if method == LINEAR else torch.zeros_like(overlap)
            weight = torch.where(overlap >= iou_threshold, decayed, torch.ones_like(overlap))
        scores[left] *= weight
        left = left[scores[left] >= min_score]
    return torch.stack(taken) if taken else left
