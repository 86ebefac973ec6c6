"""Leaves a backbone that a detector can load at the end of a run."""

from pathlib import Path

from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.engine.weights import bare_model
from densessl.registry import HOOKS


@HOOKS.register_module()
class ExportHook(Hook):
    """Keeps in every checkpoint what an export has to know about a branch, and exports its backbone after training,
    with neck and head where it has them.

    Args:
        filename: in the work dir.
        to: format, see :func:`densessl.transfer.export_backbone`.
        branch: "online" or "target".
    """

    priority = "VERY_LOW"

    def __init__(self, filename: str = "backbone.pth", to: str = "mmdet", branch: str = "online"):
        self.filename = filename
        self.to = to
        self.branch = branch

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["meta"]["densessl"] = bare_model(runner.model).describe()

    def after_train(self, runner: Runner) -> None:
        from densessl.transfer import export_backbone, parts_in

        if runner.rank != 0:
            return
        model = bare_model(runner.model)
        out = Path(runner.work_dir, self.filename)
        meta = dict(densessl=model.describe(), step=model.step)
        export_backbone(dict(state_dict=model.state_dict(), meta=meta), out, self.to, self.branch)
        written = ["backbone", *parts_in(out)]
        runner.logger.info(f"{self.branch} {', '.join(written)} exported for {self.to}: {out}")
