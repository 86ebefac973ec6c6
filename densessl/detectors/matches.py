"""Matches of queries and regions, as decided by the detector's assigner, and the normalisation of its losses."""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densessl.losses import global_count


class Match(NamedTuple):
    """P matched pairs of one image at one decoder layer.

    Attributes:
        queries: (P,) int64, indices of the queries.
        targets: (P,) int64, indices of the image's regions that they are matched to.
    """

    queries: Tensor
    targets: Tensor


class RecordingAssigner:
    """Wraps an assigner and records its results in the order of the calls.

    MMDetection's heads call the assigner for the images of each decoder layer in turn, the last layer last, and only
    then for the proposals of the encoder.
    """

    def __init__(self, assigner: Any):
        self.assigner = assigner
        self.matches: list[Match] = []

    def assign(self, *args: Any, **kwargs: Any):
        result = self.assigner.assign(*args, **kwargs)
        queries = torch.nonzero(result.gt_inds > 0).flatten()
        self.matches.append(Match(queries, result.gt_inds[queries] - 1))
        return result

    def take(self, layers: int, images: int) -> list[list[Match]]:
        """The matches of the decoder layers, by layer and image. Clears the record.

        Raises:
            RuntimeError: the head called the assigner too few times.
        """
        recorded, self.matches = self.matches, []
        if len(recorded) < layers * images:
            raise RuntimeError(f"the head assigned {len(recorded)} times, expected {layers} layers x {images} images")
        return [recorded[layer * images : (layer + 1) * images] for layer in range(layers)]


# Losses of the decoder layers. Losses of the encoder's proposals and of denoising have queries for all regions.
OF_LAYERS = re.compile(r"(d\d+\.)?loss_(cls|bbox|iou)")


def per_region(
    losses: Mapping[str, Tensor], last: Sequence[Match], regions: int, softmax: bool
) -> tuple[dict[str, Tensor], Tensor]:
    """Divide the losses of the decoder by the number of regions, as in the codes of DETR and Deformable DETR.

    MMDetection divides by the number of matched regions, which is smaller if an image has more regions than the
    detector has queries. A softmax classification loss is not changed: both average it over queries.

    Args:
        losses: losses of the head.
        last: matches of the last layer, by image; all layers have the same number of matches.
        regions: number of regions of the batch on this rank.
        softmax: whether the classification loss is a softmax cross entropy.

    Returns:
        The losses, and the share of the regions on all ranks that are matched to a query; 1 if there are no regions.
    """
    like = next(iter(losses.values()))
    counts = like.new_tensor([float(sum(len(match.queries) for match in last)), float(regions)])
    matched, total = global_count(counts).clamp(min=1)
    share = matched / total
    scaled = {name for name in losses if OF_LAYERS.fullmatch(name) and not (softmax and name.endswith("cls"))}
    return {name: value * share if name in scaled else value for name, value in losses.items()}, share
