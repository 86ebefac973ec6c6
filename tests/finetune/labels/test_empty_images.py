"""Training on images without objects: every family of the shipped protocols makes a finite step on nothing else."""

import pytest
import torch
from mmengine.config import Config

from densessl.finetune.config.empty_images import keep_empty_images

pytestmark = pytest.mark.det
FAMILIES = (
    "Faster R-CNN",
    "Mask R-CNN",
    "RetinaNet",
    "FCOS",
    "DETR",
    "Conditional DETR",
    "DAB-DETR",
    "Deformable DETR",
    "DINO",
)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_step_without_any_object(family):
    from tests.compat.detectors import batch, build

    torch.manual_seed(0)
    model, trained = build(family).train(), []
    for objects in (2, 0):
        model.zero_grad()
        losses = model(**model.data_preprocessor(batch(objects=objects), True), mode="loss")
        loss, _ = model.parse_losses(losses)
        loss.backward()
        assert torch.isfinite(loss)
        trained.append({name for name, parameter in model.named_parameters() if parameter.grad is not None})
    assert trained[0] == trained[1], "distributed training waits for the same gradients"


def test_an_unknown_detector_keeps_the_filter():
    entry = dict(type="mmdet.CocoDataset", filter_cfg=dict(filter_empty_gt=True, min_size=32))
    cfg = Config(dict(model=dict(type="mmdet.RetinaNet"), train_dataloader=dict(dataset=dict(entry))))
    assert keep_empty_images(cfg) == "images without objects are trained on as background"
    assert cfg.train_dataloader.dataset.filter_cfg == dict(filter_empty_gt=False, min_size=32)
    assert keep_empty_images(cfg) is None
    for name in ("Stranger", "mmdet.SOLOv2"):
        cfg = Config(dict(model=dict(type=name), train_dataloader=dict(dataset=dict(entry))))
        assert f"because {name.removeprefix('mmdet.')} does not train on them safely" in keep_empty_images(cfg)
    assert cfg.train_dataloader.dataset.filter_cfg.filter_empty_gt
