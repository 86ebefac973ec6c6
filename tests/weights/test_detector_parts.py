"""Necks and head convolutions from a pretraining into MMDetection. Refusals: test_refused_parts.py."""

import logging
import runpy
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from densessl.branches import build_branch
from densessl.engine.export_hook import ExportHook
from densessl.errors import ExportError
from densessl.finetune.load_hooks import LoadBackboneHook
from densessl.weights.detector.stock import build_detector
from densessl.weights.equality import part_differences
from densessl.weights.export import export_backbone
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.load import load_backbone, load_parts
from densessl.weights.read import parts_in
from tests.objectives.toy import toy_model
from tests.weights.cases import NORMALIZE, lived_in
from tests.weights.parts import (
    BACKBONE,
    GN,
    HEAD,
    NECK,
    RETINANET,
    TOOL,
    detector,
    faster_rcnn,
    pretrained,
    tensors,
    unchanged,
)


@pytest.mark.det
@pytest.mark.parametrize(("kind", "norm"), [("RetinaNet", None), ("FCOS", GN)])
def test_a_one_stage_detector_gets_all_three_parts_and_computes_the_same(tmp_path, kind, norm):
    content, branch = pretrained(head=dict(HEAD, norm_cfg=norm))
    export_backbone(content, tmp_path / "a.pth")
    extra = dict(neck=dict(add_extra_convs="on_output"), head=dict(norm_cfg=norm)) if norm else {}
    model = detector(kind, **extra)
    reports = load_parts(model, tmp_path / "a.pth")
    count = 12 if norm else 8
    new = "conv_cls: 2 new; conv_reg: 2 new; conv_centerness: 2 new; scales: 5 new"
    assert [report.summary for report in reports.values()] == [
        "120/120 backbone tensors loaded; 0 unexpected",
        "12/12 neck tensors loaded; 0 unexpected; fpn_convs.3: 2 new; fpn_convs.4: 2 new",
        f"{count}/{count} bbox_head tensors loaded; 0 unexpected; "
        + (new if norm else "retina_cls: 2 new; retina_reg: 2 new"),
    ]
    assert list(reports) == ["backbone", "neck", "head"]
    assert all(str(report) == report.summary for report in reports.values()), "nothing was left unverified"

    model.eval(), branch.eval()
    images = torch.randn(2, 3, 72, 100, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        ours, theirs = branch(images, head=True), model.neck(model.backbone(images))
        assert len(ours.neck) == 3 and all(torch.equal(a, b) for a, b in zip(ours.neck, theirs))
        for tower, maps in ours.head.items():
            for mine, item in zip(maps, theirs):
                for block in getattr(model.bbox_head, f"{tower}_convs"):
                    item = block(item)
                assert torch.equal(mine, item)
    levels = [f"{part}.{i}" for part in ("neck", "cls", "reg") for i in range(3)]
    assert part_differences(model, content) == dict.fromkeys(levels, 0.0)
    assert part_differences(model, tmp_path / "a.pth") == dict.fromkeys(levels, 0.0)
    assert min(part_differences(model, content, branch="target").values()) > 1e-3
    assert list(part_differences(model, content, parts=("neck",))) == levels[:3]
    assert part_differences(model, content, parts=()) is None
    model.bbox_head.reg_convs[1].conv.weight.data[0] += 0.1
    assert [level for level, value in part_differences(model, content).items() if value] == levels[6:]


@pytest.mark.det
def test_the_other_branch_and_only_some_parts():
    content, _ = pretrained()
    model = detector()
    before = tensors(model)
    reports = load_parts(model, content, branch="target", parts=("neck",))
    assert list(reports) == ["backbone", "neck"]
    assert reports["backbone"].summary.endswith("0 unexpected; bbox_head: 12 new")
    for key, value in model.state_dict().items():
        source = content["state_dict"].get(f"target.{key}")
        assert torch.equal(value, before[key] if source is None else source), key
    assert load_backbone(detector(), content).summary.endswith("; neck: 16 new; bbox_head: 12 new")


@pytest.mark.det
def test_a_pyramid_of_four_stages_fills_a_faster_rcnns():
    """The fifth output there is pooled and has no weights; the pretrained towers have no place."""
    content, _ = pretrained(dict(type="FPN", out_channels=8))
    model = faster_rcnn()
    reports = load_parts(model, content)
    assert reports["neck"].summary == "16/16 neck tensors loaded; 0 unexpected"
    none = "the file has 8 tensors, the model has none of the names cls_convs and reg_convs"
    assert str(reports["head"]) == f"bbox_head: none loaded; {none}"
    assert not reports["head"].applied
    assert reports["backbone"].summary.endswith("0 unexpected; rpn_head: 6 new; roi_head: 8 new")
    assert part_differences(model, content, parts=("neck",)) == {f"neck.{i}": 0.0 for i in range(4)}


@pytest.mark.det
def test_towers_that_make_proposals_are_loaded():
    content, _ = pretrained(head=dict(HEAD, norm_cfg=GN))
    whole = detector("FCOS", head=dict(norm_cfg=GN))
    model = nn.Module()
    model.backbone, model.neck, model.rpn_head = whole.backbone, whole.neck, whole.bbox_head
    reports = load_parts(model, content)
    assert reports["head"].summary.startswith("12/12 rpn_head tensors loaded; 0 unexpected; conv_cls: 2 new")
    assert "rpn_head" not in reports["backbone"].new
    assert not any(part_differences(model, content).values())


@pytest.mark.det
def test_one_tower_alone():
    content, _ = pretrained(head=dict(HEAD, towers=("cls",)))
    model = detector()
    before = tensors(model.bbox_head.reg_convs)
    report = load_parts(model, content)["head"]
    assert report.summary == (
        "4/4 bbox_head tensors loaded; 0 unexpected; reg_convs: 4 new; retina_cls: 2 new; retina_reg: 2 new"
    )
    assert unchanged(model.bbox_head.reg_convs, before)
    assert set(part_differences(model, content)) == {f"{part}.{i}" for part in ("neck", "cls") for i in range(3)}


@pytest.mark.det
def test_extra_levels_that_were_pretrained_are_loaded_too():
    content, _ = pretrained(dict(NECK, **RETINANET))
    model = detector()
    report = load_parts(model, content)["neck"]
    assert report.summary == "16/16 neck tensors loaded; 0 unexpected"
    found = part_differences(model, content)
    assert [level for level in found if level.startswith("neck")] == [f"neck.{i}" for i in range(5)]
    assert not any(found.values())
    fewer = load_parts(detector(neck=dict(num_outs=3)), content)["neck"]
    assert fewer.loaded == fewer.expected == 12 and len(fewer.unexpected) == 4


@pytest.mark.det
def test_a_detectors_own_weights_can_be_the_source():
    """A file of unknown origin: no configs, so what tensors do not tell stays unverified."""
    source = detector("FCOS", head=dict(norm_cfg=GN))
    model = detector("FCOS", head=dict(norm_cfg=GN))
    reports = load_parts(model, source.state_dict())
    assert reports["neck"].loaded == 16 and reports["neck"].unverified == ["extra"]
    assert reports["head"].loaded == 12 and reports["head"].unverified == ["eps", "groups"]
    assert "conv_cls.weight" not in reports["head"].unexpected
    assert part_differences(model, source.state_dict()) is None


def test_the_file_has_the_parts_by_mmdetections_names_and_says_what_they_are(tmp_path):
    content, branch = pretrained()
    for parts in (None, ("neck",), ("backbone",)):
        export_backbone(content, tmp_path / "a.pth", parts=parts)
        written = torch.load(tmp_path / "a.pth", weights_only=True)
        names = {"backbone": "backbone", "neck": "neck", "head": "bbox_head"}
        kept = [part for part in names if parts is None or part in ("backbone", *parts)]
        told = written["meta"]["parts"]
        assert list(told) == kept and all(
            told[part]["type"] == content["meta"]["densessl"][part]["type"] for part in kept
        )
        expected = {
            f"{names[part]}.{key}": value for part in kept for key, value in getattr(branch, part).state_dict().items()
        }
        assert written["state_dict"].keys() == expected.keys()
        assert all(torch.equal(written["state_dict"][key], value) for key, value in expected.items())
        assert list(parts_in(tmp_path / "a.pth")) == kept[1:]
    with pytest.raises(ExportError, match=r"parts: found \['head'\], .* has \['backbone', 'neck'\]"):
        export_backbone(pretrained(head=None)[0], tmp_path / "a.pth", parts=("head",))
    content["state_dict"]["online.head.cls_convs.0.conv.bias"][0] = float("inf")
    with pytest.raises(ExportError, match=r"NaN or infinity in 1 tensor, first 'bbox_head\.cls_convs\.0\.conv\.bias'"):
        export_backbone(content, tmp_path / "b.pth")
    export_backbone(content, tmp_path / "b.pth", parts=("neck",))


def test_the_hook_writes_the_parts_at_the_end_of_a_run(tmp_path):
    objective = dict(type="PixPro", hidden=8, dim=4, level="cls.0")
    model = toy_model([objective], neck=dict(type="FPN", out_channels=8), head=dict(HEAD, towers=("cls",)))
    runner = SimpleNamespace(rank=0, model=model, work_dir=tmp_path, logger=logging.getLogger("densessl.test"))
    ExportHook().after_train(runner)
    found = parts_in(tmp_path / "backbone.pth")
    assert list(found) == ["neck", "head"]
    for part, state in found.items():
        own = getattr(model.online, part).state_dict()
        assert state.keys() == own.keys() and all(torch.equal(state[key], value) for key, value in own.items())
    saved = {"meta": {}}
    ExportHook().before_save_checkpoint(runner, saved)
    assert saved["meta"]["densessl"]["neck"] == dict(type="FPN", out_channels=8)


def test_torchvisions_format_has_the_backbone_only(tmp_path, capsys):
    content, _ = pretrained()
    told = content["meta"]["densessl"]
    told["backbone"] = dict(BACKBONE, width=64)
    wide = build_branch(told)
    content["state_dict"] = {f"online.{key}": value for key, value in wide.state_dict().items()}
    save_checkpoint(tmp_path / "epoch_1.pth", content)
    main = runpy.run_path(str(TOOL))["main"]
    assert main([str(tmp_path / "epoch_1.pth"), str(tmp_path / "tv.pth"), "--to", "torchvision"]) == 0
    assert torch.load(tmp_path / "tv.pth", weights_only=True).keys() == wide.backbone.state_dict().keys()
    said = capsys.readouterr().out
    assert "left out: online neck, 12 tensors" in said and "left out: online head, 8 tensors" in said
    assert main([str(tmp_path / "epoch_1.pth"), str(tmp_path / "a.pth"), "--parts", "neck"]) == 0
    said = capsys.readouterr().out
    assert "also online neck, 12 tensors" in said and "left out: online head, 8 tensors" in said


@pytest.mark.det
def test_the_detectors_hook_loads_the_parts_and_can_leave_them(tmp_path, caplog):
    content, _ = pretrained()
    export_backbone(content, tmp_path / "a.pth")
    for parts, expected in ((None, ["backbone", "neck", "head"]), (["backbone"], ["backbone"])):
        model = detector()
        before = tensors(model.neck)
        runner = SimpleNamespace(iter=0, model=model, logger=logging.getLogger("densessl.test"))
        hook = LoadBackboneHook(str(tmp_path / "a.pth"), parts=parts)
        caplog.clear()
        with caplog.at_level(logging.INFO):
            hook.before_train(runner)
        assert list(hook.reports) == expected and hook.report is hook.reports["backbone"]
        assert ("12/12 neck tensors loaded" in caplog.text) == (parts is None)
        assert unchanged(model.neck, before) == (parts is not None)


@pytest.mark.det
def test_the_published_config_goes_into_a_stock_retinanet(tmp_path, capsys):
    from densessl.configs import load_config

    online = load_config(str(TOOL.parents[1] / "configs" / "pixpro_r50_fpn.py")).model.online.to_dict()
    branch = lived_in(build_branch(online), 0)
    state = {f"online.{key}": value for key, value in branch.state_dict().items()}
    told = {**online, "normalize": NORMALIZE}
    save_checkpoint(tmp_path / "epoch_1.pth", {"state_dict": state, "meta": {"densessl": told}})
    main = runpy.run_path(str(TOOL))["main"]
    stock = "mmdet::retinanet/retinanet_r50_fpn_1x_coco.py"
    assert main([str(tmp_path / "epoch_1.pth"), str(tmp_path / "r50.pth"), "--into", stock]) == 0
    said = capsys.readouterr().out
    assert f"{stock}: 318/318 backbone tensors loaded; 0 unexpected\n" in said
    assert f"{stock}: 12/12 neck tensors loaded; 0 unexpected; fpn_convs.3: 2 new; fpn_convs.4: 2 new\n" in said
    assert f"{stock}: 16/16 bbox_head tensors loaded; 0 unexpected; retina_cls: 2 new; retina_reg: 2 new\n" in said
    assert "features: equal bit for bit" in said and "'neck.2': 0.0" in said and "'reg.2': 0.0" in said


@pytest.mark.det
def test_the_small_config_has_the_parts_of_the_small_detector():
    from densessl.configs import load_config

    configs = TOOL.parents[1] / "configs"
    online = load_config(str(configs / "small" / "pixpro_r18_fpn.py")).model.online.to_dict()
    branch = build_branch(online)
    content = {"state_dict": {f"online.{key}": value for key, value in branch.state_dict().items()}}
    content["meta"] = {"densessl": {**online, "normalize": NORMALIZE}}
    model = build_detector(str(configs / "transfer" / "voc" / "retinanet_r18_256_voc.py"))
    reports = load_parts(model, content)
    assert list(reports) == ["backbone", "neck", "head"]
    assert all(report.coverage == 1 and not report.unverified for report in reports.values())
    assert not any(part_differences(model, content).values())
