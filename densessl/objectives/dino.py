"""DINO (Caron et al., ICCV 2021, arXiv 2104.14294): self-distillation over prototypes, between crops of an image."""

from collections.abc import Sequence
from itertools import chain

import torch
from torch import Tensor

from densessl.branches.norm import NormConfig
from densessl.branches.prototypes import DINOHead
from densessl.branches.queue import Centre
from densessl.constraints import Count, Positive, Share
from densessl.data.batch import Batch
from densessl.errors import SettingError
from densessl.losses import centred_softmax, cross_view_entropy
from densessl.objectives.base import Forward, Objective, View
from densessl.registry import OBJECTIVES
from densessl.schedules import ScheduledPositive, ScheduledSwitch, scheduled
from densessl.signatures import refuse_renamed

AFTER_ONE_EPOCH = dict(type="switch", before=False, after=True, at_epoch=1)


@torch.no_grad()
def target_figures(targets: Tensor) -> dict[str, Tensor]:
    """Figures of target distributions (M, K), in nats, that reveal a collapse. In a collapse all targets are the same
    peak (``target_entropy`` 0) or all are uniform (ln K); either way ``target_information``, the entropy of the mean
    target minus the mean entropy, is 0. Its maximum is ln M."""
    entropy = torch.special.entr(targets).sum(1).mean()
    information = torch.special.entr(targets.mean(0)).sum() - entropy
    return {"target_entropy": entropy, "target_information": information}


class MultiCrop(Objective):
    """Base class of objectives in which all crops predict the target's outputs of global crops.

    Args:
        views: groups of crops of one size. Each group is one forward, with common batch-norm statistics. The first
            group are the global crops, the only ones that the target sees.
        student_temperature: softmax temperature of the online branch.
        teacher_temperature: softmax temperature of the targets; a number, or the config of a schedule.
        momentum: momentum of the centre.
    """

    def __init__(
        self,
        views: Sequence[Sequence[View]] = ((0, 1), (2, 3, 4, 5, 6, 7, 8, 9)),
        student_temperature: Positive = 0.1,
        teacher_temperature: ScheduledPositive = 0.04,
        momentum: Share = 0.9,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not views or not all(isinstance(group, list | tuple) for group in views) or len(views[0]) < 2:
            raise SettingError(
                f"objectives.{self.name}.views is {views}; expected groups of crops, at least two global ones first, "
                "such as ((0, 1), (2, 3, 4))"
            )
        self.groups = tuple(map(tuple, views))
        self.views = tuple(chain.from_iterable(self.groups))
        self.globals, self.locals = self.groups[0], self.views[len(self.groups[0]) :]
        self.student_temperature = student_temperature
        self.teacher_temperature = scheduled(teacher_temperature)
        self.momentum = momentum

    def plan(self) -> list[Forward]:
        levels = getattr(self, "levels", (self.level,))
        online = [Forward("online", group, levels) for group in self.groups]
        return [*online, Forward("target", self.globals, levels)]


@OBJECTIVES.register_module()
class DINO(MultiCrop):
    """The image-level loss: each crop predicts the target's distribution over prototypes for every *other* global crop.

    Targets are ``softmax((logits - centre) / T)``. The centre, the moving average of the target's logits over all
    ranks, is updated after use.

    Args:
        prototypes: number K of prototypes.
        hidden, bottleneck: widths of the hidden layers and the last layer of the head's MLP.
        head_norm, learn_gain: ``norm`` and ``learn_gain`` of :class:`densessl.branches.prototypes.DINOHead`.
        train_prototypes: whether the prototypes of the online branch are trained: True or the config of a schedule; by
            default from the second epoch on.
    """

    RENAMED = {"freeze_epochs": "train_prototypes=dict(type='switch', before=False, after=True, at_epoch={})"}

    def __init__(
        self,
        prototypes: Count = 65536,
        hidden: Sequence[Count] = (2048, 2048),
        bottleneck: Count = 256,
        head_norm: NormConfig | None = None,
        learn_gain: bool = False,
        train_prototypes: ScheduledSwitch = AFTER_ONE_EPOCH,
        **kwargs,
    ):
        refuse_renamed(DINO, kwargs)
        super().__init__(**kwargs)
        self.widths = (*hidden, bottleneck)
        self.head = dict(prototypes=prototypes, norm=head_norm, learn_gain=learn_gain)
        self.train_prototypes = scheduled(train_prototypes, f"objectives.{self.name}.train_prototypes")
        self.centre = Centre(prototypes, self.momentum)

    def projectors(self, channels):
        return {"head": DINOHead((channels(self.level), *self.widths), **self.head)}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        prototypes = maps["online"].projector("head").prototypes
        prototypes.frozen = not self.train_prototypes(step)
        temperature = self.teacher_temperature(step)
        student = maps["online"].project("head", self.views, self.level, pool=True)
        teacher = maps["target"].project("head", self.globals, self.level, pool=True)
        targets = centred_softmax(teacher, self.centre.value, temperature)
        loss = cross_view_entropy(
            student.unflatten(0, (len(self.views), -1)),
            targets.unflatten(0, (len(self.globals), -1)),
            self.student_temperature,
        )
        self.centre.update(teacher)
        return {
            "loss": loss,
            **target_figures(targets),
            "centre_norm": self.centre.value.norm(),
            "teacher_temperature": torch.tensor(temperature),
        }
