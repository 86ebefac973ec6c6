"""What hooks may rely on in a model that is pretrained here, and a base that counts optimiser steps."""

from collections.abc import Iterable
from typing import Any, Protocol

import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from torch import nn

from densessl.errors import SettingError
from densessl.registry import SCOPE
from densessl.schedules import Horizon


class PretrainingModel(Protocol):
    """What hooks may ask of a model. :class:`densessl.model.TwoBranch` and
    :class:`densessl.detectors.DetectorPretraining` offer all of it. Another model must offer what its hooks require;
    :class:`CountingModel` offers everything but the last two methods.

    Attributes:
        step: optimiser steps taken, as a Python number: reading a buffer would wait for the device.
        horizon: length of the run, None before it begins.
    """

    step: int
    horizon: Horizon | None

    def begin(self, horizon: Horizon, seed: int = 0) -> None:
        """Called once before the first step, also of a resumed run (``StepHook``).

        Args:
            horizon: length of the run, which schedules are functions of.
            seed: of the run, for batch-level random numbers.
        """

    def advance(self) -> None:
        """Count an optimiser step; called after each (``StepHook``)."""

    def init_backbone(self, checkpoint: str, branch: str | None = None, resumed: bool = False) -> str:
        """Start from the backbone of a file; called before the first step (``InitHook``).

        Args:
            checkpoint: anything :func:`densessl.weights.load.load_backbone` reads.
            branch: "online", "target", or None for the one that the method's paper transfers.
            resumed: weights come from a checkpoint of this run: load only what no checkpoint holds.

        Returns:
            What was loaded, for the log.

        Raises:
            densessl.errors.LoadError: the file has another network; nothing was loaded then.
        """

    def describe(self) -> dict[str, Any]:
        """What an export has to know about the model beside its weights: plain data, kept in every checkpoint
        (``ExportHook``). The key ``"detector"`` marks a whole detector."""


def require(model: nn.Module, hook: str, *members: str) -> PretrainingModel:
    """``model``, if it offers the given members of :class:`PretrainingModel`.

    Args:
        model: without its distributed wrapper.
        hook: name of the hook that calls, for the message.

    Raises:
        SettingError: it lacks some.
    """
    missing = [name for name in members if not hasattr(model, name)]
    if missing:
        raise SettingError(
            f"{hook} needs a model with {_listed(members)}; {type(model).__name__} lacks {_listed(missing)}: expected "
            "TwoBranch, DetectorPretraining, or another class with the members of densessl.counting.PretrainingModel"
        )
    return model


def _listed(names: Iterable[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


class CountingModel(BaseModel):
    """Counts optimiser steps in the persisted buffer ``global_step``, and knows the length of the run.

    Attributes:
        step, horizon: see :class:`PretrainingModel`.
        seed: of the run.
    """

    def __init__(self, data_preprocessor: dict | None = None, init_cfg: dict | None = None):
        with DefaultScope.overwrite_default_scope(SCOPE):  # where no runner has set it, MMEngine looks among its own
            super().__init__(data_preprocessor, init_cfg)
        self.register_buffer("global_step", torch.zeros((), dtype=torch.int64))
        self.step: int = 0
        self.horizon: Horizon | None = None
        self.seed: int = 0
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "step", int(module.global_step)))

    def begin(self, horizon: Horizon, seed: int = 0) -> None:
        """Tell the model how long training is; schedules are functions of it."""
        self.horizon = horizon
        self.seed = seed

    def advance(self) -> None:
        """Count an optimiser step, after it was taken."""
        self.step += 1
        self.global_step.fill_(self.step)
