"""Starts a pretraining from a backbone that was trained before."""

from typing import Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.counting import require
from densessl.registry import HOOKS
from densessl.weights.state import bare_model


@HOOKS.register_module(name=["InitHook", "InitBackboneHook"])  # the second is its name in older configs
class InitHook(Hook):
    """Loads the backbone of a file into the model before the first step, by its ``init_backbone``.

    ``tools/train.py --init FILE`` tells it the file. A resumed run keeps what it resumed, and loads what no checkpoint
    holds (the teacher of DETReg).

    Args:
        checkpoint: anything :func:`densessl.weights.load.load_backbone` understands: an export, a checkpoint of another
            run, torchvision's weights. It must fill the whole backbone. None leaves the model as it is.
        branch: "online", "target", or None for the one that the method's paper transfers.

    Raises:
        densessl.errors.LoadError: the file has another network; nothing was loaded then.
    """

    # And the first of these in default_hooks: whatever else looks at the weights before training sees the loaded ones.
    priority = "HIGHEST"

    def __init__(self, checkpoint: str | None = None, branch: Literal["online", "target"] | None = None):
        self.checkpoint = checkpoint
        self.branch = branch

    def before_train(self, runner: Runner) -> None:
        if self.checkpoint is None:
            return
        model = require(bare_model(runner.model), type(self).__name__, "init_backbone")
        report = model.init_backbone(self.checkpoint, self.branch, resumed=runner.iter > 0)
        runner.logger.info(f"InitHook: {self.checkpoint}: {report}")
