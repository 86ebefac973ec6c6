"""What every model that is pretrained here has: a count of optimiser steps that survives resuming."""

import torch
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope

from densessl.registry import SCOPE


class CountingModel(BaseModel):
    """Counts optimiser steps in the persisted buffer ``global_step``, and knows the length of the run.

    Attributes:
        step: the count as a Python number: reading the buffer would wait for the device.
        horizon: of the run (:class:`densessl.schedules.Horizon`), None before it begins.
        seed: of the run.
    """

    def __init__(self, data_preprocessor: dict | None = None, init_cfg: dict | None = None):
        with DefaultScope.overwrite_default_scope(SCOPE):  # where no runner has set it, MMEngine looks among its own
            super().__init__(data_preprocessor, init_cfg)
        self.register_buffer("global_step", torch.zeros((), dtype=torch.int64))
        self.step = 0
        self.horizon = None
        self.seed = 0
        self.register_load_state_dict_post_hook(lambda module, _: setattr(module, "step", int(module.global_step)))

    def begin(self, horizon, seed: int = 0) -> None:
        """Tell the model how long training is; schedules are functions of it."""
        self.horizon = horizon
        self.seed = seed

    def advance(self) -> None:
        """Count an optimiser step, after it was taken."""
        self.step += 1
        self.global_step.fill_(self.step)
