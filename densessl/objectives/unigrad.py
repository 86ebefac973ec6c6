"""UniGrad (Tao et al., "Exploring the Equivalence of Siamese Self-Supervised Learning via A Unified Gradient
Framework", CVPR 2022, arXiv 2112.05141): near the target, decorrelated from all targets; and SIM's dense form of it."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.branches.projector import MLP
from densessl.constraints import Count, NonNegative, Share
from densessl.correspondence import CorrespondenceConfig
from densessl.data.batch import Batch
from densessl.figures import between_image_cosine
from densessl.losses import correlation, full_precision, gradient_terms, unigrad_terms, unit, valid_mean
from densessl.objectives.byol import VectorRegression
from densessl.objectives.pixpro import TwoViewObjective
from densessl.registry import CORRESPONDENCES, OBJECTIVES


class Correlation(nn.Module):
    """Moving average of the correlation of targets over all ranks: a persisted buffer ``value`` (D, D), which the first
    update sets. Under gradient accumulation it moves once an iteration."""

    def __init__(self, dim: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(dim, dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def update(self, targets: Tensor) -> Tensor:
        """Move towards the mean of t^T t over targets (M, D). Returns the buffer itself."""
        share = 1 - self.momentum * self.started.to(self.value.dtype)
        self.value.lerp_(correlation(targets).to(self.value.dtype), share)
        self.started.fill_(True)
        return self.value


@torch.no_grad()
def directions(matrix: Tensor) -> Tensor:
    """Participation ratio ``trace^2 / |C|^2`` of a correlation (D, D): how many directions the targets it was made of
    take up, from 1 where they lie on one line to D. 0 for a matrix of zeros."""
    tiny = torch.finfo(matrix.dtype).tiny
    return matrix.trace().square() / matrix.square().sum().clamp(min=tiny)


@OBJECTIVES.register_module()
class UniGrad(VectorRegression):
    """The gradient that siamese objectives have in common, on pooled vectors; the released code is followed.

        loss = mean over images and both views of <stopgrad(-t + negative_weight z F), z>

    of unit vectors: z of one view online, t of the other by the target, F the moving average of the targets'
    correlation over steps and ranks, moved before it is used. There is no predictor. The loss is written to have the
    wanted gradient; its value says little.

    Logged: ``positive_cosine``, the mean of z t^T; ``negative``, that of z F z^T, so that the loss is
    ``-positive_cosine + negative_weight negative``; ``directions`` of F, which a collapse drives to 1;
    ``between_images``, the similarity of different images' targets, which it drives to 1 too.

    Args:
        hidden, dim: widths of the projector, three layers with norms between.
        negative_weight: lambda.
        momentum: rho, of F.
    """

    def __init__(
        self,
        hidden: Count = 2048,
        dim: Count = 2048,
        negative_weight: NonNegative = 100.0,
        momentum: Share = 0.99,
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.dim = dim
        self.negative_weight = negative_weight
        self.predictor = nn.Identity()
        self.correlation = Correlation(dim, momentum)

    def projectors(self, channels):
        dims = (channels(self.level), self.hidden, self.hidden, self.dim)
        return {"projector": MLP(dims=dims, norm=self.norm, bias=False)}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        pairs = [(unit(z), unit(other)) for z, other in self.pairs(maps)]
        matrix = self.correlation.update(torch.cat([target for _, target in pairs]))
        terms = [gradient_terms(*pair, matrix) for pair in pairs]
        positive, negative = (torch.cat(both).mean() for both in zip(*terms))
        return {
            "loss": positive + self.negative_weight * negative,
            "positive_cosine": -positive.detach(),
            "negative": negative.detach(),
            "directions": directions(matrix),
            "between_images": sum(between_image_cosine(target[..., None, None]) for _, target in pairs) / 2,
        }


@OBJECTIVES.register_module()
class DenseUniGrad(TwoViewObjective):
    """SIM's loss without its transformer decoder: a place of one view predicts the target's vector of the same place in
    the other, by geometry.

        loss = (mean |p - t|^2 + negative_weight mean p C p^T) / D,   C = mean t^T t

    over the valid places of all images and ranks, in the mean of both directions; t is normed over its channels. Where
    the views do not overlap nothing is asked. The loss is that of SIM's released code (see
    :class:`densessl.objectives.sim.SIM`); maps, heads and correspondence instead of masks and decoder are ours.

    Logged, as means of the directions: ``positive`` and ``negative``, the two means over D; ``positive_cosine``;
    ``valid_pairs`` and ``valid_images``, the places that count and the images that have any; ``directions`` of C and
    ``between_images``, which a collapse drives to 1.

    Args:
        hidden, dim: widths of projector and predictor, two 1x1 convolutions with a norm between.
        negative_weight: of the second term. Normed targets have the length sqrt(D): to keep the balance between the
            terms at another ``dim``, keep ``negative_weight * dim``.
        symmetric: predict the first view from the second as well.
        correspondence: which places belong together, a config of :mod:`densessl.correspondence`; a grid of 7x7 points
            over the overlap by default.
        norm: norm config of projector and predictor.
    """

    def __init__(
        self,
        hidden: Count = 2048,
        dim: Count = 768,
        negative_weight: NonNegative = 0.02,
        symmetric: bool = True,
        correspondence: CorrespondenceConfig | None = None,
        **kwargs,
    ):
        super().__init__(hidden=hidden, dim=dim, **kwargs)
        self.negative_weight = negative_weight
        self.ways = (self.views, self.views[::-1]) if symmetric else (self.views,)
        self.correspondence = CORRESPONDENCES.build(correspondence or dict(type="OverlapGrid", size=7))
        self.predictor = MLP(kind="map", dims=(dim, hidden, dim), norm=self.norm)

    def plan(self):
        return super().plan() if len(self.ways) == 2 else self.one_way()

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        found = [self.way(maps, batch, step, *views) for views in self.ways]
        return {name: sum(item[name] for item in found) / len(found) for name in found[0]}

    def way(self, maps, batch: Batch, step, first, second) -> dict[str, Tensor]:
        """Loss and figures of one direction: online places of view ``first`` predict target places of ``second``."""
        pairs = self.correspondence(
            maps["online"][first][self.level],
            maps["target"][second][self.level],
            (batch.geometry[first], batch.geometry[second]),
            step,
        )
        predicted = pairs.first(self.predictor(maps["online"].project("projector", first, self.level)))
        target = pairs.second(maps["target"].project("projector", second, self.level))
        predicted, target = full_precision(predicted, target)
        with torch.autocast(target.device.type, enabled=False):
            target = F.layer_norm(target, target.shape[2:])
        p, t, valid = predicted.flatten(0, 1), target.flatten(0, 1), pairs.valid.flatten()
        matrix = correlation(t, valid)
        positive, negative = (valid_mean(term, valid) / self.dim for term in unigrad_terms(p, t, matrix))
        return {
            "loss": positive + self.negative_weight * negative,
            "positive": positive.detach(),
            "negative": negative.detach(),
            "positive_cosine": valid_mean((unit(p) * unit(t)).sum(1).detach(), valid, "local"),
            "valid_pairs": valid.sum(),
            "valid_images": pairs.valid.any(1).sum(),
            "directions": directions(matrix),
            "between_images": between_image_cosine(target.mT[..., None]),
        }
