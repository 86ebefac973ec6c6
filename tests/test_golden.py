"""Golden cases: numbers computed by running the official implementations, one test a file.

``DENSESSL_GOLDEN=DIR`` collects the files of DIR (searched recursively) instead of those in the repository. A family
without an adaptor fails: an adaptor is a function of ``tests/golden/*.py`` named like the family.
"""

import importlib
import os
import pkgutil
from pathlib import Path

import numpy as np
import pytest
import torch

import tests.golden
from tests.golden.case import Case

FOLDER = Path(os.environ.get("DENSESSL_GOLDEN") or Path(__file__).parent / "data" / "golden")
FILES = sorted(FOLDER.rglob("*__*.npz"))


def adaptor(family: str):
    for module in pkgutil.iter_modules(tests.golden.__path__):
        name = f"tests.golden.{module.name}"
        found = getattr(importlib.import_module(name), family, None)
        if getattr(found, "__module__", None) == name:
            return found
    pytest.fail(f"no adaptor for golden family {family!r}: write a function of that name in tests/golden/")


def test_what_no_comparison_asked_for_is_named(tmp_path):
    """A read of names alone is none; settings may be left."""
    path = tmp_path / "family__case.npz"
    np.savez(path, **{name: np.ones(2) for name in ("q", "k", "gap", "hp_tau", "g/a", "g/b")})
    case = Case(path)
    assert case.unread == {"q", "k", "gap", "g/a", "g/b"}
    case.value("q", torch.ones(2))
    assert list(case.group("g/")) == ["a", "b"] and case.group("g/")["b"].sum() == 2
    case.informative("gap")
    assert case.unread == {"k", "g/a"}


def test_without_an_effective_gradient_a_parameter_had_none():
    """The first parameter of a case, left alone in its last step."""
    case = Case(Path(__file__).parent / "data" / "golden" / "lars__exclude.npz")
    last = len(case["g0"])
    del case.arrays[f"eff_g0_{last - 1}"]
    with pytest.raises(AssertionError, match=f"p0_{last}"):
        adaptor("lars")(case)
    case.arrays |= {f"{name}0_{last}": case.arrays[f"{name}0_{last - 1}"] for name in ("p", "buf")}
    adaptor("lars")(case)


def test_cases_are_found():
    assert FILES, f"no golden cases under {FOLDER}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path):
    case = Case(path)
    adaptor(case.family)(case)
    assert not case.unread, f"{path.name}: never compared: {sorted(case.unread)}"
