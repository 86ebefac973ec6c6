"""The hook that exports the pretrained weights at the end of a run, in a form that a detector can load."""

from pathlib import Path
from typing import Literal

from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.counting import PretrainingModel, require
from densessl.registry import HOOKS
from densessl.weights.detector.export import export_detector
from densessl.weights.export import FORMATS, SUFFIXES, export_backbone, require_network, require_suffix
from densessl.weights.read import parts_in
from densessl.weights.state import bare_model


@HOOKS.register_module()
class ExportHook(Hook):
    """Exports the pretrained weights after training, and stores in every checkpoint the facts that an export needs.

    It exports one branch's backbone, with its neck and head if it has them. Pretraining of whole detectors exports the
    detector instead, with a config that fine-tunes it.

    Args:
        filename: name of the export in the work dir; by default ``detector.pth``, or ``backbone`` with the suffix of
            the format: ``backbone.pth``, ``backbone.onnx`` …
        to: format of a backbone, see :func:`densessl.weights.export.export_backbone`.
        branch: branch whose backbone is exported, "online" or "target".

    Attributes:
        written: path of the export; None before it is written.

    Raises:
        ExportError: files of the format have another suffix; at the start of training, the library that the format is
            for has no such network.
    """

    priority = "VERY_LOW"

    def __init__(
        self,
        filename: str | None = None,
        to: Literal[FORMATS] = "mmdet",
        branch: Literal["online", "target"] = "online",
    ):
        if filename is not None:
            require_suffix(filename, to, "filename")
        self.filename = filename
        self.to = to
        self.branch = branch
        self.written: Path | None = None

    def _model(self, runner: Runner) -> PretrainingModel:
        return require(bare_model(runner.model), type(self).__name__, "step", "describe")

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        checkpoint["meta"]["densessl"] = self._model(runner).describe()

    def before_train(self, runner: Runner) -> None:
        model = self._model(runner)
        if "detector" not in model.describe():
            require_network(model, self.to, self.branch)

    def after_train(self, runner: Runner) -> None:
        if runner.rank != 0:
            return
        model = self._model(runner)
        described = model.describe()
        if "detector" in described:
            out = Path(runner.work_dir, self.filename or "detector.pth")
            if described["detector"] is None:
                runner.logger.warning(
                    "ExportHook: the detector is not exported: model.detector is not the name of a config, so no "
                    "config for fine-tuning can be written"
                )
                return
            self.written = out
            report = export_detector(model, out, described["detector"])  # named by the run: any config is allowed
            runner.logger.info(f"detector exported, with a config that fine-tunes it: {report.source}: {report}")
            return
        out = Path(runner.work_dir, self.filename or f"backbone{SUFFIXES.get(self.to, '.pth')}")
        export_backbone(model, out, self.to, self.branch)
        self.written = out
        written = ["backbone", *(parts_in(out) if self.to == "mmdet" else ())]
        runner.logger.info(f"{self.branch} {', '.join(written)} exported for {self.to}: {out}")
