"""Notes on a config before it trains: settings that are valid but often unintended."""

import os
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS

from densessl.finetune.config.annotations import classes_of
from densessl.finetune.config.data_files import class_of, default_of, leaves
from densessl.wording import count

NOTE = "note: "  # prefix of the lines; a comparison repeats them beside its results
# Settings of a ResNet that freeze something: the freezing values, and the value that trains everything.
FREEZING = {"frozen_stages": (range(5), -1), "norm_eval": ([True], False), "norm_cfg.requires_grad": ([False], True)}


def notes(cfg: Config, init: str | None, launcher: str) -> list[str]:
    """Return lines for the log, each of which begins with :data:`NOTE`.

    Args:
        init, launcher: See :class:`densessl.run_settings.RunSettings`.
    """
    lines = [*_frozen(cfg, init), *_batch(cfg, launcher), *_numbers_of_classes(cfg)]
    return [f"{NOTE}{line}" for line in lines]


def _frozen(cfg: Config, init: str | None) -> Iterator[str]:
    """Note what the config freezes in the backbone; stock configs do so for supervised weights."""
    backbone = cfg.model.get("backbone") or {}
    kind = class_of(backbone.get("type"), cfg.get("default_scope"), MODELS)
    frozen = {}
    for key, (freezing, _) in FREEZING.items():
        name, _, inner = key.partition(".")
        setting = backbone.get(name, default_of(kind, name))
        setting = setting.get(inner) if inner and isinstance(setting, Mapping) else setting
        if not isinstance(setting, Mapping) and setting in freezing:
            frozen[key] = setting
    if init is not None and frozen:
        weights = "at their random initial values" if init == "none" else f"as in {init}"
        options = " ".join(f"model.backbone.{key}={FREEZING[key][1]}" for key in frozen)
        settings = ", ".join(f"{key}={setting}" for key, setting in frozen.items())
        yield (
            f"model.backbone has {settings}, which keeps layers or statistics {weights}; "
            f"all of it learns with --set {options}"
        )


def _batch(cfg: Config, launcher: str) -> Iterator[str]:
    """Note a learning rate that is meant for another number of images per step."""
    scaling, wrapper = cfg.get("auto_scale_lr") or {}, cfg.get("optim_wrapper") or {}
    base, batch = scaling.get("base_batch_size"), cfg.train_dataloader.get("batch_size")
    if not (base and batch) or scaling.get("enable") or launcher == "slurm":
        return
    processes = int(os.environ.get("WORLD_SIZE", 1)) if launcher == "pytorch" else 1
    at_once, accumulated = batch * processes, wrapper.get("accumulative_counts", 1)
    if at_once * accumulated == base:
        return
    options = ["auto_scale_lr.enable=True scales it"] if accumulated == 1 else []
    if base % at_once == 0:
        options.append(f"optim_wrapper.accumulative_counts={base // at_once} makes the step that large")
    rate = (wrapper.get("optimizer") or {}).get("lr")
    yield (
        f"the learning rate {rate} is for {count(base, 'image')} a step, and a step has {at_once * accumulated}"
        + f"; --set {', or '.join(options)}" * bool(options)
    )


def _numbers_of_classes(cfg: Config) -> Iterator[str]:
    """Note heads with another number of classes than the train set."""
    sizes = {len(classes_of(leaf)) for leaf in leaves(cfg, "train_dataloader")}
    if len(sizes) == 1 and (size := sizes.pop()):
        for key, number in _heads(cfg.model, "model"):
            if number != size:
                yield f"{key}={number}, and the train set has {size}"


def _heads(node: Any, key: str) -> Iterator[tuple[str, int]]:
    """Yield the ``num_classes`` of all heads, by their keys in the config."""
    items = node.items() if isinstance(node, Mapping) else enumerate(node) if isinstance(node, list) else ()
    for name, value in items:
        if name == "num_classes" and isinstance(value, int) and "head" in key:
            yield f"{key}.{name}", value
        else:
            yield from _heads(value, f"{key}.{name}")
