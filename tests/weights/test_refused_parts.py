"""Necks and heads that are not loaded, and why."""

import pytest

from densessl.errors import LoadError
from densessl.weights.load import load_parts
from tests.weights.parts import GN, HEAD, NECK, RETINANET, detector, pretrained, tensors, unchanged

REFUSED = {
    "stages": (
        dict(type="FPN", out_channels=8),
        HEAD,
        {},
        "inputs: found (16, 32, 64), expected (8, 16, 32, 64): choose ",
    ),
    "width": (
        dict(NECK, out_channels=16),
        None,
        {},
        "out_channels: found 8, expected 16: set neck.out_channels=16",
    ),
    "neck-norm": (
        dict(NECK, norm_cfg=dict(type="BN")),
        None,
        {},
        "norm: found none, expected BN: set neck.norm_cfg.type='BN'",
    ),
    "no-neck-norm": (
        NECK,
        None,
        dict(neck=dict(norm_cfg=dict(type="BN"))),
        "norm: found BN, expected none: set neck.norm_cfg=None",
    ),
    "neck-eps": (
        dict(NECK, norm_cfg=dict(type="BN", eps=1e-3)),
        None,
        dict(neck=dict(norm_cfg=dict(type="BN"))),
        "eps: found 1e-05, expected 0.001: set neck.norm_cfg.eps=0.001",
    ),
    "extra": (
        dict(NECK, add_extra_convs="on_output", num_outs=5),
        None,
        {},
        "extra: found on_input, expected on_output: set neck.add_extra_convs and",
    ),
    "relu": (
        dict(NECK, **RETINANET, relu_before_extra_convs=True),
        None,
        {},
        "extra: found on_input, expected on_input, through ReLUs",
    ),
    "head-norm": (NECK, dict(HEAD, norm_cfg=GN), {}, "norm: found none, expected GN: set bbox_head.norm_cfg.type='GN'"),
    "groups": (
        NECK,
        dict(HEAD, norm_cfg=dict(GN, num_groups=2)),
        dict(head=dict(norm_cfg=GN)),
        "groups: found 4, expected 2: set bbox_head.norm_cfg.num_groups=2",
    ),
    "depth": (
        NECK,
        dict(HEAD, stacked_convs=1),
        {},
        "stacked_convs: found 2, expected 1: set bbox_head.stacked_convs=1",
    ),
    "head-width": (
        NECK,
        dict(HEAD, feat_channels=4),
        {},
        "feat_channels: found 8, expected 4: set bbox_head.feat_channels=4",
    ),
}


@pytest.mark.det
@pytest.mark.parametrize(("neck", "head", "change", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_a_part_that_would_compute_something_else_is_refused_and_nothing_is_loaded(neck, head, change, message):
    content, _ = pretrained(neck, head)
    model = detector(**change)
    before = tensors(model)
    with pytest.raises(LoadError) as caught:
        load_parts(model, content)
    assert message in str(caught.value) and "parts=['backbone', …]" in str(caught.value)
    assert unchanged(model, before)
    assert load_parts(model, content, parts=("backbone",))["backbone"].applied


@pytest.mark.det
def test_a_neck_of_another_kind_is_left_alone_unless_it_was_asked_for():
    content, _ = pretrained()
    model = detector(neck=dict(type="PAFPN", add_extra_convs="on_input"))
    before = tensors(model.neck)
    reports = load_parts(model, content)
    assert str(reports["neck"]) == "neck: none loaded; the file has 12 tensors, of the type FPN, the model's is a PAFPN"
    assert reports["head"].applied and reports["backbone"].new == {"neck": len(before)}
    assert unchanged(model.neck, before)
    before = tensors(model)
    with pytest.raises(LoadError, match="of the type FPN, the model's is a PAFPN"):
        load_parts(model, content, parts=("neck",))
    decoder, _ = pretrained(dict(type="SumDecoder", out_channels=8), None)
    assert load_parts(detector(), decoder)["neck"].skipped.endswith("of the type SumDecoder, the model's is a FPN")


@pytest.mark.det
def test_what_the_file_lacks_is_named():
    content, _ = pretrained(head=None)
    assert list(load_parts(detector(), content)) == ["backbone", "neck"]
    with pytest.raises(LoadError, match=r"has no head; it has \['backbone', 'neck'\]"):
        load_parts(detector(), content, parts=("head",))
    with pytest.raises(ValueError, match=r"part 'necks' is unknown; did you mean neck\?"):
        load_parts(detector(), content, parts=("necks",))


@pytest.mark.det
def test_each_part_has_its_own_least_coverage():
    content, _ = pretrained()
    del content["state_dict"]["online.neck.fpn_convs.1.conv.bias"]
    model = detector()
    before = tensors(model)
    with pytest.raises(LoadError, match=r"fills 91\.7% of the neck, expected at least 100\.0%"):
        load_parts(model, content, min_coverage=dict(head=0.5))
    assert unchanged(model, before)
    report = load_parts(model, content, min_coverage=dict(neck=0.9))["neck"]
    assert report.missing == ["fpn_convs.1.conv.bias"] and report.loaded == 11 and report.expected == 12
