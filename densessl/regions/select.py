"""Selections: which of an image's proposals a method looks at, and in which order.

A selection is called with (proposals, (width, height) of the image in pixels, generator of random numbers) and returns
proposals. The lists of the methods are in :data:`PRESETS`.
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
# DETReg's top-k and random strategies (its third, all, is none), and CCOP's.
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
    """The first ``k``, in one of three orders.

    Attributes:
        k: how many; None for all.
        ranking: ``"order"``, the generator's own; ``"random"``; or ``"uijlings"``, the randomised hierarchy of
            selective search (Uijlings et al., IJCV 2013, section 3.4) as OpenCV has it: ascending by a uniform number
            times the level, so early, small regions tend to come first, interleaved with large ones. DETReg's top-k.
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
    """Boxes whose width over height lies between ``low`` and ``high``, both excluded.

    Attributes:
        low: least width over height.
        high: greatest width over height.
    """

    low: NonNegative = 1 / 3
    high: NonNegative = 3.0

    def __call__(self, found: Proposals, size: tuple[int, int], rng: np.random.Generator) -> Proposals:
        width, height = (found.boxes[:, 2:] - found.boxes[:, :2]).T
        return found.index((width > self.low * height) & (width < self.high * height))


@REGION_SELECTIONS.register_module()
@dataclass(frozen=True)
class MinSide:
    """Boxes whose root of the area exceeds ``pixels`` of the image as it is stored.

    Attributes:
        pixels: root of the least area, excluded.
    """

    pixels: NonNegative = 20.0

    def __call__(self, found: Proposals, size: tuple[int, int], rng: np.random.Generator) -> Proposals:
        return found.index((found.boxes[:, 2:] - found.boxes[:, :2]).prod(1) > self.pixels**2)


@REGION_SELECTIONS.register_module()
@dataclass(frozen=True)
class Thin:
    """Boxes of which no two overlap by more than ``iou``: non-maximum suppression with random scores, in the order of
    the scores (CCOP).

    Attributes:
        iou: largest overlap of two boxes.
    """

    iou: Share = 0.5

    def __call__(self, found: Proposals, size: tuple[int, int], rng: np.random.Generator) -> Proposals:
        scores = torch.from_numpy(rng.random(len(found.boxes)))
        return found.index(nms(torch.from_numpy(found.boxes), scores, self.iou).numpy())
