"""Pretrained ViTs into ViTDet."""

import json
from pathlib import Path

import pytest
import torch
from torch import nn

from densessl.errors import LoadError
from densessl.finetune.vitdet import ViTDet
from densessl.weights.equality import feature_differences
from densessl.weights.export import export_backbone
from densessl.weights.fingerprint import of_model
from densessl.weights.formats.to_timm import timm_arguments
from densessl.weights.load import load_backbone
from densessl.weights.read import read_backbone
from tests.weights import cases
from tests.weights.vits import checkpoint, stirred, vitdet

KEYMAP = Path(__file__).parents[1] / "data" / "golden" / "sim_vit_to_vitdet.json"
PIXELS = ["channel_order", "mean", "std"]


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


@pytest.mark.parametrize("name", ["norm_pre.weight", "blocks.0.gamma_1", "blocks.2.attn.q_norm.weight", "reg_token"])
def test_a_vit_with_more_in_it_is_refused_and_left_out_only_by_name(name):
    content, _ = checkpoint()
    content["state_dict"][f"online.backbone.{name}"] = torch.ones(1, 1, 32)
    with pytest.raises(LoadError, match=rf"has 1 tensor that this model's backbone lacks(?s:.*){name}") as caught:
        load_backbone(vitdet(), content)
    assert caught.value.report.unused == ["cls_token"]
    report = load_backbone(vitdet(), content, allow_unexpected=True)
    assert report.coverage == 1 and report.unexpected == [name]


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
    """Their decoders and targets, and timm's classifier, are no part of it; of these widths they have no heads."""
    _, online = checkpoint(final_norm=True)
    state = dict(online.state_dict())
    for extra in ("mask_token", "decoder_pos_embed", "decoder_blocks.0.attn.qkv.weight", "mm_blocks.0.norm1.bias"):
        state[extra] = torch.ones(2)
    for extra in ("mm_cls_token", "projector_decoder_blocks.0.norm1.bn.running_var", "head.weight", "fc_norm.weight"):
        state[extra] = torch.ones(2)
    found, fingerprint = read_backbone({"state_dict": state})
    assert found.keys() == online.state_dict().keys()
    assert (fingerprint.arch, fingerprint.depth, fingerprint.heads, fingerprint.eps) == ("vit", 3, None, 1e-6)
    report = load_backbone(vitdet(), {"state_dict": state})
    assert report.coverage == 1 and not report.unexpected and report.unused == ["cls_token", "norm.weight", "norm.bias"]
    assert report.unverified == ["heads", "channel_order", "mean", "std"]


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


@pytest.mark.det
def test_a_classifier_of_timm_takes_a_vit_and_keeps_its_head():
    import timm  # of the det extra

    content, online = checkpoint(final_norm=True)
    name, arguments = timm_arguments(*read_backbone(content))
    model = timm.create_model(name, **{**arguments, "num_classes": 3}).eval()
    head = model.head.weight.clone()
    assert load_backbone(model, content).summary == "42/42 backbone tensors loaded; 0 unexpected; head: 2 new"
    assert torch.equal(model.head.weight, head)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        assert torch.equal(model.forward_features(images), online(images, tokens=True)[0])
