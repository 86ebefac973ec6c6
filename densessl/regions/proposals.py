"""What generators of regions give."""

from typing import NamedTuple

import numpy as np


class Proposals(NamedTuple):
    """Class-agnostic boxes of one image, best or earliest first as their generator orders them.

    Attributes:
        boxes: (B, 4) float64, (x0, y0, x1, y1) in pixels of the upright image, pixel-edge: a box around one pixel has
            sides of 1. None is empty or leaves the image.
        levels: (B,) int64: 1 for what a generator starts from, one more than the highest of its parts for a grouping.
            1 throughout where nothing is grouped.
    """

    boxes: np.ndarray
    levels: np.ndarray

    def index(self, chosen: np.ndarray) -> "Proposals":
        """The proposals that a mask or indices choose, in that order."""
        return Proposals(self.boxes[chosen], self.levels[chosen])

    @classmethod
    def plain(cls, boxes: np.ndarray) -> "Proposals":
        """Boxes (B, 4) of a generator that groups nothing."""
        boxes = np.asarray(boxes, np.float64).reshape(-1, 4)
        return cls(boxes, np.ones(len(boxes), np.int64))
