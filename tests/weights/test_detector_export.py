"""Whole detectors: what an export writes, what a load refuses, and a fine-tuning run from the files."""

import json
import logging
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.cli.train import main
from densessl.configs import load_config
from densessl.engine.export_hook import ExportHook
from densessl.errors import ExportError, LoadError, UnsafeCheckpointError
from densessl.finetune.load_hooks import LoadDetectorHook
from densessl.registry import MODELS
from densessl.weights.detector.export import config_text, export_detector
from densessl.weights.detector.load import load_detector
from densessl.weights.detector.stock import build_detector
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.read import read_backbone

pytestmark = pytest.mark.det

STOCK = "mmdet::detr/detr_r50_8xb2-150e_coco.py"
SMALL = {
    "encoder.num_layers": 1,
    "decoder.num_layers": 1,
    "num_queries": 12,
    "backbone.depth": 18,
    "neck.in_channels": [512],
    "encoder.layer_cfg.ffn_cfg.feedforward_channels": 64,
    "decoder.layer_cfg.ffn_cfg.feedforward_channels": 64,
}
TOOL = Path(__file__).parents[2] / "tools" / "export.py"


def pretraining(detector=STOCK, **options):
    import densessl.detectors  # noqa: F401

    torch.manual_seed(0)
    config = dict(type="DetectorPretraining", detector=detector, options={**SMALL, **options})
    teacher = dict(type="ResNet", depth=18, out_indices=(1,))
    config.update(pretext=dict(type="DETReg", teacher=teacher), data_preprocessor=dict(type="RegionPreprocessor"))
    return MODELS.build(dict(config, _scope_="densessl"))


def content(model) -> dict:
    return dict(state_dict=model.state_dict(), meta=dict(densessl=model.describe()))


@pytest.fixture(scope="module")
def exported(tmp_path_factory):
    """The path without suffix of an export."""
    path = tmp_path_factory.mktemp("exported") / "pre"
    export_detector(
        content(pretraining(**{"backbone.frozen_stages": 2, "bbox_head.loss_cls.bg_cls_weight": 0.2})), path
    )
    return path


def tampered(path: Path, change) -> dict:
    """What is in an export, changed."""
    found = torch.load(path.with_suffix(".pth"), weights_only=True)
    change(found)
    return found


def test_the_files_have_what_fine_tuning_needs_and_no_more(exported):
    found = torch.load(exported.with_suffix(".pth"), weights_only=True)
    names = {key.partition(".")[0] for key in found["state_dict"]}
    assert names == {"backbone", "neck", "encoder", "decoder", "query_embedding", "bbox_head"}
    assert not any(key.startswith("bbox_head.fc_cls") for key in found["state_dict"])
    told = found["meta"]["detector"]
    assert (told["config"], told["type"], told["options"]) == (STOCK, "DETR", SMALL)
    assert read_backbone(exported.with_suffix(".pth"))[1].depth == 18
    detector = build_detector(str(exported.with_suffix(".py")))
    # The frozen backbone and the weights of losses were the pretraining's own affair.
    assert detector.backbone.frozen_stages == 1 and detector.bbox_head.num_classes == 80
    assert detector.bbox_head.loss_cls.class_weight[-1] == pytest.approx(0.1)
    # Nothing to download: what is left is the random initialisation of a ResNet.
    assert not any("checkpoint" in entry for entry in detector.backbone.init_cfg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda found: found["state_dict"].pop("neck.convs.0.conv.bias"), r"missing \(1\): neck\.convs\.0\.conv\.bias"),
        (
            lambda found: found["state_dict"].update({"encoder.post_norm.weight": torch.ones(256)}),
            r"unexpected \(1\): encoder\.post_norm\.weight",
        ),
        (
            lambda found: found["state_dict"].update({"bbox_head.fc_reg.weight": torch.zeros(5, 256)}),
            r"another shape \(1\): bbox_head\.fc_reg\.weight: found \(5, 256\), expected \(4, 256\)",
        ),
        (lambda found: found["state_dict"].pop("query_embedding.weight"), r"missing \(1\): query_embedding\.weight"),
        (
            lambda found: found["state_dict"].update({"query_embedding.weight": torch.zeros(12, 128)}),
            r"another shape \(1\): query_embedding\.weight",
        ),
        (
            lambda found: found["meta"]["detector"].update({"positional_encoding.offset": -0.5}),
            r"offset: found 0\.0, expected -0\.5: set model\.positional_encoding\.offset=-0\.5",
        ),
        (
            lambda found: found["meta"]["detector"].update({"decoder.heads": 4}),
            r"decoder\.heads: found 8, expected 4: set num_heads=4 in model\.decoder\.layer_cfg",
        ),
        (
            lambda found: found["meta"]["detector"].update(type="ConditionalDETR"),
            r"type: found DETR, expected ConditionalDETR",
        ),
        (
            lambda found: found["meta"]["fingerprint"].update(mean=[0.0, 0.0, 0.0]),
            r"mean: found .*: set mean=\[0\.0, 0\.0, 0\.0\] in data_preprocessor",
        ),
        (
            lambda found: found["state_dict"].update({"transformer.level_embed": torch.zeros(1)}),
            r"convert the file with densessl convert",
        ),
    ],
)
def test_what_does_not_fit_is_refused_by_name_and_the_detector_untouched(exported, change, message):
    detector = build_detector(str(exported.with_suffix(".py")))
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    with pytest.raises(LoadError, match=message) as caught:
        load_detector(detector, tampered(exported, change))
    assert "none loaded" in str(caught.value) and not caught.value.report.applied
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())


def test_queries_of_another_number_are_new_and_named(exported):
    def fewer(found):
        found["state_dict"]["query_embedding.weight"] = torch.zeros(5, 256)

    detector = build_detector(str(exported.with_suffix(".py")))
    report = load_detector(detector, tampered(exported, fewer))
    assert report.new == {"query_embedding": 1, "bbox_head.fc_cls": 2} and report.applied
    assert detector.query_embedding.weight.shape == (12, 256) and detector.query_embedding.weight.any()


def test_facts_may_be_overruled_and_the_report_still_says_so(exported):
    def shifted(found):
        found["meta"]["detector"]["positional_encoding.offset"] = -0.5

    detector = build_detector(str(exported.with_suffix(".py")))
    report = load_detector(detector, tampered(exported, shifted), strict_fingerprint=False)
    assert report.coverage == 1 and "offset: found 0.0, expected -0.5" in str(report)


def test_a_fact_the_exported_config_does_not_keep_stops_the_export(tmp_path, monkeypatch):
    """Equal shapes, another function: an option that the written config leaves out."""
    model = pretraining(**{"positional_encoding.offset": -0.5})
    monkeypatch.setattr("densessl.weights.detector.export.OWN", ("positional_encoding",))
    with pytest.raises(LoadError, match=r"offset: found 0\.0, expected -0\.5"):
        export_detector(content(model), tmp_path / "a")
    monkeypatch.undo()
    assert not list(tmp_path.iterdir())
    export_detector(content(model), tmp_path / "a")
    assert build_detector(str(tmp_path / "a.py")).positional_encoding.offset == -0.5


def test_what_cannot_be_exported_is_refused(tmp_path, capsys):
    model = pretraining()
    broken = content(model)
    broken["state_dict"]["detector.encoder.layers.0.norms.0.weight"][0] = float("nan")
    with pytest.raises(ExportError, match=r"NaN or infinity in 1 tensor, first 'encoder\.layers\.0\.norms\.0\.weight'"):
        export_detector(broken, tmp_path / "a")
    with pytest.raises(ExportError, match=r"no pretrained detector: expected tensors named 'detector\.\*'"):
        export_detector(dict(state_dict={"backbone.conv1.weight": torch.zeros(1)}), tmp_path / "a")
    nameless = content(pretraining(detector=dict(load_config(STOCK).model)))
    save_checkpoint(tmp_path / "nameless.pth", nameless)
    main = runpy.run_path(str(TOOL))["main"]
    asked = [str(tmp_path / "nameless.pth"), str(tmp_path / "b"), "--to", "mmdet-detector"]
    assert main(asked[:2]) == 2 and "holds a whole detector" in capsys.readouterr().err
    assert main(asked) == 2
    assert "model.detector was given as a dict; say which config fine-tunes it" in capsys.readouterr().err
    assert not (tmp_path / "b.pth").exists()
    assert main([*asked, "--detector", STOCK]) == 0
    said = capsys.readouterr().out
    assert "bbox_head.fc_cls: 2 new" in said and f"{tmp_path / 'b.pth'}, and beside it the config" in said


def test_a_config_of_ones_own_is_written_out_and_keeps_its_hooks_and_imports(tmp_path, monkeypatch):
    own = tmp_path / "own.py"
    own.write_text(
        f"_base_ = {STOCK!r}\ncustom_imports = dict(imports=['densessl.compat', 'densessl.engine'])\n"
        "custom_hooks = [dict(type='densessl.LoadBackboneHook'), dict(type='EmptyCacheHook')]\n"
        "data_root = 'mine/'\n"
    )
    monkeypatch.chdir(tmp_path)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "a.py").write_text(
        config_text("a", "own.py", {"num_queries": 7, "dn_cfg": {"x": 1}, "neck": {"type": "FPN"}})
    )
    base = load_config("own.py")
    own.unlink()
    (tmp_path / "out").rename(tmp_path / "moved")
    monkeypatch.chdir("/")
    config = load_config(str(tmp_path / "moved" / "a.py"))
    assert [hook["type"] for hook in config.custom_hooks] == ["EmptyCacheHook", "densessl.LoadDetectorHook"]
    assert config.custom_hooks[1].checkpoint == str(tmp_path / "moved" / "a.pth")
    assert config.custom_imports.imports == ["densessl.compat", "densessl.engine", "densessl.finetune"]
    assert config.model.neck == {"type": "FPN"}, "as the pretraining's option, which replaces"
    assert config.model.num_queries == 7 and config.model.dn_cfg == {"x": 1} and config.model.type == "DETR"
    same = base.keys() - {"model", "custom_hooks", "custom_imports"}
    assert len(same) > 10 and all(config[key] == base[key] for key in same) and config.keys() == base.keys()
    assert config.model.encoder == base.model.encoder


def test_the_files_of_a_config_of_ones_own_can_be_moved(tmp_path):
    own = tmp_path / "own.py"
    own.write_text(f"_base_ = {STOCK!r}\nmodel = dict(num_queries=9)\n")
    (tmp_path / "out").mkdir()
    model = pretraining(detector=str(own))
    with pytest.raises(UnsafeCheckpointError, match="a file may name stock configs only"):
        export_detector(content(model), tmp_path / "out" / "a")
    export_detector(content(model), tmp_path / "out" / "a", str(own))
    own.unlink()
    (tmp_path / "out").rename(tmp_path / "moved")
    assert str(tmp_path) not in (tmp_path / "moved" / "a.py").read_text()
    config = load_config(str(tmp_path / "moved" / "a.py"))
    report = load_detector(build_detector(str(tmp_path / "moved" / "a.py")), config.custom_hooks[-1].checkpoint)
    assert report.applied and report.coverage == 1 and report.new == {"bbox_head.fc_cls": 2}


def write_coco(root: Path) -> None:
    """Two images with one box each, in COCO's layout."""
    noise = np.random.default_rng(0)
    for part in ("train2017", "val2017"):
        (root / part).mkdir(parents=True)
        for number in (1, 2):
            pixels = noise.integers(0, 255, (64, 80, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(root / part / f"{number:012d}.jpg")
        images = [dict(id=i, file_name=f"{i:012d}.jpg", width=80, height=64) for i in (1, 2)]
        boxes = [dict(id=i, image_id=i, category_id=18, bbox=[8, 8, 40, 30], area=1200, iscrowd=0) for i in (1, 2)]
        told = dict(images=images, annotations=boxes, categories=[dict(id=18, name="dog")])
        (root / "annotations").mkdir(exist_ok=True)
        (root / "annotations" / f"instances_{part}.json").write_text(json.dumps(told))


def test_the_hook_leaves_files_that_train_py_fine_tunes_from_any_folder(tmp_path, monkeypatch):
    model, log = pretraining(), logging.getLogger("densessl.test")
    (tmp_path / "work").mkdir()
    ExportHook().after_train(SimpleNamespace(rank=0, model=model, work_dir=tmp_path / "work", logger=log))
    write_coco(tmp_path / "coco")
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    seen = []
    before = LoadDetectorHook.before_train

    def watched(hook, runner):
        before(hook, runner)
        seen.append((hook.report, {key: value.clone() for key, value in runner.model.state_dict().items()}))

    monkeypatch.setattr(LoadDetectorHook, "before_train", watched)
    small = ["train_cfg.max_epochs=1", "train_dataloader.num_workers=0", "train_dataloader.persistent_workers=False"]
    small += ["val_cfg=None", "val_dataloader=None", "val_evaluator=None"]
    resize = "train_dataloader.dataset.pipeline.3"
    small += [f"{resize}.prob=[1.0,0.0]", f"{resize}.transforms.0.0.scales=[(96,64)]"]
    config, data = "../work/detector.py", str(tmp_path / "coco")
    assert main([config, "--data-root", data, "--work-dir", "run", "--cfg-options", *small]) == 0
    ((report, loaded),) = seen
    assert report.summary.endswith("detector tensors loaded; 0 unexpected; bbox_head.fc_cls: 2 new")
    pretrained = model.detector.state_dict()
    assert all(torch.equal(loaded[key], value) for key, value in pretrained.items() if "fc_cls" not in key)
    trained = torch.load(tmp_path / "elsewhere" / "run" / "epoch_1.pth", weights_only=True)["state_dict"]
    assert trained.keys() == loaded.keys()
    assert not torch.equal(trained["encoder.layers.0.norms.0.weight"], loaded["encoder.layers.0.norms.0.weight"])


def test_the_hook_leaves_a_resumed_run_alone_and_says_what_it_did(exported, caplog):
    detector = build_detector(str(exported.with_suffix(".py")))
    before = {key: value.clone() for key, value in detector.state_dict().items()}
    runner = SimpleNamespace(iter=3, model=detector, logger=logging.getLogger("densessl.test"))
    with caplog.at_level(logging.INFO, "densessl.test"):
        LoadDetectorHook(str(exported.with_suffix(".pth"))).before_train(runner)
        runner.iter = 0
        LoadDetectorHook().before_train(runner)
    assert all(torch.equal(before[key], value) for key, value in detector.state_dict().items())
    assert ["resumed at step 3" in caplog.text, "keeps its initialisation" in caplog.text] == [True, True]
