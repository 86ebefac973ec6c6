"""DenseSiam on two crops (Zhang et al., ECCV 2022, arXiv 2203.11075), and the region term that both variants share.

The code of this variant, for ImageNet, was never released. It follows the project page and the paper; what these leave
open is taken from the code of the segmentation variant (:mod:`densessl.objectives.densesiam_seg`) and from SimSiam.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from densessl.branches.norm import NormConfig
from densessl.branches.projector import MLP
from densessl.constraints import Count, Positive
from densessl.correspondence import CorrespondenceConfig
from densessl.data.batch import Batch
from densessl.figures import cell_vectors, channel_spread
from densessl.losses import matching_nce, soft_regions, unit, valid_mean
from densessl.losses.reduce import Mean
from densessl.objectives.base import BranchMaps, Objective
from densessl.registry import CORRESPONDENCES, OBJECTIVES
from densessl.schedules import ScheduledNonNegative, scheduled


class RegionContrast(nn.Module):
    """Contrast of each region with the regions of the same image in the other view.

    As in the official code, gradient flows into both sides and into the masks that define the regions; the other
    regions of the image are the only negatives.

    Args:
        dim: width of the projected regions.
        norm: norm config of the predictor.
        temperature: softmax temperature.
        predictor: whether queries pass a predictor: a hidden layer of width ``dim`` with norm, and a last layer
            without.
    """

    def __init__(self, dim: int, norm: dict[str, Any], temperature: float = 0.1, predictor: bool = True):
        super().__init__()
        self.predictor = MLP(dims=(dim, dim, dim), norm=norm, bias=False) if predictor else nn.Identity()
        self.temperature = temperature

    def forward(self, projected: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Losses (N,) of N images, each the mean over regions and both directions, and the share (N,) of regions that
        are most similar to themselves in the other view.

        Args:
            projected: regions (N, R, dim) of both views.
        """
        queries = [unit(self.predictor(regions.flatten(0, 1)).view_as(regions), dim=2) for regions in projected]
        keys = [unit(regions, dim=2) for regions in projected]
        rows, hits = [], []
        for query, key in zip(queries, keys[::-1]):
            with torch.autocast(query.device.type, enabled=False):
                similarity = query @ key.mT
            positive = torch.eye(similarity.shape[1], dtype=similarity.dtype, device=similarity.device)
            rows.append(matching_nce(similarity, positive.expand_as(similarity), self.temperature))
            hits.append(similarity.argmax(2) == positive.argmax(1))
        return torch.stack(rows).mean((0, 2)), torch.stack(hits).to(rows[0].dtype).mean((0, 2))


class RegionObjective(Objective):
    """Base class: two views, dense heads with norm, and a region term beside the pixel term.

    Args:
        hidden: width of the hidden layers of all heads, and of the outputs of the region heads.
        depth, region_depth: number of hidden layers of the dense projectors, and of the region projector.
        region_weight: weight of the region term; a number or a schedule. With the number 0 there are no region heads.
        temperature: softmax temperature of the region term.
        region_predictor: whether the region term has a predictor.
        region_last_norm: whether the region projector ends with a norm.
        norm: norm config of all heads.
        mean: "global" or "local", see :func:`densessl.losses.reduce.valid_mean`.
    """

    two_views = True

    def __init__(
        self,
        hidden: Count = 128,
        depth: Count = 2,
        region_weight: ScheduledNonNegative = 0.1,
        temperature: Positive = 0.1,
        region_depth: Count = 2,
        region_predictor: bool = True,
        region_last_norm: bool = True,
        norm: NormConfig | None = None,
        mean: Mean = "global",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden, self.depth, self.region_depth, self.mean = hidden, depth, region_depth, mean
        self.norm = norm or dict(type="SyncBN")
        self.region_last_norm = region_last_norm
        self.region_weight = scheduled(region_weight)
        self.region = RegionContrast(hidden, self.norm, temperature, region_predictor) if region_weight != 0 else None

    def head(self, channels: int, dim: int) -> MLP:
        """A dense projector: ``depth`` hidden layers and a last one, all with norm, the last norm without affine
        parameters. The official bias of the last layer, which that norm cancels, is left out."""
        dims = (channels, *[self.hidden] * self.depth, dim)
        return MLP("map", dims, self.norm, bias=False, last_bias=False, last_norm=True, last_affine=False)

    def predictor_of(self, dim: int) -> MLP:
        """A dense predictor."""
        return MLP("map", (dim, self.hidden, dim), self.norm, bias=False)

    def region_projectors(self, channels: int) -> dict[str, MLP]:
        """The projector of region vectors, if there is a region term."""
        if self.region is None:
            return {}
        dims = (channels, *[self.hidden] * (self.region_depth + 1))
        last = dict(last_norm=True, last_affine=False) if self.region_last_norm else {}
        return {"region": MLP("vec", dims, self.norm, bias=False, last_bias=False, **last)}

    def region_terms(
        self, online: BranchMaps, features: Sequence[Tensor], logits: Sequence[Tensor], valid: Tensor, step
    ) -> dict[str, Tensor]:
        """The weighted region loss, and the share of regions that are matched.

        Args:
            features: maps (N, C, H, W) of both views, whose cells correspond.
            logits: (N, R, H, W) of both views; their softmax over R gives the masks of R regions.
            valid: (N, H, W) bool, cells that both views show.
        """
        if self.region is None:
            return {}
        projected = []
        for cells, masks in zip(features, logits):
            vectors = soft_regions(cells, masks, valid)
            projected.append(online.apply("region", vectors.flatten(0, 1)).unflatten(0, vectors.shape[:2]))
        rows, hits = self.region(projected)
        images = valid.flatten(1).any(1)
        return {
            "loss_region": self.region_weight(step) * valid_mean(rows, images, self.mean),
            "region_top1": valid_mean(hits, images, "local"),
        }


@OBJECTIVES.register_module()
class DenseSiam(RegionObjective):
    """Pixel and region consistency of two crops (PixSim and RegionSim, section 3). The third term of the method,
    SimSiam, is a separate objective.

    ``loss_pixel = -(mean cos(p_1, z_2) + mean cos(p_2, z_1)) / 2`` over places that both views show, from 0 at random
    to -1; projections of the backbone's map are sampled at a 7 x 7 grid over the overlap of the crops. The softmax over
    the channels of z gives the masks of ``dim`` regions, whose features are contrasted within their image:
    ``loss_region``, ``log(dim)`` at random. Images whose views do not overlap count in neither term.

    ``channel_std`` of the targets is about 1 in healthy training and 0 in a collapse.

    Args:
        hidden: see :class:`RegionObjective`.
        dim: channels of z, which is also the number of regions.
        correspondence: config of the strategy that pairs places (:mod:`densessl.correspondence`).
    """

    def __init__(
        self, hidden: Count = 512, dim: Count = 128, correspondence: CorrespondenceConfig | None = None, **kwargs
    ):
        super().__init__(hidden=hidden, **kwargs)
        self.dim = dim
        self.predictor = self.predictor_of(dim)
        self.correspondence = CORRESPONDENCES.build(correspondence or dict(type="OverlapGrid", size=7))

    def projectors(self, channels):
        width = channels(self.level)
        return {"projector": self.head(width, self.dim), **self.region_projectors(width)}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        first, second = self.views
        online, target = maps["online"], maps["target"]
        geometry = (batch.geometry[first], batch.geometry[second])
        pairs = self.correspondence(online[first][self.level], target[second][self.level], geometry, step)
        valid = pairs.valid

        def read(views: Sequence[Tensor]) -> list[Tensor]:
            """Maps of both views as maps (N, C, P, 1) of the places that both show."""
            return [reader(view).mT[..., None] for reader, view in zip((pairs.first, pairs.second), views)]

        z, targets = (
            [branch.project("projector", view, self.level) for view in self.views] for branch in (online, target)
        )
        predictions = read([self.predictor(projection) for projection in z])
        cosines = sum((unit(p) * unit(t)).sum(1) for p, t in zip(predictions, read(targets)[::-1])) / 2
        features = [online[view][self.level] for view in self.views]
        return {
            "loss_pixel": -valid_mean(cosines.flatten(), valid.flatten(), self.mean),
            **self.region_terms(online, read(features), read(z), valid[..., None], step),
            "valid_pairs": valid.sum(),
            "channel_std": channel_spread(cell_vectors(targets[0])),
        }
