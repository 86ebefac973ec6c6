"""A whole detector pretrained from the command line: what it starts from, resumes, leaves and refuses."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.branches import ResNet
from densessl.cli.train import main, parser, prepare
from densessl.configs import load_config
from densessl.registry import MODELS
from densessl.weights.io.checkpoints import load_weights, read_checkpoint
from tests.weights.cases import lived_in

ROOT = Path(__file__).parents[2]
TINY = """
_base_ = "{root}/configs/small/detreg_conditional_detr_r18.py"
view = dict(short=(48, 64), longest=80, crop_short=(64,), crop_sides=(40, 64))
regions = dict(_delete_=True, type="GeneratedRegions", generator=dict(type="RandomBoxes", count=5))
model = dict(
    options={{
        "encoder.num_layers": 1,
        "decoder.num_layers": 2,
        "num_queries": 12,
        "decoder.layer_cfg.ffn_cfg.ffn_drop": 0.2,  # what makes resuming hard
    }}
)
train_dataloader = dict(batch_size=2, num_workers=0, dataset=dict(patch=32, limit=4))
train_cfg = dict(max_epochs=2)
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    """A config, photos, and a file of bare weights of a ResNet-18 with the weights."""
    folder, rng = tmp_path_factory.mktemp("given"), np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(4):
        pixels = rng.integers(0, 256, (60, 80, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"photos/{number}.png")
    (folder / "tiny.py").write_text(TINY.format(root=ROOT))
    weights = lived_in(ResNet(depth=18), seed=3).state_dict()
    torch.save(weights, folder / "r18.pth")
    return folder, weights


def train(folder, work_dir, *arguments):
    name = f"experiment_name={Path(work_dir).name}{len(arguments)}"
    line = [str(folder / "tiny.py"), "--data-root", str(folder / "photos"), "--work-dir", str(work_dir), *arguments]
    return main([*line, "--cfg-options", name])


@pytest.fixture(scope="module")
def straight(given, tmp_path_factory):
    work_dir = tmp_path_factory.mktemp("straight")
    assert train(given[0], work_dir, "--init", str(given[0] / "r18.pth")) == 0
    return work_dir


def test_the_given_backbone_stays_and_the_rest_is_trained(given, straight):
    state = read_checkpoint(straight / "epoch_2.pth")["state_dict"]
    kept = {name.removeprefix("detector.backbone."): v for name, v in state.items() if ".backbone." in name}
    assert kept and all(torch.equal(value, given[1][name]) for name, value in kept.items())
    assert state["global_step"] == 4 and not any("teacher" in name for name in state)
    before = read_checkpoint(straight / "epoch_1.pth")["state_dict"]
    trained = {"detector.encoder", "detector.decoder", "detector.bbox_head", "detector.neck", "pretext.embed"}
    for part in trained:
        assert any(not torch.equal(v, before[name]) for name, v in state.items() if name.startswith(part)), part


def test_metrics_keep_every_layer_and_the_line_only_the_last(straight):
    written = [json.loads(line) for line in (straight / "metrics.jsonl").read_text().splitlines()]
    assert {"detector.loss_cls", "detector.d0.loss_cls", "pretext.loss_embed", "regions"} <= written[-1].keys()
    logs = "".join(path.read_text() for path in straight.glob("*/*.log"))
    assert "detector.loss_cls" in logs and "d0.loss_cls" not in logs
    assert logs.count("The value is the same before and after") <= logs.count("torch.Size")
    assert "Failed to search registry" not in logs


def test_resuming_at_an_epoch_boundary_continues_bit_for_bit(given, straight, tmp_path, capfd):
    """The teacher is in no checkpoint: the same file is given again."""
    init = ("--init", str(given[0] / "r18.pth"))
    checkpoint = read_checkpoint(straight / "epoch_1.pth")
    torch.save(checkpoint, tmp_path / "epoch_1.pth")
    assert train(given[0], tmp_path, *init, "--resume", str(tmp_path / "epoch_1.pth")) == 0
    a, b = (read_checkpoint(folder / "epoch_2.pth") for folder in (straight, tmp_path))
    assert all(torch.equal(value, b["state_dict"][name]) for name, value in a["state_dict"].items())
    first, second = (run["optimizer"]["state"] for run in (a, b))
    assert first and first.keys() == second.keys()
    for key, state in first.items():
        assert all(torch.equal(second[key][name], value) for name, value in state.items() if torch.is_tensor(value))
    capfd.readouterr()
    assert train(given[0], tmp_path / "again", "--resume", str(tmp_path / "epoch_1.pth")) == 2
    assert "the teacher has no weights, and no checkpoint holds them" in "".join(capfd.readouterr())


def test_a_run_leaves_a_detector_and_the_config_that_fine_tunes_it(straight):
    weights = load_weights(straight / "detector.pth")
    state = read_checkpoint(straight / "epoch_2.pth")["state_dict"]
    assert weights and all(torch.equal(value, state[f"detector.{name}"]) for name, value in weights.items())
    assert load_config(str(straight / "detector.py")).model.type == "ConditionalDETR"


def test_without_weights_it_ends_before_the_first_image_is_read(given, tmp_path, monkeypatch, capfd):
    def read(*_):
        raise AssertionError("an image was read")

    monkeypatch.setattr("densessl.data.detection.RegionImages.__getitem__", read)
    assert train(given[0], tmp_path) == 2
    said = "".join(capfd.readouterr())
    assert "backbone is frozen and has no weights: start from a trained one (--init FILE)" in said
    allowed = ["--cfg-options", "model.allow_random_backbone=True"]
    line = [str(given[0] / "tiny.py"), "--data-root", str(given[0] / "photos"), "--work-dir", str(tmp_path), *allowed]
    assert main(line) == 2
    assert "the teacher has no weights" in "".join(capfd.readouterr())


def test_a_backbone_that_is_trained_may_be_random(given):
    config = load_config(str(given[0] / "tiny.py")).model
    config.options["backbone.frozen_stages"] = 2
    config.options["backbone.norm_eval"] = False
    config.pretext.allow_random_teacher = True
    MODELS.build(config.to_dict()).begin(None)


@pytest.mark.parametrize("path", sorted(path.name for path in ROOT.glob("configs/detreg_*.py")))
def test_detreg_configs(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = prepare(parser().parse_args([f"configs/{path}", "--regions", "store", "--data-root", "photos"]))
    dataset = cfg.train_dataloader.dataset
    assert cfg.train_dataloader.batch_size * 8 == 192
    assert dataset.regions.path == "store" and dataset.source == "photos" and dataset.view == cfg.view
    assert dataset.photometric == cfg.model.data_preprocessor.photometric
    assert cfg.custom_hooks[1]["schedule"]["value"] == cfg.optim_wrapper.optimizer.lr


@pytest.mark.parametrize("path", sorted(path.name for path in ROOT.glob("configs/updetr_*.py")))
def test_updetr_configs(path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = prepare(parser().parse_args([f"configs/{path}"]))
    assert cfg.train_dataloader.batch_size * 8 == 256 and cfg.train_cfg.max_epochs == 60
    assert (cfg.view.hflip, cfg.view.crop) == (0.0, 0.0)
    schedule = cfg.custom_hooks[1]["schedule"]
    assert schedule["base"] == cfg.optim_wrapper.optimizer.lr and schedule["milestones"] == (40,)


def test_deformable_offsets_and_references_learn_at_a_tenth(monkeypatch):
    monkeypatch.chdir(ROOT)
    from densessl.engine.lars import split_parameters

    cfg = load_config("configs/detreg_deformable_detr_r50.py")
    cfg.model.options.update({"encoder.num_layers": 1, "decoder.num_layers": 1})
    model = MODELS.build(cfg.model.to_dict())
    slow = next(g for g in split_parameters(model, **cfg.optim_wrapper.paramwise_cfg) if g["lr_scale"] == 0.1)
    names = {name for name, parameter in model.named_parameters() if any(parameter is own for own in slow["params"])}
    attentions = ("encoder.layers.0.self_attn", "decoder.layers.0.cross_attn")
    wanted = [*(f"{name}.sampling_offsets" for name in attentions), "reference_points_fc"]
    assert names == {f"detector.{name}.{kind}" for name in wanted for kind in ("weight", "bias")}
