"""The target branch: the online branch under stop-gradient, its moving average, or a frozen copy."""

import copy
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.errors import SettingError
from densessl.schedules import Horizon, ScheduledShare, Step, scheduled
from densessl.wording import choose


@torch.no_grad()
def ema_update_(target: Sequence[Tensor], online: Sequence[Tensor], momentum: float) -> None:
    """``target <- momentum * target + (1 - momentum) * online``, in place, for pairs of tensors.

    Momentum 0 copies the online tensors and momentum 1 keeps the targets, bit for bit.

    Raises:
        TypeError: a target has less than fp32 precision, in which ``(1 - momentum) * difference`` would round to zero.
    """
    if not target:
        return
    for value in target:
        if torch.promote_types(value.dtype, torch.float32) != value.dtype:
            raise TypeError(f"a moving average is kept in {value.dtype}; it needs float32 or float64 (use autocast)")
    torch._foreach_lerp_(list(target), list(online), 1.0 - momentum)


@torch.no_grad()
def ema_update_module_(target: nn.Module, online: nn.Module, momentum: float, buffers: str = "params_only") -> None:
    """Move the parameters of ``target`` towards the parameters of the same name in ``online``.

    Args:
        buffers: ``"params_only"`` leaves the buffers alone: the target has its own running statistics (MoCo, PixPro,
            DINO). ``"all"`` averages floating-point buffers with the same momentum and copies the others, as timm and
            MMEngine's ``ExponentialMovingAverage(update_buffers=True)`` do.
    """
    pairs = _pairs(target.named_parameters(), online.named_parameters())
    if buffers == "all":
        buffer_pairs = _pairs(target.named_buffers(), online.named_buffers())
        pairs += [pair for pair in buffer_pairs if pair[0].is_floating_point()]
        for value, new in buffer_pairs:
            if not value.is_floating_point():
                value.copy_(new)
    ema_update_([value for value, _ in pairs], [new for _, new in pairs], momentum)


def _pairs(target, online) -> list[tuple[Tensor, Tensor]]:
    online = dict(online)
    return [(value, online[name]) for name, value in target if name in online]


class Target(nn.Module):
    """Holds the target branch and updates it. It shares the children of the branch, so its keys are
    ``target.backbone.*``.

    Updates are idempotent in ``step``, the number of optimiser steps taken: under gradient accumulation the target is
    still updated once per step. The step of the last update is the persisted buffer ``updated_at``, so that a resumed
    run neither repeats nor misses an update.

    Attributes:
        momentum: momentum of the last update; None before the first, and for kinds that are never updated.
    """

    def __init__(
        self,
        online: nn.Module,
        kind: str,
        schedule: Callable[[Step], float],
        timing: str,
        buffers: str,
        norm: str,
    ):
        super().__init__()
        self.kind, self.schedule, self.timing, self.buffers_policy, self.norm = kind, schedule, timing, buffers, norm
        self.momentum: float | None = None
        if not self.is_online:
            branch = copy.deepcopy(online).requires_grad_(False)
            if branch._parameters or branch._buffers:
                raise TypeError(f"{type(branch).__name__} has parameters or buffers outside its children")
            # Both share one dictionary of children, so that keys get no additional prefix.
            self._modules = branch._modules
            self.__dict__["_branch"] = branch
        self.register_buffer("updated_at", torch.tensor(-1))
        # The same as a Python number, since reading the buffer would wait for the device at every step.
        self._updated_at = -1
        self.register_load_state_dict_post_hook(_read_updated_at)
        self.train(online.training)

    @property
    def is_online(self) -> bool:
        """Whether the target is the online branch itself, under stop-gradient."""
        return self.kind == "stop_gradient"

    def branch(self, online: nn.Module) -> nn.Module:
        """The module to run as the target, without gradient."""
        return online if self.is_online else self._branch

    def train(self, mode: bool = True) -> "Target":
        """Set the mode. In training mode, the BatchNorms of a moving average use the statistics of the target's batch,
        unless ``norm="eval"``. A frozen branch stays in evaluation mode."""
        self.training = mode
        if not self.is_online:
            self._branch.train(mode and self.kind != "frozen")
            if self.norm == "eval":
                for module in self._branch.modules():
                    if isinstance(module, _BatchNorm):
                        module.eval()
        return self

    def before_forward(self, online: nn.Module, step: int, horizon: Horizon | None = None) -> bool:
        """Update a target of this timing with the momentum of ``step``. Called before each target forward.

        Args:
            step: number of optimiser steps taken.
            horizon: length of the run; a constant momentum needs none.

        Returns:
            Whether the target was updated.
        """
        return self.timing == "before_forward" and self._move(online, step, step, horizon)

    def after_step(self, online: nn.Module, step: int, horizon: Horizon | None = None) -> bool:
        """Update a target of this timing with the momentum of the last step, number ``step - 1``, as DINO indexes its
        schedule. Called after each optimiser step, which ``step`` includes."""
        return self.timing == "after_step" and self._move(online, step, step - 1, horizon)

    def _move(self, online: nn.Module, step: int, index: int, horizon: Horizon | None) -> bool:
        if self.kind != "ema" or step == self._updated_at:
            return False
        self.momentum = self.schedule(Step(index, horizon))
        ema_update_module_(self._branch, online, self.momentum, self.buffers_policy)
        self._updated_at = step
        self.updated_at.fill_(step)
        return True


def _read_updated_at(target: Target, _) -> None:
    target._updated_at = int(target.updated_at)


def build_target(
    online: nn.Module,
    kind: Literal["ema", "stop_gradient", "frozen"] = "ema",
    momentum: ScheduledShare = 0.99,
    timing: Literal["before_forward", "after_step"] = "before_forward",
    buffers: Literal["params_only", "all"] = "params_only",
    norm: Literal["train", "eval"] = "train",
) -> Target:
    """Build the target of an online branch.

    Args:
        online: the online branch, with parameters and buffers only in its children.
        kind: ``"ema"`` (MoCo, BYOL, PixPro, DINO), ``"stop_gradient"`` (SimSiam, SwAV), or ``"frozen"``: a copy in
            evaluation mode that is never updated, into which the weights of a teacher are loaded.
        momentum: momentum of the moving average: a number, or the config of a schedule
            (:func:`densessl.schedules.build_schedule`).
        timing: ``"before_forward"``, as in MoCo and PixPro, or ``"after_step"``, as in BYOL and DINO.
        buffers: ``"params_only"`` or ``"all"``, see ``ema_update_module_``.
        norm: ``"train"``: the target's BatchNorms use the statistics of its batch; ``"eval"``: they use running
            statistics, which then need ``buffers="all"``.

    Raises:
        SettingError: an unknown option, or a constant momentum outside [0, 1].
    """
    choose("target kind", kind, ("ema", "stop_gradient", "frozen"))
    choose("target timing", timing, ("before_forward", "after_step"))
    choose("target buffers", buffers, ("params_only", "all"))
    choose("target norm", norm, ("train", "eval"))
    if not (isinstance(momentum, dict) or 0 <= momentum <= 1):
        raise SettingError(f"target momentum={momentum}, expected a number from 0 to 1 or the config of a schedule")
    return Target(online, kind, scheduled(momentum), timing, buffers, norm)
