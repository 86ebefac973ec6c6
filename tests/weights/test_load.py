from pathlib import Path

import pytest
import torch
import torchvision
from torch import nn

from densessl.branches.resnet import ResNet
from densessl.errors import LoadError
from densessl.weights.detector.stock import build_detector
from densessl.weights.equality import feature_differences
from densessl.weights.export import export_backbone
from densessl.weights.fingerprint import of_model
from densessl.weights.load import load_backbone
from tests.weights.cases import checkpoint, lived_in, retinanet

CONFIGS = Path(__file__).parents[2] / "configs" / "transfer"


@pytest.mark.det
@pytest.mark.parametrize(("depth", "width", "tensors"), [(18, 64, 120), (50, 64, 318), (50, 16, 318)])
def test_mmdet_computes_the_same_features_from_the_file(tmp_path, depth, width, tensors):
    content, online, _ = checkpoint(depth, width)
    export_backbone(content, tmp_path / "a.pth")
    detector = retinanet(depth, width)
    report = load_backbone(detector, tmp_path / "a.pth")
    assert report.summary == (
        f"{tensors}/{tensors} backbone tensors loaded; 0 unexpected; neck: 16 new; bbox_head: 8 new"
    )
    assert str(report) == report.summary, "nothing was left unverified"
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(2))
    detector.backbone.eval()
    with torch.no_grad():
        ours, theirs = online(images), detector.backbone(images)
    assert len(ours) == len(theirs) == 4
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs))
    assert not any(feature_differences(detector.backbone, content).values())


@pytest.mark.det
@pytest.mark.parametrize(
    ("depth", "change", "field", "remedy"),
    [
        (50, {"style": "caffe"}, "stride", "set backbone.style='pytorch'"),
        (50, {"deep_stem": True}, "stem", "set backbone.deep_stem=False"),
        (50, {"avg_down": True}, "shortcut", "set backbone.avg_down=False"),
        (101, {}, "depth", "set backbone.depth=50"),
        (50, {"norm_cfg": {"type": "BN", "eps": 1e-3}}, "eps", "set backbone.norm_cfg.eps=1e-05"),
        (50, {"norm_cfg": {"type": "GN", "num_groups": 8}}, "norm", "set backbone.norm_cfg.type='BN'"),
        (50, {"preprocessor": {"bgr_to_rgb": False}}, "channel_order", "set bgr_to_rgb=True in data_preprocessor"),
        (50, {"preprocessor": {"mean": [103.53, 116.28, 123.675]}}, "mean", "set mean=[123.675, 116.28, 103.53]"),
        (50, {"preprocessor": {"std": [1.0, 1.0, 1.0]}}, "std", "set std=[58.395, 57.12, 57.375]"),
    ],
    ids=lambda value: value if isinstance(value, str) else None,
)
def test_a_model_that_would_compute_something_else_is_refused_untouched(depth, change, field, remedy):
    content, _, _ = checkpoint(50, 16)
    detector = retinanet(depth, 16, **change)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    with pytest.raises(LoadError) as caught:
        load_backbone(detector, content)
    assert [difference.field for difference in caught.value.report.differences] == [field]
    assert f"{field}: found " in str(caught.value) and remedy in str(caught.value)
    assert "none loaded" in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())


@pytest.mark.det
def test_a_fingerprint_may_be_overruled_and_the_report_still_says_so():
    content, _, _ = checkpoint(50, 16)
    report = load_backbone(retinanet(50, 16, style="caffe"), content, strict_fingerprint=False)
    assert report.loaded == report.expected == 318
    assert "stride: found 1x1, expected 3x3" in str(report)


@pytest.mark.parametrize("name", ["_channel_conversion", "channel_conversion"])
@pytest.mark.parametrize("swaps, order", [(True, "RGB"), (False, "BGR")])
def test_the_channel_order_is_read_by_either_name(name, swaps, order):
    """mmdet and onedl-mmsegmentation have MMEngine's name of it, the original mmsegmentation one without underscore."""
    preprocessor = nn.Module()
    setattr(preprocessor, name, swaps)
    assert of_model(ResNet(depth=18, width=8), preprocessor).channel_order == order


@pytest.mark.det
def test_basic_blocks_have_no_caffe_style():
    content, _, _ = checkpoint(18, 16)
    assert load_backbone(retinanet(18, 16, style="caffe"), content).coverage == 1


@pytest.mark.det
def test_a_backbone_without_its_last_stage_loads_and_the_rest_is_reported():
    content, _, _ = checkpoint(50, 16)
    three = {"num_stages": 3, "strides": (1, 2, 2), "dilations": (1, 1, 1), "out_indices": (0, 1, 2)}
    report = load_backbone(retinanet(50, 16, **three), content)
    assert report.coverage == 1 and not report.differences
    assert len(report.unused) == 60 and all(name.startswith("layer4.") for name in report.unused)
    assert "0 unexpected; not used: layer4.0.conv1.weight, " in report.summary


@pytest.mark.det
def test_a_c4_detector_gets_its_last_stage_in_the_box_head():
    content, online, _ = checkpoint(50)
    detector = build_detector(str(CONFIGS / "voc" / "faster-rcnn_r50_c4_24k.py"))
    report = load_backbone(detector, content)
    assert report.summary == "318/318 backbone tensors loaded; 0 unexpected; rpn_head: 6 new; roi_head: 9 new"
    assert not report.unverified
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(3))
    for module in (detector.backbone, detector.roi_head.shared_head):
        module.eval()
    with torch.no_grad():
        shared, *_ = detector.backbone(images)
        assert torch.equal(detector.roi_head.shared_head.layer4(shared), online(images)[3])

    block = detector.roi_head.shared_head.layer4[0]
    block.conv1.stride, block.conv2.stride = (2, 2), (1, 1)
    with pytest.raises(LoadError, match="stride: found 1x1 and 3x3, expected 3x3"):
        load_backbone(detector, content)


@pytest.mark.parametrize("library", ["torchvision", pytest.param("timm", marks=pytest.mark.det)])
def test_the_last_layer_of_a_classifier_keeps_its_values(library):
    content, online, _ = checkpoint(18, 64)

    def classifier():
        if library == "torchvision":
            return torchvision.models.resnet18()
        import timm  # of the det extra

        return timm.create_model("resnet18")

    model = classifier()
    last = {name: value.clone() for name, value in model.fc.state_dict().items()}
    report = load_backbone(model, content)
    assert report.summary == "120/120 backbone tensors loaded; 0 unexpected; fc: 2 new"
    assert all(torch.equal(value, model.fc.state_dict()[name]) for name, value in last.items())
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in online.state_dict().items())
    del content["state_dict"]["online.backbone.layer4.1.conv2.weight"]
    with pytest.raises(LoadError, match="119/120 backbone tensors fit"):
        load_backbone(classifier(), content)


def test_coverage_counts_what_is_missing_or_of_another_shape():
    content, _, _ = checkpoint(width=8)
    state = content["state_dict"]
    del state["online.backbone.layer4.1.bn2.weight"]
    state["online.backbone.conv1.weight"] = torch.zeros(8, 4, 7, 7)
    state["online.backbone.attention.weight"] = torch.zeros(1)
    model = lived_in(ResNet(18, width=8), seed=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        LoadError, match=r"fills 98\.3% of the backbone, expected at least 99\.0% \(min_coverage\)"
    ) as caught:
        load_backbone(model, content, min_coverage=0.99)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    report = caught.value.report
    assert report.missing == ["layer4.1.bn2.weight"] and report.unexpected == ["attention.weight"]
    assert report.mismatched == ["conv1.weight: found (8, 4, 7, 7), expected (8, 3, 7, 7)"]

    report = load_backbone(model, content, min_coverage=0.98, allow_unexpected=True)
    assert report.summary == "118/120 backbone tensors loaded; 1 unexpected"
    after = model.state_dict()
    for key, value in after.items():
        kept = key in ("layer4.1.bn2.weight", "conv1.weight")
        assert torch.equal(value, before[key] if kept else state[f"online.backbone.{key}"]), key


EXCITATION = {"layer1.0.se.fc1.weight": torch.ones(4, 8, 1, 1), "layer1.0.se.fc1.bias": torch.ones(4)}


def test_a_file_of_a_network_with_more_in_it_is_refused_and_left_out_only_by_name():
    """Its blocks with squeeze and excitation would be plain ones here, and every expected tensor would be there."""
    content, _, _ = checkpoint(width=8)
    content["state_dict"] |= {f"online.backbone.{key}": value for key, value in EXCITATION.items()}
    model = lived_in(ResNet(18, width=8), seed=5)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(
        LoadError, match=r"has 2 tensors that this model's backbone lacks.* allow_unexpected=True"
    ) as caught:
        load_backbone(model, content)
    assert caught.value.report.unexpected == list(EXCITATION) and "layer1.0.se.fc1.bias" in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    report = load_backbone(model, content, allow_unexpected=True)
    assert report.summary == "120/120 backbone tensors loaded; 2 unexpected"
    assert torch.equal(model.conv1.weight, content["state_dict"]["online.backbone.conv1.weight"])


def test_counters_of_batches_need_no_place():
    from torchvision.models import resnet18
    from torchvision.ops import FrozenBatchNorm2d

    weights = {key: value for key, value in resnet18().state_dict().items() if not key.startswith("fc.")}
    model = resnet18(norm_layer=FrozenBatchNorm2d)
    del model.fc
    report = load_backbone(model, weights)
    assert (report.loaded, report.coverage, report.unexpected, len(report.unused)) == (100, 1, [], 20)
    assert all(name.endswith(".num_batches_tracked") for name in report.unused)


def test_what_neither_side_can_tell_is_listed():
    content, _, _ = checkpoint(width=8)
    bare = {key.removeprefix("online.backbone."): v for key, v in content["state_dict"].items() if "online.b" in key}
    report = load_backbone(ResNet(18, width=8), bare)
    assert report.unverified == ["eps"] and "not verified" in str(report)
    report = load_backbone(ResNet(18, width=8), content)
    assert report.unverified == ["channel_order", "mean", "std"]


@pytest.mark.det
def test_mmengines_own_loaders_take_the_file(tmp_path):
    from mmdet.registry import MODELS
    from mmengine.runner import load_checkpoint

    content, online, _ = checkpoint(width=8)
    export_backbone(content, tmp_path / "a.pth")
    detector = retinanet(width=8)
    load_checkpoint(detector, str(tmp_path / "a.pth"))
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth"), "prefix": "backbone"}
    backbone = MODELS.build({"type": "mmdet.ResNet", "depth": 18, "base_channels": 8, "init_cfg": init_cfg})
    backbone.init_weights()
    for loaded in (detector.backbone, backbone):
        assert all(torch.equal(value, loaded.state_dict()[key]) for key, value in online.state_dict().items())
