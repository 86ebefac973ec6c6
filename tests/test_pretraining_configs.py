"""What holds for every pretraining config that is shipped: one home for each setting."""

import ast
from pathlib import Path

import pytest

from densessl.configs import is_pretraining, load_config
from densessl.engine.lr_hook import LRHook

CONFIGS = Path(__file__).parents[1] / "configs"
BASES = sorted(CONFIGS.glob("_base_/*.py"))
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


@pytest.mark.parametrize("path", RECIPES, ids=name)
def test_what_the_loader_and_the_model_share_is_stated_once(path):
    """At the top of the config: :func:`densessl.pretraining.link_views` hands it to both."""
    cfg = load_config(str(path))
    shared = {"views", "view", "photometric", "regions"}
    assert not shared & (cfg.train_dataloader.dataset.keys() | cfg.model.data_preprocessor.keys())


@pytest.mark.parametrize("path", [*BASES, *RECIPES], ids=name)
def test_no_config_changes_what_it_inherits_in_place(path):
    """Neither `custom_hooks[1].update(…)` nor `views[0]["size"] = 96`: what is overridden is merged or written anew."""
    for node in ast.walk(ast.parse(path.read_text())):
        assert not isinstance(node, ast.Delete | ast.For | ast.AugAssign), f"line {node.lineno}"
        if isinstance(node, ast.Assign):
            assert all(isinstance(target, ast.Name) for target in node.targets), f"line {node.lineno}"
        if isinstance(node, ast.Expr):
            assert isinstance(node.value, ast.Constant), f"line {node.lineno}"  # the docstring
