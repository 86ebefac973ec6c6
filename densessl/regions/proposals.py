"""The output of region generators."""

from typing import NamedTuple

import numpy as np


class Proposals(NamedTuple):
    """Class-agnostic boxes of one image, in their generator's order.

    Attributes:
        boxes: (B, 4) float64, (x0, y0, x1, y1) in pixels of the upright image, pixel-edge: a box around one pixel has
            sides of 1. All boxes have a positive area and lie inside the image.
        levels: (B,) int64 depth in the hierarchy: 1 for an initial segment, and 1 more than the highest level of its
            parts for a merge. All are 1 if the generator groups nothing.
    """

    boxes: np.ndarray
    levels: np.ndarray

    def index(self, chosen: np.ndarray) -> "Proposals":
        """The proposals selected by a mask, a slice or indices, in that order."""
        return Proposals(self.boxes[chosen], self.levels[chosen])

    @classmethod
    def plain(cls, boxes: np.ndarray) -> "Proposals":
        """Proposals of boxes (B, 4) without a hierarchy: all levels are 1."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        return cls(boxes, np.ones(len(boxes), np.int64))
