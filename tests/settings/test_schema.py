"""The schema is what classes say of themselves: signatures, annotations, docstrings."""

import inspect
import re
from typing import Annotated, Any, TypedDict

import mmengine.registry as mmengine
import pytest
import torch
from mmengine.optim import DefaultOptimWrapperConstructor
from mmengine.registry import Registry

from densessl import registry
from densessl.branches import build_target
from densessl.constraints import AutoCount, Config, Count, Positive, Range, Share
from densessl.data.views import ViewSpec
from densessl.data.whole import WholeSpec
from densessl.schedules import SCHEDULES
from densessl.settings.annotations import expected, fits
from densessl.settings.docstrings import meanings_of, summary_of
from densessl.settings.lookup import UnknownType, find
from densessl.settings.optimisers import Paramwise
from densessl.settings.run import runner_arguments, top_level
from densessl.settings.schema import is_ours, schema_of, schema_of_any


class Base:
    """What it is. And more.

    Args:
        depth (int, optional): how deep, e.g. 3 or 4. Defaults to 3.
        width, height: both sizes of :class:`a.b.Thing`,
            in ``pixels``.
    """

    def __init__(self, depth=3, width=1, height=1):
        pass


class Derived(Base):
    """Another one.

    Args:
        depth: see :class:`Base`.
        width: its own.
    """


def test_docstrings_tell_what_an_argument_means_in_a_sentence():
    assert meanings_of(Base) == {
        "depth": "how deep, e.g. 3 or 4",
        "width": "both sizes of Thing, in `pixels`",
        "height": "both sizes of Thing, in `pixels`",
    }
    assert summary_of(Base) == "What it is" and summary_of(type("Silent", (), {})) == ""
    assert meanings_of(Derived)["depth"] == "how deep, e.g. 3 or 4", "a reference gives way to what it refers to"
    assert meanings_of(Derived)["width"] == "its own"
    assert meanings_of(torch.optim.SGD)["weight_decay"] == "weight decay (L2 penalty) (default: 0)"


def ours() -> list[Any]:
    """Everything of this library that a config builds."""
    registries = [each for each in vars(registry).values() if isinstance(each, Registry)]
    for each in registries:
        each.import_from_location()
    registered = {kind: None for each in registries for kind in each.module_dict.values() if is_ours(kind)}
    return [*registered, ViewSpec, WholeSpec, build_target, *SCHEDULES.values()]


@pytest.mark.parametrize("kind", ours(), ids=lambda kind: kind.__name__)
def test_every_argument_has_a_meaning(kind):
    given = ("samples", "num_features", "device", "dtype", "online")  # no setting: the builder passes them
    arguments = schema_of(kind, Config(kind, given=given)).arguments
    silent = [name for name, each in arguments.items() if not each.meaning or re.match("(see|as of) ", each.meaning)]
    assert silent == []


@pytest.mark.parametrize("kind", ours(), ids=lambda kind: kind.__name__)
def test_defaults_fit_their_annotations(kind):
    for name, each in schema_of(kind, Config(kind)).arguments.items():
        if each.default is not inspect.Parameter.empty:
            assert fits(each.default, each.annotation), (name, each.default, each.annotation)


@pytest.mark.parametrize(
    ("value", "annotation", "fitting"),
    [
        (3, float, True),
        (3.0, int, False),
        (True, int, False),
        (True, float, False),
        (1, bool, False),
        ("3", float, False),
        (float("nan"), float, False),
        (float("inf"), Positive, False),
        (None, int | None, True),
        ([1, 2], tuple[int, ...], True),
        ((1, 2), list[int], True),
        ([1], tuple[int, int], False),
        ("ab", list[str], False),
        ([1, "a"], list[int], False),
        (0, Positive, False),
        (1, Share, True),
        (1.01, Share, False),
        (0, Count, False),
        ("auto", Count, False),
        ("auto", AutoCount, True),
        (-1, Annotated[int, Range(1, also=(-1,))], True),
        (-2, Annotated[int, Range(1, also=(-1,))], False),
        (dict(a=1), dict, True),
        ("a", dict, False),
        (3, "an annotation that cannot be resolved", True),
        (3, Any, True),
        ("photos", torch.nn.Module, False),
        (torch.nn.ReLU(), torch.nn.Module, True),
    ],
)
def test_what_fits_an_annotation(value, annotation, fitting):
    assert fits(value, annotation) is fitting


def test_what_is_expected_is_said_in_words():
    assert expected(int | None) == "a whole number or None"
    assert expected(AutoCount) == "a whole number (at least 1 or 'auto')"
    assert expected(tuple[Share, Share]) == "a list of 2, each a number (0 to 1)"


class Keys(TypedDict):
    """What is added.

    Attributes:
        priority: when.
    """

    priority: int


class Rules(TypedDict, total=False):
    """What is known better.

    Attributes:
        depth: how deep it really is.
        absent: of what has one.
    """

    depth: Count
    absent: Count


def test_builders_add_keep_and_refine():
    schema = schema_of(Base, Config(Base, given=("width",), also=Keys, refine=Rules))
    assert list(schema.arguments) == ["depth", "height", "priority"]
    assert schema.arguments["depth"].meaning == "how deep it really is" and schema.arguments["depth"].is_ours
    assert not schema.arguments["height"].is_ours
    assert schema.unknown("x") == "unknown (valid for Base: depth, height, priority)"
    assert schema.unknown("dept") == "unknown; did you mean depth? (valid for Base: depth, height, priority)"


class First:
    def __init__(self, first=1):
        pass


class Second:
    def __init__(self, second=1, **kwargs):
        pass


class Both(Second, First):
    def __init__(self, own=1, **kwargs):
        First.__init__(self, **kwargs)


def test_of_other_libraries_all_that_a_base_takes_may_be_meant():
    schema = schema_of_any([Both])
    assert {"own", "first", "second"} <= set(schema.arguments) and schema.takes_any, "Second swallows its **kwargs"


def test_names_are_found_as_the_registries_would():
    assert find(mmengine.HOOKS, "StepHook", "densessl").__name__ == "StepHook"
    assert find(mmengine.HOOKS, "CheckpointHook", "densessl").__name__ == "CheckpointHook"
    assert find(mmengine.HOOKS, "densessl.StepHook", "mmengine").__name__ == "StepHook"
    assert find(mmengine.OPTIMIZERS, "torch.optim.SGD", "densessl") is torch.optim.SGD
    assert find(mmengine.OPTIMIZERS, torch.optim.SGD, "densessl") is torch.optim.SGD
    with pytest.raises(UnknownType, match="'StepHook' is unknown; "):
        find(mmengine.HOOKS, "StepHook", "mmengine")


def test_all_that_the_runner_reads_is_known():
    assert runner_arguments() <= set(top_level().arguments)


def test_factors_of_parameters_are_those_that_the_constructor_tells_of():
    told = set(re.findall(r"^\s*- ``(\w+)`` \(", DefaultOptimWrapperConstructor.__doc__, re.MULTILINE))
    assert told == set(Paramwise.__annotations__)
