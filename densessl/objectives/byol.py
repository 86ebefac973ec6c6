"""BYOL (Grill et al., NeurIPS 2020, arXiv 2006.07733), and the base that it shares with SimSiam."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.branches.norm import NormConfig
from densessl.branches.projector import MLP
from densessl.constraints import Count
from densessl.data.batch import Batch
from densessl.figures import channel_spread
from densessl.losses import cosine_regression, full_precision
from densessl.objectives.base import BranchMaps, Objective
from densessl.registry import OBJECTIVES


class VectorRegression(Objective):
    """Base class: a predictor maps each view's vector to the target's vector of the other view.

    A subclass has a projector called "projector" and a ``predictor``. Their norms see each view as a separate batch.

    Args:
        norm: config of the norms of projector and predictor.
    """

    two_views = True

    def __init__(self, norm: NormConfig | None = None, **kwargs):
        super().__init__(**kwargs)
        self.norm = norm or dict(type="SyncBN")

    def pairs(self, maps: Mapping[str, BranchMaps]) -> list[tuple[Tensor, Tensor]]:
        """Predictions and targets, (N, dim) each: of view 1 against view 2, and the reverse."""
        online, target = (
            [maps[branch].project("projector", view, self.level, pool=True) for view in self.views]
            for branch in ("online", "target")
        )
        return [(self.predictor(z), other) for z, other in zip(online, target[::-1])]


def squared_distance(p: Tensor, z: Tensor) -> Tensor:
    """``|p/|p| - z/|z||^2`` of predictions and targets (N, C), that is 2 - 2 cos: (N,) values from 0 to 4.

    As in the official code, norms are clamped to at least 1e-6: shorter vectors do not become unit vectors.
    """
    p, z = full_precision(p, z)
    with torch.autocast(p.device.type, enabled=False):
        return (F.normalize(p, dim=1, eps=1e-6) - F.normalize(z, dim=1, eps=1e-6)).square().sum(1)


@OBJECTIVES.register_module()
class BYOL(VectorRegression):
    """Bootstrap your own latent (section 3.1, equation 2, both directions).

    ``loss = mean_n |p_1 - z_2|^2 + |p_2 - z_1|^2`` of unit vectors: 0 for perfect predictions, about 4 at random, at
    most 8. The official target is updated after the optimiser step (``target.timing="after_step"``). ``channel_std``,
    the spread of the targets of one view, is about 1 in healthy training and 0 where all images have the same vector.

    Args:
        hidden, dim: hidden and output width of projector and predictor.
        last_bias: whether their last layers have a bias, as in some ports but not in the official code.
    """

    def __init__(self, hidden: Count = 4096, dim: Count = 256, last_bias: bool = False, **kwargs):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.dim = dim
        self.last_bias = last_bias
        self.predictor = self.head(dim)

    def head(self, channels: int) -> MLP:
        """Projector and predictor: a hidden layer with norm, and a last layer without."""
        return MLP(dims=(channels, self.hidden, self.dim), norm=self.norm, last_bias=self.last_bias)

    def projectors(self, channels):
        return {"projector": self.head(channels(self.level))}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        pairs = self.pairs(maps)
        return {
            "loss": sum(squared_distance(p, z) for p, z in pairs).mean(),
            "positive_cosine": sum(cosine_regression(p.detach(), z) for p, z in pairs) / 2,
            "channel_std": channel_spread(pairs[0][1]),
        }
