"""A pretraining that starts from a given backbone."""

import logging
from types import SimpleNamespace

import pytest
import torch

from densessl.branches import ResNet
from densessl.cli.train import settings_of
from densessl.engine.init_hook import InitHook
from densessl.errors import LoadError
from densessl.registry import HOOKS
from densessl.runs import run_config
from densessl.weights.io.checkpoints import load_weights, read_checkpoint
from tests.cli.test_train import CONFIG, ROOT, photos, train  # noqa: F401
from tests.engine import toy
from tests.objectives.toy import BACKBONE, toy_model
from tests.weights.cases import lived_in

PIXPRO = [dict(type="PixPro", hidden=8, dim=4)]
TARGETS = [dict(kind="ema", momentum=0.9), dict(kind="stop_gradient"), dict(kind="frozen")]


@pytest.fixture
def given(tmp_path):
    """A file of bare weights, as torchvision's are, and the weights."""
    backbone = lived_in(ResNet(depth=18, width=8), seed=3)
    torch.save(backbone.state_dict(), tmp_path / "given.pth")
    return str(tmp_path / "given.pth"), backbone.state_dict()


def start(model, file, step=0):
    InitHook(file).before_train(SimpleNamespace(model=model, iter=step, logger=logging.getLogger()))


@pytest.mark.parametrize("target", TARGETS, ids=lambda target: target["kind"])
def test_both_branches_start_from_the_file_and_heads_as_they_were(given, target):
    file, weights = given
    model = toy_model(PIXPRO, target)
    heads = {name: value.clone() for name, value in model.online.projectors.state_dict().items()}
    start(model, file)
    for branch in (model.online, model.target.branch(model.online)):
        assert all(torch.equal(value, weights[name]) for name, value in branch.backbone.state_dict().items())
    assert all(torch.equal(value, heads[name]) for name, value in model.online.projectors.state_dict().items())


def test_a_resumed_run_keeps_its_weights(given):
    model = toy_model(PIXPRO)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    start(model, given[0], step=5)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_another_network_is_refused(given):
    model = toy_model(PIXPRO, backbone=dict(BACKBONE, depth=34))
    with pytest.raises(LoadError, match="another network"):
        start(model, given[0])


def test_the_command_line_starts_a_run_from_a_file(given, photos, tmp_path, monkeypatch):  # noqa: F811
    """With a learning rate of 0, what comes out is what was put in."""
    monkeypatch.chdir(ROOT)
    file, weights = given
    still = {"optim_wrapper.optimizer.lr": 0.0, "default_hooks.lr.schedule.final": 0.0, "train_cfg.max_epochs": 1}
    assert train(photos, tmp_path, "--init", file, **still) == 0
    exported = load_weights(tmp_path / "backbone.pth")
    state = read_checkpoint(tmp_path / "epoch_1.pth")["state_dict"]
    for name, value in weights.items():
        if value.ndim == 4:
            assert torch.equal(exported[f"backbone.{name}"], value), name
            assert torch.equal(state[f"target.backbone.{name}"], value), name


def test_without_a_file_nothing_is_loaded_or_said(caplog):
    model = toy_model(PIXPRO)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with caplog.at_level(logging.INFO):
        start(model, None)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not caplog.records


def test_it_acts_before_the_hooks_that_look_at_the_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    cfg = run_config(settings_of([CONFIG, "--init", "file.pth"]))
    assert cfg.default_hooks.init == dict(type="InitHook", checkpoint="file.pth")
    runner = toy.build(tmp_path, default_hooks=cfg.default_hooks, custom_hooks=[])
    assert [type(hook).__name__ for hook in runner.hooks] == [
        *("InitHook", "StepHook", "LRHook"),
        *("AsyncRuntimeInfoHook", "DistSamplerSeedHook", "CheckpointHook", "ExportHook"),
        *("ProgressHook", "BadImagesHook"),
    ]


def test_configs_written_before_it_was_renamed_go_on_working():
    assert HOOKS.build(dict(type="InitBackboneHook", checkpoint="file.pth")).checkpoint == "file.pth"
