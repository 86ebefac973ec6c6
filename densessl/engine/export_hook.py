"""Leaves at the end of a run what a detector can load."""

from pathlib import Path
from typing import Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.registry import HOOKS
from densessl.weights.detector.export import export_detector
from densessl.weights.export import export_backbone
from densessl.weights.read import parts_in
from densessl.weights.state import bare_model


@HOOKS.register_module()
class ExportHook(Hook):
    """Keeps in every checkpoint what an export has to know about a branch, and exports its backbone after training,
    with neck and head where it has them; of a pretraining of whole detectors the detector, and a config for it.

    Args:
        filename: in the work dir; by default ``backbone.pth`` or ``detector.pth``.
        to: format of a backbone, see :func:`densessl.weights.export.export_backbone`.
        branch: "online" or "target".
    """

    priority = "VERY_LOW"

    def __init__(self, filename: str | None = None, to: str = "mmdet", branch: Literal["online", "target"] = "online"):
        self.filename = filename
        self.to = to
        self.branch = branch

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["meta"]["densessl"] = bare_model(runner.model).describe()

    def after_train(self, runner: Runner) -> None:
        if runner.rank != 0:
            return
        model = bare_model(runner.model)
        described = model.describe()
        content = dict(state_dict=model.state_dict(), meta=dict(densessl=described, step=model.step))
        if "detector" in described:
            out = Path(runner.work_dir, self.filename or "detector.pth")
            if described["detector"] is None:
                runner.logger.warning("ExportHook: no config to fine-tune by, since model.detector is no config's name")
                return
            report = export_detector(content, out, described["detector"])  # named by this run, so not only stock ones
            runner.logger.info(f"detector exported, with a config that fine-tunes it: {report.source}: {report}")
            return
        out = Path(runner.work_dir, self.filename or "backbone.pth")
        export_backbone(content, out, self.to, self.branch)
        written = ["backbone", *parts_in(out)]
        runner.logger.info(f"{self.branch} {', '.join(written)} exported for {self.to}: {out}")
