"""The contract between models and hooks: both models keep it, by signature, and hooks name what a model lacks."""

import inspect
import logging
from types import SimpleNamespace

import pytest
from mmengine.model import BaseModel

from densessl.counting import CountingModel, PretrainingModel, require
from densessl.engine.export_hook import ExportHook
from densessl.engine.init_hook import InitHook
from densessl.engine.lr_hook import StepHook
from densessl.errors import SettingError
from tests.objectives.toy import toy_model

METHODS = {name: vars(PretrainingModel)[name] for name in ("begin", "advance", "init_backbone", "describe")}
ATTRIBUTES = tuple(inspect.get_annotations(PretrainingModel))


def breaches(kind: type) -> list[str]:
    """What of the contract's methods a class lacks, or has with other parameters or another result."""
    found = []
    for name, wanted in METHODS.items():
        if not hasattr(kind, name):
            found.append(f"{name} is missing")
        elif inspect.signature(getattr(kind, name)) != inspect.signature(wanted):
            found.append(f"{name}{inspect.signature(getattr(kind, name))}, expected {inspect.signature(wanted)}")
    return found


def test_the_contract_is_what_hooks_call():
    public = {name for name, member in vars(PretrainingModel).items() if inspect.isfunction(member)}
    assert {name for name in public if not name.startswith("_")} == set(METHODS)
    assert ATTRIBUTES == ("step", "horizon")


def test_two_branches_keep_the_contract():
    model = toy_model([dict(type="InstanceCosine", hidden=8, dim=4)])
    assert breaches(type(model)) == []
    assert all(hasattr(model, name) for name in ATTRIBUTES)


@pytest.mark.det
def test_whole_detectors_keep_the_contract():
    from tests.detectors.small import DETREG, small

    model = small("detr", DETREG)
    assert breaches(type(model)) == []
    assert all(hasattr(model, name) for name in ATTRIBUTES)


def test_the_checker_sees_each_kind_of_breach():
    class Other(CountingModel):
        def begin(self, length) -> None: ...

        def init_backbone(self, checkpoint: str, branch: str | None = None, resumed: bool = False) -> None: ...

    assert [line.split()[0].partition("(")[0] for line in breaches(Other)] == [
        "begin",
        "init_backbone",
        "describe",
    ]


class Bare(BaseModel):
    def forward(self, *args, **kwargs): ...


@pytest.mark.parametrize(
    ("hook", "lacking"),
    [
        (StepHook(), "`step`, `begin`, `advance`"),
        (ExportHook(), "`step`, `describe`"),
        (InitHook("file.pth"), "`init_backbone`"),
    ],
)
def test_hooks_name_what_a_model_lacks(hook, lacking):
    runner = SimpleNamespace(model=Bare(), iter=0, rank=0, logger=logging.getLogger())
    call = hook.after_train if isinstance(hook, ExportHook) else hook.before_train
    with pytest.raises(SettingError, match=f"{type(hook).__name__} needs .* Bare lacks {lacking}: expected TwoBranch"):
        call(runner)


def test_only_what_is_missing_is_named():
    class Counting(Bare, CountingModel): ...

    with pytest.raises(SettingError, match="Counting lacks `describe`:"):
        require(Counting(), "ExportHook", "step", "describe")
