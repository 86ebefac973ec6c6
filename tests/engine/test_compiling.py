"""MMEngine's switch ``compile``: the same losses, the same names, and words where it cannot be."""

import shutil

import pytest
import torch
from torch import nn
from torch._dynamo.utils import counters

from densessl.engine.compiling import checked_options, compile_networks
from densessl.errors import SettingError
from densessl.weights.io.checkpoints import read_checkpoint
from densessl.weights.layouts.take import WRAPPERS
from tests.engine.toy import Toy, assert_same, build
from tests.objectives.cases import all_cases
from tests.objectives.test_conformance import batch_of, model_of
from tests.objectives.toy import take_step

EAGER = dict(backend="eager")


@pytest.fixture(autouse=True)
def _fresh_compiler():
    """The compiler counts how often a function was compiled, over all models of a process."""
    torch.compiler.reset()
    yield
    torch.compiler.reset()


class Small(Toy):
    """A backbone of its own, as detectors have."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(self.conv, self.bn, nn.ReLU())
        del self.conv, self.bn

    def forward(self, *samples, mode="loss"):
        features = self.drop(self.backbone(torch.stack(samples)).flatten(1))
        return {"loss": self.fc(features).square().mean()}


def figures_of(case, options=None):
    model = model_of(case)
    names = list(model.state_dict())
    if options is not None:
        assert compile_networks(model, options)[0] == "online"
    figures = [take_step(model, batch_of(case, seed=step)) for step in range(2)]
    assert list(model.state_dict()) == names and not any("_orig_mod" in name for name in names)
    return figures, model.state_dict()


@pytest.mark.parametrize("name", ["sim", "regioncl-simsiam", "pixpro+instance"])
def test_a_pretraining_step_is_the_same_to_the_bit(name):
    case = all_cases()[name]
    counters.clear()
    assert_same(figures_of(case, EAGER), figures_of(case))
    assert counters["frames"]["ok"] > 0  # something was compiled


def trained(where, compiled=None, epochs=2, **options):
    torch.manual_seed(0)
    build(where, epochs, model=Small(), cfg=dict(compile=compiled), **options).train()
    checkpoint = read_checkpoint(where / f"epoch_{epochs}.pth")
    return {key: checkpoint[key] for key in ("state_dict", "optimizer")}


@pytest.mark.parametrize("backend", ["eager", "aot_eager"])
def test_a_run_writes_the_same_checkpoint_and_resumes_either_way(tmp_path, backend):
    plain = trained(tmp_path / "plain")
    compiled = trained(tmp_path / "compiled", dict(backend=backend))
    assert list(compiled["state_dict"]) == list(plain["state_dict"])
    if backend == "eager":
        assert_same(compiled, plain)
    else:
        torch.testing.assert_close(compiled["state_dict"], plain["state_dict"])
    for place in ("plain", "compiled"):
        shutil.copy(tmp_path / place / "epoch_2.pth", tmp_path / f"{place}.pth")
    further = dict(epochs=3, resume=True, load_from=str(tmp_path / "plain.pth"))
    expected = trained(tmp_path / "plain then plain", **further)
    crossed = trained(tmp_path / "plain then compiled", dict(backend=backend), **further)
    torch.testing.assert_close(crossed["state_dict"], expected["state_dict"])
    crossed = trained(tmp_path / "compiled then plain", **further | dict(load_from=str(tmp_path / "compiled.pth")))
    torch.testing.assert_close(crossed["state_dict"], expected["state_dict"])


def test_inductor_gives_the_same_within_rounding():
    torch.manual_seed(0)
    model, images = nn.Module(), torch.randn(8, 5)
    model.backbone = nn.Sequential(nn.Linear(5, 4), nn.ReLU())
    plain = model.backbone(images).square().mean()
    assert compile_networks(model, {}) == ["backbone"]
    compiled = model.backbone(images).square().mean()
    torch.testing.assert_close(compiled, plain)
    torch.testing.assert_close(*(torch.autograd.grad(loss, model.backbone[0].weight) for loss in (compiled, plain)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (dict(backnd="eager"), "compile: argument 'backnd' is unknown; did you mean backend"),
        (dict(backend="egaer"), "compile.backend.*'egaer'.*eager"),
        (dict(mode="max-autotun"), "compile.mode.*max-autotune"),
        (dict(mode="default", options={"trace.enabled": True}), "found mode and options, expected one of them"),
    ],
)
def test_wrong_options_are_told(options, said):
    with pytest.raises(SettingError, match=said):
        checked_options(options)


def test_a_missing_compiler_is_told(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SettingError, match=r"'inductor' needs a C\+\+ compiler.*backend='aot_eager'"):
        checked_options({})
    assert checked_options(EAGER) == EAGER


def test_a_model_without_networks_is_refused(tmp_path):
    with pytest.raises(SettingError, match="Toy has no branch, backbone or neck"):
        build(tmp_path, cfg=dict(compile=EAGER)).train()


def test_a_network_that_cannot_be_compiled_is_told(tmp_path):
    class Prints(nn.Module):
        def forward(self, images):
            torch._dynamo.graph_break()
            return images

    model = Small()
    model.backbone.append(Prints())
    with pytest.raises(SettingError, match=r"(?s)compile: this model cannot be compiled so: .*compile=False"):
        build(tmp_path, model=model, cfg=dict(compile=dict(EAGER, fullgraph=True))).train()


def test_weights_of_a_compiled_model_are_loaded(tmp_path):
    weights = Small().state_dict()
    renamed = {key.replace("backbone.", "backbone._orig_mod."): value for key, value in weights.items()}
    torch.save({"state_dict": {f"_orig_mod.{key}": value for key, value in renamed.items()}}, tmp_path / "w.pth")
    runner = build(tmp_path / "run", model=Small())
    runner.load_checkpoint(str(tmp_path / "w.pth"), strict=True)
    assert_same(dict(runner.model.state_dict()), dict(weights))
    assert WRAPPERS.sub("", "module._orig_mod.backbone._orig_mod.conv1.weight") == "backbone.conv1.weight"
