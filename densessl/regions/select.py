"""Selections: filters and orders of an image's proposals.

A selection is called with the proposals, the image's (width, height) in pixels and a random generator, and returns
proposals. :data:`PRESETS` has the lists of selections that published methods use.
"""

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from torchvision.ops import nms

from densessl.constraints import Count, NonNegative, Share
from densessl.errors import SettingError
from densessl.regions.proposals import Proposals
from densessl.registry import REGION_SELECTIONS

RANKINGS = ("order", "random", "uijlings")
# DETReg's strategies top-k, random and all ("none"), and CCOP's selections.
PRESETS: dict[str, list[dict]] = {
    "none": [],
    "detreg": [dict(type="TopK", k=30, ranking="uijlings")],
    "detreg-random": [dict(type="TopK", k=30, ranking="random")],
    "ccop": [
        dict(type="AspectRange", low=1 / 3, high=3),
        dict(type="MinSide", pixels=20),
        dict(type="Thin", iou=0.5),
        dict(type="TopK", k=50),
    ],
}


@REGION_SELECTIONS.register_module()
@dataclass(frozen=True)
class TopK:
    """Keeps the first ``k`` boxes of one of three orders.

    Attributes:
        k: number of boxes to keep; None keeps all.
        ranking: ``"order"``, the generator's own order; ``"random"``; or ``"uijlings"``, the randomised hierarchy of
            selective search (Uijlings et al., IJCV 2013, section 3.4) as in OpenCV, which DETReg's top-k uses: in
            ascending order of a uniform random number times the level, so that low levels, which are small regions,
            tend to come first, interleaved with large ones.
    """

    k: Count | None = None
    ranking: Literal["order", "random", "uijlings"] = "order"

    def __post_init__(self):
        if self.ranking not in RANKINGS:
            raise SettingError(f"TopK.ranking is {self.ranking!r}, expected one of {RANKINGS}")
        if self.k is not None and self.k < 1:
            raise SettingError(f"TopK.k is {self.k}, expected a positive number, or None for all")

    def __call__(self, found: Proposals, size: tuple[int, int], rng: np.random.Generator) -> Proposals:
        if self.ranking == "random":
            found = found.index(rng.permutation(len(found.boxes)))
        elif self.ranking == "uijlings":
            found = found.index(np.argsort(rng.random(len(found.boxes)) * found.levels, kind="stable"))
        return found.index(slice(self.k))


@REGION_SELECTIONS.register_module()
@dataclass(frozen=True)
class AspectRange:
    """Keeps boxes whose width over height is between ``low`` and ``high``, both exclusive.

    Attributes:
        low: least width over height, exclusive.
        high: greatest width over height, exclusive.
    """

    low: NonNegative = 1 / 3
    high: NonNegative = 3.0

    def __call__(self, found: Proposals, size: tuple[int, int], rng: np.random.Generator) -> Proposals:
        width, height = (found.boxes[:, 2:] - found.boxes[:, :2]).T
        return found.index((width > self.low * height) & (width < self.high * height))


@REGION_SELECTIONS.register_module()
@dataclass(frozen=True)
class MinSide:
    """Keeps boxes whose area has a square root of more than ``pixels``, in pixels of the image file.

    Attributes:
        pixels: square root of the least area, exclusive.
    """

    pixels: NonNegative = 20.0

    def __call__(self, found: Proposals, size: tuple[int, int], rng: np.random.Generator) -> Proposals:
        return found.index((found.boxes[:, 2:] - found.boxes[:, :2]).prod(1) > self.pixels**2)


@REGION_SELECTIONS.register_module()
@dataclass(frozen=True)
class Thin:
    """Keeps boxes of which no two have an IoU above ``iou``: non-maximum suppression with random scores (CCOP). They
    are in the order of the scores.

    Attributes:
        iou: largest IoU of two boxes.
    """

    iou: Share = 0.5

    def __call__(self, found: Proposals, size: tuple[int, int], rng: np.random.Generator) -> Proposals:
        scores = torch.from_numpy(rng.random(len(found.boxes)))
        return found.index(nms(torch.from_numpy(found.boxes), scores, self.iou).numpy())
