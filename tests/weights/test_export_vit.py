"""Pretrained ViTs into files, for MMDetection and timm, and the tool that writes them."""

import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from densessl.errors import ExportError
from densessl.weights.equality import feature_differences
from densessl.weights.export import export_backbone
from densessl.weights.formats.to_timm import timm_arguments
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.read import read_backbone
from tests.weights import cases
from tests.weights.vits import VITDET, checkpoint, vitdet

TOOL = Path(__file__).parents[2] / "tools" / "export.py"


def tool(*arguments) -> int:
    return runpy.run_path(str(TOOL))["main"](list(map(str, arguments)))


def test_the_file_has_its_tensors_where_mmdets_project_looks_and_is_no_larger(tmp_path):
    content, online = checkpoint()
    export_backbone(content, tmp_path / "a.pth")
    written = torch.load(tmp_path / "a.pth", weights_only=True)
    assert written["model"].keys() == online.state_dict().keys()
    for key, value in written["model"].items():
        assert value.data_ptr() == written["state_dict"][f"backbone.{key}"].data_ptr()
        assert torch.equal(value, online.state_dict()[key])
    tensors = sum(value.nbytes for value in written["model"].values())
    assert (tmp_path / "a.pth").stat().st_size < 1.2 * tensors


def test_mmengines_own_loaders_take_the_file(tmp_path):
    from mmengine.runner import load_checkpoint

    content, online = checkpoint()
    export_backbone(content, tmp_path / "a.pth")
    detector = nn.Module()
    detector.backbone = vitdet()
    load_checkpoint(detector, str(tmp_path / "a.pth"))
    init_cfg = {"type": "Pretrained", "checkpoint": str(tmp_path / "a.pth"), "prefix": "backbone"}
    backbone = vitdet(init_cfg=init_cfg)
    backbone.init_weights()
    for loaded in (detector.backbone.state_dict(), backbone.state_dict()):
        expected = {key: value for key, value in online.state_dict().items() if key != "cls_token"}
        assert all(torch.equal(value, loaded[key]) for key, value in expected.items())


@pytest.mark.det
@pytest.mark.parametrize(
    "config",
    [{}, {"class_token": False}, {"final_norm": True}, {"class_token": False, "final_norm": True, "layer_scale": 0.3}],
    ids=str,
)
def test_timm_loads_strictly_and_computes_the_same(tmp_path, config):
    import timm

    content, online = checkpoint(**config)
    export_backbone(content, tmp_path / "a.pth", to="timm")
    name, arguments = timm_arguments(*read_backbone(content))
    model = timm.create_model(name, **arguments).eval()
    model.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True), strict=True)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model.forward_features(images), online(images, tokens=True)[0])
    assert feature_differences(model, content) == {f"blocks.{i}": 0.0 for i in range(3)}
    assert min(feature_differences(model, content, branch="target").values()) > 1e-2


@pytest.mark.parametrize(
    ("config", "call"),
    [
        (dict(image_size=224, dim=768, heads=12, depth=12, mlp_ratio=4.0), {"num_classes": 0, "final_norm": False}),
        (dict(image_size=96, patch_size=8, dim=192, heads=3, depth=8, mlp_ratio=4.0),
         {"num_classes": 0, "img_size": 96, "patch_size": 8, "depth": 8, "final_norm": False}),
    ],
    ids=["base", "tiny"],
)  # fmt: skip
def test_arguments_of_timm_are_only_those_that_are_not_its_own(config, call):
    from densessl.branches.vit import ViT

    with torch.device("meta"):
        content = {"state_dict": {f"backbone.{key}": value for key, value in ViT(**config).state_dict().items()}}
    content["meta"] = {"parts": {"backbone": {"type": "ViT", **config}}}
    name, arguments = timm_arguments(*read_backbone(content))
    assert name == ("vit_base_patch16_224" if config["dim"] == 768 else "vit_tiny_patch16_224")
    assert arguments == call


@pytest.mark.det
def test_a_resnet_goes_to_timm_as_it_goes_to_torchvision(tmp_path):
    import timm

    content, online, _ = cases.checkpoint(18)
    export_backbone(content, tmp_path / "a.pth", to="timm")
    model = timm.create_model("resnet18", num_classes=0).eval()
    model.load_state_dict(torch.load(tmp_path / "a.pth", weights_only=True), strict=True)
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model.forward_features(images), online(images)[-1])
    with pytest.raises(ExportError, match="width: found 8"):
        export_backbone(cases.checkpoint(width=8)[0], tmp_path / "b.pth", to="timm")


def test_timm_is_not_given_what_it_cannot_express(tmp_path):
    content, _ = checkpoint(eps=1e-5)
    with pytest.raises(ExportError, match="eps: found 1e-05, timm has 1e-06"):
        export_backbone(content, tmp_path / "a.pth", to="timm")
    with pytest.raises(ExportError, match="timm has ViTs of several heads, eps; the checkpoint does not state its own"):
        export_backbone(checkpoint()[1].state_dict(), tmp_path / "a.pth", to="timm")
    content, _ = checkpoint()
    content["state_dict"]["online.backbone.blocks.0.attn.rel_pos_h"] = torch.zeros(7, 16)
    with pytest.raises(ExportError, match=r"only one of the two has 1 tensor: \['blocks.0.attn.rel_pos_h'\]"):
        export_backbone(content, tmp_path / "a.pth", to="timm")
    with pytest.raises(ExportError, match="torchvision has no such network"):
        export_backbone(checkpoint()[0], tmp_path / "a.pth", to="torchvision")
    assert not list(tmp_path.iterdir())


def test_tool_says_how_timm_takes_the_file(tmp_path, capsys):
    content, _ = checkpoint()
    save_checkpoint(tmp_path / "epoch_1.pth", content)
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "vit.pth", "--to", "timm") == 0
    said = capsys.readouterr().out
    assert "arch=vit, depth=3" in said and "heads=2" in said
    call = 'timm.create_model("vit_base_patch16_224", num_classes=0, img_size=64, embed_dim=32, depth=3, num_heads=2, '
    assert call + "mlp_ratio=2.0, final_norm=False), load_state_dict with strict=True" in said


@pytest.mark.det
def test_tool_tries_the_file_in_a_detector(tmp_path, capsys):
    content, _ = checkpoint()
    save_checkpoint(tmp_path / "epoch_1.pth", content)
    base = TOOL.parents[1] / "configs" / "transfer" / "voc" / "retinanet_vitdet_256_voc.py"
    config = tmp_path / "config.py"
    config.write_text(
        f"_base_ = {str(base)!r}\n"
        f"model = dict(backbone=dict(drop_path_rate=0.0, **{VITDET}), neck=dict(backbone_channel=32))\n"
    )
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "vit.pth", "--into", config) == 0
    said = capsys.readouterr().out
    assert "39/39 backbone tensors loaded; 0 unexpected; not used: cls_token; rel_pos: 6 new; neck: " in said
    assert "not verified" not in said
    assert "features: equal bit for bit {'blocks.0': 0.0, 'blocks.1': 0.0, 'blocks.2': 0.0}" in said
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "vit.pth", "--into", base) == 2
    assert "image_size: found 96, expected 64: set backbone.pretrain_img_size=64" in capsys.readouterr().err
