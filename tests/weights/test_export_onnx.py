"""Graphs for ONNX, run by ONNX Runtime."""

import json
import runpy
import sys
from pathlib import Path

import onnx
import onnxruntime
import pytest
import torch
from torch import Tensor

from densessl.errors import ExportError, MissingPackage
from densessl.weights.export import export_backbone
from densessl.weights.fingerprint import Fingerprint
from densessl.weights.formats.to_onnx import OPSET, backbone_network
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.read import read_backbone
from tests.weights import vits
from tests.weights.cases import checkpoint

TOOL = Path(__file__).parents[2] / "tools" / "export.py"
ROUNDING = 1e-5  # of the largest value: the graph has norms folded into convolutions


def session(path):
    return onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])


def images(count: int, height: int, width: int) -> Tensor:
    return torch.randn(count, 3, height, width, generator=torch.Generator().manual_seed(count + height))


def furthest(found, expected) -> float:
    """The largest difference of any map over that map's largest value; shapes are equal."""
    pairs = list(zip(map(torch.from_numpy, found), expected, strict=True))
    assert [a.shape for a, _ in pairs] == [b.shape for _, b in pairs]
    return max(((a - b).abs().max() / b.abs().max()).item() for a, b in pairs)


@pytest.fixture(scope="module")
def resnet(tmp_path_factory):
    """The file of a ResNet of few channels, its fingerprint, and what it was made from."""
    path = tmp_path_factory.mktemp("resnet") / "r18.onnx"
    content, online, target = checkpoint(18, 8)
    return path, export_backbone(content, path, to="onnx", meta={"recipe": "pixpro"}), online, target


@torch.no_grad()
def test_a_resnet_computes_the_same_for_any_number_and_size_of_images(resnet):
    path, _, online, target = resnet
    graph = session(path)
    for size in ((1, 64, 96), (3, 97, 65)):
        found = graph.run(["c2", "c3", "c4", "c5"], {"image": images(*size).numpy()})
        assert furthest(found, online(images(*size))) < ROUNDING
        assert furthest(found, target(images(*size))) > 1000 * ROUNDING


def test_the_graph_says_what_it_is_and_nothing_of_the_machine_it_was_made_on(resnet):
    path, fingerprint, _, _ = resnet
    model = onnx.load(path)
    assert OPSET == 18 and [(entry.domain, entry.version) for entry in model.opset_import] == [("", 18)]
    (image,) = model.graph.input
    dims = [dim.dim_param or dim.dim_value for dim in image.type.tensor_type.shape.dim]
    assert (image.name, dims) == ("image", ["batch", 3, "height", "width"])
    assert [value.name for value in model.graph.output] == ["c2", "c3", "c4", "c5"]
    told = {entry.key: entry.value for entry in model.metadata_props}
    assert json.loads(told["mean"]) == [123.675, 116.28, 103.53] and told["channel_order"] == "RGB"
    assert json.loads(told["std"]) == [58.395, 57.12, 57.375]
    meta = json.loads(told["densessl"])
    assert Fingerprint.from_dict(meta["fingerprint"]) == fingerprint
    assert meta["recipe"] == "pixpro" and meta["branch"] == "online"
    assert meta["torch_version"] == str(torch.__version__) and "densessl_version" in meta
    assert b".py" not in path.read_bytes(), "a stack trace, with paths"


@torch.no_grad()
def test_a_vit_computes_the_same_map_for_any_number_of_images(tmp_path, capsys):
    content, online = vits.checkpoint(final_norm=True, layer_scale=0.5)
    save_checkpoint(tmp_path / "epoch_1.pth", content)
    main = runpy.run_path(str(TOOL))["main"]
    files = [str(tmp_path / "epoch_1.pth"), str(tmp_path / "vit.onnx"), "--to", "onnx"]
    for size, side in (([], 64), (["--size", "96"], 96)):
        assert main([*files, *size]) == 0
        said = capsys.readouterr().out
        assert "opset 18" in said and f"input image (batch, 3, {side}, {side}), fp32" in said
        assert f"output last_map (batch, 32, {side // 16}, {side // 16})" in said
        assert "(pixels - [123.675, 116.28, 103.53]) / [58.395, 57.12, 57.375] of RGB pixels in 0 to 255" in said
        operations = {node.op_type for node in onnx.load(tmp_path / "vit.onnx").graph.node}
        assert "Resize" not in operations, "positions are resampled once; TensorRT has no bicubic one"
        graph = session(tmp_path / "vit.onnx")
        for count in (1, 3):
            batch = images(count, side, side)
            assert furthest(graph.run(["last_map"], {"image": batch.numpy()}), online(batch)) < ROUNDING
        with pytest.raises(Exception, match="Got: 128 Expected"):
            graph.run(None, {"image": images(1, 128, 128).numpy()})
    assert main([*files, "--size", "100"]) == 2
    assert "size: found 100, expected a multiple of the patches' 16" in capsys.readouterr().err


@torch.no_grad()
@pytest.mark.parametrize(
    ("content", "config"),
    [
        (checkpoint, {"depth": 18, "width": 16, "norm_cfg": {"type": "GN", "num_groups": 8}}),
        (checkpoint, {"depth": 18, "width": 16, "norm_cfg": {"type": "SyncBN", "eps": 1e-3}}),
        (vits.checkpoint, {"class_token": False, "qkv_bias": False, "eps": 1e-5}),
    ],
    ids=["GN", "SyncBN", "ViT"],
)
def test_the_network_of_a_fingerprint_is_the_one_that_was_trained(content, config):
    content, online, *_ = content(**config)
    network = backbone_network(*read_backbone(content), content["meta"]["densessl"]["backbone"])
    found = network(images(2, 64, 64))
    assert torch.equal(found[-1], online(images(2, 64, 64))[-1])


@pytest.mark.parametrize(
    ("content", "size", "message"),
    [
        (lambda: checkpoint(50, 8)[1].state_dict(), None, "does not state stride, eps, which the graph depends on"),
        (lambda: vits.checkpoint()[1].state_dict(), None, "does not state heads, eps"),
        (lambda: checkpoint(18, 8)[0], 640, "size: found 640, expected none: a ResNet's graph takes images of any"),
    ],
)
def test_what_no_graph_is_made_of_is_refused(tmp_path, content, size, message):
    with pytest.raises(ExportError, match=message):
        export_backbone(content(), tmp_path / "a.onnx", to="onnx", size=size)
    assert not list(tmp_path.iterdir())


@pytest.mark.det
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            {"dilations": (1, 1, 1, 2), "strides": (1, 2, 2, 1)},
            "computes something else: .*'layer3': 0.0, 'layer4': inf",
        ),
        ({"style": "caffe"}, "densessl's ResNet is another network: stride: found 1x1, densessl has 3x3"),
    ],
)
def test_a_network_that_differs_where_no_tensor_shows_it_is_refused(tmp_path, change, message):
    content, _, _ = checkpoint(50, 8)
    told = {"type": "mmdet.ResNet", "depth": 50, "base_channels": 8, **change}
    content["meta"]["densessl"]["backbone"] = told
    with pytest.raises(ExportError, match=message):
        export_backbone(content, tmp_path / "a.onnx", to="onnx")
    assert not list(tmp_path.iterdir())


def test_what_is_not_installed_is_named_with_its_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(MissingPackage, match=r"to='onnx' needs the package 'onnxscript'.*pip install -e '\.\[onnx\]'"):
        export_backbone(checkpoint(18, 8)[0], tmp_path / "a.onnx", to="onnx")


def test_a_size_is_for_graphs(tmp_path):
    with pytest.raises(ExportError, match="size: found 64 for timm, expected none"):
        export_backbone(vits.checkpoint()[0], tmp_path / "a.pth", to="timm", size=64)
