"""UniGrad (Tao et al., "Exploring the Equivalence of Siamese Self-Supervised Learning via A Unified Gradient
Framework", CVPR 2022, arXiv 2112.05141), which attracts vectors to their target and decorrelates them from all targets,
and its dense form from SIM."""

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
    """Moving average of the correlation of targets over all ranks: a persisted buffer ``value`` (D, D), initialised by
    the first update. Under gradient accumulation it is updated once per iteration."""

    def __init__(self, dim: int, momentum: float):
        super().__init__()
        self.momentum = momentum
        self.register_buffer("value", torch.zeros(dim, dim))
        self.register_buffer("started", torch.zeros((), dtype=torch.bool))

    @torch.no_grad()
    def update(self, targets: Tensor) -> Tensor:
        """Move the average towards the mean of t^T t over targets (M, D). Returns the buffer itself."""
        share = 1 - self.momentum * self.started.to(self.value.dtype)
        self.value.lerp_(correlation(targets).to(self.value.dtype), share)
        self.started.fill_(True)
        return self.value


@torch.no_grad()
def directions(matrix: Tensor) -> Tensor:
    """Participation ratio ``trace^2 / |C|^2`` of a correlation (D, D): the effective number of directions of its
    targets, from 1, where they lie on one line, to D. 0 for a matrix of zeros."""
    tiny = torch.finfo(matrix.dtype).tiny
    return matrix.trace().square() / matrix.square().sum().clamp(min=tiny)


@OBJECTIVES.register_module()
class UniGrad(VectorRegression):
    """The gradient that siamese objectives have in common, on pooled vectors, following the released code.

        loss = mean over images and both views of <stopgrad(-t + negative_weight z F), z>

    of unit vectors: z of one view from the online branch, t of the other from the target. F is the moving average of
    the correlation of targets over steps and ranks, updated before use. There is no predictor. The loss is constructed
    for its gradient; its value has little meaning.

    Logged: ``positive_cosine``, the mean of z t^T; ``negative``, the mean of z F z^T, so that the loss is
    ``-positive_cosine + negative_weight negative``; ``directions`` of F and ``between_images``, the similarity between
    targets of different images. A collapse drives the last two to 1.

    Args:
        hidden, dim: hidden and output width of the projector, three layers with norms between.
        negative_weight: lambda, weight of the second term.
        momentum: rho, momentum of F.
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
    """SIM's loss without its transformer decoder: each place of one view predicts the target's vector of the same place
    in the other view.

        loss = (mean |p - t|^2 + negative_weight mean p C p^T) / D,   C = mean t^T t

    over the valid places of all images and ranks, averaged over both directions; t is normalised over its channels.
    Places outside the overlap do not count. The loss is that of SIM's released code (see
    :class:`densessl.objectives.sim.SIM`); maps, heads and correspondence replace its
    masks and decoder, and are not from the paper.

    Logged, as means over the directions: ``positive`` and ``negative``, the two means divided by D;
    ``positive_cosine``; ``valid_pairs`` and ``valid_images``, the numbers of places that count and of images that have
    any; ``directions`` of C and ``between_images``, which a collapse drives to 1.

    Args:
        hidden, dim: hidden and output width of projector and predictor, two 1x1 convolutions with a norm between.
        negative_weight: weight of the second term. Normalised targets have the length sqrt(D): to keep the balance of
            the terms at another ``dim``, keep ``negative_weight * dim``.
        symmetric: predict the first view from the second as well.
        correspondence: config of the strategy that pairs places (:mod:`densessl.correspondence`); by default a grid of
            7x7 points over the overlap.
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
        ways = [self.way(maps, batch, step, *views) for views in self.ways]
        return {name: sum(figures[name] for figures in ways) / len(ways) for name in ways[0]}

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
