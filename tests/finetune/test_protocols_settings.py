"""What the protocols say: schedules, batches, pixels, norms, the head of C4, and classes of any COCO file."""

import re
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from densessl.configs import load_config
from densessl.finetune.res5_head import Res5Head
from densessl.weights.detector.stock import build_detector
from densessl.weights.fingerprint import of_model
from tests.finetune.test_protocols import CONFIGS, PROTOCOLS
from tests.finetune.voc_coco_fixtures import box_of, write_coco
from tests.weights.cases import NORMALIZE

SIDES = {"coco": list(range(640, 801, 32)), "voc": list(range(480, 801, 32))}
# Steps, where the rate falls to a tenth, steps of warm-up, rate: of 16 images a step.
DETECTRON2 = {
    "voc/faster-rcnn_r50_c4_24k.py": (24000, [18000, 22000], 100, 0.02),
    "voc/faster-rcnn_r50_fpn_24k.py": (24000, [18000, 22000], 100, 0.02),
    "coco/mask-rcnn_r50_c4_1x.py": (90000, [60000, 80000], 1000, 0.02),
    "coco/mask-rcnn_r50_fpn_1x.py": (90000, [60000, 80000], 1000, 0.02),
    "coco/mask-rcnn_r50_fpn_4conv1fc_1x.py": (90000, [60000, 80000], 1000, 0.02),
    "coco/retinanet_r50_fpn_1x.py": (90000, [60000, 80000], 1000, 0.01),
    "coco/fcos_r50_fpn_1x.py": (90000, [60000, 80000], 1000, 0.01),
}
# Epochs, where the rate falls, images a step, rate, and the backbone's as a part of it.
DETRS = {
    "coco/detr_r50_150e.py": (150, 100, 16, 1e-4, 0.1),
    "coco/detr_r50_300e.py": (300, 200, 16, 1e-4, 0.5),
    "coco/conditional-detr_r50_50e.py": (50, 40, 16, 1e-4, 0.1),
    "coco/pair-detr_r50_50e.py": (50, 40, 16, 1e-4, 0.1),
    "coco/dab-detr_r50_50e.py": (50, 40, 16, 1e-4, 0.1),
    "coco/deformable-detr_r50_50e.py": (50, 40, 32, 2e-4, 0.1),
    "coco/dino_r50_12e.py": (12, 11, 16, 1e-4, 0.1),
}


def rates(config, steps: int, at: list[int], epoch: int | None = None) -> list[float]:
    """The learning rate of those steps, by MMEngine's own schedulers; ``epoch`` is the steps of one."""
    from mmengine.registry import PARAM_SCHEDULERS

    optimiser = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=config.optim_wrapper.optimizer.lr)
    schedulers = [
        PARAM_SCHEDULERS.build({**entry, "_scope_": "mmengine"}, default_args=dict(optimizer=optimiser))
        for entry in config.param_scheduler
    ]
    found = []
    for step in range(steps):
        if step in at:
            found.append(optimiser.param_groups[0]["lr"])
        for scheduler in schedulers:
            if not scheduler.by_epoch or (epoch and (step + 1) % epoch == 0):
                scheduler.step()
    return found


@pytest.mark.det
@pytest.mark.parametrize("name", DETECTRON2)
def test_schedules_of_detectron2(name):
    steps, milestones, warmup, rate = DETECTRON2[name]
    config = load_config(str(CONFIGS / name))
    assert (config.train_cfg.type, config.train_cfg.max_iters) == ("IterBasedTrainLoop", steps)
    assert config.train_dataloader.sampler.type == "InfiniteSampler"
    first, second = milestones
    at = [0, warmup, first - 1, first, second - 1, second, steps - 1]
    parts = [0.001, 1, 1, 0.1, 0.1, 0.01, 0.01]
    np.testing.assert_allclose(rates(config, steps, at), rate * np.array(parts), rtol=1e-6)
    optimiser = config.optim_wrapper.optimizer
    assert (optimiser.type, optimiser.momentum, optimiser.weight_decay) == ("SGD", 0.9, 1e-4)
    assert not config.optim_wrapper.get("clip_grad")
    assert config.optim_wrapper.paramwise_cfg == dict(norm_decay_mult=0.0)
    assert config.train_dataloader.batch_size * 8 == 16
    dataset = config.train_dataloader.dataset
    pipelines = [each.pipeline for each in dataset.datasets] if "datasets" in dataset else [dataset.pipeline]
    for pipeline in pipelines:
        (resize,) = [step for step in pipeline if "Resize" in step.type]
        assert resize.type == "RandomChoiceResize"
        assert [tuple(scale) for scale in resize.scales] == [(1333, side) for side in SIDES[name.partition("/")[0]]]
    (resize,) = [step for step in config.val_dataloader.dataset.pipeline if "Resize" in step.type]
    assert tuple(resize.scale) == (1333, 800)
    assert [hook.type for hook in config.custom_hooks] == ["densessl.LoadBackboneHook", "densessl.PreciseBNHook"]
    assert config.custom_hooks[1].batches == 200


@pytest.mark.det
@pytest.mark.parametrize("name", DETRS)
def test_schedules_of_the_detr_family(name):
    epochs, drop, images, rate, part = DETRS[name]
    config = load_config(str(CONFIGS / name))
    assert (config.train_cfg.type, config.train_cfg.max_epochs) == ("EpochBasedTrainLoop", epochs)
    at = [0, 3 * drop - 1, 3 * drop, 3 * epochs - 1]
    np.testing.assert_allclose(rates(config, 3 * epochs, at, epoch=3), rate * np.array([1, 1, 0.1, 0.1]))
    assert config.optim_wrapper.optimizer.type == "AdamW"
    assert config.optim_wrapper.paramwise_cfg.custom_keys.backbone.lr_mult == part
    assert config.auto_scale_lr.base_batch_size == images
    assert config.model.backbone.init_cfg is None


@pytest.mark.det
@pytest.mark.parametrize("name", PROTOCOLS)
def test_a_header_is_true_and_rates_scale_from_its_batch(name):
    """`auto_scale_lr.enable=True` multiplies the rate by the real batch over `base_batch_size`."""
    config = load_config(str(CONFIGS / name))
    header = " ".join((CONFIGS / name).read_text().split('"""')[1].split())
    gpus = re.search(r"[Bb]atch (\d+) GPUs x (\d+) = (\d+)", header)
    if gpus:
        processes, batch, images = map(int, gpus.groups())
        assert processes * batch == images
    else:  # the small ones say it once, in the first of them
        batch = images = 8
    assert config.train_dataloader.batch_size == batch
    assert config.auto_scale_lr.base_batch_size == images
    assert not config.auto_scale_lr.get("enable")
    told = re.search(r"lr ([\d.]+(?:e-\d)?)", header)
    assert told is None or float(told[1].rstrip(".")) == config.optim_wrapper.optimizer.lr
    assert config.custom_hooks[0] == dict(type="densessl.LoadBackboneHook", checkpoint=None)
    assert {"densessl.compat", "densessl.engine", "densessl.finetune"} <= set(config.custom_imports.imports)
    command = re.search(r"tools/train.py (\S+)", header)
    assert command[1] == f"configs/transfer/{name}"


@pytest.mark.det
@pytest.mark.parametrize("name", [name for name in PROTOCOLS if "vitdet" not in name])
def test_pixels_and_strides_are_those_of_pretraining(name):
    model = build_detector(str(CONFIGS / name))
    found = of_model(model.backbone, model.data_preprocessor)
    pixels = (found.channel_order, *([round(v, 3) for v in values] for values in (found.mean, found.std)))
    wanted = (NORMALIZE["channel_order"], *([round(255 * v, 3) for v in NORMALIZE[key]] for key in ("mean", "std")))
    assert pixels == wanted
    assert (found.stem, found.stride, found.norm, found.eps) == ("7x7", "3x3", "BN", 1e-5)
    if name in DETECTRON2:  # everything learns
        assert all(parameter.requires_grad for parameter in model.parameters())
        model.train()
        assert all(module.training for module in model.modules())


@pytest.mark.det
@pytest.mark.parametrize("name", ["voc/faster-rcnn_r50_c4_24k.py", "coco/mask-rcnn_r50_c4_1x.py"])
def test_the_head_of_c4_ends_in_a_norm_that_learns(name):
    from mmengine.model import revert_sync_batchnorm

    torch.manual_seed(0)
    model = build_detector(str(CONFIGS / name))
    head = model.roi_head.shared_head
    norms = [module for module in head.modules() if isinstance(module, nn.SyncBatchNorm)]
    assert isinstance(head, Res5Head) and head.norm is norms[-1] and len(norms) == 3 * 3 + 1 + 1
    head = revert_sync_batchnorm(head).train()
    regions = torch.randn(4, 1024, 14, 14)
    out = head(regions)
    assert out.shape == (4, 2048, 7, 7)
    values = out.transpose(0, 1).flatten(1)
    torch.testing.assert_close(values.mean(1), torch.zeros(2048), atol=1e-4, rtol=0)
    torch.testing.assert_close(values.std(1, correction=0), torch.ones(2048), atol=2e-2, rtol=0)
    (out * torch.randn_like(out)).mean().backward()
    assert all(parameter.grad is not None and parameter.grad.any() for parameter in head.parameters())
    with pytest.raises(ValueError, match=r"Res5Head: depth=51, expected one of \[18, 34, 50"):
        Res5Head(depth=51)


def coco_set(root: Path, kind: str, classes, **settings):
    from mmdet.registry import DATASETS
    from mmengine.registry import init_default_scope

    import densessl.finetune.categories  # noqa: F401

    init_default_scope("mmdet")
    places = dict(ann_file="annotations/instances_val2017.json", data_prefix=dict(img="val2017/"))
    config = dict(type=f"densessl.{kind}", data_root=str(root), metainfo=dict(classes=classes), **places, **settings)
    return DATASETS.build(config)


@pytest.mark.det
def test_classes_are_numbered_by_their_names_not_by_the_file(tmp_path):
    write_coco(tmp_path, names=["fox", "owl", "elk"], images=3, boxes=2)
    found = coco_set(tmp_path, "NamedCocoDataset", ["elk", "fox"], test_mode=True)
    labels = [[instance["bbox_label"] for instance in found[i]["instances"]] for i in range(3)]
    # The file goes around fox, owl, elk in twos; owls are not used.
    assert labels == [[1], [0, 1], [0]]
    with pytest.raises(ValueError, match=r"no categories \['cat'\]; it has fox,owl,elk"):
        coco_set(tmp_path, "NamedCocoDataset", ["elk", "cat"])


@pytest.mark.det
@pytest.mark.parametrize("shift", [0, 200])
def test_one_class_is_all_categories_in_training_and_in_the_metric(tmp_path, shift):
    from mmdet.registry import METRICS

    write_coco(tmp_path, names=["fox", "owl", "elk"], images=3, boxes=2, crowd=True)
    config = load_config(str(CONFIGS / "coco" / "retinanet_r18_256_object.py"))
    train, val = config.train_dataloader.dataset, config.val_dataloader.dataset
    assert config.model.bbox_head.num_classes == 1
    assert train.metainfo == val.metainfo == dict(classes=["object"])
    assert train.type == val.type == "densessl.OneClassCocoDataset"
    found = coco_set(tmp_path, "OneClassCocoDataset", ["object"], test_mode=True, pipeline=val.pipeline)
    (tmp_path / "annotations").rename(tmp_path / "elsewhere")  # nothing but the samples is looked at
    metric = METRICS.build(config.val_evaluator)
    metric.dataset_meta = found.metainfo
    for image, item in enumerate(found):
        sample = item["data_samples"].to_dict()
        boxes = torch.tensor([box_of(image, k) for k in range(2)], dtype=torch.float)
        boxes[:, 2:] += boxes[:, :2]
        # The crowd is no miss, and a small box inside of it no false positive.
        boxes = torch.cat([boxes, torch.tensor([[20.0, 10.0, 24.0, 16.0]])]) + shift
        predicted = dict(bboxes=boxes, labels=torch.zeros(3, dtype=torch.long), scores=torch.tensor([0.8, 0.7, 0.9]))
        metric.process({}, [sample | dict(pred_instances=predicted)])
    scores = metric.evaluate(size=3)
    assert scores["coco/bbox_mAP"] == scores["coco/bbox_AR@100"] == pytest.approx(0.0 if shift else 1.0)
    with pytest.raises(ValueError, match=r"metainfo.classes=\['a', 'b'\], expected one name"):
        coco_set(tmp_path, "OneClassCocoDataset", ["a", "b"])
