"""The tables of layouts: what is not in them is told, and what is has a case of its own."""

import re
import runpy
from pathlib import Path

import pytest
import torch
import torchvision

from densessl.branches.resnet import ResNet
from densessl.errors import ExportError
from densessl.weights.layouts.renames import NAMES
from densessl.weights.layouts.tables import LAYOUTS, MOCO_V3, OFFICIAL, PLAIN
from densessl.weights.layouts.take import layout_of, unknown
from densessl.weights.load import load_backbone
from densessl.weights.read import read_backbone
from tests.weights.public import resnet
from tests.weights.public_cases import CASES

ROOT = Path(__file__).parents[2]
ELSEWHERE = {"CCOP", "Caffe2 (MSRA)", "Detectron2's ViTDet", "a model with a backbone"}  # tests of their own


def test_every_layout_has_a_case_and_a_row_in_the_docs():
    names = [layout.name for layout in [*LAYOUTS, *PLAIN]]
    assert {case.layout for case in CASES.values()} == set(names) - ELSEWHERE and len(names) == len(set(names))
    docs = (ROOT / "docs/transfer.md").read_text()
    for layout in LAYOUTS:
        assert f"`{layout.name}`" in docs, layout.name


def test_no_rule_touches_the_names_of_torchvision_and_timm():
    for name in [*CASES["torchvision"].tensors("online"), *CASES["timm"].tensors("online")]:
        assert not [pattern for pattern, _ in NAMES if re.search(pattern, name)], name


def test_heads_depend_on_whose_vit_it_is():
    """The small one of MoCo v3 has twelve heads, and DeiT's, which others take, six."""
    state = {"patch_embed.proj.weight": torch.zeros(384, 3, 16, 16)}
    state |= {"blocks.0.attn.qkv.weight": torch.zeros(1), "blocks.0.mlp.fc1.weight": torch.zeros(1)}
    by_name = {layout.name: layout.facts for layout in LAYOUTS}
    assert by_name["DINO"].config(state)["num_heads"] == 6 and by_name["MoCo v3"].config(state)["num_heads"] == 12
    assert "num_heads" not in by_name["mmselfsup or mmpretrain"].config(state)
    assert {width: OFFICIAL.heads[width] for width in (192, 768, 1024)} == {192: 3, 768: 12, 1024: 16}
    assert MOCO_V3[768] == 12


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (
            ["net.encoder_q.conv1.weight", "net.encoder_q.layer1.0.conv1.weight", "net.queue", "temperature"],
            r"known\. The names of its 4 tensors begin with net\.encoder_q \(2\), net \(1\), temperature \(1\); .*"
            r"Networks lie under \['net\.encoder_q\.'\]: densessl convert FILE OUT --prefix net\.encoder_q\.",
        ),
        (["queue2", "net.encoder_q.0.conv1.weight"], r"nearest is 'DenseCL': 75% of its marks"),
        (["encoder_b.conv1.weight", "momentum_encoder.conv1.weight"], r"nearest is 'MoCo v3': 50% of its marks"),
        (
            ["a.b.c", "a.b.d"],
            r"none is near\. The names of its 2 tensors begin with a\.b \(2\); expected 'online\.backbone\.\*'",
        ),
    ],
)
def test_a_layout_that_is_not_known_is_told_with_the_nearest(names, message):
    assert layout_of(names) is None
    with pytest.raises(ExportError, match=rf"no backbone in the given state, .*{message}"):
        read_backbone({name: torch.zeros(1) for name in names})


def test_layouts_whose_prefix_leads_to_no_network_are_refused():
    """Names that begin as those of a layout, where the network lies elsewhere or is of a kind that it never has."""
    own, vit = resnet(depth=18), CASES["timm"].tensors("online")
    ones = torch.ones(2)
    for inside, network, others in (
        ("encoder_q.model.", own, ["queue"]),  # SSQL, like MoCo
        ("encoder.module.", vit, ["predictor.module.predictor_pos_embed"]),  # I-JEPA, like SimSiam
        ("backbone.body.", own, ["backbone.fpn.fpn_inner1.weight", "rpn.head.conv.weight"]),  # maskrcnn-benchmark
        ("backbone.net.", own, ["neck.fc0.weight", "target_net.module.0.conv1.weight"]),
    ):
        state = {f"{inside}{key}": value for key, value in network.items()} | dict.fromkeys(others, ones)
        with pytest.raises(ExportError, match=rf"known\. .* lie under \['{inside}'\]: .* --prefix {inside}$"):
            read_backbone(state)
    with pytest.raises(ExportError, match=r"the nearest is 'MoCo': \d+% of its marks"):
        read_backbone({"encoder_q.features.0.0.weight": ones, "encoder_k.features.0.0.weight": ones})


@pytest.mark.parametrize("others", [["head.fc.weight"], ["neck.fc0.weight"], ["bbox_head.fc_cls.weight"], []])
def test_a_network_of_another_kind_keeps_its_names_and_eps_and_stride_are_not_told(others):
    """Each code has its own: MMDetection's EfficientNet an eps of 1e-3, its Swin a ``patch_embed.projection``."""
    stem, norm = torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4, eps=1e-3)
    network = torch.nn.ModuleDict(dict(patch_embed=torch.nn.ModuleDict(dict(projection=stem, norm=norm))))
    state = {f"backbone.{key}": torch.full_like(value, 2) for key, value in network.state_dict().items()}
    state |= {name: torch.ones(2) for name in others}
    _, fingerprint = read_backbone(state)
    assert (fingerprint.arch, fingerprint.norm, fingerprint.eps, fingerprint.stride) == ("other", "BN", None, None)
    report = load_backbone(network, state)
    assert report.coverage == 1 and "eps" in report.unverified and bool((norm.running_var == 2).all())


def test_a_nested_network_of_timm_starts_another():
    """``TIMMBackbone`` of mmpretrain, in a detector of MMDetection."""
    network = torch.nn.ModuleDict(dict(timm_model=torchvision.models.resnet18()))
    state = {f"backbone.{key}": value for key, value in network.state_dict().items()}
    state |= {"bbox_head.retina_cls.weight": torch.ones(2), "neck.fpn_convs.0.conv.weight": torch.ones(2)}
    other = torch.nn.ModuleDict(dict(timm_model=torchvision.models.resnet18()))
    assert load_backbone(other, state).coverage == 1
    weights = other.timm_model.layer4[1].conv2.weight
    assert torch.equal(weights, network.timm_model.layer4[1].conv2.weight)


def test_the_names_of_torchvisions_detectors_are_those_that_it_gives():
    body = pytest.importorskip("torchvision.models.detection.backbone_utils")
    own = body.resnet_fpn_backbone(backbone_name="resnet18", weights=None).state_dict()
    assert layout_of([*(f"backbone.{key}" for key in own), "head.x"]).name == "a detector of torchvision"
    found, fingerprint = read_backbone({f"backbone.{key}": value for key, value in own.items()})
    wanted = {key: own[f"body.{key}"] for key in ResNet(18).state_dict() if f"body.{key}" in own}
    assert all(torch.equal(found[key], value) for key, value in wanted.items()) and fingerprint.depth == 18
    assert {key for key in found if key not in wanted} == {k for k in ResNet(18).state_dict() if k.endswith("tracked")}
    assert len(wanted) == 100


def test_the_last_stage_of_a_c4_detector_of_mmdetection_is_in_its_shared_head():
    own = resnet()
    state = {("roi_head.shared_head." if "layer4" in name else "backbone.") + name: own[name] for name in own}
    state |= {"rpn_head.rpn_conv.weight": torch.ones(2), "roi_head.bbox_head.fc_cls.weight": torch.ones(2)}
    assert layout_of(state).name == "MMDetection"
    found, fingerprint = read_backbone(dict(state_dict=state))
    assert found.keys() == own.keys() and all(torch.equal(found[key], value) for key, value in own.items())
    assert fingerprint.depth == 50


def test_of_many_prefixes_the_largest_are_shown():
    names = [f"part{i}.inner.{j}" for i in range(12) for j in range(i + 1)]
    said = unknown(names, "x.pth")
    assert "part11.inner (12), part10.inner (11)" in said and "part3.inner" not in said and ", …;" in said


def test_a_prefix_that_no_layout_has_can_be_taken_off(tmp_path, capsys):
    own = resnet(depth=18)
    state = {f"module.net.trunk.{key}": value for key, value in own.items()} | {"module.net.head.weight": torch.ones(1)}
    torch.save(dict(state_dict=state), tmp_path / "own.pth")
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    words = [str(tmp_path / "own.pth"), str(tmp_path / "new.pth")]
    assert main(words) == 2 and "densessl convert FILE OUT --prefix net.trunk.\n" in capsys.readouterr().err
    assert main([*words, "--prefix", "net.trunks."]) == 2
    assert "--prefix net.trunks.: no name in" in capsys.readouterr().err and not (tmp_path / "new.pth").exists()
    assert main([*words, "--prefix", "net.trunk."]) == 0
    state, _ = read_backbone(tmp_path / "new.pth")
    assert all(torch.equal(state[key], value) for key, value in own.items())


def test_a_branch_that_a_file_has_not_is_refused():
    with pytest.raises(ExportError, match=r"\(SimSiam\) has no 'target' backbone; its branches are \['online'\]"):
        read_backbone(CASES["simsiam"].content(), "target")
    with pytest.raises(ExportError, match="found 'teacher', expected one of"):
        read_backbone(CASES["dino"].content(), "teacher")
