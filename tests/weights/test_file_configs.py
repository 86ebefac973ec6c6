"""A file runs nothing: every place of a file where a config can stand, through every reader that builds from one."""

import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from densessl.branches.fpn import FPN
from densessl.branches.resnet import ResNet
from densessl.configs import load_config
from densessl.errors import CheckpointError, UnsafeCheckpointError
from densessl.insight.checkpoints import load_backbones
from densessl.weights.detector.export import config_text, export_detector
from densessl.weights.detector.load import load_detector
from densessl.weights.detector.stock import build_detector
from densessl.weights.equality import feature_differences, part_differences
from densessl.weights.export import convert_backbone, export_backbone
from densessl.weights.file_configs import checked, checked_options
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.load import load_parts

pytestmark = pytest.mark.det

CANARY = "CANARY"
DETR = "mmdet::detr/detr_r50_8xb2-150e_coco.py"
BACKBONE = dict(type="ResNet", depth=18, width=8)
NECK = dict(type="FPN", out_channels=8)
# Modules by the names of registered classes, too: MMEngine imports a name that it does not find in a registry.
REGISTERED = ("Constant", "SplitBN", "HungarianAssigner")
PLANTED = ("planted", "planted_config", "HungarianAssignee", *REGISTERED)


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    """An own folder, on the import path, with programs that leave a file when run or imported. None may be left."""
    program = f"open({str(tmp_path / CANARY)!r}, 'w')\nmodel = dict(type='DETR')\n"
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(program)
    (tmp_path / "scope").mkdir()
    for name in ("__init__", "registry"):
        (tmp_path / "scope" / f"{name}.py").write_text(program)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    left = [name for name in ("scope", *PLANTED) if sys.modules.pop(name, None)]
    assert not (tmp_path / CANARY).exists() and not left


def call() -> dict:
    return dict(type="subprocess.getoutput", cmd=f"touch {Path.cwd() / CANARY}")


# What a file may carry in place of a config of a part, by what it tries.
PAYLOADS = {
    "a function by its dotted name": lambda good: call(),
    "a module by its name": lambda good: dict(type="planted"),
    "a name of a module of timm's form": lambda good: dict(type="timm.planted.x"),
    "another scope": lambda good: dict(good, _scope_="scope"),
    "a scope in the name": lambda good: dict(good, type="scope.ResNet"),
    "a norm": lambda good: dict(good, norm_cfg=call()),
    "a layer deep inside": lambda good: dict(type="mmdet.ResNet", depth=18, plugins=[dict(cfg=call(), position="a")]),
    "weights to load": lambda good: dict(
        type="mmdet.ResNet", depth=18, init_cfg=dict(type="Pretrained", checkpoint="planted.py")
    ),
    "weights to load, by the older name": lambda good: dict(type="mmdet.ResNet", depth=18, pretrained="planted"),
    "a teacher's config": lambda good: dict(
        type="mmdet.KnowledgeDistillationSingleStageDetector", teacher_config="planted_config"
    ),
    "a class itself": lambda good: dict(good, type=["planted"]),
    "no dict": lambda good: "planted",
}


def checkpoint(part: str, payload) -> dict:
    backbone, neck = ResNet(depth=18, width=8), FPN([8, 16, 32, 64], 8)
    state = {f"online.backbone.{key}": value for key, value in backbone.state_dict().items()}
    state |= {f"online.neck.{key}": value for key, value in neck.state_dict().items()}
    configs = dict(backbone=BACKBONE, neck=NECK, normalize=None)
    return dict(state_dict=state, meta=dict(densessl=configs | {part: payload(configs[part])}))


class Detector(nn.Module):
    """With a backbone and a neck that take the weights."""

    def __init__(self):
        super().__init__()
        self.backbone, self.neck = ResNet(depth=18, width=8), FPN([8, 16, 32, 64], 8)


READERS = {
    "look": lambda file: load_backbones(file),
    "export": lambda file: export_backbone(file, "o.pth"),
    "export an export": lambda file: (export_backbone(file, "o.pth"), feature_differences(ResNet(18), "o.pth")),
    "to torchvision": lambda file: export_backbone(file, "o.pth", "torchvision"),
    "to timm": lambda file: export_backbone(file, "o.pth", "timm"),
    "to detectron2": lambda file: export_backbone(file, "o.pkl", "detectron2"),
    "to safetensors": lambda file: (
        export_backbone(file, "o.safetensors", "safetensors"),
        feature_differences(ResNet(18), "o.safetensors"),
    ),
    "to onnx": lambda file: export_backbone(file, "o.onnx", "onnx"),
    "to a whole detector": lambda file: export_detector(file, "o"),
    "convert": lambda file: convert_backbone(file, "o.pth"),
    "load": lambda file: load_parts(Detector(), file),
    "compare features": lambda file: feature_differences(ResNet(18), file),
    "compare parts": lambda file: part_differences(Detector(), file),
}
BUILDS = ("look", "export an export", "to safetensors", "to onnx", "compare features")


@pytest.mark.parametrize("part", ["backbone", "neck"])
@pytest.mark.parametrize("tried", PAYLOADS)
def test_no_reader_runs_what_a_part_of_a_checkpoint_names(tried, part, folder):
    save_checkpoint("c.pth", checkpoint(part, PAYLOADS[tried]))
    for name, read in READERS.items():
        if part == "neck" and name == "to onnx":
            continue  # which has no neck, and takes seconds
        if part == "backbone" and name in BUILDS:
            with pytest.raises(UnsafeCheckpointError):
                read("c.pth")
        else:
            try:
                read("c.pth")
            except (ValueError, RuntimeError):  # whatever it says; that nothing was run is what the fixture looks at
                continue
        assert not (folder / CANARY).exists(), name


# Those that a class would load or evaluate, or that are registered as something else. One reader will do.
SUBTLE = {
    "an initialiser": dict(type="Constant", val=1),
    "a utility": dict(type="mmdet.HungarianAssigner", match_costs=[]),
    "weights to fetch": dict(type="timm.resnet18", pretrained=True),
    "weights to load, in letters that Python reads as ASCII": {
        "type": "timm.resnet18",
        "chec\uff4bpoint_path": "planted",
    },
    "a language model": dict(type="mmdet.BertModel", name="planted"),
    "a head's language model": dict(
        type="mmdet.ATSSVLFusionHead", lang_model_name="planted", num_classes=1, in_channels=1
    ),
    "another library's detector": dict(type="mmdet.Detectron2Wrapper", detector=dict(MODEL=dict(WEIGHTS="planted"))),
    "an expression": dict(BACKBONE, norm_cfg=dict(type="mmdet.CameraMotionCompensation", warp_mode="planted")),
}


@pytest.mark.parametrize("tried", SUBTLE)
def test_no_class_is_given_what_it_would_load(tried):
    save_checkpoint("c.pth", checkpoint("backbone", lambda good: SUBTLE[tried]))
    with pytest.raises(UnsafeCheckpointError):
        load_backbones("c.pth")


@pytest.mark.parametrize("name", ["Constant", "SplitBN"])
def test_a_class_of_another_registry_is_not_imported_as_a_module(name):
    backbone = dict(type="mmdet.ResNet", depth=18, norm_cfg=dict(type=name))
    save_checkpoint("c.pth", checkpoint("backbone", lambda good: backbone))
    for read in (READERS[reader] for reader in ("look", "export an export", "compare features")):
        with pytest.raises(CheckpointError, match="cannot be built"):
            read("c.pth")


def detector_file(**told) -> dict:
    state = {f"detector.{key}": value for key, value in ResNet(depth=18, width=8).state_dict().items()}
    return dict(state_dict=state, meta=dict(densessl=dict(detector=DETR, options={}) | told))


@pytest.mark.parametrize(
    "told",
    [
        dict(detector="planted_config.py"),
        dict(detector="./planted_config.py"),
        dict(detector="mmdet::../../../../../../../planted_config"),
        dict(detector="mmdet::detr/../../../planted_config"),
        dict(detector="scope::detr/detr_r50"),
        dict(detector=dict(type="planted")),
        dict(options={"backbone": "CALL"}),
        dict(options={"type": "planted"}),
        dict(options={"encoder.type": "subprocess.getoutput"}),
        dict(options={"backbone.norm_cfg": "CALL"}),
        dict(options={"backbone.norm_cfg.type": "planted"}),
        dict(options={"bbox_head.loss_cls": {"type": "HungarianAssignee"}}),
        dict(options={"train_cfg.assigner": "CALL"}),
        dict(options={"backbone.init_cfg": dict(type="Pretrained", checkpoint="planted.py")}),
        dict(options={"_scope_": "scope"}),
        dict(options={"x=open('CANARY', 'w'))\ny = dict(z": 1}),
        dict(options={"backbone.style": "{{ fileDirname }}"}),
        dict(options={"backbone.style": "{{$HOME:}}"}),
        dict(options={"teacher_config": "planted_config.py"}),
        dict(options={"no_such_argument": 1}),
        dict(options={"train_cfg.lambda": 1}),
        dict(options={"lambda": 1}),
        dict(options={"train_cfg.assigner": dict(type="Constant", val=1)}),
        dict(options={"bbox_head.loss_cls.type": "HungarianAssigner"}),
        dict(options={"backbone.p\uff52etrained": 1}),
        dict(options=["planted"]),
    ],
    ids=str,
)
def test_no_detector_s_config_is_run(told):
    if "CALL" in str(told):
        told = {"options": {key: call() for key in told["options"]}}
    save_checkpoint("d.pth", detector_file(**told))
    with pytest.raises(UnsafeCheckpointError):
        export_detector("d.pth", "o")
    main = runpy.run_path(str(Path(__file__).parents[2] / "tools/export.py"))["main"]
    assert main(["d.pth", "o", "--to", "mmdet-detector"]) == 2
    with pytest.raises(RuntimeError):
        load_detector(build_detector(DETR), "d.pth")


def test_numbers_that_are_not_finite_are_code_of_a_config():
    text = config_text("o", DETR, {"positional_encoding.scale": float("inf"), "bbox_head.x": [float("-inf")]})
    assert 'scale=float("inf")' in text and 'x=[float("-inf")]' in text
    Path("c.py").write_text(text)
    assert load_config("c.py").model.positional_encoding.scale == float("inf")


def test_what_a_file_may_say_passes_unchanged():
    for config in (
        BACKBONE,
        dict(
            type="ResNet", depth=50, norm_cfg=dict(type="SplitBN", num_groups=4, requires_grad=True), out_indices=(1, 2)
        ),
        dict(type="ViT", image_size=64, patch_size=16),
        dict(type="mmdet.SwinTransformer", embed_dims=96, norm_cfg=dict(type="LN"), pretrain_img_size=224),
        dict(type="mmdet.ResNet", depth=50, dcn=dict(type="DCNv2", deform_groups=1, fallback_on_stride=False)),
        dict(type="timm.resnet18", norm_layer="batchnorm2d", out_indices=[1, 2]),
        dict(type="mmdet.ResNet", depth=18, pretrained=None, init_cfg=None),
        dict(type="mmdet.ResNet", depth=18, init_cfg=[dict(type="Kaiming", layer="Conv2d")]),
        dict(type="timm.resnet18", pretrained=False),
    ):
        found = checked(config, "a file")
        assert {**found, "out_indices": tuple(found.get("out_indices", ()))} == {
            **config,
            "out_indices": tuple(config.get("out_indices", ())),
        }
    from densessl.weights.detector.stock import stock_model

    options = {"type": "densessl.DINO33", "num_queries": 7, "encoder.layer_cfg.ffn_cfg.feedforward_channels": 64}
    options["bbox_head.loss_cls"] = dict(type="FocalLoss", gamma=2.0)
    options["train_cfg.assigner.type"] = "MaxIoUAssigner"
    stock = stock_model("mmdet::dino/dino-4scale_r50_8xb2-12e_coco.py")
    import densessl.detectors  # noqa: F401  (registers DINO33)

    assert checked_options(options, "a file", stock) == options


def test_an_argument_that_the_class_has_not_is_named_with_the_nearest():
    with pytest.raises(UnsafeCheckpointError, match=r"a file: backbone\.dept: ResNet has no such .*; did you mean de"):
        checked(dict(type="ResNet", dept=18), "a file", "backbone")
    with pytest.raises(UnsafeCheckpointError, match=r"did you mean ResNet\?"):
        checked(dict(type="ResNett"), "a file")


def test_deep_and_endless_configs_are_refused():
    deep = value = {}
    for _ in range(2000):
        value["x"] = value = {}
    itself: dict = dict(type="ResNet")
    itself["norm_cfg"] = itself
    for config in (dict(type="ResNet", norm_cfg=deep), itself, dict(type="ResNet", out_indices=[0] * 10**5)):
        with pytest.raises(UnsafeCheckpointError, match="expected at most"):
            checked(config, "a file")


def test_numbers_that_fit_no_network_are_told_in_one_line():
    state = checkpoint("backbone", lambda good: dict(good, depth=17))
    with pytest.raises(CheckpointError, match="the given state describes a network that cannot be built"):
        feature_differences(ResNet(18), state)
    assert torch.is_grad_enabled()
