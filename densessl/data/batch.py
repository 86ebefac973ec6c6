"""The batch contract of every pretraining method, and its collate."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densessl.geometry import ViewGeometry, boxes_to_view
from densessl.registry import FUNCTIONS


class SampleRegions(NamedTuple):
    """Regions of one image.

    Attributes:
        boxes: (B, 4) float64, (x0, y0, x1, y1) in source pixels.
        levels: (B,) int64, how many groupings deep each is; 1 where the generator groups nothing.
        draws: name to (B, count) numbers, uniform in [0, 1) unless whoever made them says otherwise.
        patches: (B, h, w, 3) uint8, what each shows, where asked for.
    """

    boxes: np.ndarray
    levels: np.ndarray
    draws: dict[str, np.ndarray]
    patches: np.ndarray | None = None


class Sample(NamedTuple):
    """What a worker makes of one image.

    Attributes:
        views: V arrays (h_v, w_v, 3) uint8.
        geometry: V triples (matrix (2, 3) float64, view (width, height), source (width, height)).
        draws: V dicts, name to numbers of any fixed shape: what ops on the device need.
        key: (epoch, index).
        regions: of the image, where the data set has a source of them.
    """

    views: list[np.ndarray]
    geometry: list[tuple[np.ndarray, tuple[int, int], tuple[int, int]]]
    draws: list[dict[str, np.ndarray]]
    key: tuple[int, int]
    regions: SampleRegions | None = None


class Regions(NamedTuple):
    """M regions of the N images of a batch, those of an image next to each other.

    Attributes:
        boxes: V tensors (M, 4), (x0, y0, x1, y1) in pixels of the view, clipped to it.
        kept: V tensors (M,), share of the region's area that lies inside the view.
        source: (M, 4) in source pixels.
        levels: (M,) int64.
        owner: (M,) int64, ascending: the batch row each belongs to. Rows without regions are left out.
        draws: name to (M, count) numbers. They move to the device with the rest.
        patches: (M, 3, h, w) uint8, what each region shows, where asked for; normalised floats after the preprocessor.
    """

    boxes: list[Tensor]
    kept: list[Tensor]
    source: Tensor
    levels: Tensor
    owner: Tensor
    draws: dict[str, Tensor]
    patches: Tensor | None = None

    def map(self, function: Callable[[Tensor], Tensor]) -> "Regions":
        """The same regions with ``function`` applied to each tensor."""
        return Regions(
            [function(item) for item in self.boxes],
            [function(item) for item in self.kept],
            *(function(item) for item in (self.source, self.levels, self.owner)),
            {name: function(item) for name, item in self.draws.items()},
            None if self.patches is None else function(self.patches),
        )

    def index(self, chosen: Tensor) -> "Regions":
        """The regions that a mask (M,) or ascending indices choose."""
        return self.map(lambda tensor: tensor[chosen])


class Batch(NamedTuple):
    """N images, V views each.

    Attributes:
        views: V tensors (N, 3, h_v, w_v): uint8 from the loader, normalised floats after the preprocessor; stored
            channels-last.
        geometry: V ViewGeometry.
        draws: V dicts, name to (N, …) tensors. They stay on the CPU, where ops decide which rows they touch.
        keys: (N, 2) int64, (epoch, index) of each image.
        regions: of the images, where the data set has a source of them.
        derived: views an objective made after preprocessing (:class:`densessl.objectives.base.DerivedView`).
    """

    views: list[Tensor]
    geometry: list[ViewGeometry]
    draws: list[dict[str, Tensor]]
    keys: Tensor
    regions: Regions | None = None
    derived: dict[str, tuple] | None = None

    def to(self, device: torch.device | str) -> "Batch":
        """Views, geometry, keys and regions moved to ``device`` without blocking; draws left where they are."""
        return self._replace(
            views=[view.to(device, non_blocking=True) for view in self.views],
            geometry=[ViewGeometry(*(f.to(device, non_blocking=True) for f in item)) for item in self.geometry],
            keys=self.keys.to(device, non_blocking=True),
            regions=self.regions and self.regions.map(lambda tensor: tensor.to(device, non_blocking=True)),
        )


@FUNCTIONS.register_module()
def collate_views(samples: Sequence[Sample]) -> Batch:
    """Stack samples, in the worker. Views of unequal sizes are padded with zeros, on the right and below."""
    views, geometry, draws, keys, regions = zip(*samples)
    placed = [ViewGeometry.stack(column) for column in zip(*geometry)]
    return Batch(
        # Rows of (h, w, 3) stacked are channels-last memory; the permuted tensor is (N, 3, h, w).
        [torch.from_numpy(stack_padded(column)).permute(0, 3, 1, 2) for column in zip(*views)],
        placed,
        [
            {name: torch.from_numpy(np.stack([row[name] for row in column])) for name in column[0]}
            for column in zip(*draws)
        ],
        torch.tensor(keys, dtype=torch.int64),
        None if regions[0] is None else pack_regions(regions, placed),
    )


def stack_padded(images: Sequence[np.ndarray]) -> np.ndarray:
    """Images (h, w, 3) of any sizes as one array (N, max h, max w, 3), zeros right of and below each."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    if all(image.shape[:2] == (height, width) for image in images):
        return np.stack(images)
    stacked = np.zeros((len(images), height, width, 3), images[0].dtype)
    for row, image in zip(stacked, images):
        row[: image.shape[0], : image.shape[1]] = image
    return stacked


def pack_regions(samples: Sequence[SampleRegions], geometry: Sequence[ViewGeometry]) -> Regions:
    """Regions of N images, mapped into their V views."""
    boxes, levels, draws, patches = zip(*samples)
    counts = torch.tensor([len(item) for item in boxes])
    owner = torch.repeat_interleave(torch.arange(len(boxes)), counts)
    source = torch.from_numpy(np.concatenate(boxes))
    mapped = [boxes_to_view(view.index(owner), source[:, None]) for view in geometry]
    return Regions(
        [box[:, 0] for box, _ in mapped],
        [kept[:, 0] for _, kept in mapped],
        source,
        torch.from_numpy(np.concatenate(levels)),
        owner,
        {name: torch.from_numpy(np.concatenate([row[name] for row in draws])) for name in draws[0]},
        None if patches[0] is None else torch.from_numpy(np.concatenate(patches)).permute(0, 3, 1, 2),
    )
