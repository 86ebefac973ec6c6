"""Which query was given which region, as the detector's own assigner decided."""

from typing import Any, NamedTuple

import torch
from torch import Tensor


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

    def __getattr__(self, name: str) -> Any:
        return getattr(self.assigner, name)

    def take(self, layers: int, images: int) -> list[list[Match]]:
        """The matches of the decoder's layers, by layer and image, forgetting all."""
        found, self.matches = self.matches, []
        if len(found) < layers * images:
            raise RuntimeError(f"the head assigned {len(found)} times, expected {layers} layers x {images} images")
        return [found[layer * images : (layer + 1) * images] for layer in range(layers)]
