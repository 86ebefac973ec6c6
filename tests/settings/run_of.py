"""A config as a run has it when its settings are checked: options applied, views linked. No data is needed."""

from pathlib import Path
from typing import Any

from mmengine.config import Config

from densessl.configs import is_pretraining, load_config
from densessl.overrides import apply_options
from densessl.pretraining import link_views
from densessl.settings import check_config

CONFIGS = Path(__file__).parents[2] / "configs"


def run_of(config: str, options: dict[str, Any] | None = None, demo: bool = False) -> Config:
    """The config of a run.

    Args:
        config: below ``configs/``, or the name of a stock config.
        options: by dotted name, as the command line gives them.
        demo: whether it is a short try.
    """
    cfg = load_config(config if "::" in config else str(CONFIGS / config))
    if demo:
        cfg.merge_from_dict(dict(cfg.get("demo", {})))
    apply_options(cfg, dict(options or {}))
    if is_pretraining(cfg):
        link_views(cfg)
    return cfg


def problems_of(config: str, **options: Any) -> list[str]:
    """What is wrong with a run; options with ``__`` for dots."""
    named = {name.replace("__", "."): value for name, value in options.items()}
    return check_config(run_of(config, named), given=named)
