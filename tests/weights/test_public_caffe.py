"""Detectron's and Detectron2's pickles of Caffe2 blobs, written by Python 2 or 3: BGR, strides in the 1x1."""

import io
import pickle
import struct

import numpy as np
import pytest
import torch

from densessl.branches.resnet import ResNet
from densessl.errors import LoadError
from densessl.weights.export import export_backbone
from densessl.weights.load import load_backbone
from densessl.weights.read import read_backbone
from tests.weights.cases import lived_in, retinanet
from tests.weights.public import caffe2, detectron2, resnet

AFFINE = dict(weight="s", bias="b")
WITH_STATISTICS = dict(weight="gamma", bias="beta", running_mean="running_mean", running_var="running_var")
CAFFE = dict(style="caffe", preprocessor=dict(mean=[103.53, 116.28, 123.675], std=[1.0, 1.0, 1.0], bgr_to_rgb=False))


class Python2(pickle._Pickler):
    """Writes bytes and text as Python 2 did its strings."""

    dispatch = dict(pickle._Pickler.dispatch)

    def save_string(self, value):
        value = value.encode() if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(value)) + value)
        self.memoize(value)

    dispatch[bytes] = dispatch[str] = save_string


def python2(content: dict) -> bytes:
    file = io.BytesIO()
    Python2(file, protocol=2).dump(content)
    return file.getvalue().replace(b"cnumpy._core.", b"cnumpy.core.")


def blobs(state: dict, kinds: dict) -> dict[str, np.ndarray]:
    """A backbone's tensors as those files have them, with a classifier and an optimiser's."""
    kept = {name: value for name, value in state.items() if name.rsplit(".", 1)[1] in kinds or value.ndim == 4}
    found = {caffe2(name, kinds): value.numpy() for name, value in kept.items()}
    others = [
        "conv1_b",
        "fc1000_w",
        "fc1000_b",
        "conv1_w_momentum",
        "res2_0_branch2a_w_momentum",
        "lr",
        "fpn_res2_2_sum_w",
    ]
    return found | {name: np.zeros(2, np.float32) for name in others}


@pytest.mark.det
@pytest.mark.parametrize("kinds", [AFFINE, WITH_STATISTICS], ids=["affine", "statistics"])
@pytest.mark.parametrize("wrap", [lambda blobs: blobs, lambda blobs: dict(blobs=blobs, cfg="MODEL: {}\n")])
def test_blobs_land_in_the_right_tensors(tmp_path, kinds, wrap):
    own = resnet()
    (tmp_path / "R-50.pkl").write_bytes(python2(wrap(blobs(own, kinds))))
    detector = retinanet(50, 8, **CAFFE)
    report = load_backbone(detector, tmp_path / "R-50.pkl")
    assert report.summary.startswith("318/318 backbone tensors loaded; 0 unexpected") and not report.unverified
    for key, value in detector.backbone.state_dict().items():
        kind = key.rsplit(".", 1)[1]
        if kind == "num_batches_tracked" or (kinds is AFFINE and kind == "running_mean"):
            assert not value.any()
        elif kinds is AFFINE and kind == "running_var":
            assert torch.equal(value + 1e-5, torch.ones_like(value))
        else:
            assert torch.equal(value, own[key]), key


@pytest.mark.det
def test_a_folded_norm_is_the_scale_and_shift_that_it_was(tmp_path):
    own = lived_in(ResNet(50, width=8), seed=0).state_dict()
    (tmp_path / "R-50.pkl").write_bytes(python2(blobs(own, AFFINE)))
    detector = retinanet(50, 8, **CAFFE)
    load_backbone(detector, tmp_path / "R-50.pkl")
    x = torch.randn(2, 8, 4, 4, generator=torch.Generator().manual_seed(0))
    scale, shift = own["bn1.weight"].view(1, 8, 1, 1), own["bn1.bias"].view(1, 8, 1, 1)
    with torch.no_grad():
        torch.testing.assert_close(detector.backbone.bn1.eval()(x), x * scale + shift, rtol=1e-6, atol=1e-6)


@pytest.mark.det
def test_msra_weights_are_refused_by_a_torchvision_style_detector_with_what_to_change(tmp_path):
    (tmp_path / "R-50.pkl").write_bytes(python2(blobs(resnet(), WITH_STATISTICS)))
    detector = retinanet(50, 8)
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    with pytest.raises(LoadError) as caught:
        load_backbone(detector, tmp_path / "R-50.pkl")
    for said in (
        "stride: found 3x3, expected 1x1: set backbone.style='caffe'",
        "channel_order: found RGB, expected BGR: set bgr_to_rgb=False in data_preprocessor",
        "set mean=[103.53, 116.28, 123.675] in data_preprocessor",
        "set std=[1.0, 1.0, 1.0] in data_preprocessor",
    ):
        assert said in str(caught.value)
    assert len(caught.value.report.differences) == 4
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())


@pytest.mark.parametrize("kinds", [AFFINE, WITH_STATISTICS], ids=["affine", "statistics"])
def test_of_a_resnext_neither_stride_nor_deviation_is_told(tmp_path, kinds):
    """Its 3x3 convolutions have groups, the stride is in them, and it was trained on pixels with a deviation."""
    own = resnet()
    for name in [name for name in own if "layer" in name and name.endswith("conv2.weight")]:
        own[name] = own[name][:, : own[name].shape[1] // 2].clone()
    (tmp_path / "X-50.pkl").write_bytes(python2(blobs(own, kinds)))
    state, fingerprint = read_backbone(tmp_path / "X-50.pkl")
    assert state["layer1.0.conv2.weight"].shape[:2] == (8, 4) and state.keys() == own.keys()
    assert (fingerprint.arch, fingerprint.stride, fingerprint.std) == ("resnet", None, None)
    assert (fingerprint.channel_order, fingerprint.mean) == ("BGR", (103.53, 116.28, 123.675))
    (tmp_path / "R-50.pkl").write_bytes(python2(blobs(resnet(), kinds)))
    fingerprint = read_backbone(tmp_path / "R-50.pkl")[1]
    assert (fingerprint.stride, fingerprint.std) == ("1x1", (1.0, 1.0, 1.0))


@pytest.mark.det
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_pickles_of_the_converters_of_moco_and_its_like(tmp_path, protocol):
    own = resnet()
    model = {detectron2(name): value.numpy() for name, value in own.items()}
    model |= {"stem.fc.weight": np.zeros((3, 2), np.float32), "stem.fc.bias": np.zeros(3, ">f4")}
    content = dict(model=model, __author__="MOCO", matching_heuristics=True)
    (tmp_path / "moco.pkl").write_bytes(pickle.dumps(content, protocol=protocol))
    detector = retinanet(50, 8)
    report = load_backbone(detector, tmp_path / "moco.pkl")
    assert report.summary.startswith("318/318 backbone tensors loaded; 0 unexpected") and not report.unverified
    loaded = detector.backbone.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in own.items())
    with pytest.raises(LoadError, match=r"stride: found 1x1, expected 3x3: set backbone\.style='pytorch'"):
        load_backbone(retinanet(50, 8, **CAFFE), tmp_path / "moco.pkl")


def test_the_last_stage_of_a_c4_detector_of_detectron2_is_in_its_box_head():
    own = resnet()
    named = {detectron2(name): value for name, value in own.items()}
    state = {("roi_heads." if "res5" in name else "backbone.") + name: value for name, value in named.items()}
    state["roi_heads.box_predictor.cls_score.weight"] = torch.zeros(2)
    found, fingerprint = read_backbone(dict(model=state, iteration=3))
    assert found.keys() == own.keys() and all(torch.equal(found[key], value) for key, value in own.items())
    assert fingerprint.depth == 50 and fingerprint.stride is None and fingerprint.channel_order is None


def test_what_was_exported_to_detectron2_is_read_back(tmp_path):
    own = lived_in(ResNet(50, width=8), seed=0).state_dict()
    told = dict(backbone=dict(type="ResNet", depth=50, width=8), normalize=dict(mean=[1.0, 2.0, 3.0], std=[4.0] * 3))
    source = dict(state_dict={f"online.backbone.{key}": value for key, value in own.items()}, meta=dict(densessl=told))
    export_backbone(source, tmp_path / "own.pkl", "detectron2")
    state, _ = read_backbone(tmp_path / "own.pkl")
    assert all(torch.equal(state[key], value) for key, value in own.items() if not key.endswith("tracked"))
