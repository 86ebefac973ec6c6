"""Strategies that pair corresponding places of two views.

From the backbone maps and the geometry of two views, a strategy computes :class:`Pairs`: one function that reads maps
of the first view and one that reads maps of the second, so that row p of one result corresponds to row p of the other.
Objectives read any map in this way (projections, targets), whatever the strategy: for DenseCL with geometric instead of
feature matching, set ``correspondence=dict(type="OverlapGrid", size=7)``.

Legend: N images, C channels, P pairs of an image, S = H*W cells of a map, row-major.
"""

from collections.abc import Callable
from typing import Annotated, Literal, NamedTuple

import torch
from torch import Tensor, nn

from densessl.constraints import Config, Count, NonNegative, Positive
from densessl.geometry import (
    FRAMES,
    ViewGeometry,
    distance_mask,
    overlap,
    sampling_grid,
    unit_cells,
)
from densessl.losses import full_precision, sample_points, unit
from densessl.registry import CORRESPONDENCES
from densessl.schedules import Step
from densessl.wording import choose

Reader = Callable[[Tensor], Tensor]
CorrespondenceConfig = Annotated[dict, Config(CORRESPONDENCES, trial=True)]  # dict(type="RandomPoints", count=49)


class Pairs(NamedTuple):
    """P corresponding places in each of N images.

    Attributes:
        first, second: functions that read a map (N, C, H, W) of the first or second view at the places, (N, P, C). Maps
            cover the views and may have any resolution; strategies that select cells need maps of the size that they
            were given.
        valid: (N, P) bool, whether a place has a counterpart.
    """

    first: Reader
    second: Reader
    valid: Tensor


def cells(features: Tensor) -> Tensor:
    """All cells (N, S, C) of a map (N, C, H, W)."""
    return features.flatten(2).mT


def chosen(index: Tensor) -> Reader:
    """A reader of the cells with the indices (N, P)."""
    return lambda features: cells(features).gather(1, index[..., None].expand(-1, -1, features.shape[1]))


def mixed(weights: Tensor) -> Reader:
    """A reader of weighted sums of cells, with ``weights`` (N, P, S)."""

    def read(features: Tensor) -> Tensor:
        (features,) = full_precision(features)
        with torch.autocast(features.device.type, enabled=False):
            return weights.to(features.dtype) @ cells(features)

    return read


def at(points: Tensor) -> Reader:
    """A reader of bilinear samples at ``points`` (N, P, 2), see :func:`densessl.losses.sample_points`."""
    return lambda features: sample_points(features, points)


class Correspondence(nn.Module):
    """Base of the strategies, which have no parameters."""

    def forward(self, first: Tensor, second: Tensor, geometry: tuple[ViewGeometry, ViewGeometry], step: Step) -> Pairs:
        """Pair the places of two views.

        Args:
            first, second: backbone maps (N, C, H, W) of the two views, used without gradient.
            geometry: geometry of the two views.
            step: the current step, for random numbers.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")


@torch.no_grad()
def similarities(first: Tensor, second: Tensor) -> Tensor:
    """Cosines (N, S_1, S_2) between all cells of two maps, without gradient."""
    with torch.autocast(first.device.type, enabled=False):
        return unit(first).flatten(2).mT @ unit(second).flatten(2)


def everywhere(maps: Tensor) -> Tensor:
    """Validity (N, S) where every cell of a map has a counterpart."""
    return torch.ones(len(maps), maps[0, 0].numel(), dtype=torch.bool, device=maps.device)


@CORRESPONDENCES.register_module()
class FeatureArgmax(Correspondence):
    """Pairs every cell with the most similar cell of the other view (DenseCL, equation 3). Geometry is not used: a cell
    has a match even where the views do not overlap. Ties go to the first cell."""

    def forward(self, first, second, geometry, step) -> Pairs:
        similarity = similarities(first, second)
        # Equal cells are equally similar only up to the rounding of the matrix product, which depends on their places.
        best = similarity.amax(2, keepdim=True) - 8 * torch.finfo(similarity.dtype).eps
        return Pairs(cells, chosen((similarity >= best).byte().argmax(2)), everywhere(first))


@CORRESPONDENCES.register_module()
class SoftAttention(Correspondence):
    """Pairs every cell with a weighted sum of the other view's cells; the weights are the softmax of their cosines.

    Args:
        temperature: softmax temperature.
    """

    def __init__(self, temperature: Positive = 0.1):
        super().__init__()
        self.temperature = temperature

    def forward(self, first, second, geometry, step) -> Pairs:
        weights = (similarities(first, second) / self.temperature).softmax(2)
        return Pairs(cells, mixed(weights), everywhere(first))


@CORRESPONDENCES.register_module()
class DistanceThreshold(Correspondence):
    """Pairs every cell with the mean of the other view's cells that lie close to it in the source (PixPro, section
    3.1).

    Args:
        threshold: upper bound of the distance in cell diagonals.
        coords: "official" for PixPro's inclusive-end coordinates, "edges" for pixel-edge coordinates.
    """

    def __init__(self, threshold: NonNegative = 0.7, coords: Literal["official", "edges"] = "edges"):
        super().__init__()
        self.threshold = threshold
        self.frame = FRAMES[choose("correspondence.coords", coords, FRAMES)]

    def forward(self, first, second, geometry, step) -> Pairs:
        frames = [self.frame(view) for view in geometry]
        grids = (tuple(features.shape[2:]) for features in (first, second))
        mask = distance_mask(*frames, *grids, threshold=self.threshold)
        positive = mask.to(frames[0].dtype)
        weights = positive / positive.sum(2, keepdim=True).clamp(min=1)
        return Pairs(cells, mixed(weights), mask.any(2))


def in_overlap(points: Tensor, geometry: tuple[ViewGeometry, ViewGeometry]) -> tuple[Tensor, Tensor, Tensor]:
    """Map points (P, 2) of the unit square to the overlap of two views.

    Returns:
        Their :func:`densessl.geometry.sampling_grid` coordinates (N, P, 2) in the first and in the second view, and
        (N, P) bool, whether a point lies in both views. Without overlap no point does, and coordinates are finite. The
        overlap of rotated views is that of their bounding boxes; only points inside both views count.
    """
    with torch.no_grad():
        box, area = overlap(*geometry)
        size = (box[:, 2:] - box[:, :2]).clamp(min=0)
        source = box[:, None, :2] + points.to(box) * size[:, None]
        one, other = (sampling_grid(view, source) for view in geometry)
        inside = (one.abs() <= 1).all(2) & (other.abs() <= 1).all(2)
        return one, other, inside & (area > 0)[:, None]


@CORRESPONDENCES.register_module()
class OverlapGrid(Correspondence):
    """Pairs the cell centres of a ``size`` x ``size`` grid over the overlap of the views (DenseSiam, PixSim).

    Args:
        size: number of cells along a side.
    """

    def __init__(self, size: Count = 7):
        super().__init__()
        self.size = size

    def forward(self, first, second, geometry, step) -> Pairs:
        points = unit_cells((self.size, self.size), geometry[0].matrix)
        one, other, valid = in_overlap(points, geometry)
        return Pairs(at(one), at(other), valid)


@CORRESPONDENCES.register_module()
class RandomPoints(Correspondence):
    """Pairs ``count`` random points of the overlap of the views. All images of a step share one draw, which is scaled
    to the overlap of each, so that neither the number of ranks nor the order of the batch matters.

    Args:
        count: number of points per image.
    """

    def __init__(self, count: Count = 49):
        super().__init__()
        self.count = count

    def forward(self, first, second, geometry, step) -> Pairs:
        points = torch.from_numpy(step.rng("correspondence").random((self.count, 2)))
        one, other, valid = in_overlap(points.to(geometry[0].matrix.device, non_blocking=True), geometry)
        return Pairs(at(one), at(other), valid)
