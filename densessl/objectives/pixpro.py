"""PixPro and PixContrast (Xie et al., "Propagate Yourself", CVPR 2021, arXiv 2011.10043)."""

from collections.abc import Callable, Mapping
from typing import Annotated, Literal

import torch
from torch import Tensor, nn

from densessl.branches.norm import NormConfig
from densessl.branches.projector import MLP
from densessl.branches.propagation import PixelPropagation
from densessl.constraints import Count, NonNegative, Positive, Range
from densessl.data.batch import Batch
from densessl.figures import between_image_cosine
from densessl.geometry import FRAMES, ViewGeometry, distance_mask
from densessl.losses import cosine_regression, pixel_consistency, pixel_contrast, unit
from densessl.losses.reduce import Mean
from densessl.objectives.base import BranchMaps, Objective
from densessl.registry import OBJECTIVES
from densessl.wording import choose


class TwoViewObjective(Objective):
    """Base class: projects one level of two views in both branches with an MLP of 1x1 convolutions.

    Args:
        hidden, dim: hidden and output width of the projector. PixPro's paper has 2048 hidden channels, its code and
            released models have 4096.
        norm: norm config of the projector (and predictor).
    """

    two_views = True

    def __init__(self, hidden: Count = 4096, dim: Count = 256, norm: NormConfig | None = None, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.dim = dim
        self.norm = norm or dict(type="SyncBN")

    def projectors(self, channels: Callable[[int | str], int]) -> dict[str, nn.Module]:
        return {"projector": MLP(kind="map", dims=(channels(self.level), self.hidden, self.dim), norm=self.norm)}

    def projections(self, maps: Mapping[str, BranchMaps], branch: str) -> list[Tensor]:
        """Projected maps of both views, each (N, dim, H, W)."""
        return [maps[branch].project("projector", view, self.level) for view in self.views]


class PixelObjective(TwoViewObjective):
    """Base class: a term over cells that lie close to each other in the source.

    Args:
        threshold: upper bound of the distance of a positive pair, in cell diagonals.
        coords: "official" for PixPro's inclusive-end coordinates, "edges" for pixel-edge coordinates.
    """

    def __init__(self, threshold: NonNegative = 0.7, coords: Literal["official", "edges"] = "official", **kwargs):
        super().__init__(**kwargs)
        self.threshold = threshold
        self.frame = FRAMES[choose(f"objectives.{self.name}.coords", coords, FRAMES)]

    def masks(self, geometry: list[ViewGeometry], maps: list[Tensor]) -> tuple[Tensor, Tensor]:
        """Positive pairs (N, S_1, S_2) of view 1's cells with view 2's, and their transpose."""
        frames = [self.frame(geometry[view]) for view in self.views]
        mask = distance_mask(*frames, *(tuple(item.shape[2:]) for item in maps), threshold=self.threshold)
        return mask, mask.mT


def figures(cosines: list[Tensor], counts: Tensor, target: Tensor) -> dict[str, Tensor]:
    """Figures to log: the mean positive cosine; positives per image that has any; the share of images without
    positives; and the similarity between target cells of *different* images, which a collapse drives to 1 (above
    0.99)."""
    overlapping = counts > 0
    images = overlapping.sum().clamp(min=1)
    return {
        "positive_cosine": sum((cosine.detach() * overlapping).sum() / images for cosine in cosines) / len(cosines),
        "positives": counts.sum() / images,
        "no_overlap": 1 - overlapping.float().mean(),
        "between_images": between_image_cosine(target),
    }


@OBJECTIVES.register_module()
class PixPro(PixelObjective):
    """Pixel-to-propagation consistency: a propagated online map agrees with the target map (section 3.2).

    ``loss = sum over both directions of -2 * mean_n l_n``, where l_n is the mean cosine of the positive pairs of image
    n. The mean is over all images: one without overlap counts as 0. Between -4 and 4, with -4 for perfect agreement.

    Args:
        transform_layers: depth of the propagation's value transform, 0, 1 or 2.
        gamma, clamp: exponent and lower bound of the propagation's similarity.
        transform_norm, transform_hidden: norm config and hidden width of a two-layer transform; by default plain BN and
            ``dim``, as in the official code.
    """

    def __init__(
        self,
        transform_layers: Annotated[int, Range(0, 2)] = 1,
        gamma: NonNegative = 2.0,
        clamp: float = 0.0,
        transform_norm: NormConfig | None = None,
        transform_hidden: Count | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.predictor = PixelPropagation(self.dim, transform_layers, gamma, clamp, transform_norm, transform_hidden)

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        predictions = [unit(self.predictor(item)) for item in self.projections(maps, "online")]
        targets = [unit(item) for item in self.projections(maps, "target")]
        masks = self.masks(batch.geometry, targets)
        first, counts = pixel_consistency(predictions[0], targets[1], masks[0])
        second, _ = pixel_consistency(predictions[1], targets[0], masks[1])
        loss = -2 * first.mean() - 2 * second.mean()
        return {"loss": loss, **figures([first, second], counts, targets[0])}


@OBJECTIVES.register_module()
class PixContrast(PixelObjective):
    """Pixel contrast within an image (section 3.1), without propagation: the negatives of a cell are the other cells of
    the other view.

    The code was not released: temperature and averaging follow the text of the paper and its unofficial ports.

    Args:
        temperature: softmax temperature.
        mean: "global" or "local", see :func:`densessl.losses.reduce.valid_mean`.
    """

    def __init__(self, temperature: Positive = 0.3, mean: Mean = "global", **kwargs):
        super().__init__(**kwargs)
        self.temperature = temperature
        self.mean = mean

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        online = [unit(item) for item in self.projections(maps, "online")]
        targets = [unit(item) for item in self.projections(maps, "target")]
        masks = self.masks(batch.geometry, targets)
        losses = [
            pixel_contrast(q, k, mask, self.temperature, self.mean) for q, k, mask in zip(online, targets[::-1], masks)
        ]
        with torch.no_grad():
            cosine, counts = pixel_consistency(online[0], targets[1], masks[0])
        return {"loss": sum(losses) / 2, **figures([cosine], counts, targets[0])}


@OBJECTIVES.register_module()
class InstanceCosine(TwoViewObjective):
    """PixPro's instance branch: BYOL with convolutional heads applied *before* pooling, so that their batch norm sees
    N*H*W samples. This follows the official code; the paper describes a SimCLR-like term.

    ``loss = -2 mean cos(p_1, z_2) - 2 mean cos(p_2, z_1)``, between -4 and 4. The weight behind the published results
    is not known; the paper's is 1.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.predictor = MLP(kind="map", dims=(self.dim, self.hidden, self.dim), norm=self.norm)

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        predictions = [self.predictor(item).mean((2, 3)) for item in self.projections(maps, "online")]
        projected = self.projections(maps, "target")
        targets = [item.mean((2, 3)) for item in projected]
        cosines = [cosine_regression(p, z) for p, z in zip(predictions, targets[::-1])]
        return {
            "loss": -2 * sum(cosines),
            "cosine": sum(cosines).detach() / 2,
            "between_images": between_image_cosine(unit(projected[0])),
        }
