"""The towers against those of MMDetection's heads, bit for bit, and levels by name through the model."""

import pytest
import torch

from densessl.branches import Branch, DenseHeadConvs, ResNet
from densessl.branches.branch import parts_for
from densessl.model import TwoBranch
from tests.objectives.toy import BACKBONE, total, toy_batch, toy_model

GN = dict(type="GN", num_groups=4)
NECK = dict(type="FPN", out_channels=10)
HEAD = dict(type="DenseHeadConvs", feat_channels=6, stacked_convs=2)
PIXPRO = dict(type="PixPro", hidden=8, dim=4)


def reference(kind: str, **arguments):
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(dict(type=kind, num_classes=2, in_channels=8, feat_channels=12, **arguments))


@pytest.mark.det
@pytest.mark.parametrize(("kind", "norm"), [("RetinaHead", None), ("FCOSHead", GN), ("ATSSHead", GN)])
def test_the_towers_of_mmdetections_heads_are_the_same_bit_for_bit(kind, norm):
    arguments = dict(norm_cfg=norm) if norm else {}
    if kind == "ATSSHead":
        anchors = dict(ratios=[1.0], octave_base_scale=8, scales_per_octave=1, strides=[8])
        arguments["anchor_generator"] = dict(type="AnchorGenerator", **anchors)
    theirs = reference(kind, stacked_convs=3, **arguments)
    ours = DenseHeadConvs(8, feat_channels=12, stacked_convs=3, norm_cfg=norm)
    shared = {k: v for k, v in theirs.state_dict().items() if k.startswith(("cls_convs.", "reg_convs."))}
    assert {k: v.shape for k, v in ours.state_dict().items()} == {k: v.shape for k, v in shared.items()}
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.copy_(torch.randn_like(parameter))
    theirs.load_state_dict(ours.state_dict(), strict=False)
    maps = [torch.randn(2, 8, *size) for size in ((9, 7), (5, 4), (1, 1))]
    found = ours(maps)
    assert list(found) == ["cls", "reg"]
    for tower, outs in found.items():
        for item, out in zip(maps, outs, strict=True):
            expected = item
            for block in getattr(theirs, f"{tower}_convs"):
                expected = block(expected)
            assert torch.equal(out, expected)


@pytest.mark.det
def test_they_start_as_mmdetections_do():
    theirs = reference("RetinaHead", stacked_convs=2)
    theirs.init_weights()
    ours = DenseHeadConvs(8, feat_channels=12, stacked_convs=2)
    for name, value in ours.named_parameters():
        other = theirs.get_parameter(name)
        assert value.std().item() == pytest.approx(other.std().item(), rel=0.2), name
        assert value.ndim > 1 or not value.any()


def test_one_tower_alone():
    head = DenseHeadConvs(8, feat_channels=12, stacked_convs=1, towers=("reg",))
    assert list(head.state_dict()) == ["reg_convs.0.conv.weight", "reg_convs.0.conv.bias"]
    assert list(head([torch.zeros(1, 8, 3, 3)])) == ["reg"]
    with pytest.raises(ValueError, match=r"head\.towers 'box' is unknown; known: cls, reg"):
        DenseHeadConvs(8, towers=("box",))


def test_a_level_says_what_has_to_be_run():
    for levels, parts in (
        ((0, -1), set()),
        ((0, "neck.1"), {"neck"}),
        (("cls.1", 0), {"neck", "head"}),
        (("tokens.0", 0), {"tokens"}),
        (("tokens.0", "neck.0"), {"tokens", "neck"}),
    ):
        assert {name for name, run in parts_for(*levels).items() if run} == parts, levels


def test_maps_of_all_parts_by_name_and_by_view():
    model = toy_model([dict(PIXPRO, level="cls.0")], neck=NECK, head=HEAD)
    branch, views = model.online.eval(), torch.randn(4, 3, 64, 64)
    with torch.no_grad():
        features = branch(views, head=True)
        levels = branch.backbone(views)
        neck = branch.neck(levels)
    plain, half = branch(views), branch(views, neck=True)
    assert [(bool(item.neck), bool(item.head)) for item in (plain, half, features)] == [
        (False, False),
        (True, False),
        (True, True),
    ]
    expected = {0: levels[0], 1: levels[1], -1: levels[1], "neck.0": neck[0], "neck.1": neck[1]}
    expected |= {"cls.0": branch.head.cls_convs(neck[0]), "reg.1": branch.head.reg_convs(neck[1])}
    parts = features.chunk(2)
    for level, item in expected.items():
        assert torch.equal(features[level], item), level
        assert branch.channels(level) == item.shape[1]
        assert all(torch.equal(part[level], rows) for part, rows in zip(parts, item.chunk(2), strict=True))
        assert torch.equal(features.map(torch.neg)[level], -item)


def test_state_keys_and_description():
    model = toy_model([dict(PIXPRO, level="cls.0")], neck=NECK, head=HEAD)
    keys = list(model.state_dict())
    for branch in ("online", "target"):
        assert f"{branch}.neck.lateral_convs.1.conv.bias" in keys
        assert f"{branch}.head.reg_convs.1.conv.weight" in keys
    about = model.describe()
    assert about["neck"] == NECK and about["head"] == HEAD and about["backbone"]["type"] == "ResNet"
    assert not {"neck", "head"} & toy_model([PIXPRO]).describe().keys()


def test_only_what_is_asked_for_runs_and_that_once():
    """The objective on the backbone shares its forward with the one on the tower, and the neck serves both towers."""
    levels = ("neck.0", "cls.0", "reg.1", "neck.1")  # so that the head is wanted neither first nor last
    objectives = [PIXPRO, *(dict(PIXPRO, name=f"p{i}", level=level) for i, level in enumerate(levels))]
    model = toy_model(objectives, neck=NECK, head=HEAD)
    seen = []
    for name in ("backbone", "neck", "head"):
        getattr(model.online, name).register_forward_pre_hook(lambda *_, name=name: seen.append(name))
    model.loss(toy_batch())
    assert seen == ["backbone", "neck", "head"] * 2
    seen.clear()
    model.plans = {name: plan for name, plan in model.plans.items() if name == "pixpro"}
    model.objectives = torch.nn.ModuleDict({"pixpro": model.objectives["pixpro"]})
    model.loss(toy_batch())
    assert seen == ["backbone"] * 2


def test_every_shared_convolution_learns_from_every_level():
    """The gradient of a tower is the sum of those of its levels: they share the weights."""

    def gradients(*levels):
        objectives = [dict(PIXPRO, name=f"p{i}", level=f"cls.{i}", weight=float(i in levels)) for i in (0, 1)]
        model = toy_model(objectives, neck=NECK, head=dict(HEAD, towers=("cls",)), dtype=torch.float64)
        total(model, toy_batch(dtype=torch.float64)).backward()
        return {name: value.grad for name, value in model.online.head.named_parameters()}

    first, second, both = gradients(0), gradients(1), gradients(0, 1)
    for name, value in both.items():
        assert first[name].any() and second[name].any()
        torch.testing.assert_close(value, first[name] + second[name], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("level", ["cls.2", "neck.2", "box.0", "cls", "head.0"])
def test_an_unknown_level_is_answered_with_the_known_ones(level):
    known = r"named levels: 'neck\.0', 'neck\.1', 'cls\.0', 'cls\.1', 'reg\.0', 'reg\.1'"
    with pytest.raises(ValueError, match=rf"level '{level}' is asked for.*{known}"):
        toy_model([dict(PIXPRO, level=level)], neck=NECK, head=HEAD)
    with pytest.raises(ValueError, match=rf"level '{level}' is asked for, the backbone gives 2 .*named levels: none"):
        toy_model([dict(PIXPRO, level=level)])


def test_errors_name_the_key():
    with pytest.raises(ValueError, match=r"online\.head is given without online\.neck"):
        TwoBranch(dict(backbone=BACKBONE, head=HEAD), [PIXPRO])
    branch = Branch(ResNet(18, width=8), None, {}).eval()
    with pytest.raises(ValueError, match=r"level 'neck\.0' is asked for"):
        branch(torch.zeros(1, 3, 32, 32))["neck.0"]
