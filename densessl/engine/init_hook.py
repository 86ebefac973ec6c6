"""Starts a pretraining from a backbone that was trained before."""

from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.engine.weights import bare_model
from densessl.registry import HOOKS


@HOOKS.register_module()
class InitBackboneHook(Hook):
    """Loads the backbone of a file into the online branch, and from there into the target, before the first step.

    ``tools/train.py --init FILE`` adds it. A resumed run keeps what it resumed.

    Args:
        checkpoint: anything :func:`densessl.transfer.load_backbone` understands: an export, a checkpoint of another
            run, torchvision's weights. It must fill the whole backbone.
        branch: of a checkpoint of densessl, "online" or "target".

    Raises:
        densessl.transfer.LoadError: the file has another network; nothing was loaded then.
    """

    priority = "VERY_HIGH"  # whatever else looks at the weights before training should see these

    def __init__(self, checkpoint: str, branch: str = "online"):
        self.checkpoint = checkpoint
        self.branch = branch

    def before_train(self, runner: Runner) -> None:
        from densessl.transfer import load_backbone  # which imports this package

        if runner.iter > 0:
            runner.logger.info(f"InitBackboneHook: resumed at step {runner.iter}, so the weights stay as resumed")
            return
        model = bare_model(runner.model)
        report = load_backbone(model.online, self.checkpoint, branch=self.branch)
        target = model.target.branch(model.online)
        target.backbone.load_state_dict(model.online.backbone.state_dict())
        runner.logger.info(f"InitBackboneHook: {self.checkpoint}: {report}")
