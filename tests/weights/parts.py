"""Checkpoints with necks and heads, and the detectors that take them."""

from pathlib import Path

import torch
from torch import nn

from densessl.branches import build_branch
from tests.weights.cases import NORMALIZE, PREPROCESSOR, lived_in

TOOL = Path(__file__).parents[2] / "tools" / "export.py"
BACKBONE = dict(type="ResNet", depth=18, width=8, out_indices=(0, 1, 2, 3))
NECK = dict(type="FPN", out_channels=8, start_level=1)
HEAD = dict(type="DenseHeadConvs", feat_channels=8, stacked_convs=2)
GN = dict(type="GN", num_groups=4)
RETINANET = dict(add_extra_convs="on_input", num_outs=5)  # of its neck


def pretrained(neck=NECK, head=HEAD) -> tuple[dict, nn.Module]:
    """A training checkpoint as a dict, and the online branch in it; the target's tensors are others."""
    told = {"backbone": BACKBONE, "normalize": NORMALIZE}
    told |= {"neck": neck} if neck else {}
    told |= {"head": head} if head else {}
    branches = {name: build_branch(told) for name in ("online", "target")}
    state = {}
    for seed, (name, branch) in enumerate(branches.items()):
        lived_in(branch, seed)
        generator = torch.Generator().manual_seed(seed)
        for part in (branch.neck, branch.head):
            for parameter in part.parameters() if part is not None else ():
                if parameter.ndim == 1:
                    parameter.data.copy_(0.5 + torch.rand(parameter.shape, generator=generator))
        state |= {f"{name}.{key}": value for key, value in branch.state_dict().items()}
    return {"state_dict": state, "meta": {"densessl": told}}, branches["online"]


def detector(kind="RetinaNet", neck=None, head=None, **more) -> nn.Module:
    """A small detector of MMDet, whose own weights are random."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    fpn = dict(type="FPN", in_channels=[8, 16, 32, 64], out_channels=8, start_level=1, **RETINANET)
    towers = dict(type=f"{kind[:-3]}Head" if kind == "RetinaNet" else "FCOSHead", num_classes=1, in_channels=8)
    config = dict(
        type=kind,
        data_preprocessor=PREPROCESSOR,
        backbone=dict(type="ResNet", depth=18, base_channels=8, norm_eval=False),
        neck=fpn | (neck or {}),
        bbox_head=towers | dict(feat_channels=8, stacked_convs=2) | (head or {}),
        **more,
    )
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(config)


def faster_rcnn() -> nn.Module:
    """MMDet's stock Faster R-CNN, narrow."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    from densessl.configs import load_config

    model = load_config("mmdet::faster_rcnn/faster-rcnn_r50_fpn_1x_coco.py").model
    model.backbone.update(depth=18, base_channels=8, init_cfg=None)
    model.neck.update(in_channels=[8, 16, 32, 64], out_channels=8)
    model.rpn_head.update(in_channels=8, feat_channels=8)
    model.roi_head.bbox_roi_extractor.out_channels = 8
    model.roi_head.bbox_head.update(in_channels=8, fc_out_channels=16)
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(model)


def tensors(model: nn.Module) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def unchanged(model: nn.Module, before: dict[str, torch.Tensor]) -> bool:
    return all(torch.equal(before[key], value) for key, value in model.state_dict().items())
