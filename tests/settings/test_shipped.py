"""No alarm is false: every shipped config passes, and so do stock ones."""

import pytest

from densessl.settings import check_config
from tests.settings.run_of import CONFIGS, run_of

SHIPPED = sorted(path.relative_to(CONFIGS).as_posix() for path in CONFIGS.rglob("*.py") if "_base_" not in path.parts)
PRETRAINING = [name for name in SHIPPED if not name.startswith("transfer")]


@pytest.mark.parametrize("name", PRETRAINING)
@pytest.mark.parametrize("demo", [False, True], ids=["whole", "demo"])
def test_pretraining_configs_have_no_problem(name, demo):
    assert check_config(run_of(name, demo=demo)) == []


@pytest.mark.det
@pytest.mark.parametrize("name", sorted(set(SHIPPED) - set(PRETRAINING)))
def test_configs_of_protocols_have_no_problem(name):
    assert check_config(run_of(name)) == []
