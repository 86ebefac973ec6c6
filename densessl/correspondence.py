"""Strategies that say which places of two views belong together.

A strategy looks at the backbone maps and the geometry of two views and returns :class:`Pairs`: how to read the first
view's map and the second's so that row p of one corresponds to row p of the other. An objective reads whatever it wants
that way (projections, targets), and does not know which strategy it has: DenseCL with geometric instead of feature
matching is ``correspondence=dict(type="OverlapGrid", size=7)``.

Legend: N images, C channels, P pairs an image, S = H*W cells of a map, row-major.
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
        first, second: read a map (N, C, H, W) of the first or second view at the places, giving (N, P, C). The maps
            cover the views, whatever their resolution, except that strategies which name cells want maps of the size
            they looked at.
        valid: (N, P) bool, whether there is a counterpart at all.
    """

    first: Reader
    second: Reader
    valid: Tensor


def cells(features: Tensor) -> Tensor:
    """All cells of a map (N, C, H, W), as (N, S, C)."""
    return features.flatten(2).mT


def chosen(index: Tensor) -> Reader:
    """Reads the cells ``index`` (N, P)."""
    return lambda features: cells(features).gather(1, index[..., None].expand(-1, -1, features.shape[1]))


def mixed(weights: Tensor) -> Reader:
    """Reads mixtures of cells by ``weights`` (N, P, S)."""

    def read(features: Tensor) -> Tensor:
        (features,) = full_precision(features)
        with torch.autocast(features.device.type, enabled=False):
            return weights.to(features.dtype) @ cells(features)

    return read


def at(points: Tensor) -> Reader:
    """Reads bilinear values at ``points`` (N, P, 2), see :func:`densessl.losses.sample_points`."""
    return lambda features: sample_points(features, points)


class Correspondence(nn.Module):
    """Base of the strategies. They have no parameters."""

    def forward(self, first: Tensor, second: Tensor, geometry: tuple[ViewGeometry, ViewGeometry], step: Step) -> Pairs:
        """Pair the places of two views.

        Args:
            first, second: backbone maps (N, C, H, W) of the two views; used without gradient.
            geometry: of the two views.
            step: for random numbers.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward")


@torch.no_grad()
def similarities(first: Tensor, second: Tensor) -> Tensor:
    """Cosines of all cells of two maps, (N, S_1, S_2), without gradient."""
    with torch.autocast(first.device.type, enabled=False):
        return unit(first).flatten(2).mT @ unit(second).flatten(2)


def everywhere(maps: Tensor) -> Tensor:
    """Validity (N, S) of a strategy that finds every cell a counterpart."""
    return torch.ones(len(maps), maps[0, 0].numel(), dtype=torch.bool, device=maps.device)


@CORRESPONDENCES.register_module()
class FeatureArgmax(Correspondence):
    """Every cell's most similar cell of the other view (DenseCL, equation 3). Geometry plays no part: a cell has a
    match even where the views do not overlap. Ties go to the first cell."""

    def forward(self, first, second, geometry, step) -> Pairs:
        similarity = similarities(first, second)
        # Equal cells are equally similar only up to the rounding of a matrix product, which depends on their places.
        best = similarity.amax(2, keepdim=True) - 8 * torch.finfo(similarity.dtype).eps
        return Pairs(cells, chosen((similarity >= best).byte().argmax(2)), everywhere(first))


@CORRESPONDENCES.register_module()
class SoftAttention(Correspondence):
    """Every cell's mixture of the other view's cells, by softmax of their cosines over ``temperature``.

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
    """Every cell's mean over the cells of the other view that lie close to it in the source (PixPro, section 3.1).

    Args:
        threshold: in cell diagonals.
        coords: "official" takes PixPro's inclusive-end coordinates, "edges" plain pixel-edge ones.
    """

    def __init__(self, threshold: NonNegative = 0.7, coords: Literal["official", "edges"] = "edges"):
        super().__init__()
        self.threshold = threshold
        self.frame = FRAMES[choose("correspondence.coords", coords, FRAMES)]

    def forward(self, first, second, geometry, step) -> Pairs:
        frames = [self.frame(item) for item in geometry]
        mask = distance_mask(*frames, *(tuple(item.shape[2:]) for item in (first, second)), threshold=self.threshold)
        positive = mask.to(frames[0].dtype)
        weights = positive / positive.sum(2, keepdim=True).clamp(min=1)
        return Pairs(cells, mixed(weights), mask.any(2))


def in_overlap(points: Tensor, geometry: tuple[ViewGeometry, ViewGeometry]) -> tuple[Tensor, Tensor, Tensor]:
    """Points (P, 2) of the unit square laid over the overlap of two views.

    Returns:
        their :func:`densessl.geometry.sampling_grid` coordinates (N, P, 2) in either view, and which of them lie in
        both views (N, P). Without overlap none does, and they are somewhere finite; of turned views, whose overlap is
        taken as that of their bounding boxes, only those do that the views really show.
    """
    with torch.no_grad():
        box, area = overlap(*geometry)
        size = (box[:, 2:] - box[:, :2]).clamp(min=0)
        source = box[:, None, :2] + points.to(box) * size[:, None]
        one, other = (sampling_grid(item, source) for item in geometry)
        inside = (one.abs() <= 1).all(2) & (other.abs() <= 1).all(2)
        return one, other, inside & (area > 0)[:, None]


@CORRESPONDENCES.register_module()
class OverlapGrid(Correspondence):
    """The cell centres of a ``size`` x ``size`` grid over the overlap of the views (DenseSiam, PixSim).

    Args:
        size: cells a side.
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
    """``count`` random points of the overlap of the views. One draw a step serves all images, each scaled to its own
    overlap, so that neither the number of ranks nor the order of the batch matters.

    Args:
        count: points of an image.
    """

    def __init__(self, count: Count = 49):
        super().__init__()
        self.count = count

    def forward(self, first, second, geometry, step) -> Pairs:
        points = torch.from_numpy(step.rng("correspondence").random((self.count, 2)))
        one, other, valid = in_overlap(points.to(geometry[0].matrix.device, non_blocking=True), geometry)
        return Pairs(at(one), at(other), valid)
