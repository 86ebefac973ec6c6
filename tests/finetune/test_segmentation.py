"""Semantic segmentation by MMSegmentation: configs by name, the weights they take, and the protocols on tiny data."""

import shutil
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from densessl.cli.train import main, settings_of
from densessl.configs import load_config, stock_config
from densessl.errors import LoadError, MissingPackage
from densessl.extras import how_to_install
from densessl.finetune.cityscapes import prepare_cityscapes
from densessl.finetune.config.data_files import leaves
from densessl.finetune.config.prepare import read_data
from densessl.finetune.load_hooks import LoadBackboneHook
from densessl.runs import run_config
from densessl.weights.detector.stock import build_detector
from densessl.weights.equality import feature_differences
from densessl.weights.export import export_backbone
from densessl.weights.load import load_backbone
from tests.finetune.cityscapes_fixtures import write_cityscapes
from tests.weights.cases import checkpoint

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer"
CITYSCAPES = str(CONFIGS / "cityscapes" / "fcn_r50-d8_769_40k.py")
VOC = str(CONFIGS / "voc" / "fcn_r50-d8_512_20k.py")
STOCK = {
    CITYSCAPES: "mmseg::fcn/fcn_r50-d8_4xb2-40k_cityscapes-769x769",
    VOC: "mmseg::fcn/fcn_r50-d8_4xb4-20k_voc12aug-512x512",
}
pytestmark = pytest.mark.det


def write_voc_segmentation(root: Path) -> Path:
    """``root`` as VOC2012/ is with SBD's maps beside its own: photos of noise with a cat (8) on background and a border
    that is ignored. Two photos each are for training, from SBD, and for validation. Returns the root."""
    random = np.random.default_rng(0)
    parts = {"train": "SegmentationClass", "aug": "SegmentationClassAug", "val": "SegmentationClass"}
    for folder in ("JPEGImages", "ImageSets/Segmentation", *parts.values()):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, folder in parts.items():
        photos = [f"{name}_{i}" for i in range(2)]
        (root / "ImageSets/Segmentation" / f"{name}.txt").write_text("\n".join(photos) + "\n")
        for photo in photos:
            pixels = random.integers(0, 256, (60, 90, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / "JPEGImages" / f"{photo}.jpg")
            labels = np.zeros((60, 90), np.uint8)
            labels[10:50, 20:60], labels[10:50, 58:60] = 8, 255
            Image.fromarray(labels).save(root / folder / f"{photo}.png")
    return root


DATA = {CITYSCAPES: write_cityscapes, VOC: write_voc_segmentation}


@pytest.mark.parametrize("path", [CITYSCAPES, VOC], ids=["cityscapes", "voc"])
def test_a_protocol_is_the_stock_one_but_for_the_backbone(path):
    ours, stock = load_config(path), load_config(STOCK[path])
    assert stock.model.pretrained == "open-mmlab://resnet50_v1c"
    assert ours.model.pretrained is None and ours.model.backbone.pop("init_cfg") is None
    assert (ours.model.backbone.type, stock.model.backbone.type) == ("ResNet", "ResNetV1c")
    ours.model.backbone.type, ours.model.pretrained = "ResNetV1c", stock.model.pretrained
    for key in ("custom_imports", "custom_hooks"):
        ours.pop(key)
    ours, stock = ours.to_dict(), stock.to_dict()
    assert {key: value for key, value in without_scopes(ours).items() if key in stock} == without_scopes(stock)


def without_scopes(node):
    """A config without the marks that MMEngine leaves where it took something from another file."""
    if isinstance(node, dict):
        return {key: without_scopes(value) for key, value in node.items() if key != "_scope_"}
    return [without_scopes(value) for value in node] if isinstance(node, list | tuple) else node


@pytest.mark.parametrize(
    ("path", "steps", "side", "batch", "classes"),
    [(CITYSCAPES, 40000, 769, 4 * 2, 19), (VOC, 20000, 512, 4 * 4, 21)],
    ids=["cityscapes", "voc"],
)
def test_schedules_are_the_papers(path, steps, side, batch, classes):
    config = load_config(path)
    assert config.train_cfg.max_iters == config.param_scheduler[0].end == steps
    assert config.param_scheduler[0].type == "PolyLR" and config.optim_wrapper.optimizer.lr == 0.01
    assert 4 * config.train_dataloader.batch_size == batch
    (crop,) = (step for step in config.train_pipeline if step.type == "RandomCrop")
    assert crop.crop_size == config.model.data_preprocessor["size"] == (side, side)
    assert config.model.decode_head.num_classes == config.model.auxiliary_head.num_classes == classes


@pytest.fixture(scope="module")
def segmentor():
    return build_detector(VOC)


def test_the_segmentor_takes_every_tensor_and_computes_dilated_features_with_them(segmentor):
    """Those of torchvision's dilated ResNet, which is another implementation; all its norms are synchronised, and all
    of it is trained."""
    from mmengine.model import revert_sync_batchnorm
    from torchvision.models import resnet50

    parts = [segmentor.backbone, segmentor.decode_head, segmentor.auxiliary_head]
    norms = [m for part in parts for m in part.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    assert len(norms) > 53 and all(isinstance(norm, nn.SyncBatchNorm) for norm in norms)
    segmentor.train()
    assert all(norm.training for norm in norms) and all(p.requires_grad for p in segmentor.parameters())

    content, online, _ = checkpoint(50)
    report = load_backbone(segmentor, content)
    assert report.summary == "318/318 backbone tensors loaded; 0 unexpected; decode_head: 20 new; auxiliary_head: 8 new"
    assert not report.unverified
    reference = resnet50(replace_stride_with_dilation=[False, True, True])
    assert not reference.load_state_dict(online.state_dict(), strict=False).unexpected_keys
    reference.eval()
    backbone = revert_sync_batchnorm(segmentor.backbone)
    backbone.eval()
    images = torch.randn(1, 3, 65, 65, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        found = backbone(images)
        wanted = reference.maxpool(reference.relu(reference.bn1(reference.conv1(images))))
        for stage, maps in enumerate(found, 1):
            wanted = getattr(reference, f"layer{stage}")(wanted)
            assert torch.equal(maps, wanted)
    assert found[3].shape == (1, 2048, 9, 9)  # stride 8


def test_features_are_proved_equal_where_stages_are_dilated(segmentor):
    content, *_ = checkpoint(50)
    load_backbone(segmentor, content)
    assert feature_differences(segmentor.backbone, content) == dict.fromkeys(
        ["layer1", "layer2", "layer3", "layer4"], 0
    )
    with torch.no_grad():
        segmentor.backbone.layer4[2].conv2.weight[0, 0, 0, 0] += 1
    found = feature_differences(segmentor.backbone, content)
    assert found["layer3"] == 0 and 0 < found["layer4"] < float("inf")


def test_the_pixels_that_a_segmentor_feeds_are_verified(segmentor):
    segmentor.data_preprocessor._channel_conversion = False
    try:
        with pytest.raises(LoadError, match="channel_order: found BGR, expected RGB: set bgr_to_rgb=True"):
            load_backbone(segmentor, checkpoint(50)[0])
    finally:
        segmentor.data_preprocessor._channel_conversion = True


def test_a_deep_stem_is_refused_with_the_reason():
    with pytest.raises(LoadError, match=r"stem: found deep, expected 7x7: .*type ResNet, not ResNetV1c"):
        load_backbone(build_detector(STOCK[VOC]), checkpoint(50)[0])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("path", "precision"), [(CITYSCAPES, None), (VOC, "bf16")], ids=["cityscapes", "voc in mixed precision"]
)
def test_a_protocol_trains_from_an_export_and_evaluates(path, precision, tmp_path):
    from densessl.engine.runner import DenseRunner

    data = DATA[path](tmp_path / "data")
    if path == CITYSCAPES:
        prepare_cityscapes(data)
    content, *_ = checkpoint(18, width=8)
    export_backbone(content, tmp_path / "r18.pth")
    words = ["--data-root", str(data), "--init", str(tmp_path / "r18.pth"), "--steps", "2"]
    settings = settings_of([path, *words, "--work-dir", str(tmp_path / "run")])
    config = run_config(settings)
    read_data(config, settings)
    for name in ("train_dataloader", "val_dataloader"):
        config[name].num_workers, config[name].persistent_workers = 0, False
        for leaf in leaves(config, name):
            for step in leaf.cfg["pipeline"]:
                step.update({"scale": (96, 64)} if "scale" in step else {})
                step.update({"crop_size": (33, 33)} if "crop_size" in step else {})
                step.update({"size": (33, 33)} if "size" in step else {})
    config.train_dataloader.batch_size = 2
    config.model.data_preprocessor["size"] = (33, 33)
    if config.model.test_cfg.mode == "slide":
        config.model.test_cfg.update(crop_size=(33, 33), stride=(22, 22))
    config.merge_from_dict(
        {
            "model.backbone.depth": 18,
            "model.backbone.base_channels": 8,
            "model.backbone.stem_channels": 8,
            "model.decode_head": dict(in_channels=64, channels=8),
            "model.auxiliary_head": dict(in_channels=32, channels=8),
        }
    )
    if precision:
        config.optim_wrapper.update(type="densessl.DenseOptimWrapper", precision=precision)
    runner = DenseRunner.from_cfg(config)
    runner.train()
    assert runner.iter == 2
    hook = next(hook for hook in runner.hooks if isinstance(hook, LoadBackboneHook))
    assert hook.report.summary.startswith("120/120 backbone tensors loaded; 0 unexpected; decode_head: ")
    assert not hook.report.unverified
    assert not torch.equal(runner.model.backbone.conv1.weight, content["state_dict"]["online.backbone.conv1.weight"])
    scores = runner.val_loop.run()
    assert all(0 <= scores[key] <= 100 for key in ("mIoU", "mAcc", "aAcc"))


@pytest.mark.parametrize(
    ("path", "wanted"), [(CITYSCAPES, "*_gtFine_labelTrainIds.png"), (VOC, "SegmentationClassAug")], ids=["maps", "sbd"]
)
def test_what_is_to_be_made_first_is_listed(path, wanted, tmp_path, capsys):
    data = DATA[path](tmp_path / "data")
    if path == VOC:
        shutil.rmtree(data / "SegmentationClassAug")
    assert main([path, "--data-root", str(data), "--work-dir", str(tmp_path)]) == 2
    assert wanted in "".join(capsys.readouterr())


def test_a_stock_config_is_known_by_name_and_a_wrong_name_has_neighbours():
    assert stock_config(STOCK[VOC]) == stock_config(f"{STOCK[VOC]}.py")
    with pytest.raises(FileNotFoundError, match=f"the nearest names are \\['{STOCK[VOC]}.py'"):
        load_config(STOCK[VOC].replace("voc12aug", "voc12"))


@pytest.mark.parametrize("config", [VOC, STOCK[VOC]], ids=["_base_", "by name"])
def test_without_mmsegmentation_the_extra_is_named(config, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "mmseg", None)  # which is what an import of a package that is not there finds
    assert main([config]) == 2
    told = "".join(capsys.readouterr())
    assert f"{config} needs the package 'mmseg', which is not installed: {how_to_install('seg')}" in told


def test_a_package_that_is_none_of_ours_is_refused_and_not_installed():
    with pytest.raises(MissingPackage, match="mmpose::body/x is no stock config: the package 'mmpose' is none of"):
        load_config("mmpose::body/x")
