"""MoCo v1 and v2 (He et al., CVPR 2020, arXiv 1911.05722; Chen et al., arXiv 2003.04297)."""

from torch import Tensor

from densessl.branches.projector import MLP, Init
from densessl.branches.queue import Queue
from densessl.constraints import AutoCount, Count, Positive, Share
from densessl.data.batch import Batch
from densessl.losses import info_nce, unit
from densessl.objectives.base import Forward, Objective
from densessl.registry import OBJECTIVES


@OBJECTIVES.register_module()
class MoCo(Objective):
    """Instance contrast: the query of one view against the key of the other and a queue of earlier keys.

    ``loss = mean_n -log softmax([q.k+, q.queue] / T)``. Not symmetric: the first view is the query, the second the key.
    The official ShuffleBN is replaced by synchronised (or split) batch norm in the backbone.

    Args:
        hidden: width of the head's hidden layer; None for the single linear layer of v1.
        dim: width of queries and keys.
        length: number of keys in the queue.
        temperature: softmax temperature; 0.2 in v2, 0.07 in v1.
        dropout, init: dropout and initialisation of the two-layer head, see :class:`densessl.branches.MLP`; CCOP uses
            0.1 and "normal". Dropout is active in both branches.
    """

    two_views = True

    def __init__(
        self,
        hidden: Count | None = 2048,
        dim: Count = 128,
        length: AutoCount = 65536,
        temperature: Positive = 0.2,
        dropout: Share = 0.0,
        init: Init = "kaiming",
        **kwargs,
    ):
        super().__init__(**kwargs)
        self.hidden = hidden
        self.dropout = dropout
        self.init = init
        self.dim = dim
        self.temperature = temperature
        self.queue = Queue({"keys": dim}, length)

    def plan(self) -> list[Forward]:
        return self.one_way()

    def projectors(self, channels):
        if self.hidden is None:
            return {"head": MLP(dims=(channels(self.level), self.dim))}
        dims = (channels(self.level), self.hidden, self.dim)
        return {"head": MLP(dims=dims, dropout=self.dropout, init=self.init)}

    def vectors(self, maps) -> tuple[Tensor, Tensor]:
        """Normalised queries and keys, (N, dim) each."""
        query = maps["online"].project("head", self.views[0], self.level, pool=True)
        key = maps["target"].project("head", self.views[1], self.level, pool=True)
        return unit(query), unit(key)

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        q, k = self.vectors(maps)
        bank = self.queue.keys("keys")
        rows, hits = info_nce(q, k, bank, temperature=self.temperature)
        self.queue.push("keys", k)
        return {
            "loss": rows.mean(),
            "top1": hits.float().mean(),
            "positive_cosine": (q * k).sum(1).mean(),
            **self.queue.figures("keys"),
        }
