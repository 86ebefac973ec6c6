"""Features of regions: which of several maps a region is read from, and reading it there.

Legend: M regions of N images, L maps.
"""

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

from densessl.geometry import box_area
from densessl.losses import full_precision


def assign_levels(boxes: Tensor, sizes: Sequence[float], view_size: Tensor, reference: float = 224) -> Tensor:
    """The map each region is read from: the first whose size the root of the box's area does not exceed.

    Boxes larger than all sizes go to map 0. That is the rule of the code of CCOP, and of SoCo before it; with the
    largest size that of the view, no box is that large.

    Args:
        boxes: (M, 4) in pixels of the view.
        sizes: L ascending numbers, in pixels of views of ``reference`` pixels a side; they grow with the view.
        view_size: (M, 2) width and height of each box's view.

    Returns:
        (M,) int64 in [0, L).
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
    """RoIAlign (He et al., ICCV 2017; half-pixel corrected, as many samples as cells) of each region in its map.

    In at least fp32: torchvision's CPU kernel knows no bf16. Every map takes part, also where no region belongs to it,
    so that all that made it gets a gradient, if a zero one. Waits once for the device, to learn the regions per map.

    Args:
        maps: L of (N, C, H_l, W_l), each covering the views whatever its stride.
        boxes: (M, 4) in pixels of the view.
        owner: (M,) rows of the maps.
        level: (M,) which map, see :func:`assign_levels`.
        view_size: (M, 2) width and height of each box's view.
        output: cells a side.
        head: what to make of features (m, C, output, output), row by row: (m, …). It gets those of a map after the
            other.
        chunk: at most so many regions at a time; they and what ``head`` makes of them are all the memory it takes.

    Returns:
        (M, C, output, output), or (M, …) of the head.
    """
    order = level.argsort(stable=True)
    counts = torch.bincount(level, minlength=len(maps)).tolist()
    # Relative to the view: maps of views whose sides are no multiple of the stride have no single scale.
    corners = boxes / view_size.repeat(1, 2)
    parts = []
    for item, rows in zip(maps, order.split(counts)):
        (item,) = full_precision(item)
        height, width = item.shape[2:]
        for index in rows.split(chunk or max(1, len(rows))):
            x0, y0, x1, y1 = corners[index].unbind(1)
            rois = torch.stack([owner[index].to(x0), x0 * width, y0 * height, x1 * width, y1 * height], 1)
            with torch.autocast(item.device.type, enabled=False):
                features = roi_align(item, rois.to(item.dtype), output, sampling_ratio=0, aligned=True)
            parts.append(features if head is None else head(features))
    return torch.cat(parts)[order.argsort()]
