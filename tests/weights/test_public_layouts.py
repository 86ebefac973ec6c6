"""Every public layout, converted and loaded: names made the way their codes make them, a number of its own in every
tensor."""

import re
import runpy
from pathlib import Path

import pytest
import torch

from densessl.errors import ExportError
from densessl.finetune.load_hooks import LoadBackboneHook
from densessl.weights.export import export_backbone
from densessl.weights.io.checkpoints import load_weights
from densessl.weights.load import load_backbone, load_parts
from densessl.weights.read import by_our_names, open_checkpoint, parts_in, read_backbone
from tests.weights.cases import retinanet
from tests.weights.parts import detector, pretrained
from tests.weights.public import Case, in_state_dict, of_vissl
from tests.weights.public_cases import CASES
from tests.weights.vits import vitdet

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def detectors():
    return {depth: retinanet(depth, 8) for depth in (18, 50)}


def backbone_for(case: Case, detectors: dict[int, torch.nn.Module]) -> torch.nn.Module:
    return detectors[case.depth] if case.network == "resnet" else vitdet()


@pytest.mark.det
@pytest.mark.parametrize("name", CASES)
def test_a_public_file_fills_the_detectors_backbone(tmp_path, name, detectors, capsys):
    case = CASES[name]
    torch.save(case.content(), tmp_path / "public.pth.tar")
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    words = ["--backbone"] if name == "official detr" else []
    assert main([str(tmp_path / "public.pth.tar"), str(tmp_path / "new.pth"), *words]) == 0
    said = capsys.readouterr().out
    wanted = case.tensors(case.branch)
    assert f"layout of {case.layout}\n" in said and f"backbone ({len(wanted)}) of the {case.branch} branch" in said
    assert ("by default, of ['online', 'target']" in said) == (case.target is not None)

    model = backbone_for(case, detectors)
    for file in ("new.pth", "public.pth.tar"):  # what was converted, and the file itself
        for value in model.state_dict().values():
            value.zero_()
        report = load_backbone(model, tmp_path / file)
        assert report.coverage == 1 and not report.unexpected and not report.mismatched, str(report)
        loaded = getattr(model, "backbone", model).state_dict()
        assert all(torch.equal(loaded[key], wanted[key]) for key in loaded if "rel_pos" not in key)
        assert report.unused == ([] if case.network == "resnet" else ["cls_token", "norm.weight", "norm.bias"])
    _, fingerprint = read_backbone(tmp_path / "new.pth")
    assert {field: getattr(fingerprint, field) for field in case.facts} == case.facts
    left = re.search(r"left out: (.*)", said)[1]
    counts = sum(map(int, re.findall(r"\((\d+)\)", left)))
    others = (len(wanted) if case.target is not None else 0) + len(case.dropped)
    assert counts == others + (case.wrap in (in_state_dict, of_vissl))  # a tensor of the optimiser, or of a head


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.target is not None])
@pytest.mark.parametrize("branch", ["online", "target"])
def test_either_network_can_be_chosen(tmp_path, name, branch):
    case = CASES[name]
    torch.save(case.content(), tmp_path / "public.pth")
    state, _ = read_backbone(tmp_path / "public.pth", branch)
    wanted = case.tensors(branch)
    assert state.keys() == wanted.keys() and all(torch.equal(state[key], wanted[key]) for key in wanted)


def test_a_layout_is_found_whatever_the_order_of_names_and_the_wrapper_of_parallel_training():
    for case in CASES.values():
        state = open_checkpoint(case.content()).state
        for changed in (
            dict(reversed(state.items())),
            {f"module._orig_mod.{key}": value for key, value in state.items()},
        ):
            found = by_our_names(changed)
            assert (found.layout.name, found.branch) == (case.layout, case.branch)


@pytest.mark.det
def test_the_hook_of_a_stock_config_takes_public_files(tmp_path, detectors):
    from types import SimpleNamespace

    torch.save(CASES["dino"].content(), tmp_path / "dino.pth")
    lines, detector = [], detectors[50]
    runner = SimpleNamespace(iter=0, model=detector, logger=SimpleNamespace(info=lines.append))
    hook = LoadBackboneHook(str(tmp_path / "dino.pth"))
    hook.before_train(runner)
    assert (
        hook.report.summary.startswith("318/318 backbone tensors loaded; 0 unexpected") and not hook.report.unverified
    )
    assert torch.equal(detector.backbone.conv1.weight, CASES["dino"].tensors("target")["conv1.weight"])


def test_tools_export_takes_public_files(tmp_path, capsys):
    torch.save(CASES["moco v2"].content(), tmp_path / "moco.pth.tar")
    main = runpy.run_path(str(ROOT / "tools" / "export.py"))["main"]
    assert main([str(tmp_path / "moco.pth.tar"), str(tmp_path / "new.pth"), "--branch", "target"]) == 0
    written, wanted = load_weights(tmp_path / "new.pth"), CASES["moco v2"].tensors("target")
    assert {key.removeprefix("backbone.") for key in written} == wanted.keys()
    assert all(torch.equal(written[f"backbone.{key}"], value) for key, value in wanted.items())
    assert "target backbone" in capsys.readouterr().out


@pytest.mark.det
def test_an_export_keeps_a_neck_that_is_no_plain_pyramid(tmp_path):
    """Whose file it is, its fingerprint says; the names of this neck are also those of mmselfsup's."""
    content, online = pretrained(dict(type="mmdet.PAFPN", out_channels=8, num_outs=4), None)
    export_backbone(content, tmp_path / "new.pth")
    found = by_our_names(tmp_path / "new.pth")
    assert (found.layout.name, found.branch, found.branches) == ("densessl", "online", ("online",))
    neck, wanted = parts_in(tmp_path / "new.pth")["neck"], online.neck.state_dict()
    assert neck.keys() == wanted.keys() and all(torch.equal(neck[key], value) for key, value in wanted.items())
    model = detector(neck=dict(type="PAFPN", num_outs=4, start_level=0))
    reports = load_parts(model, tmp_path / "new.pth")
    assert [(name, report.loaded) for name, report in reports.items()] == [("backbone", 120), ("neck", len(wanted))]
    assert all(torch.equal(value, wanted[key]) for key, value in model.neck.state_dict().items())
    with pytest.raises(ExportError, match=r"has no 'target' backbone; its branches are \['online'\]"):
        by_our_names(tmp_path / "new.pth", "target")


def test_an_export_of_any_network_keeps_its_names(tmp_path):
    """A name that other libraries give a tensor of a ViT is that of another network in ours."""
    own = {"patch_embed.projection.weight": torch.ones(4, 3, 4, 4), "layers.0.ln1.weight": torch.ones(4)}
    content = dict(state_dict={f"online.backbone.{key}": value for key, value in own.items()})
    for to, name in (("mmdet", "new.pth"), ("safetensors", "new.safetensors")):
        export_backbone(content, tmp_path / name, to)
        state, fingerprint = read_backbone(tmp_path / name)
        assert state.keys() == own.keys() and all(torch.equal(state[key], value) for key, value in own.items())
        assert fingerprint.arch == "other"


@pytest.mark.det
def test_what_ccop_pretrains_of_the_pyramid_comes_along(tmp_path):
    from tests.weights.public import detectron2, resnet

    state = {f"backbone_q.bottom_up.{detectron2(key)}": value for key, value in resnet().items()}
    state |= {f"backbone_k.bottom_up.{detectron2(key)}": value for key, value in resnet(1000).items()}
    model = retinanet(50, 8)
    pyramid = {key: torch.full_like(value, i) for i, (key, value) in enumerate(model.neck.state_dict().items())}
    for key, value in pyramid.items():
        block, number, _, kind = key.split(".")
        name = f"fpn_{'lateral' if block == 'lateral_convs' else 'output'}{int(number) + 2}"
        if int(number) < 4:
            state[f"backbone_q.{name}.{kind}"] = value
    state |= {"img_neck_q.mlp.linear_1.0.weight": torch.ones(2), "iter": torch.ones(1), "pixel_mean": torch.ones(3)}
    torch.save(dict(state_dict=state), tmp_path / "ccop.pth")
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    assert main([str(tmp_path / "ccop.pth"), str(tmp_path / "new.pth")]) == 0
    reports = load_parts(model, tmp_path / "new.pth")
    assert [report.coverage for report in reports.values()] == [1, 1] and list(reports) == ["backbone", "neck"]
    loaded = model.neck.state_dict()
    fpn = [key for key in pyramid if not key.startswith("fpn_convs.4")]
    assert len(fpn) == 16 and all(torch.equal(loaded[key], pyramid[key]) for key in fpn)
