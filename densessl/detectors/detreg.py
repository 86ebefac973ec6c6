"""DETReg (Bar et al., CVPR 2022, arXiv 2106.04550): find regions, and say what each looks like."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.branches import MLP
from densessl.detectors.pretext import Pretext
from densessl.detectors.teacher import Teacher
from densessl.losses import full_precision
from densessl.registry import PRETEXTS


@PRETEXTS.register_module()
class DETReg(Pretext):
    """Beside the detector's own losses on class-agnostic regions: the query that was given a region regresses the
    teacher's embedding of its patch, at the last decoder layer (paper, section 3; the released code's form: the mean
    absolute error over all pairs and channels).

    Args:
        teacher: config of the backbone that embeds patches, see :class:`densessl.detectors.teacher.Teacher`.
        weight: of the embedding loss.
        teacher_checkpoint, allow_random_teacher: see there.
    """

    def __init__(
        self,
        teacher: dict[str, Any],
        weight: float = 1.0,
        teacher_checkpoint: str | None = None,
        allow_random_teacher: bool = False,
    ):
        super().__init__()
        self.teacher = Teacher(teacher, teacher_checkpoint, allow_random_teacher)
        self.weight = weight

    def attach(self, detector):
        dim = detector.embed_dims
        self.embed = MLP(dims=(dim, dim, self.teacher.channels))

    def init_backbone(self, checkpoint, branch):
        return [self.teacher.load(checkpoint, branch)]

    def losses(self, states, matches, batch, rows):
        wanted = self.teacher(batch.regions.patches)
        last = states[-1]
        predicted = torch.cat([self.embed(own[match.queries]) for own, match in zip(last, matches[-1])])
        target = torch.cat([wanted[own[match.targets]] for own, match in zip(rows, matches[-1])])
        return {"loss_embed": self.weight * embedding_loss(predicted, target)}


def embedding_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of pairs (P, E), in at least fp32; zero, with zero gradient, where there are none."""
    predicted, target = full_precision(predicted, target)
    return F.l1_loss(predicted, target) if len(predicted) else predicted.sum()
