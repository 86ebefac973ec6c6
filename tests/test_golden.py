"""Golden cases: numbers computed by running the official implementations, one test a file.

``DENSESSL_GOLDEN=DIR`` collects the files of DIR (searched recursively) instead of those in the repository. A family
without an adaptor fails: an adaptor is a function of ``tests/golden/*.py`` named like the family.
"""

import importlib
import os
import pkgutil
from pathlib import Path

import pytest

import tests.golden
from tests.golden.case import Case

FOLDER = Path(os.environ.get("DENSESSL_GOLDEN") or Path(__file__).parent / "data" / "golden")
FILES = sorted(FOLDER.rglob("*__*.npz"))


def adaptor(family: str):
    for module in pkgutil.iter_modules(tests.golden.__path__):
        found = getattr(importlib.import_module(f"tests.golden.{module.name}"), family, None)
        if found is not None:
            return found
    pytest.fail(f"no adaptor for golden family {family!r}: write a function of that name in tests/golden/")


def test_cases_are_found():
    assert FILES, f"no golden cases under {FOLDER}"


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_golden(path: Path):
    case = Case(path)
    adaptor(case.family)(case)
