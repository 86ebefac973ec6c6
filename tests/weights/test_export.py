import json
import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors import safe_open
from safetensors.torch import load_file, save_file

import densessl
from densessl.branches.resnet import ResNet
from densessl.errors import DensesslError, ExportError, UnsafeCheckpointError
from densessl.weights.equality import feature_differences, stage_features
from densessl.weights.export import export_backbone
from densessl.weights.fingerprint import Fingerprint
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.read import open_checkpoint, read_backbone
from tests.weights.cases import NORMALIZE, checkpoint

TOOL = Path(__file__).parents[2] / "tools" / "export.py"


def tool(*arguments) -> int:
    """The tool's exit code, run in this process, where mmdet and torch are imported once."""
    return runpy.run_path(str(TOOL))["main"](list(map(str, arguments)))


def test_mmdet_file_holds_the_asked_branch_and_nothing_else(tmp_path):
    content, online, target = checkpoint(width=8)
    for branch, backbone in (("online", online), ("target", target)):
        fingerprint = export_backbone(content, tmp_path / "a.pth", branch=branch, meta={"recipe": "pixpro"})
        written = torch.load(tmp_path / "a.pth", weights_only=True)
        assert written.keys() == {"state_dict", "meta"}
        assert written["meta"]["branch"] == branch and written["meta"]["recipe"] == "pixpro"
        assert Fingerprint.from_dict(written["meta"]["fingerprint"]) == fingerprint
        expected = {f"backbone.{key}": value for key, value in backbone.state_dict().items()}
        assert written["state_dict"].keys() == expected.keys()
        assert all(torch.equal(written["state_dict"][key], value) for key, value in expected.items())
    assert os.listdir(tmp_path) == ["a.pth"], "a draft was left behind"


def test_reading_an_export_gives_back_state_and_fingerprint(tmp_path):
    content, online, _ = checkpoint(width=8, norm_cfg={"type": "BN", "eps": 1e-3})
    fingerprint = export_backbone(content, tmp_path / "a.pth")
    state, read = read_backbone(tmp_path / "a.pth")
    assert read == fingerprint and fingerprint.eps == 1e-3 and fingerprint.width == 8
    assert fingerprint.mean == (123.675, 116.28, 103.53) and fingerprint.channel_order == "RGB"
    assert all(torch.equal(state[key], value) for key, value in online.state_dict().items())


def test_tensors_that_share_a_storage_are_not_written_with_all_of_it(tmp_path):
    content, _, _ = checkpoint(width=8)
    flat = torch.cat([value.flatten().float() for value in content["state_dict"].values()])
    key = "online.backbone.conv1.weight"
    content["state_dict"][key] = flat[: content["state_dict"][key].numel()].view_as(content["state_dict"][key])
    export_backbone(content, tmp_path / "a.pth")
    tensors = torch.load(tmp_path / "a.pth", weights_only=True)["state_dict"]
    assert tensors["backbone.conv1.weight"].untyped_storage().nbytes() == tensors["backbone.conv1.weight"].nbytes


@pytest.mark.parametrize("depth", [18, 50])
def test_torchvision_computes_the_same_features(tmp_path, depth):
    content, online, _ = checkpoint(depth)
    export_backbone(content, tmp_path / "a.pth", to="torchvision")
    model = getattr(torchvision.models, f"resnet{depth}")()
    result = model.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True), strict=False)
    assert result.missing_keys == ["fc.weight", "fc.bias"] and not result.unexpected_keys
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    theirs = stage_features(model, images)
    with torch.no_grad():
        ours = online(images)
    assert len(theirs) == 4
    assert all(torch.equal(a, b) for a, b in zip(ours, theirs.values()))
    assert feature_differences(model, content) == dict.fromkeys(theirs, 0.0)
    assert min(feature_differences(model, content, branch="target").values()) > 1e-3


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"width": 8}, "width: found 8, torchvision has 64"),
        ({"norm_cfg": {"type": "BN", "eps": 1e-3}}, "eps: found 0.001"),
        ({"norm_cfg": {"type": "GN", "num_groups": 8}}, "norm: found GN, torchvision has BN"),
    ],
)
def test_torchvision_refuses_what_it_cannot_express(tmp_path, config, message):
    content, _, _ = checkpoint(**config)
    with pytest.raises(ExportError, match=message):
        export_backbone(content, tmp_path / "a.pth", to="torchvision")
    assert not os.listdir(tmp_path)


def test_errors_say_what_there_is(tmp_path):
    content, _, _ = checkpoint(width=8)
    content["state_dict"] = {k: v for k, v in content["state_dict"].items() if not k.startswith("target.")}
    with pytest.raises(ExportError, match=r"no 'target' backbone; its branches are \['online'\]"):
        export_backbone(content, tmp_path / "a.pth", branch="target")
    with pytest.raises(ExportError, match="found 'tflite', expected one of"):
        export_backbone(content, tmp_path / "a.pth", to="tflite")
    with pytest.raises(ExportError, match="no backbone in the given state"):
        export_backbone({"state_dict": {"fc.weight": torch.ones(2)}}, tmp_path / "a.pth")
    content["state_dict"]["online.backbone.layer3.0.bn1.weight"][0] = float("nan")
    with pytest.raises(ExportError, match=r"NaN.*layer3\.0\.bn1\.weight"):
        export_backbone(content, tmp_path / "a.pth")
    assert not os.listdir(tmp_path)


@torch.no_grad()
def test_safetensors_have_bare_names_and_say_what_they_are(tmp_path):
    content, online, _ = checkpoint(50, width=8)
    content["state_dict"]["online.backbone.conv1.weight"] = online.conv1.weight.to(memory_format=torch.channels_last)
    fingerprint = export_backbone(content, tmp_path / "a.safetensors", to="safetensors", meta={"recipe": "pixpro"})
    loaded = ResNet(50, (0, 1, 2, 3), width=8).eval()
    loaded.load_state_dict(load_file(tmp_path / "a.safetensors"), strict=True)
    images = torch.randn(2, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    assert all(torch.equal(a, b) for a, b in zip(loaded(images), online(images), strict=True))
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        told = file.metadata()
    assert told["format"] == "pt" and json.loads(told["densessl"])["densessl_version"] == densessl.__version__

    state, read = read_backbone(tmp_path / "a.safetensors")
    assert read == fingerprint and read.channel_order == "RGB" and state.keys() == online.state_dict().keys()
    meta = open_checkpoint(tmp_path / "a.safetensors").meta
    assert (meta["branch"], meta["recipe"], meta["torch_version"]) == ("online", "pixpro", str(torch.__version__))
    assert not any(feature_differences(loaded, tmp_path / "a.safetensors").values()), "its config is known, too"
    with pytest.raises(ExportError, match=r"found 'a.pth', expected a name that ends in '.safetensors'"):
        export_backbone(content, tmp_path / "a.pth", to="safetensors")


def test_safetensors_of_others_tell_nothing(tmp_path):
    _, online, _ = checkpoint(width=8)
    for number, metadata in enumerate((None, {"format": "pt", "fingerprint": "theirs"})):
        save_file(dict(online.state_dict()), tmp_path / f"{number}.safetensors", metadata)
        assert open_checkpoint(tmp_path / f"{number}.safetensors").meta == {}
        assert read_backbone(tmp_path / f"{number}.safetensors")[1].mean is None


class Trap:
    """Creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@pytest.mark.parametrize("place", ["meta", "state_dict", "entry"])
def test_a_hostile_pickle_is_refused_and_not_run(tmp_path, place):
    content, _, _ = checkpoint(width=8)
    content[place] = (
        {**content["state_dict"], "x": Trap(tmp_path / "ran")} if place == "state_dict" else Trap(tmp_path / "ran")
    )
    torch.save(content, tmp_path / "bad.pth")
    with pytest.raises(UnsafeCheckpointError):
        export_backbone(tmp_path / "bad.pth", tmp_path / "out.pth")
    assert os.listdir(tmp_path) == ["bad.pth"]


def test_fingerprint_of_a_file_of_unknown_origin_knows_only_what_tensors_tell():
    _, fingerprint = read_backbone(torchvision.models.resnet50().state_dict())
    assert fingerprint == Fingerprint(arch="resnet", depth=50, width=64, stem="7x7", shortcut="conv", norm="BN")


def test_fingerprint_of_mmdets_caffe_style_and_of_pixels_in_either_scale():
    content, _, _ = checkpoint(50, width=8)
    content["meta"]["densessl"]["backbone"] = {"type": "mmdet.ResNet", "depth": 50, "style": "caffe"}
    assert read_backbone(content)[1].stride == "1x1"
    in_0_to_1 = read_backbone(content)[1]
    scaled = {key: [255 * v for v in NORMALIZE[key]] for key in ("mean", "std")}
    content["meta"]["densessl"]["normalize"] = {**scaled, "channel_order": "RGB"}
    assert read_backbone(content)[1] == in_0_to_1


@pytest.mark.parametrize(
    ("mean", "std", "expected"),
    [
        ([0.5, 0.5, 0.5], [1.0, 1.0, 1.0], ((127.5,) * 3, (255.0,) * 3)),
        ([0.0, 0.0, 0.0], [1.0, 1.0, 1.0], ((0.0,) * 3, (255.0,) * 3)),
        ([103.53, 116.28, 123.675], [1.0, 1.0, 1.0], ((103.53, 116.28, 123.675), (1.0,) * 3)),
        ([0.5, 0.5, 0.5], None, ((127.5,) * 3, None)),
    ],
)
def test_the_scale_of_pixels_shows_in_mean_and_deviation_together(mean, std, expected):
    content, _, _ = checkpoint(width=8)
    content["meta"]["densessl"]["normalize"] = {"mean": mean, "std": std}
    fingerprint = read_backbone(content)[1]
    assert (fingerprint.mean, fingerprint.std) == expected


@pytest.mark.parametrize(
    ("fingerprint", "message"),
    [
        ("x", "found 'x', expected a dict"),
        ({"arch": ["resnet"]}, r"arch: found \['resnet'\]"),
        ({"arch": "resnet", "depth": "50", "eps": True}, "depth: found '50'; eps: found True"),
        ({"mean": 0.5, "std": [1, "2", 3]}, r"mean: found 0.5; std: found \[1, '2', 3\]"),
    ],
)
def test_a_fingerprint_that_is_none_is_an_error_of_the_file(tmp_path, fingerprint, message):
    state = {f"backbone.{key}": value for key, value in checkpoint(width=8)[1].state_dict().items()}
    save_checkpoint(tmp_path / "a.pth", {"state_dict": state, "meta": {"fingerprint": fingerprint}})
    with pytest.raises(DensesslError, match=message):
        read_backbone(tmp_path / "a.pth")
    told = {"arch": "resnet", "depth": None, "eps": 1, "mean": [1, 2.0, 3], "of a later version": {}}
    assert Fingerprint.from_dict(told) == Fingerprint(arch="resnet", eps=1.0, mean=(1.0, 2.0, 3.0))


def test_tool_writes_and_reports(tmp_path):
    content, online, _ = checkpoint(width=8)
    save_checkpoint(tmp_path / "epoch_1.pth", content)
    command = [sys.executable, TOOL, tmp_path / "epoch_1.pth", tmp_path / "out" / "r18.pth", "--to", "mmdet"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "depth=18" in done.stdout and "stride=3x3" in done.stdout
    written = torch.load(tmp_path / "out" / "r18.pth", weights_only=True)["state_dict"]
    assert torch.equal(written["backbone.conv1.weight"], online.conv1.weight)


def test_tool_says_why_it_cannot_export(tmp_path, capsys):
    content, _, _ = checkpoint(width=8)
    save_checkpoint(tmp_path / "epoch_1.pth", content)
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "tv.pth", "--to", "torchvision") == 2
    assert "error: torchvision's resnet18 is another network" in capsys.readouterr().err
    assert tool(tmp_path / "epoch_2.pth", tmp_path / "tv.pth") == 2
    assert "epoch_2.pth" in capsys.readouterr().err
    into = ["--to", "detectron2", "--into", "mmdet::x.py"]
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "tv.pkl", *into) == 2
    assert (
        "--into: found --to detectron2, expected one of mmdet, torchvision, timm, safetensors"
        in capsys.readouterr().err
    )
    assert os.listdir(tmp_path) == ["epoch_1.pth"]


@pytest.mark.det
def test_tool_tries_the_file_in_a_detector(tmp_path, capsys):
    content, _, _ = checkpoint(18)
    save_checkpoint(tmp_path / "epoch_1.pth", content)
    config = TOOL.parents[1] / "configs" / "transfer" / "voc" / "retinanet_r18_256_voc.py"
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "r18.pth", "--into", config) == 0
    said = capsys.readouterr().out
    assert "120/120 backbone tensors loaded; 0 unexpected; neck: " in said
    assert "features: equal bit for bit" in said

    stock = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "r18.pth", "--into", stock) == 2
    assert "depth: found 50, expected 18: set backbone.depth=18" in capsys.readouterr().err
