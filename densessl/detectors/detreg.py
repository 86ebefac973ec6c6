"""DETReg (Bar et al., CVPR 2022, arXiv 2106.04550): detect regions, and predict an embedding of each."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.branches import MLP
from densessl.branches.backbone import BackboneConfig
from densessl.constraints import NonNegative
from densessl.detectors.pretext import Pretext
from densessl.detectors.teacher import Teacher
from densessl.losses import full_precision, valid_mean
from densessl.registry import PRETEXTS


@PRETEXTS.register_module()
class DETReg(Pretext):
    """Adds an embedding loss to the detector's losses on class-agnostic regions: at the last decoder layer, the query
    matched to a region regresses the teacher's embedding of the region's patch (paper, section 3).

    As in the released code, the loss is the mean absolute error over all pairs and channels. Here the mean is over the
    pairs of all ranks; the released code averages on each rank, so all ranks weigh the same however many regions they
    have. Images may have any number of regions.

    The teacher runs in the precision of the run; its mean over the patch and the loss are computed in fp32.

    Figures: ``target``, the mean magnitude of the teacher's embeddings, and their ``cosine`` with the predictions.

    Args:
        teacher: config of the backbone that embeds patches, see :class:`densessl.detectors.teacher.Teacher`.
        weight: weight of the embedding loss.
        teacher_checkpoint: file of the teacher's weights; None for those that the detector's backbone starts from.
        allow_random_teacher: allow a teacher with random weights, to test the setup.
    """

    def __init__(
        self,
        teacher: BackboneConfig,
        weight: NonNegative = 1.0,
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

    def begin(self):
        self.teacher.ready()

    def losses(self, states, matches, batch, rows):
        embeddings = self.teacher(batch.regions.patches)
        last = states[-1]
        predicted = torch.cat([self.embed(state[match.queries]) for state, match in zip(last, matches[-1])])
        target = torch.cat([embeddings[image[match.targets]] for image, match in zip(rows, matches[-1])])
        predicted, target = full_precision(predicted, target)
        return {
            "loss_embed": self.weight * embedding_loss(predicted, target),
            "target": mean_or_zero(target.abs()),
            "cosine": mean_or_zero(F.cosine_similarity(predicted.detach(), target, dim=1)),
        }


def embedding_loss(predicted: Tensor, target: Tensor) -> Tensor:
    """Mean absolute error of pairs (P, E) over all ranks; zero, with zero gradient, if there are none."""
    errors = (predicted - target).abs().mean(1)
    return valid_mean(errors, torch.ones_like(errors, dtype=torch.bool))


def mean_or_zero(values: Tensor) -> Tensor:
    """Mean of all values; 0 if there are none."""
    return values.sum() / max(1, values.numel())
