"""Cityscapes made ready without cityscapesscripts, and the instance protocol on it."""

import json
import runpy
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from densessl.cli.train import main, settings_of
from densessl.configs import load_config
from densessl.finetune.cityscapes import prepare_cityscapes, train_ids
from densessl.finetune.config.prepare import read_data
from densessl.runs import run_config
from tests.finetune.cityscapes_fixtures import HEIGHT, OBJECTS, WIDTH, instance_ids, label_ids, write_cityscapes
from tests.weights.cases import checkpoint

ROOT = Path(__file__).parents[2]
CONFIG = "configs/transfer/cityscapes/mask-rcnn_r50_fpn_24k.py"
NAMES = ["person", "rider", "car", "truck", "bus", "train", "motorcycle", "bicycle"]


@pytest.fixture(scope="module")
def ready(tmp_path_factory):
    root = write_cityscapes(tmp_path_factory.mktemp("cityscapes"))
    prepare_cityscapes(root)
    return root


def annotations(root: Path, split: str) -> Path:
    return root / "annotations" / f"instancesonly_filtered_gtFine_{split}.json"


@pytest.mark.det
def test_instances_are_the_pixels_of_their_ids(ready):
    from pycocotools import mask

    content = json.loads(annotations(ready, "train").read_text())
    assert [category["name"] for category in content["categories"]] == NAMES
    names = {category["id"]: category["name"] for category in content["categories"]}
    files = [f"{city}/{city}_{i:06d}_000019_leftImg8bit.png" for city in ("aachen", "bochum") for i in range(2)]
    assert [image["file_name"] for image in content["images"]] == files
    assert all((ready / "leftImg8bit/train" / name).is_file() for name in files)
    assert {(image["width"], image["height"]) for image in content["images"]} == {(WIDTH, HEIGHT)}
    assert [entry["id"] for entry in content["annotations"]] == list(range(1, 2 * (4 + 5) + 1))
    for image in content["images"]:
        ids = instance_ids(image["id"] % 2)
        wanted = [(value, name) for _, value, name in OBJECTS if name in NAMES and value in ids]
        entries = [entry for entry in content["annotations"] if entry["image_id"] == image["id"]]
        assert len(entries) == len(wanted)
        for value, name in wanted:
            rows, columns = np.nonzero(ids == value)
            (entry,) = (e for e in entries if np.array_equal(mask.decode(e["segmentation"]), ids == value))
            assert names[entry["category_id"]] == name and entry["iscrowd"] == (value == 25)
            assert entry["area"] == len(rows)
            left, top = columns.min(), rows.min()
            assert entry["bbox"] == [left, top, columns.max() + 1 - left, rows.max() + 1 - top]


@pytest.mark.det
def test_a_perfect_detector_has_full_average_precision(ready):
    """Which it would not if an annotation had the id 0."""
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    truth = COCO(str(annotations(ready, "val")))
    found = [dict(entry, score=0.9) for entry in truth.dataset["annotations"] if not entry["iscrowd"]]
    keys = ("image_id", "category_id", "segmentation", "score")
    evaluation = COCOeval(truth, truth.loadRes([{key: entry[key] for key in keys} for entry in found]), "segm")
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    assert evaluation.stats[0] == pytest.approx(1.0)


@pytest.mark.det
def test_training_ids_are_numbered_as_the_classes_of_segmentation(ready):
    from mmseg.datasets import CityscapesDataset

    classes = CityscapesDataset.METAINFO["classes"]
    with Image.open(ready / "gtFine/val/frankfurt/frankfurt_000001_000019_gtFine_labelTrainIds.png") as image:
        found = np.asarray(image)
    ids, seen = instance_ids(1), np.zeros((HEIGHT, WIDTH), bool)
    for _, value, name in OBJECTS:
        assert (found[ids == value] == (255 if name is None else classes.index(name))).all(), name
        seen |= ids == value
    assert (found[~seen] == 255).all() and not seen.all()
    told = (
        "road 7, sidewalk 8, building 11, wall 12, fence 13, pole 17, traffic light 19, traffic sign 20, vegetation 21,"
        " terrain 22, sky 23, person 24, rider 25, car 26, truck 27, bus 28, train 31, motorcycle 32, bicycle 33"
    )
    official = {int(number): name for name, number in (entry.rsplit(" ", 1) for entry in told.split(", "))}
    wanted = [classes.index(official[i]) if i in official else 255 for i in range(256)]
    assert train_ids(np.arange(256)).tolist() == wanted


@pytest.mark.det
def test_the_command_keeps_maps_that_are_there_and_says_what_it_made(tmp_path, capsys):
    root = write_cityscapes(tmp_path)
    kept = root / "gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_labelTrainIds.png"
    kept.write_bytes(b"mine")
    main = runpy.run_path(str(ROOT / "tools" / "cityscapes.py"))["main"]
    assert main([str(root), "--workers", "2"]) == 0
    assert f"{annotations(root, 'train')}: 4 images, 16 instances, 2 crowd regions" in capsys.readouterr().out
    assert kept.read_bytes() == b"mine"
    assert len(list(root.rglob("*_labelTrainIds.png"))) == 6
    assert main([str(root / "gtFine")]) == 2
    assert "has no images of Cityscapes" in capsys.readouterr().err


@pytest.mark.det
def test_missing_and_wrong_maps_are_named(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"has no images of Cityscapes; expected in .*leftImg8bit/\{split\}/"):
        prepare_cityscapes(tmp_path)
    root = write_cityscapes(tmp_path, per_city=1)
    gone = root / "gtFine/val/frankfurt/frankfurt_000000_000019_gtFine_instanceIds.png"
    gone.unlink()
    with pytest.raises(FileNotFoundError, match=f"lacks 1 maps, .*: frankfurt/{gone.name}"):
        prepare_cityscapes(root)
    assert not (root / "annotations").exists()
    Image.fromarray(label_ids(instance_ids())).save(gone)
    with pytest.raises(ValueError, match=f"{gone.name}: found an array .* of uint8, expected .* 16-bit instance ids"):
        prepare_cityscapes(root)


def test_the_instance_protocol_is_the_papers():
    config = load_config(str(ROOT / CONFIG))
    assert config.load_from is None and config.model.backbone.init_cfg is None
    assert config.train_cfg == dict(type="IterBasedTrainLoop", max_iters=24000, val_interval=8000)
    assert config.optim_wrapper.optimizer.lr == 0.01 and config.optim_wrapper.paramwise_cfg.norm_decay_mult == 0
    steps = config.param_scheduler[-1]
    assert (steps.milestones, steps.gamma, steps.by_epoch, steps.end) == ([18000], 0.1, False, 24000)
    assert 8 * config.train_dataloader.batch_size == 8
    (resize,) = (step for step in config.train_pipeline if step.type == "RandomChoiceResize")
    assert resize.scales == [(2048, side) for side in (800, 832, 864, 896, 928, 960, 992, 1024)]
    assert config.train_dataloader.dataset.dataset.pipeline == config.train_pipeline


@pytest.mark.det
def test_norms_are_synchronised_in_backbone_and_pyramid_only_and_all_is_trained():
    from torch.nn import Conv2d, SyncBatchNorm

    from densessl.weights.detector.stock import build_detector

    model = build_detector(str(ROOT / CONFIG))
    for part in (model.backbone, model.neck):
        count = [sum(isinstance(m, kind) for m in part.modules()) for kind in (Conv2d, SyncBatchNorm)]
        assert count[0] == count[1] > 0
    assert not any(isinstance(m, SyncBatchNorm) for m in model.roi_head.modules())
    assert len(model.roi_head.bbox_head.shared_fcs) == 2 and model.roi_head.bbox_head.num_classes == 8
    model.train()
    assert all(parameter.requires_grad for parameter in model.parameters())
    assert all(module.training for module in model.modules())


@pytest.mark.det
def test_what_is_to_be_made_first_is_listed(tmp_path, capsys):
    root = write_cityscapes(tmp_path / "raw", per_city=1)
    assert main([str(ROOT / CONFIG), "--data-root", str(root), "--work-dir", str(tmp_path)]) == 2
    told = "".join(capsys.readouterr())
    assert all(f"{annotations(root, split)}: missing" in told for split in ("train", "val"))


@pytest.mark.det
@pytest.mark.slow
def test_the_instance_protocol_trains_and_evaluates_by_cocos_metrics(ready, tmp_path):
    from densessl.engine.runner import DenseRunner
    from densessl.finetune.load_hooks import LoadBackboneHook
    from densessl.weights.export import export_backbone

    export_backbone(checkpoint(18, width=8)[0], tmp_path / "r18.pth")
    words = ["--data-root", str(ready), "--init", str(tmp_path / "r18.pth"), "--steps", "2"]
    settings = settings_of([str(ROOT / CONFIG), *words, "--work-dir", str(tmp_path / "run")])
    config = run_config(settings)
    read_data(config, settings)
    loaders = {
        f"{name}_dataloader.{key}": value
        for name in ("train", "val")
        for key, value in {"batch_size": 2, "num_workers": 0, "persistent_workers": False}.items()
    }
    config.merge_from_dict(
        {
            **loaders,
            "custom_hooks.1.batches": 1,
            "train_dataloader.dataset.dataset.dataset.pipeline.2.scales": [(96, 64)],
            "val_dataloader.dataset.pipeline.1.scale": (96, 64),
            "model.backbone.depth": 18,
            "model.backbone.base_channels": 8,
            "model.neck.in_channels": [8, 16, 32, 64],
            "model.train_cfg.rcnn.sampler.num": 8,
            "model.train_cfg.rpn_proposal.max_per_img": 20,
            "model.roi_head.bbox_head.fc_out_channels": 16,
            "model.roi_head.mask_head.conv_out_channels": 16,
            "model.test_cfg.rpn.max_per_img": 20,
            "model.test_cfg.rcnn.score_thr": 0.0,
            "model.test_cfg.rcnn.max_per_img": 5,
            "val_evaluator": [item for item in config.val_evaluator if item["type"] == "CocoMetric"],
        }
    )
    runner = DenseRunner.from_cfg(config)
    runner.train()
    assert runner.iter == 2
    hook = next(hook for hook in runner.hooks if isinstance(hook, LoadBackboneHook))
    assert hook.report.summary.startswith("120/120 backbone tensors loaded; 0 unexpected; neck: ")
    assert not hook.report.unverified
    scores = runner.val_loop.run()
    assert {"coco/bbox_mAP", "coco/segm_mAP", "coco/segm_mAP_50"} <= scores.keys()
    assert all(0 <= scores[key] <= 1 for key in ("coco/bbox_mAP", "coco/segm_mAP"))
    item = runner.val_dataloader.dataset[0]["data_samples"].gt_instances
    classes = runner.val_dataloader.dataset.metainfo["classes"]
    assert [classes[label] for label in item.labels] == ["person", "car", "car", "bicycle"]
