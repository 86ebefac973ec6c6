"""The dense term of DenseCL (Wang et al., CVPR 2021, arXiv 2011.09157). The method is MoCo v2 plus this term, equally
weighted."""

from torch import Tensor

from densessl.branches.projector import MLP
from densessl.branches.queue import Queue
from densessl.constraints import AutoCount, Count, Positive
from densessl.correspondence import CorrespondenceConfig
from densessl.data.batch import Batch
from densessl.losses import info_nce, unit, valid_mean
from densessl.losses.reduce import Mean
from densessl.objectives.base import Forward, Objective
from densessl.registry import CORRESPONDENCES, OBJECTIVES


@OBJECTIVES.register_module()
class DenseCL(Objective):
    """Dense contrast: each cell of the query view against its counterpart in the key view and a queue of *pooled*
    dense keys of other images (section 3.3, equation 2). The temperature divides all terms, although the equation omits
    it for the positive.

    Cells of the same image are never negatives. The mean is over all cells that have a counterpart. Not symmetric.

    Args:
        hidden, dim: hidden and output width of the dense head, two 1x1 convolutions without norm.
        length: number of keys in the queue.
        temperature: softmax temperature.
        correspondence: config of the strategy that pairs cells (:mod:`densessl.correspondence`). The paper uses
            ``FeatureArgmax`` on the backbone maps of the two branches.
        mean: "global" or "local", see :func:`densessl.losses.reduce.valid_mean`.
    """

    two_views = True

    def __init__(
        self,
        hidden: Count = 2048,
        dim: Count = 128,
        length: AutoCount = 65536,
        temperature: Positive = 0.2,
        correspondence: CorrespondenceConfig | None = None,
        mean: Mean = "global",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.dim = dim
        self.temperature = temperature
        self.mean = mean
        self.correspondence = CORRESPONDENCES.build(correspondence or dict(type="FeatureArgmax"))
        self.queue = Queue({"keys": dim}, length)

    def plan(self) -> list[Forward]:
        return self.one_way()

    def projectors(self, channels):
        return {"head": MLP(kind="map", dims=(channels(self.level), self.hidden, self.dim))}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        first, second = self.views
        pairs = self.correspondence(
            maps["online"][first][self.level],
            maps["target"][second][self.level],
            (batch.geometry[first], batch.geometry[second]),
            step,
        )
        keys = maps["target"].project("head", second, self.level)
        q = unit(pairs.first(maps["online"].project("head", first, self.level)), dim=2).flatten(0, 1)
        k = unit(pairs.second(keys), dim=2).flatten(0, 1)
        valid = pairs.valid.flatten()
        rows, hits = info_nce(q, k, self.queue.keys("keys"), temperature=self.temperature)
        # Pool first, then normalise.
        self.queue.push("keys", unit(keys.mean((2, 3))))
        return {
            "loss": valid_mean(rows, valid, self.mean),
            "valid_pairs": valid.sum(),
            "top1": valid_mean(hits.float(), valid, "local"),
            "positive_cosine": valid_mean((q * k).sum(1).detach(), valid, "local"),
            **self.queue.figures("keys"),
        }
