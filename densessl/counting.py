"""The interface that hooks need of a model, and a base class that counts optimiser steps."""

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
    """The interface that hooks need of a model. :class:`densessl.model.TwoBranch` and
    :class:`densessl.detectors.DetectorPretraining` implement all of it. Any other model must implement what its hooks
    need; :class:`CountingModel` implements everything but the last two methods.

    Attributes:
        step: number of optimiser steps taken, as a Python number, since reading a buffer would wait for the device.
        horizon: length of the run; None before :meth:`begin`.
    """

    step: int
    horizon: Horizon | None

    def begin(self, horizon: Horizon, seed: int = 0) -> None:
        """Prepare for a run. ``StepHook`` calls it once before the first step, also when a run is resumed.

        Args:
            horizon: length of the run, on which schedules depend.
            seed: seed of the run, for batch-level random numbers.
        """

    def advance(self) -> None:
        """Count an optimiser step. ``StepHook`` calls it after each."""

    def init_backbone(self, checkpoint: str, branch: str | None = None, resumed: bool = False) -> str:
        """Load the backbone of a file. ``InitHook`` calls it before the first step.

        Args:
            checkpoint: anything :func:`densessl.weights.load.load_backbone` reads.
            branch: "online", "target", or None for the one that the method's paper transfers.
            resumed: whether the run was resumed from a checkpoint; if so, load only what no checkpoint holds.

        Returns:
            A description of what was loaded, for the log.

        Raises:
            densessl.errors.LoadError: the file has another network. Nothing was loaded.
        """

    def describe(self) -> dict[str, Any]:
        """What an export needs to know about the model besides its weights: plain data, which ``ExportHook`` puts in
        every checkpoint. The key ``"detector"`` marks a whole detector."""


def require(model: nn.Module, hook: str, *members: str) -> PretrainingModel:
    """Return ``model`` if it has the given members of :class:`PretrainingModel`.

    Args:
        model: the model without its distributed wrapper.
        hook: name of the calling hook, for the error message.

    Raises:
        SettingError: a member is missing.
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
    """Counts optimiser steps in the persisted buffer ``global_step``, and keeps the length of the run.

    Attributes:
        step, horizon: see :class:`PretrainingModel`.
        seed: seed of the run.
    """

    def __init__(self, data_preprocessor: dict | None = None, init_cfg: dict | None = None):
        with DefaultScope.overwrite_default_scope(SCOPE):  # without a runner, MMEngine would search only its own
            super().__init__(data_preprocessor, init_cfg)
        self.register_buffer("global_step", torch.zeros((), dtype=torch.int64))
        self.step: int = 0
        self.horizon: Horizon | None = None
        self.seed: int = 0
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "step", int(module.global_step)))

    def begin(self, horizon: Horizon, seed: int = 0) -> None:
        """Set the length of the run, on which schedules depend, and its seed."""
        self.horizon = horizon
        self.seed = seed

    def advance(self) -> None:
        """Count an optimiser step that was taken."""
        self.step += 1
        self.global_step.fill_(self.step)
