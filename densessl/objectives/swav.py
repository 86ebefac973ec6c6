"""SwAV (Caron et al., "Unsupervised Learning of Visual Features by Contrasting Cluster Assignments", NeurIPS 2020,
arXiv 2006.09882)."""

from collections.abc import Mapping, Sequence
from typing import Annotated

import torch
from mmengine.dist import get_dist_info
from torch import Tensor, nn

from densessl.branches.norm import NormConfig
from densessl.branches.projector import MLP
from densessl.branches.queue import Queue
from densessl.constraints import Count, Positive, Range
from densessl.data.batch import Batch
from densessl.errors import SettingError
from densessl.losses import cross_view_entropy, full_precision, global_count, sinkhorn, unit
from densessl.objectives.base import Forward, Objective
from densessl.registry import OBJECTIVES
from densessl.schedules import ScheduledSwitch, Step, scheduled
from densessl.signatures import refuse_renamed

AFTER_313_STEPS = dict(type="switch", before=False, after=True, at_step=313)  # an epoch of the recipe for 4096 images


def swapped_prediction(scores: Mapping[int, Tensor], codes: Mapping[int, Tensor], temperature: float) -> Tensor:
    """The loss of predicting, from every crop, the codes of the *other* crops that have codes (section 3.2):
    ``mean_i mean_{v != i} mean_n -sum_k code_i log softmax(scores_v / T)``.

    Args:
        scores: scores (N, K) by view, of at least two views.
        codes: codes (N, K) by view, rows that sum to 1, of some of these views.
        temperature: softmax temperature.

    Returns:
        Scalar.
    """
    order = [*codes, *(view for view in scores if view not in codes)]
    logits = torch.stack([scores[view] for view in order])
    return cross_view_entropy(logits, torch.stack(list(codes.values())), temperature)


def code_figures(codes: Tensor) -> dict[str, Tensor]:
    """Figures of codes (M, K): the entropy of the mean code over all ranks (ln K where all prototypes are used
    equally), its largest entry, and the mean entropy of a code, which is ln K where all images look the same."""
    usage = global_count(codes.mean(0))
    return {
        "prototype_entropy": torch.special.entr(usage).sum(),
        "largest_share": usage.max(),
        "code_entropy": torch.special.entr(codes).sum(1).mean(),
    }


@OBJECTIVES.register_module()
class SwAV(Objective):
    """Swapped prediction of cluster assignments, with multi-crop and a queue.

    The projections of all crops are scored against prototypes. From the scores of the ``assign`` crops in the *target*
    branch, Sinkhorn computes codes that use all prototypes equally; each crop predicts the codes of the other crops. In
    both branches all crops pass the projector as one batch, so that its batch norm mixes large and small crops as in
    the official code. Any target but ``stop_gradient`` therefore runs the small crops too.

    Prototypes are normalised in place before each training forward, as in the official code. While they are not
    trained, their gradient is zero, since data parallelism needs one; in the official code it is None. LARS in its LARC
    form does not change a tensor with zero gradient. Other weight decay only shortens prototypes, and the next forward
    normalises them again.

    Under gradient accumulation, codes are computed from the images of one iteration (and the queue).

    Args:
        hidden: width of the projector's hidden layer, which has batch norm; None for a single linear layer.
        dim: width of the projections.
        prototypes: number of prototypes. The images of a step and the queue together should not be many fewer.
        temperature: softmax temperature of the predictions.
        epsilon: temperature of the codes (:func:`densessl.losses.sinkhorn`).
        iterations: number of Sinkhorn iterations.
        views: groups of views of equal size, each group one forward of the backbone; by default two large crops and six
            small ones.
        assign: the views that get codes.
        queue_length: number of earlier projections of each assigned view, over all ranks, from which codes are computed
            too; 0 for none. They are used once the queue is full.
        use_queue: whether the queue is filled and used: True or the config of a schedule.
        train_prototypes: whether the prototypes are trained: True or the config of a schedule. Until then they keep
            their initial values.
        norm: norm config of the projector.
    """

    RENAMED = {
        "queue_from_epoch": "use_queue=dict(type='switch', before=False, after=True, at_epoch={})",
        "freeze_steps": "train_prototypes=dict(type='switch', before=False, after=True, at_step={})",
    }

    def __init__(
        self,
        hidden: Count | None = 2048,
        dim: Count = 128,
        prototypes: Count = 3000,
        temperature: Positive = 0.1,
        epsilon: Positive = 0.05,
        iterations: Count = 3,
        views: Sequence[Sequence[int]] = ((0, 1), (2, 3, 4, 5, 6, 7)),
        assign: Sequence[int] = (0, 1),
        queue_length: Annotated[int, Range(0, auto=True)] = 0,
        use_queue: ScheduledSwitch = True,
        train_prototypes: ScheduledSwitch = AFTER_313_STEPS,
        norm: NormConfig | None = None,
        **kwargs,
    ):
        refuse_renamed(SwAV, kwargs)
        if not all(isinstance(group, Sequence) for group in views) or sum(map(len, views)) < 2:
            raise SettingError(
                f"SwAV.views is {views}, expected groups of views of equal size, such as ((0, 1), (2, 3))"
            )
        self.groups = tuple(map(tuple, views))
        super().__init__(views=sum(self.groups, ()), **kwargs)
        if not assign or not set(assign) <= set(self.views):
            raise SettingError(f"objectives.{self.name}.assign is {assign}; expected some of its views {self.views}")
        self.hidden = hidden
        self.dim = dim
        self.temperature = temperature
        self.epsilon = epsilon
        self.iterations = iterations
        self.assign = tuple(assign)
        self.use_queue = scheduled(use_queue, f"objectives.{self.name}.use_queue")
        self.train_prototypes = scheduled(train_prototypes, f"objectives.{self.name}.train_prototypes")
        self.norm = norm or dict(type="SyncBN")
        self.prototypes = nn.Linear(dim, prototypes, bias=False)
        self.queue = Queue({f"view{view}": dim for view in assign}, queue_length) if queue_length else None

    def plan(self) -> list[Forward]:
        return [Forward(branch, group, (self.level,)) for branch in ("online", "target") for group in self.groups]

    def projectors(self, channels):
        inner = [] if self.hidden is None else [self.hidden]
        return {"projector": MLP(dims=(channels(self.level), *inner, self.dim), norm=self.norm)}

    def scores(self, vectors: Tensor, weight: Tensor) -> Tensor:
        """Similarities (M, K) of vectors (M, dim) and prototypes (K, dim), in at least fp32."""
        vectors, weight = full_precision(vectors, weight)
        with torch.autocast(vectors.device.type, enabled=False):
            return vectors @ weight.T

    @torch.no_grad()
    def codes(self, vectors: Mapping[int, Tensor], step: Step) -> dict[int, Tensor]:
        """Codes (N, K) by view from normalised vectors (N, dim), which are pushed to the queue afterwards."""
        active = self.queue is not None and self.use_queue(step)
        ready = active and self.queue.is_full(self.queue.names[0])  # the same for all views and ranks
        rank, world = get_dist_info()
        codes = {}
        for view, rows in vectors.items():
            # Sinkhorn runs over the samples of all ranks. All hold the same queue, so each contributes a share of it.
            share = self.queue.keys(f"view{view}")[rank::world] if ready else rows[:0]
            samples = self.scores(torch.cat([share, rows]), self.prototypes.weight)
            codes[view] = sinkhorn(samples, self.epsilon, self.iterations)[len(share) :]
            if active:
                self.queue.push(f"view{view}", rows)
        return codes

    def vectors(self, maps) -> dict[int, Tensor]:
        """Normalised projections (N, dim) of one branch, by view."""
        projected = maps.project("projector", self.views, self.level, pool=True)
        return dict(zip(self.views, unit(projected).chunk(len(self.views))))

    def forward(self, maps, batch: Batch, step: Step) -> dict[str, Tensor]:
        weight = self.prototypes.weight
        if self.training:
            with torch.no_grad():
                weight.copy_(unit(weight))
        frozen = not self.train_prototypes(step)
        target = self.vectors(maps["target"])
        codes = self.codes({view: target[view] for view in self.assign}, step)
        used = weight.detach() if frozen else weight
        scores = {view: self.scores(rows, used) for view, rows in self.vectors(maps["online"]).items()}
        loss = swapped_prediction(scores, codes, self.temperature)
        return {
            "loss": loss + 0 * weight.sum() if frozen else loss,
            **code_figures(torch.cat(list(codes.values()))),
            **(self.queue.figures(self.queue.names[0]) if self.queue is not None else {}),
        }
