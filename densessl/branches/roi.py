"""Features of regions: the choice of the map that each region is read from, and RoIAlign there.

Legend: M regions of N images, L maps.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from densessl.geometry import box_area
from densessl.losses import full_precision


def assign_levels(boxes: Tensor, sizes: Sequence[float], view_size: Tensor, reference: float = 224) -> Tensor:
    """The map that each region is read from: the first whose size is at least the root of the box's area.

    Boxes larger than all sizes go to map 0, as in the code of CCOP and of SoCo before it. If the largest size is that
    of the view, no box is that large.

    Args:
        boxes: (M, 4) in pixels of the view.
        sizes: L ascending numbers, in pixels of views with sides of ``reference`` pixels; they scale with the view.
        view_size: (M, 2) width and height of each box's view.

    Returns:
        (M,) int64 from 0 to L - 1.
    """
    side = box_area(boxes).sqrt() * reference / view_size.prod(1).sqrt()
    return sum((side > size).long() for size in sizes) % len(sizes)


def align_regions(
    maps: Sequence[Tensor],
    boxes: Tensor,
    owner: Tensor,
    level: Tensor,
    view_size: Tensor,
    output: int,
    head: Callable[[Tensor], Tensor] | None = None,
    chunk: int | None = None,
) -> Tensor:
    """RoIAlign (He et al., ICCV 2017; half-pixel corrected, with as many samples as cells) of each region in its map.

    Runs in at least fp32, since torchvision's CPU kernel lacks bf16. Every map takes part, even without regions, so
    that all of its inputs get a gradient, if only zero. Waits for the device once, to learn the number of regions of
    each map.

    Args:
        maps: L maps (N, C, H_l, W_l), each covering the views whatever its stride.
        boxes: (M, 4) in pixels of the view.
        owner: (M,) batch row of each box.
        level: (M,) map of each box, see :func:`assign_levels`.
        view_size: (M, 2) width and height of each box's view.
        output: side of the features in cells.
        head: function of features (m, C, output, output) that returns (m, …). It is called for one map after the other.
        chunk: largest number of regions at a time, which bounds the memory of their features.

    Returns:
        (M, C, output, output), or (M, …) from the head.
    """
    order = level.argsort(stable=True)
    counts = torch.bincount(level, minlength=len(maps)).tolist()
    # Relative to the view, since maps of views whose sides are no multiple of the stride have no single scale.
    corners = boxes / view_size.repeat(1, 2)
    parts = []
    for features, rows in zip(maps, order.split(counts)):
        (features,) = full_precision(features)
        height, width = features.shape[2:]
        for index in rows.split(chunk or max(1, len(rows))):
            x0, y0, x1, y1 = corners[index].unbind(1)
            rois = torch.stack([owner[index].to(x0), x0 * width, y0 * height, x1 * width, y1 * height], 1)
            with torch.autocast(features.device.type, enabled=False):
                aligned = roi_align(features, rois.to(features.dtype), output, sampling_ratio=0, aligned=True)
            parts.append(aligned if head is None else head(aligned))
    return torch.cat(parts)[order.argsort()]
