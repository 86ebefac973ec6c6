"""Loading a backbone into a detector, with a report, or not at all."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.registry import DefaultScope
from torch import Tensor, nn

from densessl.engine.weights import bare_model
from densessl.registry import HOOKS, SCOPE
from densessl.transfer.export import open_checkpoint, read_backbone
from densessl.transfer.fingerprint import compare, of_model
from densessl.transfer.report import LoadError, LoadReport


def load_backbone(
    model: nn.Module,
    path: str | Path | Mapping[str, Any],
    min_coverage: float = 1.0,
    strict_fingerprint: bool = True,
    branch: str = "online",
) -> LoadReport:
    """Load a backbone into ``model.backbone``, or into ``model`` if it has no such attribute.

    In a C4 detector, whose box head runs the last stage of the ResNet, that stage counts as backbone.

    Args:
        model: A detector of MMDet, wrapped or not, whose ``data_preprocessor`` is compared too; or a bare backbone.
        path: A file of :func:`densessl.transfer.export_backbone`, a checkpoint of densessl, or a bare backbone
            (anything :func:`densessl.transfer.read_backbone` understands).
        min_coverage: The least share of the backbone's tensors, 0 to 1, that the file must fill.
        strict_fingerprint: Raise where the fingerprints differ. With ``False`` the report still says so.
        branch: Of a checkpoint of densessl, ``"online"`` or ``"target"``.

    Returns:
        The report; ``print(report)`` shows one line, and more where something deserves it.

    Raises:
        LoadError: Coverage or fingerprint. Nothing has been loaded then.
        ExportError: The file holds no backbone.
    """
    model = bare_model(model)
    backbone = _whole_backbone(model)
    given, wanted = read_backbone(path, branch)
    own = backbone.state_dict()
    fitting = {key: value for key, value in given.items() if key in own and value.shape == own[key].shape}
    differences, unverified = compare(of_model(backbone, getattr(model, "data_preprocessor", None)), wanted)
    report = LoadReport(
        source="the given state" if isinstance(path, Mapping) else str(path),
        part="backbone",
        expected=len(own),
        loaded=len(fitting),
        missing=[key for key in own if key not in given],
        mismatched=[
            f"{key}: found {tuple(value.shape)}, expected {tuple(own[key].shape)}"
            for key, value in given.items()
            if key in own and key not in fitting
        ],
        unexpected=[key for key in given if key not in own],
        new=_others(model, backbone),
        differences=differences,
        unverified=unverified,
    )
    if strict_fingerprint and differences:
        raise LoadError(f"{report.source} was trained in another network than this model's backbone.\n{report}", report)
    if report.coverage < min_coverage:
        raise LoadError(
            f"{report.source} fills {report.coverage:.1%} of the backbone, expected at least {min_coverage:.1%} "
            f"(min_coverage).\n{report}",
            report,
        )
    backbone.load_state_dict(fitting, strict=False)
    report.applied = True
    return report


def _whole_backbone(model: nn.Module) -> nn.Module:
    """``model.backbone``, together with the stage that a C4 detector keeps in its box head."""
    backbone = getattr(model, "backbone", model)
    shared_head = getattr(getattr(model, "roi_head", None), "shared_head", None)
    if not hasattr(shared_head, "layer4") or hasattr(backbone, "layer4"):
        return backbone
    whole = nn.Module()
    for name, child in [*backbone.named_children(), ("layer4", shared_head.layer4)]:
        whole.add_module(name, child)
    return whole


def _others(model: nn.Module, backbone: nn.Module) -> dict[str, int]:
    """How many tensors outside the backbone each part of a detector has."""
    inside = {id(tensor) for tensor in backbone.state_dict(keep_vars=True).values()}
    tensors = model.state_dict(keep_vars=True).items()
    return dict(Counter(name.partition(".")[0] for name, tensor in tensors if id(tensor) not in inside))


def build_detector(config: str) -> nn.Module:
    """The detector of an MMDet config, a file or ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``.

    Its weights are as the layers' constructors leave them: no ``init_cfg`` is followed and nothing is downloaded.
    """
    from mmdet.registry import MODELS

    from densessl.engine.launch import load_config

    cfg = load_config(config)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmdet")):
        return MODELS.build(cfg.model)


def stage_features(backbone: nn.Module, images: Tensor) -> dict[str, Tensor]:
    """Outputs (N, C, H / stride, W / stride) of the stages ``layer1`` … of any ResNet in evaluation mode, by name.

    They are taken at the last block of a stage, so it does not matter which stages the backbone returns.
    """
    seen: dict[str, Tensor] = {}
    stages = [name for name in ("layer1", "layer2", "layer3", "layer4") if hasattr(backbone, name)]
    handles = [
        getattr(backbone, name)[-1].register_forward_hook(lambda _, __, out, name=name: seen.update({name: out}))
        for name in stages
    ]
    try:
        with torch.no_grad():
            backbone.eval()  # on its own line: MMDet's ResNet.train returns None
            backbone(images)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def feature_differences(
    backbone: nn.Module, checkpoint: str | Path | Mapping[str, Any], branch: str = "online"
) -> dict[str, float] | None:
    """Compare a loaded backbone with the branch it came from, on one fixed image of 96x96 pixels.

    Args:
        backbone: The detector's. Left in evaluation mode.
        checkpoint: A checkpoint of densessl, whose ``meta`` has the config of its backbone.

    Returns:
        The largest absolute difference in each stage that both networks run: all zero if the transfer is exact. None
        if the checkpoint does not tell its backbone's config, or one of the two is not a ResNet.
    """
    from densessl.branches.backbone import build_backbone

    config = (open_checkpoint(checkpoint)[1].get("densessl") or {}).get("backbone")
    if config is None:
        return None
    with DefaultScope.overwrite_default_scope(SCOPE):  # where "ResNet" is ours, also beside a detector
        source = build_backbone(config)
    source.load_state_dict(read_backbone(checkpoint, branch)[0])
    images = torch.randn(1, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    ours, theirs = stage_features(source, images), stage_features(backbone, images)
    return {name: (ours[name] - theirs[name]).abs().max().item() for name in ours if name in theirs} or None


@HOOKS.register_module()
class LoadBackboneHook(Hook):
    """Give a detector its pretrained backbone before its first step, on every rank.

    The detector itself stays stock: ``custom_imports = dict(imports=["densessl.compat", "densessl.transfer"])`` and
    ``custom_hooks = [dict(type="densessl.LoadBackboneHook", checkpoint="r50.pth")]``. It runs after MMEngine's own
    weight initialisation, so ``backbone.init_cfg`` is best ``None``. A resumed run keeps what it resumed.

    Args:
        checkpoint: The file, or None for a backbone from scratch, which the log then says.
        min_coverage, strict_fingerprint: See :func:`load_backbone`.
    """

    priority = "VERY_HIGH"  # whatever else looks at the weights before training should see these

    def __init__(
        self, checkpoint: str | None = None, min_coverage: float = 1.0, strict_fingerprint: bool = True
    ) -> None:
        self.checkpoint = checkpoint
        self.min_coverage = min_coverage
        self.strict_fingerprint = strict_fingerprint
        self.report: LoadReport | None = None

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
            self.report = load_backbone(runner.model, self.checkpoint, self.min_coverage, self.strict_fingerprint)
            runner.logger.info(f"LoadBackboneHook: {self.checkpoint}: {self.report}")
