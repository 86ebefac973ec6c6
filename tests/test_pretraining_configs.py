"""What holds for every pretraining config that is shipped: one home for each setting."""

from pathlib import Path

import pytest

from densessl.configs import is_pretraining, load_config
from densessl.engine.lr_hook import LRHook

CONFIGS = Path(__file__).parents[1] / "configs"
RECIPES = sorted(path for path in CONFIGS.rglob("*.py") if not {"_base_", "transfer"} & set(path.parts))


def name(path):
    return path.relative_to(CONFIGS).as_posix()


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_hooks_stand_by_name_and_the_learning_rate_with_the_optimiser(path):
    cfg = load_config(str(path))
    assert is_pretraining(cfg)
    hooks = cfg.default_hooks
    assert {key: hooks[key].type for key in ("init", "step", "lr", "export")} == {
        "init": "InitHook",
        "step": "StepHook",
        "lr": "LRHook",
        "export": "ExportHook",
    }
    assert hooks.init.checkpoint is None and "custom_hooks" not in cfg
    LRHook(**{key: value for key, value in hooks.lr.items() if key != "type"})  # refuses a rate of its own
    assert cfg.optim_wrapper.optimizer.lr > 0
