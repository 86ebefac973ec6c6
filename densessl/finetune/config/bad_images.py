"""Let the data sets of a detector's or segmentor's config survive images that cannot be read."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densessl.budget import DEFAULT
from densessl.data.bad_images import FILE, GREY
from densessl.finetune.config.data_files import leaves

READER = "LoadImageFromFile"
TAKEN_OVER = {"to_float32"}  # arguments of the stock reader that ReadImage has too
IGNORED = {"type", "backend_args", "file_client_args", "ignore_empty"}  # None, or without a meaning here


def tolerate_bad_images(cfg: Config, budget: str | int | None) -> None:
    """Read images with densessl's reader, replace unreadable ones in training, and count them, in place.

    In evaluation an unreadable image is grey, and its objects count as missed. Pipelines with a reader of another kind,
    or with arguments that ours has not (a remote backend, another decoder), are left alone.

    Args:
        budget: see :func:`densessl.budget.allowed`; None for the default.
    """
    record = str(Path(cfg.work_dir, FILE).absolute())
    changed = [_read_ours(leaf.cfg.get("pipeline") or [], {}) for leaf in leaves(cfg, "train_dataloader")]
    for loader in ("val_dataloader", "test_dataloader"):
        for leaf in leaves(cfg, loader):
            _read_ours(leaf.cfg.get("pipeline") or [], dict(unreadable=GREY, record=record))
    if not any(changed):
        return
    loader = cfg.train_dataloader
    loader.dataset = dict(type="densessl.ReplacingDataset", dataset=loader.dataset, record=record)
    hooks = [hook for hook in cfg.get("custom_hooks") or [] if "BadImagesHook" not in str(hook.get("type"))]
    cfg.custom_hooks = [*hooks, dict(type="densessl.BadImagesHook", budget=DEFAULT if budget is None else budget)]


def _read_ours(pipeline: Any, extra: Mapping[str, Any]) -> bool:
    """Replace the stock readers in a pipeline; return whether there was one."""
    found = False
    for step in _steps(pipeline):
        stock = str(step.get("type")).rpartition(".")[2] == READER
        rest = {key: value for key, value in step.items() if key not in IGNORED | TAKEN_OVER and value is not None}
        if not stock or rest or step.get("backend_args") or step.get("file_client_args"):
            continue
        kept = {key: step[key] for key in TAKEN_OVER if key in step}
        for key in list(step):
            del step[key]
        step.update(type="densessl.ReadImage", **kept, **extra)
        found = True
    return found


def _steps(node: Any) -> Iterator[dict]:
    """Yield the steps of a pipeline, also those inside of others (test-time augmentation)."""
    if isinstance(node, Mapping):
        yield node
        node = list(node.values())
    if isinstance(node, list | tuple):
        for each in node:
            yield from _steps(each)
