"""Hooks that load pretrained weights into a detector before its first step."""

from collections.abc import Collection, Mapping

from mmengine.hooks import Hook

from densessl.constraints import Share
from densessl.registry import HOOKS
from densessl.weights.detector.load import load_detector
from densessl.weights.load import load_parts
from densessl.weights.load_report import LoadReport
from densessl.weights.state import bare_model


@HOOKS.register_module()
class LoadBackboneHook(Hook):
    """Load a pretrained backbone into a detector before its first step, on every rank, with the neck and the shared
    convolutions of its head if the file has them.

    The detector itself stays stock: ``custom_imports = dict(imports=["densessl.compat", "densessl.finetune"])`` and
    ``custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint="r50.pth")]``. It runs after MMEngine's own
    weight initialisation, so set ``backbone.init_cfg=None``. A resumed run keeps its own weights.

    Args:
        checkpoint: The file, or None for a backbone from scratch, which the log then says.
        min_coverage: The least share of each part's tensors that the file has to fill, or such shares by part.
        strict_fingerprint: Whether a backbone of another architecture than the file's is refused.
        parts: Those to load, of "backbone", "neck" and "head"; by default all that the file has.
        allow_unexpected: Whether the file may have tensors that the backbone lacks; see :func:`load_backbone`.

    Attributes:
        reports: Load reports of the parts, by name; ``report`` is the backbone's.
    """

    priority = "VERY_HIGH"  # other hooks that read the weights before training must see these

    def __init__(
        self,
        checkpoint: str | None = None,
        min_coverage: Share | Mapping[str, Share] = 1.0,
        strict_fingerprint: bool = True,
        parts: Collection[str] | None = None,
        allow_unexpected: bool = False,
    ) -> None:
        self.checkpoint = checkpoint
        self.min_coverage = min_coverage
        self.strict_fingerprint = strict_fingerprint
        self.parts = parts
        self.allow_unexpected = allow_unexpected
        self.reports: dict[str, LoadReport] = {}

    @property
    def report(self) -> LoadReport | None:
        return self.reports.get("backbone")

    def before_train(self, runner) -> None:
        if runner.iter > 0:
            runner.logger.info(f"LoadBackboneHook: resumed at step {runner.iter}, so the weights stay as resumed")
        elif self.checkpoint is None:
            model = bare_model(runner.model)
            init_cfg = getattr(model.backbone, "init_cfg", None)
            origin = "its random initialisation"
            if isinstance(init_cfg, Mapping) and init_cfg.get("type") == "Pretrained":
                origin = f"what its init_cfg loaded, {init_cfg.get('checkpoint')}"
            runner.logger.info(f"LoadBackboneHook: checkpoint=None, so the backbone keeps {origin}")
        else:
            settings = (self.min_coverage, self.strict_fingerprint)
            options = dict(parts=self.parts, allow_unexpected=self.allow_unexpected)
            self.reports = load_parts(runner.model, self.checkpoint, *settings, **options)
            for report in self.reports.values():
                runner.logger.info(f"LoadBackboneHook: {self.checkpoint}: {report}")


@HOOKS.register_module()
class LoadDetectorHook(Hook):
    """Load a pretrained detector into a detector before its first step, on every rank. Class branches keep their random
    initialisation.

    The detector itself stays stock: ``custom_imports = dict(imports=["densessl.compat", "densessl.finetune"])`` and
    ``custom_hooks = [dict(type="densessl.LoadDetectorHook", checkpoint="detector.pth")]``. It runs after MMEngine's own
    weight initialisation, so set ``backbone.init_cfg=None``. A resumed run keeps its own weights.

    Args:
        checkpoint: The file, or None for a detector from scratch, which the log then says.
        strict_fingerprint: Whether a detector of another architecture than the file's is refused.

    Attributes:
        report: The load report; None before loading.
    """

    priority = "VERY_HIGH"  # other hooks that read the weights before training must see these

    def __init__(self, checkpoint: str | None = None, strict_fingerprint: bool = True) -> None:
        self.checkpoint = checkpoint
        self.strict_fingerprint = strict_fingerprint
        self.report: LoadReport | None = None

    def before_train(self, runner) -> None:
        if runner.iter > 0:
            runner.logger.info(f"LoadDetectorHook: resumed at step {runner.iter}, so the weights stay as resumed")
        elif self.checkpoint is None:
            runner.logger.info("LoadDetectorHook: checkpoint=None, so the detector keeps its initialisation")
        else:
            self.report = load_detector(runner.model, self.checkpoint, self.strict_fingerprint)
            runner.logger.info(f"LoadDetectorHook: {self.checkpoint}: {self.report}")
