"""Files for detectron2, which is not installed: its tree of modules is built here from its names, and loads them."""

import pickle
import pickletools
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
import torchvision
import yaml
from torch import nn

from densessl.errors import ExportError
from densessl.finetune.vitdet import ViTDet
from densessl.weights.equality import feature_differences
from densessl.weights.export import export_backbone
from densessl.weights.formats.to_detectron2 import detectron2_settings
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.read import read_backbone
from tests.weights import vits
from tests.weights.cases import checkpoint, lived_in

TOOL = Path(__file__).parents[2] / "tools" / "export.py"
BLOCKS = {18: (2, 2, 2, 2), 50: (3, 4, 6, 3)}


class NormedConv(nn.Conv2d):
    """detectron2's Conv2d: the norm is its child."""

    def __init__(self, inputs, outputs, size, stride=1, groups=1):
        super().__init__(inputs, outputs, size, stride, size // 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x):
        return self.norm(super().forward(x))


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions, or a bottleneck of three with the stride in the 3x3."""

    def __init__(self, inputs, outputs, inside, stride, groups):
        super().__init__()
        self.shortcut = NormedConv(inputs, outputs, 1, stride) if inputs != outputs else None
        if inside == outputs:
            self.conv1, self.conv2 = NormedConv(inputs, outputs, 3, stride), NormedConv(outputs, outputs, 3)
        else:
            self.conv1 = NormedConv(inputs, inside, 1)
            self.conv2, self.conv3 = NormedConv(inside, inside, 3, stride, groups), NormedConv(inside, outputs, 1)

    def forward(self, x):
        y = self.conv2(F.relu(self.conv1(x)))
        y = self.conv3(F.relu(y)) if hasattr(self, "conv3") else y
        return F.relu(y + (x if self.shortcut is None else self.shortcut(x)))


class DetectronResNet(nn.Module):
    """stem.conv1, stem.conv1.norm, res2.0.shortcut, res2.0.conv1, res2.0.conv1.norm … res5, as its config's
    MODEL.RESNETS says, whose defaults these are."""

    def __init__(self, DEPTH=50, NUM_GROUPS=1, WIDTH_PER_GROUP=64, STEM_OUT_CHANNELS=64, RES2_OUT_CHANNELS=256, **_):
        super().__init__()
        self.stem = nn.Module()
        self.stem.conv1 = NormedConv(3, STEM_OUT_CHANNELS, 7, 2)
        channels = STEM_OUT_CHANNELS
        for stage, count in enumerate(BLOCKS[DEPTH]):
            outputs = RES2_OUT_CHANNELS * 2**stage
            inside = NUM_GROUPS * WIDTH_PER_GROUP * 2**stage if DEPTH == 50 else outputs
            blocks = nn.Sequential()
            for i in range(count):
                blocks.append(ResidualBlock(channels, outputs, inside, 2 if stage and not i else 1, NUM_GROUPS))
                channels = outputs
            self.add_module(f"res{stage + 2}", blocks)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.stem.conv1(x)), 3, 2, 1)
        maps = []
        for stage in (self.res2, self.res3, self.res4, self.res5):
            x = stage(x)
            maps.append(x)
        return maps


class Restricted(pickle.Unpickler):
    """As numpy 1 would open it: it has no ``numpy._core``. Nothing but arrays is let in."""

    def find_class(self, module, name):
        known = {("numpy", "ndarray"): np.ndarray, ("numpy", "dtype"): np.dtype}
        known["numpy.core.multiarray", "_reconstruct"] = np.zeros(1).__reduce__()[0]
        return known[module, name]


def opened(path) -> dict:
    """What detectron2's loader gets: ``pickle.load(file, encoding="latin1")``."""
    with open(path, "rb") as file:
        return Restricted(file, encoding="latin1").load()


def resnet_settings(content) -> dict:
    """What the printed config says of the network."""
    return yaml.safe_load(detectron2_settings("a.pkl", *read_backbone(content)))["MODEL"]["RESNETS"]


@pytest.mark.parametrize(("depth", "width"), [(18, 64), (50, 64), (50, 8)])
def test_detectron2s_resnet_has_every_name_and_shape_and_computes_the_same(tmp_path, depth, width):
    content, online, _ = checkpoint(depth, width)
    export_backbone(content, tmp_path / "a.pkl", to="detectron2")
    found = opened(tmp_path / "a.pkl")
    assert found.keys() == {"model", "__author__", "matching_heuristics", "meta"}
    assert found["__author__"] == "densessl" and found["matching_heuristics"] is True
    assert all(type(value) is np.ndarray for value in found["model"].values())
    some = {"stem.conv1.weight", "stem.conv1.norm.running_mean", "res2.1.conv2.weight", "res5.0.shortcut.norm.bias"}
    assert some <= found["model"].keys() and ("res2.0.shortcut.weight" in found["model"]) == (depth == 50)

    model = DetectronResNet(**resnet_settings(content)).eval()
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()}
    assert {key: value.shape for key, value in found["model"].items()} == shapes
    model.load_state_dict({key: torch.from_numpy(value) for key, value in found["model"].items()})
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert all(torch.equal(a, b) for a, b in zip(online(images), model(images), strict=True))


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("resnext50_32x4d", {"DEPTH": 50, "NUM_GROUPS": 32, "WIDTH_PER_GROUP": 4}),
        ("wide_resnet50_2", {"DEPTH": 50, "WIDTH_PER_GROUP": 128}),
    ],
)
def test_resnexts_and_wide_resnets_are_what_the_config_says(tmp_path, kind, settings):
    theirs = lived_in(getattr(torchvision.models, kind)(), seed=3)
    theirs.fc = nn.Identity()
    export_backbone(theirs.state_dict(), tmp_path / "a.pkl", to="detectron2")
    assert resnet_settings(theirs.state_dict()) == settings
    model = DetectronResNet(**settings).eval()
    model.load_state_dict({key: torch.from_numpy(value) for key, value in opened(tmp_path / "a.pkl")["model"].items()})
    images = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(theirs.avgpool(model(images)[-1]).flatten(1), theirs(images))


@pytest.mark.parametrize(
    "content",
    [lambda: checkpoint(18), lambda: checkpoint(50, 8), vits.checkpoint],
    ids=["ResNet-18", "ResNet-50", "ViT"],
)
def test_names_go_there_and_back(tmp_path, content):
    content, online, *_ = content()
    content["meta"]["densessl"]["normalize"] = dict(mean=[1.0, 2.0, 3.0], std=[4.0, 5.0, 6.0], channel_order="BGR")
    if "depth" in content["meta"]["densessl"]["backbone"]:
        content["meta"]["densessl"]["backbone"]["style"] = "caffe"
    fingerprint = export_backbone(content, tmp_path / "a.pkl", to="detectron2", meta={"note": ("kept", 1)})
    assert opened(tmp_path / "a.pkl")["meta"]["note"] == ["kept", 1], "plain data"
    state, read = read_backbone(tmp_path / "a.pkl")
    expected = {key: value for key, value in online.state_dict().items() if key != "cls_token"}
    assert state.keys() == expected.keys()
    assert all(torch.equal(state[key], value) for key, value in expected.items())
    assert read == fingerprint and (read.channel_order, read.mean, read.std) == ("BGR", (1, 2, 3), (4, 5, 6))
    assert read.stride == ("1x1" if read.depth == 50 else "3x3" if read.depth == 18 else None)


def test_the_pickle_refers_to_numpy_only_by_names_that_numpy_1_has(tmp_path):
    export_backbone(checkpoint(18)[0], tmp_path / "a.pkl", to="detectron2")
    pickled = (tmp_path / "a.pkl").read_bytes()
    operations = [(code.name, argument) for code, argument, _ in pickletools.genops(pickled)]
    named = {argument for code, argument in operations if code == "GLOBAL"}
    assert named == {"numpy.core.multiarray _reconstruct", "numpy ndarray", "numpy dtype"}
    others = {"STACK_GLOBAL", "INST", "OBJ", "NEWOBJ", "EXT1", "EXT2", "EXT4", "PERSID", "BINPERSID"}
    assert not others & {code for code, _ in operations}
    assert pickle.loads(pickled)["model"]["stem.conv1.weight"].shape == (64, 3, 7, 7), "with the numpy of today"


def test_our_own_reader_opens_it_and_bfloat16_is_kept_exactly(tmp_path):
    from densessl.weights.io.checkpoints import load_weights

    content, online, _ = checkpoint(18)
    for key, value in content["state_dict"].items():
        if key.startswith("online.backbone.") and value.is_floating_point():
            content["state_dict"][key] = value.bfloat16()
    export_backbone(content, tmp_path / "a.pkl", to="detectron2")
    read = load_weights(tmp_path / "a.pkl")
    assert read["stem.conv1.weight"].dtype == torch.float32
    assert torch.equal(read["stem.conv1.weight"], online.conv1.weight.bfloat16().float())
    assert read["stem.conv1.norm.num_batches_tracked"].dtype == torch.int64


def test_vitdet_of_detectron2_has_every_name_and_shape_and_computes_the_same(tmp_path):
    content, online = vits.checkpoint()
    fingerprint = export_backbone(content, tmp_path / "a.pkl", to="detectron2")
    found = opened(tmp_path / "a.pkl")["model"]
    modules = {"patch_embed.proj": ((32, 3, 16, 16), 32)}
    for i in range(3):
        inside = {"norm1": ((32,), 32), "norm2": ((32,), 32), "attn.qkv": ((96, 32), 96), "attn.proj": ((32, 32), 32)}
        inside |= {"mlp.fc1": ((64, 32), 64), "mlp.fc2": ((32, 64), 32)}
        modules |= {f"blocks.{i}.{name}": shapes for name, shapes in inside.items()}
    expected = {f"backbone.net.{name}.weight": weight for name, (weight, _) in modules.items()}
    expected |= {f"backbone.net.{name}.bias": (bias,) for name, (_, bias) in modules.items()}
    expected["backbone.net.pos_embed"] = (1, 17, 32)
    assert {name: value.shape for name, value in found.items()} == expected

    backbone = ViTDet(**vits.VITDET)
    state = {key.removeprefix("backbone.net."): torch.from_numpy(value) for key, value in found.items()}
    result = backbone.load_state_dict(state, strict=False)
    assert not result.unexpected_keys and all("rel_pos" in name for name in result.missing_keys)
    assert feature_differences(backbone, content) == {f"blocks.{i}": 0.0 for i in range(3)}
    lines = detectron2_settings("a.pkl", online.state_dict(), fingerprint).splitlines()
    wanted = ['model.input_format = "RGB"', "model.pixel_mean = [123.675, 116.28, 103.53]"]
    wanted += ["model.backbone.net.num_heads = 2", "model.backbone.net.mlp_ratio = 2.0"]
    wanted += ["model.backbone.net.norm_layer = partial(nn.LayerNorm, eps=1e-06)"]
    wanted += ["model.backbone.net.pretrain_img_size = 64", "model.backbone.net.pretrain_use_cls_token = True"]
    assert set(wanted) <= set(lines)


def test_settings_are_yaml_that_says_what_the_file_cannot(tmp_path, capsys):
    save_checkpoint(tmp_path / "epoch_1.pth", checkpoint(50)[0])
    main = runpy.run_path(str(TOOL))["main"]
    out = tmp_path / "r50.pkl"
    assert main([str(tmp_path / "epoch_1.pth"), str(out), "--to", "detectron2"]) == 0
    said = capsys.readouterr().out
    pixels = {"PIXEL_MEAN": [123.675, 116.28, 103.53], "PIXEL_STD": [58.395, 57.12, 57.375]}
    model = {"WEIGHTS": str(out), **pixels, "RESNETS": {"DEPTH": 50, "STRIDE_IN_1X1": False}}
    assert yaml.safe_load(said[said.index("MODEL:") :]) == {"MODEL": model, "INPUT": {"FORMAT": "RGB"}}


def test_settings_name_what_is_not_detectron2s_default_and_what_is_not_known():
    content, _, _ = checkpoint(50, width=8)
    widths = {"RES2_OUT_CHANNELS": 32, "STEM_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 8}
    told = yaml.safe_load(detectron2_settings("a.pkl", *read_backbone(content)))
    assert told["MODEL"]["RESNETS"] == {"DEPTH": 50, "STRIDE_IN_1X1": False, **widths}
    content["meta"]["densessl"]["backbone"] = {"type": "mmdet.ResNet", "depth": 50, "style": "caffe"}
    told = yaml.safe_load(detectron2_settings("a.pkl", *read_backbone(content)))
    assert told["MODEL"]["RESNETS"]["STRIDE_IN_1X1"] is True
    basic = yaml.safe_load(detectron2_settings("a.pkl", *read_backbone(checkpoint(18)[0])))
    assert basic["MODEL"]["RESNETS"]["RES2_OUT_CHANNELS"] == 64, "which it wants of ResNets of basic blocks"
    bare = detectron2_settings("a.pkl", *read_backbone(checkpoint(50, width=8)[1].state_dict()))
    assert "INPUT" not in yaml.safe_load(bare)
    assert bare.endswith(
        "# The checkpoint does not state MODEL.PIXEL_MEAN, MODEL.PIXEL_STD, MODEL.RESNETS.STRIDE_IN_1X1, INPUT.FORMAT"
    )


@pytest.mark.parametrize(
    ("content", "out", "message"),
    [
        (lambda: checkpoint(50, 8, norm_cfg={"type": "BN", "eps": 1e-3}), "a.pkl", "eps: found 0.001, expected 1e-05"),
        (lambda: checkpoint(50, 8, norm_cfg={"type": "GN", "num_groups": 8}), "a.pkl", "norm: found GN, expected BN"),
        (lambda: checkpoint(18, 8), "a.pkl", "width: found 8, expected 64"),
        (lambda: vits.checkpoint(layer_scale=0.1), "a.pkl", "layer_scale: found True, expected False"),
        (lambda: checkpoint(50, 8), "a.pth", r"found 'a.pth', expected a name that ends in '.pkl' for detectron2"),
    ],
)
def test_what_detectron2_would_compute_otherwise_is_refused(tmp_path, content, out, message):
    with pytest.raises(ExportError, match=message):
        export_backbone(content()[0], tmp_path / out, to="detectron2")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("key", "shape", "message"),
    [
        ("conv1.weight", (8, 3, 3, 3), "stem: found 3x3, expected 7x7"),
        ("layer3.0.conv2.weight", (24, 24, 3, 3), r"stages of the widths .*\[128, 24, 24\]"),
    ],
)
def test_stems_and_widths_that_its_config_cannot_say_are_refused(tmp_path, key, shape, message):
    content, _, _ = checkpoint(50, 8)
    content["state_dict"][f"online.backbone.{key}"] = torch.ones(shape)
    with pytest.raises(ExportError, match=message):
        export_backbone(content, tmp_path / "a.pkl", to="detectron2")
    assert not list(tmp_path.iterdir())


def test_tensors_that_detectron2_lacks_are_refused(tmp_path):
    content, _, _ = checkpoint(50, 8)
    content["state_dict"]["online.backbone.layer1.0.conv2.offset"] = torch.zeros(1)
    with pytest.raises(ExportError, match=r"none of these 1 tensors: \['res2.0.conv2.offset'\]"):
        export_backbone(content, tmp_path / "a.pkl", to="detectron2")
