"""What is said of a config before it trains: what does not learn, another batch, another number of classes."""

import pytest
import torch
from mmengine.config import Config

from densessl.finetune.config.notes import notes

pytestmark = pytest.mark.det


def config(batch=2, **backbone) -> Config:
    leaf = dict(type="CocoDataset", metainfo=dict(classes=("fox", "owl")))
    return Config(
        dict(
            default_scope="mmdet",
            model=dict(
                backbone=dict(type="ResNet", depth=18, **backbone),
                roi_head=dict(bbox_head=[dict(num_classes=2), dict(num_classes=80)]),
            ),
            train_dataloader=dict(batch_size=batch, dataset=dict(type="RepeatDataset", dataset=leaf)),
            optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.02)),
            auto_scale_lr=dict(enable=False, base_batch_size=16),
        )
    )


def frozen(init, **backbone) -> list[str]:
    return [line for line in notes(config(**backbone), init, "none") if "model.backbone" in line]


def test_what_of_a_backbone_does_not_learn():
    (line,) = frozen("x.pth", frozen_stages=1, norm_eval=True, norm_cfg=dict(type="BN", requires_grad=False))
    assert line.startswith("note: model.backbone has frozen_stages=1, norm_eval=True, norm_cfg.requires_grad=False, ")
    assert "as in x.pth" in line
    assert line.endswith(
        "--set model.backbone.frozen_stages=-1 model.backbone.norm_eval=False "
        "model.backbone.norm_cfg.requires_grad=True"
    )
    (line,) = frozen("none", frozen_stages=0)  # norm_eval is true by MMDetection's default
    assert "frozen_stages=0, norm_eval=True" in line and "at their random initial values" in line
    learns = dict(frozen_stages=-1, norm_eval=False, norm_cfg=dict(type="BN", requires_grad=True))
    assert frozen("x.pth", **learns) == [] == frozen(None, frozen_stages=1)


def batches(cfg, launcher="none") -> list[str]:
    return [line for line in notes(cfg, None, launcher) if "images a step" in line]


def test_a_rate_for_another_batch(monkeypatch):
    (line,) = batches(config())
    assert "the learning rate 0.02 is for 16 images a step, and a step has 2" in line
    assert "auto_scale_lr.enable=True" in line and "accumulative_counts=8 " in line
    assert batches(config(batch=16)) == []
    cfg = config()
    cfg.optim_wrapper.accumulative_counts = 8
    assert batches(cfg) == []
    cfg.optim_wrapper.accumulative_counts = 4
    assert "a step has 8" in batches(cfg)[0] and "auto_scale_lr" not in batches(cfg)[0]  # it overlooks accumulation
    monkeypatch.setenv("WORLD_SIZE", "8")
    assert batches(config(), "pytorch") == []
    cfg = config()
    cfg.auto_scale_lr.enable = True
    assert batches(cfg) == []


def test_heads_with_another_number_of_classes():
    lines = [line for line in notes(config(), None, "none") if "num_classes" in line]
    assert lines == ["note: model.roi_head.bbox_head.1.num_classes=80, and the train set has 2"]


@pytest.mark.parametrize("kind", [torch.utils.data.TensorDataset, "NobodysDataset"])
def test_of_a_data_set_that_tells_no_classes_nothing_is_said(kind):
    cfg = config(batch=16)
    cfg.train_dataloader.dataset = dict(type=kind)
    assert notes(cfg, None, "none") == []
