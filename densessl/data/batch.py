"""The batch contract of every pretraining method, and its collate."""

import itertools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from densessl.data.bad_images import BadImage
from densessl.geometry import ViewGeometry, boxes_to_view
from densessl.registry import FUNCTIONS


class SampleRegions(NamedTuple):
    """Regions of one image.

    Attributes:
        boxes: (B, 4) float64, (x0, y0, x1, y1) in source pixels.
        levels: (B,) int64, depth of each region in the hierarchy of groupings; 1 where the generator groups nothing.
        draws: name to (B, count) random numbers, uniform in [0, 1) unless their source documents another distribution.
        patches: (B, h, w, 3) uint8, the pixels of each region; None unless the data set cuts patches.
    """

    boxes: np.ndarray
    levels: np.ndarray
    draws: dict[str, np.ndarray]
    patches: np.ndarray | None = None


class Sample(NamedTuple):
    """The views of one image, as a worker hands them to the collate.

    Attributes:
        views: V arrays (h_v, w_v, 3) uint8.
        geometry: V triples (matrix (2, 3) float64, view (width, height), source (width, height)).
        draws: V dicts, name to random numbers of a fixed shape, for the ops that run on the device.
        key: (epoch, index).
        regions: the image's regions; None if the data set has no source of regions.
        bad: images that could not be read, in whose place this one stands.
    """

    views: list[np.ndarray]
    geometry: list[tuple[np.ndarray, tuple[int, int], tuple[int, int]]]
    draws: list[dict[str, np.ndarray]]
    key: tuple[int, int]
    regions: SampleRegions | None = None
    bad: tuple[BadImage, ...] = ()


class Regions(NamedTuple):
    """M regions of the N images of a batch, grouped by image.

    Attributes:
        boxes: V tensors (M, 4), (x0, y0, x1, y1) in pixels of the view, clipped to the view.
        kept: V tensors (M,), share of the region's area that lies inside the view.
        source: (M, 4) in source pixels.
        levels: (M,) int64.
        owner: (M,) int64, ascending: the batch row of each region's image. An image without regions does not appear.
        draws: name to (M, count) random numbers; unlike ``Batch.draws``, they move to the device.
        patches: (M, 3, h, w) uint8, the pixels of each region; normalised floats after the preprocessor. None unless
            the data set cuts patches.
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
        """The regions selected by a mask (M,) or by ascending indices."""
        return self.map(lambda tensor: tensor[chosen])


class Batch(NamedTuple):
    """N images, V views each.

    Attributes:
        views: V tensors (N, 3, h_v, w_v): uint8 from the loader, normalised floats after the preprocessor; stored
            channels-last.
        geometry: V ViewGeometry.
        draws: V dicts, name to (N, …) tensors. They stay on the CPU, where the ops decide which rows they change.
        keys: (N, 2) int64, (epoch, index) of each image.
        regions: the images' regions; None if the data set has no source of regions.
        derived: views that objectives made after preprocessing (:class:`densessl.objectives.base.DerivedView`).
        bad: images that could not be read, and were replaced by others.
    """

    views: list[Tensor]
    geometry: list[ViewGeometry]
    draws: list[dict[str, Tensor]]
    keys: Tensor
    regions: Regions | None = None
    derived: dict[str, tuple] | None = None
    bad: tuple[BadImage, ...] = ()

    def to(self, device: torch.device | str) -> "Batch":
        """Move views, geometry, keys and regions to ``device`` without blocking. Draws stay on the CPU."""
        return self._replace(
            views=[view.to(device, non_blocking=True) for view in self.views],
            geometry=[ViewGeometry(*(f.to(device, non_blocking=True) for f in item)) for item in self.geometry],
            keys=self.keys.to(device, non_blocking=True),
            regions=self.regions and self.regions.map(lambda tensor: tensor.to(device, non_blocking=True)),
        )


@FUNCTIONS.register_module()
def collate_views(samples: Sequence[Sample]) -> Batch:
    """Stack samples into a batch, in the worker. Views of unequal sizes are zero-padded on the right and below."""
    views, geometry, draws, keys, regions, bad = zip(*samples)
    placed = [ViewGeometry.stack(column) for column in zip(*geometry)]
    return Batch(
        # Stacked (h, w, 3) images are channels-last in memory; the permuted tensor is (N, 3, h, w).
        [torch.from_numpy(stack_padded(column)).permute(0, 3, 1, 2) for column in zip(*views)],
        placed,
        [
            {name: torch.from_numpy(np.stack([row[name] for row in column])) for name in column[0]}
            for column in zip(*draws)
        ],
        torch.tensor(keys, dtype=torch.int64),
        None if regions[0] is None else pack_regions(regions, placed),
        bad=tuple(itertools.chain.from_iterable(bad)),
    )


def stack_padded(images: Sequence[np.ndarray]) -> np.ndarray:
    """Stack (h, w, 3) images of any sizes into (N, max h, max w, 3), zero-padded on the right and below."""
    height, width = (max(image.shape[axis] for image in images) for axis in (0, 1))
    if all(image.shape[:2] == (height, width) for image in images):
        return np.stack(images)
    stacked = np.zeros((len(images), height, width, 3), images[0].dtype)
    for row, image in zip(stacked, images):
        row[: image.shape[0], : image.shape[1]] = image
    return stacked


def pack_regions(samples: Sequence[SampleRegions], geometry: Sequence[ViewGeometry]) -> Regions:
    """Concatenate the regions of N images and map their boxes into the V views."""
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
