"""Where an export may be written, and what is refused before a training that could not be exported."""

from types import SimpleNamespace

import pytest
import torch

import densessl
from densessl.cli import main
from densessl.engine.export_hook import ExportHook
from densessl.errors import ExportError, SettingError
from densessl.files import sha256


def tiny_model(width=8):
    return densessl.TwoBranch(
        online=dict(backbone=dict(type="ResNet", depth=18, width=width)),
        objectives=[dict(type="BYOL", hidden=8, dim=8)],
        data_preprocessor=dict(type="ViewPreprocessor", views=[dict(size=32, repeat=2)]),
    )


def runner(model, work_dir):
    return SimpleNamespace(rank=0, model=model, work_dir=work_dir, logger=SimpleNamespace(info=lambda line: None))


@pytest.fixture
def checkpoint(tmp_path):
    densessl.export_backbone(tiny_model(), tmp_path / "a.pth")
    return tmp_path / "a.pth"


@pytest.mark.parametrize("command", ["export", "convert"])
def test_a_checkpoint_is_not_replaced_by_its_export(checkpoint, command, capsys):
    before = sha256(checkpoint)
    twin = checkpoint.parent / "below" / ".." / "a.pth"
    twin.parent.parent.mkdir()
    assert main([command, str(checkpoint), str(twin)]) == 2
    assert f"error: {twin}: is the file that is read" in capsys.readouterr().err
    with pytest.raises(SettingError, match="is the file that is read"):
        densessl.export_backbone(checkpoint, twin)
    assert sha256(checkpoint) == before


def test_a_detectors_config_is_for_detectors(checkpoint, tmp_path, capsys):
    assert main(["export", str(checkpoint), str(tmp_path / "b.pth"), "--detector", "mmdet::detr/x"]) == 2
    assert "--detector: found --to mmdet, expected mmdet-detector" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("to", "name"), [("mmdet", "backbone.pth"), ("detectron2", "backbone.pkl"), ("safetensors", "backbone.safetensors")]
)
def test_the_export_of_a_run_has_the_suffix_of_its_format(to, name, tmp_path):
    hook = ExportHook(to=to)
    hook.after_train(runner(tiny_model(64 if to == "detectron2" else 8), tmp_path))
    assert hook.written == tmp_path / name and hook.written.is_file()


def test_a_run_exports_a_graph(tmp_path):
    hook = ExportHook(to="onnx")
    hook.after_train(runner(tiny_model(), tmp_path))
    assert hook.written == tmp_path / "backbone.onnx" and hook.written.is_file()


def test_another_suffix_is_refused_before_training():
    with pytest.raises(ExportError, match=r"filename: found 'a.pth', expected a name that ends in '\.onnx'"):
        ExportHook(filename="a.pth", to="onnx")
    assert ExportHook(filename="a.weights").filename == "a.weights"


@pytest.mark.parametrize("to", ["torchvision", "timm", "detectron2"])
def test_a_network_that_a_library_lacks_is_refused_before_training(to, tmp_path):
    with pytest.raises(ExportError, match="width: found 8"):
        ExportHook(to=to).before_train(runner(tiny_model(), tmp_path))
    with torch.device("meta"):  # without values
        wide = tiny_model(64)
    ExportHook(to=to).before_train(runner(wide, tmp_path))
