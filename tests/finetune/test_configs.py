"""The fine-tuning configs: they build, and the small one trains and evaluates a data set in VOC's layout."""

import logging
from pathlib import Path

import pytest
import torch

from densessl.finetune.load_hooks import LoadBackboneHook
from densessl.weights.export import export_backbone
from densessl.weights.load import load_backbone
from tests.finetune.voc_coco_fixtures import write_voc
from tests.weights import vits
from tests.weights.cases import checkpoint

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer"
SMALL = CONFIGS / "voc" / "retinanet_r18_256_voc.py"
SMALL_VIT = CONFIGS / "voc" / "retinanet_vitdet_256_voc.py"


def small_config(tmp_path: Path, monkeypatch, classes: str, path: Path = SMALL):
    from densessl.configs import load_config
    from densessl.finetune.config.data_files import set_data_root

    monkeypatch.setenv("CLASSES", classes)
    config = load_config(str(path))
    set_data_root(config, str(tmp_path / "data"))
    config.work_dir = str(tmp_path / "run")
    return config


def vit_of_the_small_config() -> dict:
    """What `sim_vit_tiny.py` trains."""
    return vits.checkpoint(image_size=96, patch_size=8, dim=192, depth=8, heads=3, mlp_ratio=4.0)[0]


@pytest.mark.det
@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "make", "loaded"),
    [
        (SMALL, lambda: checkpoint()[0], "120/120 backbone tensors loaded; 0 unexpected; neck: "),
        (
            SMALL_VIT,
            vit_of_the_small_config,
            "99/99 backbone tensors loaded; 0 unexpected; not used: cls_token; rel_pos: ",
        ),
    ],
    ids=["resnet", "vit"],
)
def test_the_small_config_trains_from_an_export_and_evaluates(tmp_path, monkeypatch, path, make, loaded):
    from densessl.engine.runner import DenseRunner

    write_voc(tmp_path / "data", ["fox", "owl"])
    content = make()
    export_backbone(content, tmp_path / "backbone.pth")
    config = small_config(tmp_path, monkeypatch, "fox,owl", path)
    for loader in (config.train_dataloader, config.val_dataloader):
        loader.num_workers, loader.persistent_workers, loader.batch_size = 0, False, 2
        for step in loader.dataset.pipeline:
            step.update({"scale": (96, 64)} if step["type"] == "Resize" else {})
    config.merge_from_dict(
        {
            "train_cfg.max_epochs": 1,
            "model.test_cfg.score_thr": 0.0,  # CocoMetric has no scores to return where nothing is detected
            "custom_hooks.0.checkpoint": str(tmp_path / "backbone.pth"),
        }
    )
    runner = DenseRunner.from_cfg(config)
    assert runner.model.bbox_head.num_classes == 2
    runner.train()
    hook = next(hook for hook in runner.hooks if isinstance(hook, LoadBackboneHook))
    assert hook.report.summary.startswith(loaded) and not hook.report.unverified
    scores = runner.val_loop.run()
    assert {"pascal_voc/AP50", "coco/bbox_mAP", "coco/bbox_mAP_50"} <= scores.keys()
    assert all(0 <= scores[key] <= 1 for key in ("pascal_voc/AP50", "coco/bbox_mAP"))
    # A resumed run keeps its weights: the hook must not put the pretrained ones back.
    name, trained = next(iter(runner.model.backbone.named_parameters()))
    kept = trained.detach().clone()
    assert not torch.equal(kept, content["state_dict"][f"online.backbone.{name}"])
    hook.before_train(runner)
    assert torch.equal(trained, kept)


@pytest.mark.det
@pytest.mark.parametrize(("shift", "expected"), [(0, 1.0), (200, 0.0)])
def test_evaluators_of_the_small_config_grade_known_boxes(tmp_path, monkeypatch, shift, expected):
    """Predictions equal to the truth score 1 by both metrics, others 0; the ids of the images are strings."""
    from mmdet.registry import DATASETS, METRICS
    from mmengine.registry import init_default_scope

    write_voc(tmp_path / "data", ["fox", "owl"])
    config = small_config(tmp_path, monkeypatch, "owl,fox")
    init_default_scope("mmdet")
    dataset = DATASETS.build(config.val_dataloader.dataset)
    assert len(dataset) == 4
    for evaluator in config.val_evaluator:
        metric = METRICS.build(evaluator)
        metric.dataset_meta = dataset.metainfo
        for item in dataset:
            sample = item["data_samples"]
            known = dict(sample.gt_instances.items())
            sample = sample.to_dict()
            sample["pred_instances"] = {
                "bboxes": known["bboxes"].tensor + shift,
                "labels": known["labels"],
                "scores": torch.tensor([0.9, 0.8]),
            }
            metric.process({}, [sample])
        scores = metric.evaluate(size=4)
        key = "pascal_voc/AP50" if evaluator["type"] == "VOCMetric" else "coco/bbox_mAP"
        assert scores[key] == pytest.approx(expected)


@pytest.mark.det
def test_the_coco_config_has_the_protocols_norms_and_freezes_nothing():
    from mmdet.registry import MODELS
    from mmengine.config import Config
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import DefaultScope
    from torch.nn import Conv2d, SyncBatchNorm

    config = Config.fromfile(CONFIGS / "coco" / "mask-rcnn_r50_fpn_4conv1fc_1x.py")
    assert config.model.backbone.init_cfg is None
    with DefaultScope.overwrite_default_scope("mmdet"):
        model = MODELS.build(config.model)
    normed = {
        "backbone": model.backbone,
        "neck": model.neck,
        "box head": model.roi_head.bbox_head.shared_convs,
        "mask head": model.roi_head.mask_head.convs,
    }
    for part, module in normed.items():
        modules = list(module.modules())
        count = {kind: sum(isinstance(m, kind) for m in modules) for kind in (Conv2d, SyncBatchNorm)}
        assert count[SyncBatchNorm] == count[Conv2d] > 0, part
    assert len(model.roi_head.bbox_head.shared_convs) == 4 and len(model.roi_head.bbox_head.shared_fcs) == 1
    model.train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())

    content, online, _ = checkpoint(50)
    report = load_backbone(revert_sync_batchnorm(model), content)
    assert report.summary.startswith("318/318 backbone tensors loaded; 0 unexpected; ") and not report.unverified
    assert torch.equal(model.backbone.layer4[2].conv3.weight, online.layer4[2].conv3.weight)


def test_the_hook_without_a_checkpoint_says_so_and_loads_nothing(caplog):
    from types import SimpleNamespace

    from densessl.branches.resnet import ResNet

    model = torch.nn.Module()
    model.backbone = ResNet(18, width=8)
    before = model.backbone.conv1.weight.detach().clone()
    runner = SimpleNamespace(iter=0, model=model, logger=logging.getLogger("densessl.test"))
    with caplog.at_level(logging.INFO):
        LoadBackboneHook(checkpoint=None).before_train(runner)
    assert "keeps its random initialisation" in caplog.text
    assert torch.equal(model.backbone.conv1.weight, before)
    model.backbone.init_cfg = {"type": "Pretrained", "checkpoint": "torchvision://resnet50"}
    with caplog.at_level(logging.INFO):
        LoadBackboneHook(checkpoint=None).before_train(runner)
    assert "what its init_cfg loaded, torchvision://resnet50" in caplog.text
