"""The hook that initialises pretraining with a backbone trained before."""

from typing import Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.counting import require
from densessl.registry import HOOKS
from densessl.weights.state import bare_model


@HOOKS.register_module(name=["InitHook", "InitBackboneHook"])  # older configs use the second name
class InitHook(Hook):
    """Loads a backbone from a file into the model before the first step, by the model's ``init_backbone``.

    ``densessl train --init FILE`` sets the file. A resumed run keeps its resumed weights, and loads only what no
    checkpoint holds (DETReg's teacher).

    Args:
        checkpoint: a file that :func:`densessl.weights.load.load_backbone` reads: an export, a checkpoint of another
            run, or torchvision's weights. It must fill the whole backbone. None loads nothing.
        branch: branch to read from a checkpoint of a run: "online", "target", or None for the one that the method's
            paper transfers.

    Raises:
        densessl.errors.LoadError: the file's network differs; the model is unchanged then.
    """

    # default_hooks also lists it first, so every other hook that reads weights before training sees the loaded ones.
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
