"""Official checkpoints of DETRs become files for MMDetection; whole-model runs have verified the name maps in data."""

import argparse
import json
import re
import runpy
from pathlib import Path

import pytest
import torch
from torch import nn

from densessl.branches.resnet import ResNet
from densessl.errors import ExportError, LoadError
from densessl.weights.detector.convert import coco_rows, convert_detector
from densessl.weights.detector.load import load_detector
from densessl.weights.detector.official_names import FAMILIES, family_of, renamed
from densessl.weights.detector.stock import build_detector
from densessl.weights.io.checkpoints import load_weights

ROOT = Path(__file__).parents[2]
KEYMAPS = {path.stem: json.loads(path.read_text()) for path in sorted((ROOT / "tests/data/golden/keymaps").glob("*"))}
# Whose names they are, and what MMDetection's detector needs for it, beside what makes it small.
CASES = {
    "detr": ("detr", {}),
    "updetr_post": ("detr", {}),
    "detreg_detr": ("detreg-detr", {"positional_encoding": {"offset": -0.5}}),
    "conditional": ("conditional", {}),
    "dab": ("dab", {}),
    "deformable": ("deformable", {"neck": {"bias": True}}),
    "detreg_def": ("deformable", {"neck": {"bias": True}}),
    "deformable_refine": ("deformable-refine", {"neck": {"bias": True}}),
    "deformable_twostage": ("deformable-twostage", {"neck": {"bias": True}}),
    "dino": ("dino", {"neck": {"bias": True}, "type": "densessl.DINO33"}),
}
CLASS = ("bbox_head.fc_cls", "bbox_head.cls_branches", "dn_query_generator")


@pytest.mark.parametrize("name", KEYMAPS)
def test_every_name_of_the_official_codes(name):
    rows = KEYMAPS[name]
    family = family_of(official for official, _, _ in rows)
    expected = CASES.get(name, ("detreg-detr" if name.startswith("detreg") else "detr", {}))[0]
    assert len(rows) > 450 and family == expected
    assert {official: renamed(official, family) for official, _, _ in rows} == {row[0]: row[1] for row in rows}


def small_config(config: str, settings: dict, folder: Path) -> str:
    """One encoder and two decoder layers on a ResNet-18, the official 91 classes."""
    levels = [128, 256, 512] if re.search("deformable|dino", config) else [512]
    small = {
        "backbone": {"init_cfg": None, "depth": 18},
        "neck": {"in_channels": levels, **settings.get("neck", {})},
        "encoder": {"num_layers": 1, "layer_cfg": {"ffn_cfg": {"feedforward_channels": 64}}},
        "decoder": {"num_layers": 2, "layer_cfg": {"ffn_cfg": {"feedforward_channels": 64}}},
        "bbox_head": {"num_classes": 91},
        "num_queries": 20,
    }
    text = f"_base_ = {config!r}\ncustom_imports = dict(imports=['densessl.detectors'])\nmodel = {settings | small}\n"
    (folder / "official.py").write_text(text)
    return str(folder / "official.py")


def official(name: str, detector: nn.Module) -> dict[str, torch.Tensor]:
    """A detector's tensors by official names, as the map in data has them, with heads of pretraining and duplicates."""
    inverse = {mmdet: theirs for theirs, mmdet, _ in KEYMAPS[name] if mmdet}
    tensors = {}
    for key, value in detector.state_dict().items():
        # The map is that of six layers: the encoder's heads are the seventh.
        key = re.sub(r"(bbox_head\.\w+_branches)\.2\.", r"\1.6.", key) if name == "dino" else key
        if not key.endswith("num_batches_tracked"):
            tensors[inverse[key]] = value.clone()
    dropped = [theirs for theirs, mmdet, _ in KEYMAPS[name] if mmdet is None]
    return tensors | {theirs: torch.zeros(1) for theirs in dropped}


def states(detector: nn.Module) -> torch.Tensor:
    from mmdet.structures import DetDataSample

    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    shapes = [dict(img_shape=shape, batch_input_shape=(64, 64)) for shape in ((64, 64), (64, 40))]
    detector.eval()
    with torch.no_grad():
        maps = detector.extract_feat(images)
        return detector.forward_transformer(maps, [DetDataSample(metainfo=info) for info in shapes])["hidden_states"]


def checkpoint(name: str, folder: Path) -> tuple[nn.Module, Path]:
    """A detector with weights of its own, and the file its official counterpart would have left."""
    torch.manual_seed(0)
    family, settings = CASES[name]
    detector = build_detector(small_config(FAMILIES[family].config, settings, folder))
    with torch.no_grad():
        for key, value in detector.state_dict().items():
            if key == "level_embed":  # memory as it was found, until weights are initialised
                value.zero_()
            if value.is_floating_point():
                value += 0.1 * torch.rand_like(value) if "running_var" in key else 0.1 * torch.randn_like(value)
    left = dict(
        model=official(name, detector),
        optimizer=dict(state={0: dict(step=3)}, param_groups=[dict(lr=1e-4)]),
        epoch=4,
        args=argparse.Namespace(lr=1e-4, dilation=False, masks=None, backbone="resnet50"),
    )
    torch.save(left, folder / "official.pth")
    return detector, folder / "official.pth"


@pytest.mark.det
@pytest.mark.parametrize("name", CASES)
def test_the_converted_detector_computes_what_the_official_did(tmp_path, name, capsys):
    detector, path = checkpoint(name, tmp_path)
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    levels = "128,256,512" if "neck.bias" in FAMILIES[CASES[name][0]].options else "512"
    assert main([str(path), str(tmp_path / "new"), "--options", f"neck.in_channels=[{levels}]", "num_queries=20"]) == 0
    said = capsys.readouterr().out
    converted = build_detector(str(tmp_path / "new.py"))
    untouched = {key: value.clone() for key, value in converted.state_dict().items()}
    report = load_detector(converted, tmp_path / "new.pth")
    assert report.summary in said and "not verified" not in said
    theirs = detector.state_dict()
    for key, value in converted.state_dict().items():
        wanted = untouched if key.startswith(CLASS) or key.endswith("num_batches_tracked") else theirs
        assert torch.equal(value, wanted[key]), key
    assert sum(report.new.values()) == sum(key.startswith(CLASS) for key in theirs) > 0
    for key, value in converted.state_dict().items():  # which pick the queries in two stages
        if key.startswith("bbox_head.cls_branches") and name in ("deformable_twostage", "dino"):
            value[0], value[1:] = theirs[key][0], theirs[key][0] if name == "dino" else value[1:]
            theirs[key][1:] = theirs[key][0] if name == "dino" else theirs[key][1:]
    before, after = states(detector), states(converted)
    assert before.std() > 0.1 and torch.equal(before, after)


@pytest.mark.det
@pytest.mark.parametrize("name", ["detr", "dino"])
def test_classes_of_coco_come_along_in_mmdetections_order(tmp_path, name):
    detector, path = checkpoint(name, tmp_path)
    weights = torch.load(path, weights_only=False)["model"]
    if name == "dino":  # whose label embedding has a row for no label
        weights["label_enc.weight"] = torch.cat([weights["label_enc.weight"], torch.zeros(1, 256)])
    torch.save(dict(model=weights), path)
    levels = [128, 256, 512] if name == "dino" else [512]
    report = convert_detector(path, tmp_path / "new", coco_classes=True, options={"neck.in_channels": levels})
    assert not report.new and report.loaded == report.expected
    written = load_weights(tmp_path / "new.pth")
    theirs = detector.state_dict()
    rows = {key for key in written if key.startswith(CLASS)}
    assert len(rows) == (7 if name == "dino" else 2)
    for key in rows:
        assert len(written[key]) == (81 if name == "detr" else 80)
        # By COCO's own ids: person 1, stop sign 13, bottle 44, toothbrush 90.
        for row, number in ((0, 1), (11, 13), (39, 44), (79, 90)):
            assert torch.equal(written[key][row], theirs[key][number])
        assert name == "dino" or torch.equal(written[key][80], theirs[key][91])


def test_the_rows_are_cocos_classes_by_name():
    from mmdet.datasets import CocoDataset

    names = CocoDataset.METAINFO["classes"]
    ids = dict(zip(names, coco_rows("bbox_head.cls_branches.0.bias", torch.arange(91)).tolist()))
    runs = [(1, 11), (13, 25), (27, 28), (31, 44), (46, 65), (67, 67), (70, 70), (72, 82), (84, 90)]
    assert list(ids.values()) == [number for first, last in runs for number in range(first, last + 1)]
    told = dict(person=1, umbrella=28, handbag=31, tie=32, bottle=44, toilet=70, tv=72, refrigerator=82, book=84)
    told |= {"fire hydrant": 11, "stop sign": 13, "dining table": 67, "hair drier": 89, "toothbrush": 90}
    assert {name: ids[name] for name in told} == told
    with pytest.raises(ExportError, match=r"fc_cls.bias has 3 rows, expected 91 or 92"):
        coco_rows("bbox_head.fc_cls.bias", torch.arange(3))


@pytest.mark.parametrize("name", ["detr_prenorm", "updetr_pre", "detreg_detr_pre"])
def test_pre_norm_transformers_are_refused(tmp_path, name):
    torch.save(dict(model={theirs: torch.zeros(1) for theirs, _, _ in KEYMAPS[name]}), tmp_path / "a.pth")
    with pytest.raises(ExportError, match=r"transformer\.encoder\.norm\.weight.*pre-norm.*compute something else"):
        convert_detector(tmp_path / "a.pth", tmp_path / "new")
    assert not list(tmp_path.glob("new*"))


@pytest.mark.det
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda weights: weights.update({"mask_head.weight": torch.zeros(1)}), r"unexpected \(1\): mask_head\.weight"),
        (lambda weights: weights.pop("input_proj.bias"), r"missing \(1\): neck\.convs\.0\.conv\.bias"),
        (
            lambda weights: weights.update({"input_proj.bias": torch.zeros(3)}),
            r"of another shape \(1\): neck\.convs\.0\.conv\.bias: found \(3,\), expected \(256,\)",
        ),
    ],
    ids=["unexpected", "missing", "mismatched"],
)
def test_what_does_not_fit_is_named_and_nothing_is_written(tmp_path, change, message):
    _, path = checkpoint("detr", tmp_path)
    weights = torch.load(path, weights_only=False)["model"]
    change(weights)
    torch.save(dict(model=weights), path)
    with pytest.raises(LoadError, match=message):
        convert_detector(path, tmp_path / "new", options={"neck.in_channels": [512]})
    assert not list(tmp_path.glob("new*"))


def test_a_file_of_no_known_family_is_refused_with_the_families(tmp_path):
    torch.save(dict(model={"encoder.weight": torch.zeros(1)}), tmp_path / "a.pth")
    with pytest.raises(ExportError, match=r"no family known here, \['dino', .*'detr'\]; it has \['encoder.weight'\]"):
        convert_detector(tmp_path / "a.pth", tmp_path / "new")


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--to", "timm", "--branch", "online"], r"--to, --branch: .*a\.pth holds a whole detector; --backbone takes"),
        (["--backbone", "--coco-classes"], r"--coco-classes: .*a\.pth holds a backbone, and these are for DETRs"),
    ],
)
def test_words_for_the_other_kind_of_file_are_refused(tmp_path, words, message, capsys):
    torch.save(dict(model={theirs: torch.zeros(1) for theirs, _, _ in KEYMAPS["detr"]}), tmp_path / "a.pth")
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    assert main([str(tmp_path / "a.pth"), str(tmp_path / "new"), *words]) == 2
    assert re.search(message, capsys.readouterr().err) and not list(tmp_path.glob("new*"))


def test_the_backbone_of_a_detector_alone(tmp_path, capsys):
    """Also where the transformer has pre-norm layers, with which the whole is refused."""
    own = ResNet(50, width=8).state_dict()
    state = {f"backbone.0.body.{key}": value for key, value in own.items() if not key.endswith("num_batches_tracked")}
    state |= {theirs: torch.zeros(1) for theirs, _, _ in KEYMAPS["updetr_pre"] if not theirs.startswith("backbone.")}
    torch.save(dict(model=state), tmp_path / "updetr.pth")
    main = runpy.run_path(str(ROOT / "tools" / "convert.py"))["main"]
    assert main([str(tmp_path / "updetr.pth"), str(tmp_path / "new.pth")]) == 2
    assert main([str(tmp_path / "updetr.pth"), str(tmp_path / "new.pth"), "--backbone"]) == 0
    assert "layout of the official code of a DETR" in (said := capsys.readouterr().out) and "transformer (" in said
    written = load_weights(tmp_path / "new.pth")
    assert all(torch.equal(written[f"backbone.{key}"], value) for key, value in own.items())
