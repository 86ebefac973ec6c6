"""Parts of ``benchmarks/detreg_transfer.py``, without training."""

import importlib.util
import json
from pathlib import Path

import pytest

from densessl.engine.launch import load_config

ROOT = Path(__file__).parents[2]
SPEC = importlib.util.spec_from_file_location("detreg_transfer", ROOT / "benchmarks/detreg_transfer.py")
transfer = importlib.util.module_from_spec(SPEC)
SPEC.loader.exec_module(transfer)


@pytest.fixture
def args(tmp_path):
    """A command for an exported detector whose config is a stand-in, with hooks of its own."""
    for name in ("d.pth", "b.pth"):
        (tmp_path / name).touch()
    (tmp_path / "d.py").write_text('custom_hooks = [dict(type="Own")]\nmodel = dict(type="X")\n')
    line = [
        f"{tmp_path}/d.py",
        "--backbone",
        f"{tmp_path}/b.pth",
        "--data-root",
        str(tmp_path),
        "--out",
        f"{tmp_path}/o",
    ]
    return transfer.parse([*line, "--classes", "raccoon"])


def test_starts_differ_in_what_they_load_and_in_nothing_else(args, tmp_path):
    hooks = {}
    for start in transfer.STARTS:
        file = tmp_path / f"{start}.py"
        file.write_text(transfer.config_text(start, args.detector, args.backbone))
        config = load_config(str(file))
        hooks[start] = config.custom_hooks
        assert config.model.type == "X" and set(config.keys()) == {"custom_hooks", "model"}
    assert hooks["random"] == []
    assert hooks["backbone"] == [dict(type="densessl.LoadBackboneHook", checkpoint=str(args.backbone))]
    assert hooks["detector"] == [dict(type="densessl.LoadDetectorHook", checkpoint=str(tmp_path / "d.pth"))]


def test_the_last_validation_counts(tmp_path):
    log = tmp_path / "20260101_000000/vis_data/scalars.json"
    log.parent.mkdir(parents=True)
    lines = [{"loss": 1.0}, {"coco/bbox_mAP": 0.1, "coco/bbox_mAP_50": 0.2}]
    log.write_text("\n".join(json.dumps(line) for line in lines[:1]))
    with pytest.raises(ValueError, match="no validation with"):
        transfer.last_metrics(tmp_path)
    lines += [{"coco/bbox_mAP": 0.25, "coco/bbox_mAP_50": 0.5}, {"loss": 0.5}]
    log.write_text("\n".join(json.dumps(line) for line in lines))
    assert transfer.last_metrics(tmp_path) == {"AP": 25.0, "AP50": 50.0}


def test_a_finished_run_is_not_done_again(args, monkeypatch):
    calls = []

    def run(command, env, **options):
        calls.append(command)
        assert env["CLASSES"] == "raccoon" and "randomness.seed=2" in command
        log = args.out / "backbone_2/1/vis_data/scalars.json"
        log.parent.mkdir(parents=True)
        log.write_text(json.dumps({"coco/bbox_mAP": 0.3, "coco/bbox_mAP_50": 0.6}))

    monkeypatch.setattr(transfer.subprocess, "run", run)
    first, second = (transfer.fine_tune("backbone", 2, args) for _ in range(2))
    assert len(calls) == 1 and first == second and first["AP"] == 30.0
    args.settings["cfg_options"] = "['train_cfg.max_epochs=1']"
    with pytest.raises(ValueError, match="choose another --out"):
        transfer.fine_tune("backbone", 2, args)


def test_the_table_has_means_and_deviations():
    runs = [dict(start="random", seed=seed, AP=ap, AP50=40.0, seconds=120) for seed, ap in enumerate((10.0, 12.0))]
    head, row = transfer.table(runs).splitlines()
    assert head.split()[:3] == ["start", "AP", "AP50"]
    assert row.split() == ["random", "11.0", "+-", "1.4", "40.0", "+-", "0.0", "2.0", "0:", "10.0", "1:", "12.0"]
