"""The terms of SCFS on intermediate levels (Song et al., ICCV 2023, arXiv 2212.06486). The method is DINO plus these
terms."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from densessl.branches.norm import NormConfig
from densessl.branches.prototypes import ShallowHead
from densessl.branches.queue import Centre
from densessl.constraints import Count
from densessl.data.batch import Batch
from densessl.errors import SettingError
from densessl.losses import cell_cosines, centred_softmax, cross_view_entropy, full_precision, soft_cross_entropy
from densessl.objectives.dino import MultiCrop, target_figures
from densessl.registry import OBJECTIVES


def tag(level: int | str) -> str:
    """A level as it appears in names of modules and figures: 0 -> "level0", "neck.1" -> "neck1"."""
    return level.replace(".", "") if isinstance(level, str) else f"level{level}"


@OBJECTIVES.register_module()
class SCFS(MultiCrop):
    """Semantics-consistent feature search: the target of a local crop is computed from the *searched* target map, the
    map of a global crop with each cell weighted by its cosine with the local crop.

    For each level ``loss = (L_g + L_l) / 2``. ``L_g`` is DINO's loss between the global crops. ``L_l`` is the mean over
    local crops r of the cross entropy with ``softmax(t_r / T)``, not centred, where t_r is the head's output on
    ``cos(F_u, w_r) F_u`` and w_r the mean over the cells of the online map of r, without gradient. As in the released
    code, only the *first* global crop is searched; the weights have no softmax (where the paper describes a search of
    regions) and may be negative; and the centre of each level follows the plain global vectors only.

    The heads see global crops, local crops (by group) and searched maps as separate batches: three sets of batch-norm
    statistics.

    Args:
        levels: levels of the backbone or neck. The paper uses the last three stages: ``out_indices=(1, 2, 3)`` and
            levels (0, 1, 2).
        width: inner channels of the head's bottleneck.
        hidden, dim: hidden and output width of the head's MLP.
        norm: norm config of the head.
    """

    def __init__(
        self,
        levels: Sequence[int | str] = (0, 1, 2),
        width: Count = 256,
        hidden: Count = 2048,
        dim: Count = 256,
        norm: NormConfig | None = None,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if not self.locals or not levels:
            raise SettingError(
                f"objectives.{self.name} has views={self.groups} and levels={levels}; expected a group of local crops "
                "and at least one level"
            )
        self.levels = tuple(levels)
        self.head = dict(width=width, hidden=hidden, dim=dim, norm=norm)
        self.centres = nn.ModuleDict({tag(level): Centre(dim, self.momentum) for level in levels})

    def projectors(self, channels):
        return {tag(level): ShallowHead(channels(level), **self.head) for level in self.levels}

    def forward(self, maps, batch: Batch, step) -> dict[str, Tensor]:
        temperature = self.teacher_temperature(step)
        figures = {}
        for level in self.levels:
            for name, value in self.term(maps, level, temperature).items():
                figures[f"{name}_{tag(level)}"] = value
        return figures

    def term(self, maps, level: int | str, temperature: float) -> dict[str, Tensor]:
        """Loss and figures of one level."""
        head, centre = tag(level), self.centres[tag(level)]
        online, target = maps["online"], maps["target"]
        count = len(self.globals)
        teacher = target.project(head, self.globals, level)
        loss_global = cross_view_entropy(
            online.project(head, self.globals, level).unflatten(0, (count, -1)),
            centred_softmax(teacher, centre.value, temperature).unflatten(0, (count, -1)),
            self.student_temperature,
        )
        student = torch.cat([online.project(head, group, level) for group in self.groups[1:]])
        searched, attention = self.search(maps, level)
        targets = centred_softmax(target.apply(head, searched), None, temperature)
        loss_local = soft_cross_entropy(student, targets, self.student_temperature).mean()
        centre.update(teacher)
        return {
            "loss": (loss_global + loss_local) / 2,
            "global": loss_global,
            "local": loss_local,
            "attention": attention,
            **target_figures(targets),
            "centre_norm": centre.value.norm(),
        }

    @torch.no_grad()
    def search(self, maps, level: int | str) -> tuple[Tensor, Tensor]:
        """Searched maps (L * N, C, H, W) of the first global crop, one for each of L local crops, and the mean
        attention, a scalar."""
        whole = maps["target"][self.globals[0]][level]
        queries = torch.stack([maps["online"].pooled(crop, level) for crop in self.locals])
        attention = cell_cosines(whole, queries)
        # One crop at a time, so that not all weighted maps exist in fp32 at once.
        exact = full_precision(whole)[0]
        searched = torch.cat([(weights[:, None] * exact).to(whole.dtype) for weights in attention])
        return searched, attention.mean()
