"""The local term of LC-loss (Islam et al., "Self-supervised Learning with Local Contrastive Loss for Detection and
Semantic Segmentation", WACV 2023, arXiv 2207.04398). The method is an image-level objective, BYOL in the paper, plus
this term."""

from typing import Literal

import torch
from mmengine.dist import get_dist_info
from torch import Tensor, nn

from densessl.branches.norm import NormConfig
from densessl.branches.projector import MLP
from densessl.branches.queue import gather_in_order
from densessl.constraints import Count, Positive
from densessl.correspondence import CorrespondenceConfig, Pairs, Reader, cells
from densessl.data.batch import Batch
from densessl.figures import between_image_cosine
from densessl.losses import matching_nce, multi_positive_nce, unit, valid_mean
from densessl.losses.reduce import Mean
from densessl.objectives.base import Objective
from densessl.registry import CORRESPONDENCES, OBJECTIVES
from densessl.wording import choose

CANDIDATES = ("points", "cells", "batch")


@OBJECTIVES.register_module()
class LCLoss(Objective):
    """Local contrast: each place of one view identifies the same place of the other view among candidates.

    ``loss = (L_12 + L_21) / 2``, ``L = mean over valid points of -log softmax_j(a_i . b_j / T) at j = i``, where a are
    the online and b the target features, sampled at the points and normalised. Images whose views do not overlap do not
    count.

    From the paper: pixels in known geometric correspondence are contrasted, in addition to BYOL. No code was released;
    points, widths, temperature and candidates are a reconstruction.

    Logged, as means over both directions: ``positive_cosine``; ``top1``, the share of points whose counterpart is the
    most similar candidate (with "cells", the cell of the largest weight); ``valid_pairs`` and ``valid_images``, the
    numbers of points that count and of images that have any. ``between_images`` is the similarity between target cells
    of different images, which a collapse drives to 1.

    Args:
        hidden, dim: hidden and output width of projector and predictor, two 1x1 convolutions with a norm between.
        predictor: whether the online branch has a predictor.
        temperature: softmax temperature.
        candidates: "points": the counterparts of all points of the same image. "cells": all cells of the other view's
            map; a point between cells has bilinear target weights. "batch": the counterparts of all images on all
            ranks, gathered, which keeps (N P) x (N P ranks) similarities.
        correspondence: config of the strategy that pairs places (:mod:`densessl.correspondence`); by default 49 random
            points of the overlap.
        norm: norm config of projector and predictor.
        mean: "global" or "local", see :func:`densessl.losses.reduce.valid_mean`.
    """

    two_views = True

    def __init__(
        self,
        hidden: Count = 2048,
        dim: Count = 256,
        predictor: bool = True,
        temperature: Positive = 0.2,
        candidates: Literal["points", "cells", "batch"] = "points",
        correspondence: CorrespondenceConfig | None = None,
        norm: NormConfig | None = None,
        mean: Mean = "global",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.dim = dim
        self.norm = norm or dict(type="SyncBN")
        self.temperature = temperature
        self.candidates = choose(f"objectives.{self.name}.candidates", candidates, CANDIDATES)
        self.mean = mean
        self.correspondence = CORRESPONDENCES.build(correspondence or dict(type="RandomPoints", count=49))
        self.predictor = self.head(dim) if predictor else nn.Identity()

    def head(self, channels: int) -> MLP:
        """Projector and predictor."""
        return MLP(kind="map", dims=(channels, self.hidden, self.dim), norm=self.norm, bias=False)

    def projectors(self, channels):
        return {"projector": self.head(channels(self.level))}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        ways = [self.way(maps, batch, step, *views) for views in (self.views, self.views[::-1])]
        means = {name: (ways[0][name] + ways[1][name]) / 2 for name in ways[0]}
        target = maps["target"].project("projector", self.views[0], self.level)
        return {**means, "between_images": between_image_cosine(target)}

    def way(self, maps, batch: Batch, step, first, second) -> dict[str, Tensor]:
        """Loss and figures of one direction: online places of view ``first`` against target places of ``second``."""
        pairs = self.correspondence(
            maps["online"][first][self.level],
            maps["target"][second][self.level],
            (batch.geometry[first], batch.geometry[second]),
            step,
        )
        prediction = self.predictor(maps["online"].project("projector", first, self.level))
        target = maps["target"].project("projector", second, self.level)
        a, b = unit(pairs.first(prediction), dim=2), unit(pairs.second(target), dim=2)
        with torch.autocast(a.device.type, enabled=False):
            if self.candidates == "cells":
                rows, hits = self.among_cells(a, target, pairs)
            else:
                rows, hits = self.among_points(a, b, pairs.valid)
        valid = pairs.valid.flatten()
        return {
            "loss": valid_mean(rows.flatten(), valid, self.mean),
            "valid_pairs": valid.sum(),
            "valid_images": pairs.valid.any(1).sum(),
            "top1": valid_mean(hits.flatten().float(), valid, "local"),
            "positive_cosine": valid_mean((a * b).sum(2).flatten().detach(), valid, "local"),
        }

    def among_cells(self, a: Tensor, target: Tensor, pairs: Pairs) -> tuple[Tensor, Tensor]:
        """Losses and hits (N, P) of points a (N, P, C) among all cells of the target map (N, C, H, W)."""
        similarity = a @ unit(cells(target), dim=2).mT
        weights = cell_weights(pairs.second, target)
        return matching_nce(similarity, weights, self.temperature), similarity.argmax(2) == weights.argmax(2)

    def among_points(self, a: Tensor, b: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Losses and hits (N, P) of points a (N, P, C) among the valid points of b, of the same image or of all images.

        This is the matching of :meth:`among_cells` with one-hot targets, where some candidates do not count.
        """
        images, points = valid.shape
        counterpart = torch.arange(points, device=a.device)
        candidates, allowed = b, valid[:, None]
        if self.candidates == "batch":
            rank, world = get_dist_info()
            image = torch.arange(images, device=a.device)[:, None]
            gathered = torch.cat([b, valid[..., None].to(b.dtype)], 2).flatten(0, 1)
            gathered = gather_in_order(gathered, rows=image.expand(-1, points).flatten())
            candidates, allowed = gathered[:, :-1], gathered[:, -1] > 0
            counterpart = (image * world + rank) * points + counterpart
        similarity = a @ candidates.mT
        positive = counterpart[..., None] == torch.arange(similarity.shape[2], device=a.device)
        rows, _ = multi_positive_nce(similarity, positive, self.temperature, allowed)
        return rows, similarity.masked_fill(~allowed, -torch.inf).argmax(2) == counterpart


def cell_weights(read: Reader, like: Tensor) -> Tensor:
    """Weight (N, P, S) of each of the S cells of a map ``like`` (N, C, H, W) in each of the P values that ``read``
    gives."""
    height, width = like.shape[2:]
    # Read a map with one channel per cell, which is 1 at this cell and 0 elsewhere.
    single = torch.eye(height * width, dtype=torch.promote_types(like.dtype, torch.float32), device=like.device)
    return read(single.unflatten(1, (height, width)).expand(len(like), -1, -1, -1))
