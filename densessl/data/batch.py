"""The batch contract of every pretraining method, and its collate."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densessl.geometry import ViewGeometry
from densessl.registry import FUNCTIONS


class Sample(NamedTuple):
    """What a worker makes of one image.

    Attributes:
        views: V arrays (h_v, w_v, 3) uint8.
        geometry: V triples (matrix (2, 3) float64, view (width, height), source (width, height)).
        draws: V dicts, name to numbers of any fixed shape: what ops on the device need.
        key: (epoch, index).
    """

    views: list[np.ndarray]
    geometry: list[tuple[np.ndarray, tuple[int, int], tuple[int, int]]]
    draws: list[dict[str, np.ndarray]]
    key: tuple[int, int]


class Batch(NamedTuple):
    """N images, V views each.

    Attributes:
        views: V tensors (N, 3, h_v, w_v): uint8 from the loader, normalised floats after the preprocessor; stored
            channels-last.
        geometry: V ViewGeometry.
        draws: V dicts, name to (N, …) tensors. They stay on the CPU, where ops decide which rows they touch.
        keys: (N, 2) int64, (epoch, index) of each image.
        regions: packed boxes of the images, where a data set has them.
        derived: views an objective made after preprocessing (:class:`densessl.objectives.base.DerivedView`).
    """

    views: list[Tensor]
    geometry: list[ViewGeometry]
    draws: list[dict[str, Tensor]]
    keys: Tensor
    regions: tuple | None = None
    derived: dict[str, tuple] | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Views, geometry and keys moved to ``device`` without blocking; draws left where they are."""
        return self._replace(
            views=[view.to(device, non_blocking=True) for view in self.views],
            geometry=[ViewGeometry(*(f.to(device, non_blocking=True) for f in item)) for item in self.geometry],
            keys=self.keys.to(device, non_blocking=True),
        )


@FUNCTIONS.register_module()
def collate_views(samples: Sequence[Sample]) -> Batch:
    """Stack samples, in the worker."""
    views, geometry, draws, keys = zip(*samples)
    return Batch(
        # Rows of (h, w, 3) stacked are channels-last memory; the permuted tensor is (N, 3, h, w).
        [torch.from_numpy(np.stack(column)).permute(0, 3, 1, 2) for column in zip(*views)],
        [ViewGeometry.stack(column) for column in zip(*geometry)],
        [
            {name: torch.from_numpy(np.stack([row[name] for row in column])) for name in column[0]}
            for column in zip(*draws)
        ],
        torch.tensor(keys, dtype=torch.int64),
    )
