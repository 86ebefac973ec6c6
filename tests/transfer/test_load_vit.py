"""Pretrained ViTs into ViTDet and timm."""

import json
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from densessl.engine.checkpoint import save_checkpoint
from densessl.transfer import (
    ExportError,
    LoadError,
    ViTDet,
    export_backbone,
    feature_differences,
    load_backbone,
    read_backbone,
    timm_arguments,
)
from densessl.transfer.fingerprint import of_model
from tests.transfer import cases
from tests.transfer.vits import VITDET, checkpoint, stirred, vitdet

KEYMAP = Path(__file__).parents[1] / "data" / "golden" / "sim_vit_to_vitdet.json"
TOOL = Path(__file__).parents[2] / "tools" / "export.py"
PIXELS = ["channel_order", "mean", "std"]


def tool(*arguments) -> int:
    return runpy.run_path(str(TOOL))["main"](list(map(str, arguments)))


@pytest.mark.parametrize("branch", ["online", "target"])
def test_vitdet_takes_an_export_whole_and_computes_the_same(tmp_path, branch):
    content, online = checkpoint()
    export_backbone(content, tmp_path / "a.pth", branch=branch)
    backbone = vitdet()
    report = load_backbone(backbone, tmp_path / "a.pth")
    assert report.summary == "39/39 backbone tensors loaded; 0 unexpected; not used: cls_token; rel_pos: 6 new"
    assert report.coverage == 1 and report.unused == ["cls_token"] and report.unverified == PIXELS
    assert torch.equal(backbone.blocks[1].attn.qkv.weight, online.blocks[1].attn.qkv.weight) == (branch == "online")
    assert feature_differences(backbone, content, branch) == {f"blocks.{i}": 0.0 for i in range(3)}
    assert feature_differences(backbone, tmp_path / "a.pth") == {f"blocks.{i}": 0.0 for i in range(3)}
    other = {"online": "target", "target": "online"}[branch]
    assert min(feature_differences(backbone, content, other).values()) > 1e-2


def test_a_difference_that_no_name_and_no_shape_shows_is_seen_in_the_features():
    content, _ = checkpoint()
    for change in ({"num_heads": 4}, {"norm_cfg": {"type": "LN", "eps": 1e-2}}):
        backbone = vitdet(**change)
        report = load_backbone(backbone, content, strict_fingerprint=False)
        assert report.coverage == 1 and len(report.differences) == 1
        assert min(feature_differences(backbone, content).values()) > 1e-4


@pytest.mark.parametrize(
    ("change", "field", "remedy"),
    [
        ({"norm_cfg": {"type": "LN", "eps": 1e-5}}, "eps", "found 1e-05, expected 1e-06: set backbone.norm_cfg.eps="),
        ({"norm_cfg": {"type": "LN"}}, "eps", "found 1e-05, expected 1e-06: set backbone.norm_cfg.eps=1e-06"),
        ({"num_heads": 4}, "heads", "found 4, expected 2: set backbone.num_heads=2"),
        ({"depth": 4}, "depth", "found 4, expected 3: set backbone.depth=3"),
        ({"embed_dim": 64}, "embed_dim", "found 64, expected 32: set backbone.embed_dim=32"),
        ({"qkv_bias": False}, "qkv_bias", "found False, expected True: set backbone.qkv_bias=True"),
        ({"layer_scale": 1.0}, "layer_scale", "found True, expected False: set backbone.layer_scale=None"),
        ({"pretrain_img_size": 96}, "image_size", "found 96, expected 64: set backbone.pretrain_img_size=64"),
        ({"pretrain_use_cls_token": False}, "class_row", "set backbone.pretrain_use_cls_token=True"),
        ({"patch_size": 8, "pretrain_img_size": 32}, "patch_size", "found 8, expected 16: set backbone.patch_size=16"),
    ],
    ids=lambda value: value if isinstance(value, str) and " " not in value else None,
)
def test_a_vit_that_would_compute_something_else_is_refused_untouched(change, field, remedy):
    content, _ = checkpoint()
    backbone = vitdet(**change)
    before = {key: value.clone() for key, value in backbone.state_dict().items()}
    with pytest.raises(LoadError) as caught:
        load_backbone(backbone, content)
    assert field in [difference.field for difference in caught.value.report.differences]
    assert f"{field}: found " in str(caught.value) and remedy in str(caught.value)
    assert all(torch.equal(before[key], value) for key, value in backbone.state_dict().items())


def test_remedies_of_the_other_way_round():
    with pytest.raises(LoadError, match=r"layer_scale: found False, expected True: set backbone\.layer_scale=1\.0"):
        load_backbone(vitdet(), checkpoint(layer_scale=0.1)[0])
    content, _ = checkpoint(class_token=False)
    with pytest.raises(LoadError, match=r"class_row: .* set backbone\.pretrain_use_cls_token=False"):
        load_backbone(vitdet(), content)
    backbone = vitdet(pretrain_use_cls_token=False)
    report = load_backbone(backbone, content)
    assert report.summary == "39/39 backbone tensors loaded; 0 unexpected; rel_pos: 6 new"
    assert feature_differences(backbone, content) == {f"blocks.{i}": 0.0 for i in range(3)}


def test_networks_of_another_kind_are_refused_for_that_alone():
    vit, _ = checkpoint()
    resnet, _, backbone = cases.checkpoint(width=8)
    with pytest.raises(LoadError, match=r"arch: found resnet, expected vit: set backbone\.type='densessl\.V") as caught:
        load_backbone(backbone, vit)
    assert [difference.field for difference in caught.value.report.differences] == ["arch"]
    with pytest.raises(LoadError, match=r"arch: found vit, expected resnet: set backbone\.type='ResNet'"):
        load_backbone(vitdet(), resnet)


def test_relative_positions_of_a_fine_tuned_detector_are_expected_where_the_file_has_them():
    detector = stirred(vitdet())
    state = {f"backbone.{key}": value for key, value in detector.state_dict().items()}
    backbone = vitdet()
    report = load_backbone(backbone, state)
    assert report.summary == "45/45 backbone tensors loaded; 0 unexpected" and report.unverified == ["eps"]
    assert all(torch.equal(value, detector.state_dict()[key]) for key, value in backbone.state_dict().items())
    with pytest.raises(
        LoadError, match=r"fills 91\.1%.*\n.*\n.*of another shape \(4\): blocks.0.attn.rel_pos_h: found"
    ):
        load_backbone(vitdet(window_size=3), state, min_coverage=0.95)


def test_a_bare_file_of_mae_or_sim_is_its_encoder():
    """Their decoders and targets, and timm's classifier, are no part of it; what it was trained with is not told."""
    _, online = checkpoint(final_norm=True)
    state = dict(online.state_dict())
    for extra in ("mask_token", "decoder_pos_embed", "decoder_blocks.0.attn.qkv.weight", "mm_blocks.0.norm1.bias"):
        state[extra] = torch.ones(2)
    for extra in ("mm_cls_token", "projector_decoder_blocks.0.norm1.bn.running_var", "head.weight", "fc_norm.weight"):
        state[extra] = torch.ones(2)
    found, fingerprint = read_backbone({"state_dict": state})
    assert found.keys() == online.state_dict().keys()
    assert (fingerprint.arch, fingerprint.depth, fingerprint.heads, fingerprint.eps) == ("vit", 3, None, None)
    report = load_backbone(vitdet(), {"state_dict": state})
    assert report.coverage == 1 and not report.unexpected and report.unused == ["cls_token", "norm.weight", "norm.bias"]
    assert report.unverified == ["eps", "heads"]


def test_the_names_of_sims_released_file_and_of_mmdets_vitdet():
    """Rename table, verified on the released code: [name in SIM's file, name in the detector or null, note]."""
    table = [row[:2] for row in json.loads(KEYMAP.read_text()) if row[0]]
    with torch.device("meta"):
        state, backbone = {name: torch.empty(1) for name, _ in table}, ViTDet()
        shapes = {name: value.shape for name, value in backbone.state_dict().items()}
        state |= {name: torch.empty(shapes.get(name, 1)) for name in state}
    found, fingerprint = read_backbone(state)
    kept = {name: into for name, into in table if into}
    assert found.keys() == kept.keys() | {"cls_token"}
    assert {f"backbone.{name}" for name in shapes if "rel_pos" not in name} == set(kept.values())
    assert (fingerprint.depth, fingerprint.embed_dim, fingerprint.image_size) == (12, 768, 224)
    report = load_backbone(backbone, state)
    assert report.summary == "147/147 backbone tensors loaded; 0 unexpected; not used: cls_token; rel_pos: 24 new"


class OtherViT(nn.Module):
    """The names of MMDetection's projects/ViTDet, as far as a fingerprint asks."""

    def __init__(self):
        super().__init__()
        self.patch_embed = nn.Module()
        self.patch_embed.proj = nn.Conv2d(3, 32, 16, 16)
        self.pos_embed = nn.Parameter(torch.zeros(1, 17, 32))
        self.blocks = nn.ModuleList(nn.Module() for _ in range(3))
        for block in self.blocks:
            block.norm1, block.norm2 = nn.LayerNorm(32), nn.LayerNorm(32)
            block.attn, block.mlp = nn.Module(), nn.Module()
            block.attn.num_heads, block.window_size = 2, 4
            block.attn.qkv, block.attn.proj = nn.Linear(32, 96), nn.Linear(32, 32)
            block.attn.rel_pos_h, block.attn.rel_pos_w = (nn.Parameter(torch.zeros(7, 16)) for _ in "hw")
            block.mlp.fc1, block.mlp.fc2 = nn.Linear(32, 64), nn.Linear(64, 32)


@pytest.mark.det
def test_vits_of_other_libraries_are_read_the_same_way():
    import timm

    content, _ = checkpoint()
    ours = read_backbone(content)[1]
    arguments = dict(img_size=64, embed_dim=32, depth=3, num_heads=2, mlp_ratio=2, num_classes=0, final_norm=False)
    theirs = timm.create_model("vit_base_patch16_224", **arguments)
    for found in (of_model(theirs), of_model(vitdet())):
        known = found.to_dict()
        assert known == {key: value for key, value in ours.to_dict().items() if key not in PIXELS}
    with pytest.raises(LoadError, match=r"eps: found 1e-05, expected 1e-06: set backbone\.norm_cfg\.eps") as caught:
        load_backbone(OtherViT(), content)
    report = caught.value.report
    assert [difference.field for difference in report.differences] == ["eps"]
    assert report.coverage == 1 and report.unused == ["cls_token"] and report.new == {"rel_pos": 6}


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
    with pytest.raises(ExportError, match="timm has ViTs of several heads, eps; the checkpoint does not tell its own"):
        export_backbone(checkpoint()[1].state_dict(), tmp_path / "a.pth", to="timm")
    content, _ = checkpoint()
    content["state_dict"]["online.backbone.blocks.0.attn.rel_pos_h"] = torch.zeros(7, 16)
    with pytest.raises(ExportError, match=r"1 tensors are in only one of the two: \['blocks.0.attn.rel_pos_h'\]"):
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
    assert tool(tmp_path / "epoch_1.pth", tmp_path / "vit.pth", "--into", base) == 1
    assert "image_size: found 96, expected 64: set backbone.pretrain_img_size=64" in capsys.readouterr().err
