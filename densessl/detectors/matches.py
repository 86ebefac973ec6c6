"""Which query was given which region, as the detector's own assigner decided, and what that does to its losses."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densessl.losses import global_count


class Match(NamedTuple):
    """Pairs of one image at one decoder layer.

    Attributes:
        queries: (P,) int64.
        targets: (P,) int64, the image's regions they were given.
    """

    queries: Tensor
    targets: Tensor


class RecordingAssigner:
    """Stands in for an assigner and remembers its answers, in the order they were asked for: MMDetection's heads ask
    for every layer's images in turn, the last layer's last, and only then for proposals of the encoder."""

    def __init__(self, assigner: Any):
        self.assigner = assigner
        self.matches: list[Match] = []

    def assign(self, *args: Any, **kwargs: Any):
        result = self.assigner.assign(*args, **kwargs)
        queries = torch.nonzero(result.gt_inds > 0).flatten()
        self.matches.append(Match(queries, result.gt_inds[queries] - 1))
        return result

    def take(self, layers: int, images: int) -> list[list[Match]]:
        """The matches of the decoder's layers, by layer and image, forgetting all."""
        found, self.matches = self.matches, []
        if len(found) < layers * images:
            raise RuntimeError(f"the head assigned {len(found)} times, expected {layers} layers x {images} images")
        return [found[layer * images : (layer + 1) * images] for layer in range(layers)]


# Losses of the decoder's layers. Those of the encoder's proposals and of denoising have queries for all regions.
OF_LAYERS = re.compile(r"(d\d+\.)?loss_(cls|bbox|iou)")


def per_region(
    losses: Mapping[str, Tensor], last: Sequence[Match], regions: int, softmax: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """The decoder's losses divided by the number of regions, as in the codes of DETR and Deformable DETR.

    MMDetection divides by the number of those that were given to a query, which is less where an image has more regions
    than the detector has queries. The softmax's loss is a mean over queries in both.

    Args:
        losses: of the head.
        last: matches of the last layer, by image; the other layers have as many.
        regions: of the batch on this rank.
        softmax: whether the class is decided by a softmax.

    Returns:
        the losses, and the share of the regions, of all ranks, that were given to a query: 1 where there are none.
    """
    like = next(iter(losses.values()))
    counts = like.new_tensor([float(sum(len(match.queries) for match in last)), float(regions)])
    matched, total = global_count(counts).clamp(min=1)
    share = matched / total
    scaled = {name for name in losses if OF_LAYERS.fullmatch(name) and not (softmax and name.endswith("cls"))}
    return {name: value * share if name in scaled else value for name, value in losses.items()}, share
