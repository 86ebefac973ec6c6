"""Starts a pretraining from a backbone that was trained before."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.counting import require
from densessl.registry import HOOKS
from densessl.weights.state import bare_model


@HOOKS.register_module()
class InitBackboneHook(Hook):
    """Loads the backbone of a file into the model before the first step, by its ``init_backbone``.

    ``tools/train.py --init FILE`` puts it first. A resumed run keeps what it resumed, and loads what no checkpoint
    holds (the teacher of DETReg).

    Args:
        checkpoint: anything :func:`densessl.weights.load.load_backbone` understands: an export, a checkpoint of another
            run, torchvision's weights. It must fill the whole backbone.
        branch: "online", "target", or None for the one that the method's paper transfers.

    Raises:
        densessl.errors.LoadError: the file has another network; nothing was loaded then.
    """

    priority = "HIGHEST"  # and first in the list: whatever else looks at the weights before training sees these

    def __init__(self, checkpoint: str, branch: str | None = None):
        self.checkpoint = checkpoint
        self.branch = branch

    def before_train(self, runner: Runner) -> None:
        model = require(bare_model(runner.model), type(self).__name__, "init_backbone")
        said = model.init_backbone(self.checkpoint, self.branch, resumed=runner.iter > 0)
        runner.logger.info(f"InitBackboneHook: {self.checkpoint}: {said}")
