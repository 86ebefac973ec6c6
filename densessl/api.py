"""The Python interface: what a notebook or another program calls."""

import inspect
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from densessl.comparison import Grid, Results, run_grid, write_results
from densessl.engine.export_hook import ExportHook
from densessl.errors import SettingError
from densessl.methods import method_config, size_changes
from densessl.run_settings import RunSettings
from densessl.runs import build_run
from densessl.weights.io.checkpoints import find_latest_checkpoint
from densessl.wording import suggestion

# Short names of settings, and their places in configs.
SHORT = {
    "lr": "optim_wrapper.optimizer.lr",
    "weight_decay": "optim_wrapper.optimizer.weight_decay",
    "workers": "train_dataloader.num_workers",
    "precision": "optim_wrapper.precision",
    "accumulate": "optim_wrapper.accumulative_counts",
    "log_every": "default_hooks.logger.interval",
    "save_every": "default_hooks.checkpoint.interval",
}


@dataclass(frozen=True)
class Pretrained:
    """The files that a pretraining wrote.

    Attributes:
        work_dir: work folder, with logs, ``metrics.jsonl`` and checkpoints.
        weights: the exported backbone (or detector), which :func:`densessl.load_backbone` (``load_detector``) loads.
        checkpoint: the last checkpoint; the run can be resumed from it.
    """

    work_dir: Path
    weights: Path | None
    checkpoint: Path | None


def pretrain(
    data: str | Path | Sequence[str | Path] | None = None,
    method: str = "pixpro",
    backbone: str | Mapping[str, Any] | None = None,
    out: str | Path | None = None,
    *,
    epochs: int | str | None = None,
    batch_size: int | str | None = None,
    init: str | Path | None = None,
    seed: int | None = None,
    size: int | None = None,
    demo: bool = False,
    resume: bool | str | Path = False,
    regions: str | Path | None = None,
    bad_images: str | int | None = None,
    options: Mapping[str, Any] | None = None,
    **settings: Any,
) -> Pretrained:
    """Pretrain on unlabelled images: what ``densessl train METHOD --data-root DATA`` does.

    Args:
        data: folder of images (searched recursively), archive, list file or COCO json, whose labels are ignored, or a
            list of several; not needed with ``demo``.
        method: name of a method (:func:`densessl.list_methods`) or of a config.
        backbone: ``"resnet18"``, ``"resnet50"`` …, ``"timm.NAME"`` or ``"mmdet.NAME"``, or a config,
            ``dict(type="mmdet.ResNet", depth=18)``; by default the method's own.
        out: folder for logs, checkpoints and the exported weights; by default ``work_dirs/<name of the config>``.
        epochs, batch_size: a number, or ``"auto"`` to derive it from the number of images; by default the config's.
        init: file with weights to start from.
        size: side of the views in pixels; smaller views (local crops) are scaled in proportion.
        seed, demo, resume, regions, bad_images: see :class:`densessl.RunSettings`.
        options: entries of the config by dotted name: ``{"model.objectives.0.gamma": 1.0}``; they override everything
            else.
        settings: short names of common entries: ``lr``, ``weight_decay``, ``workers``, ``precision`` (``"fp32"``,
            ``"bf16"``, ``"auto"``), ``accumulate``, ``log_every`` (iterations), ``save_every`` (epochs).

    Raises:
        DensesslError: settings, data or weights do not fit; nothing was trained.
    """
    _check_names(pretrain, settings, SHORT)
    if data is None and not demo:
        raise SettingError("data: found None, expected a folder of images, a list file or a COCO json (or demo=True)")
    if not isinstance(options, Mapping | None):
        raise SettingError(f"options: found {options!r:.80}, expected a dict of values by dotted name")
    config, changes = method_config(method, backbone)
    if size is not None:
        changes |= size_changes(config, size)
    runner = build_run(
        RunSettings(
            config,
            data_root=[_text(each) for each in data] if isinstance(data, list | tuple) else _text(data),
            demo=demo,
            work_dir=_text(out),
            resume=resume if isinstance(resume, bool) else str(resume),
            init=_text(init),
            seed=seed,
            batch_size=batch_size,
            epochs=epochs,
            regions=_text(regions),
            bad_images=bad_images,
            options={**changes, **{SHORT[name]: value for name, value in settings.items()}, **(options or {})},
        )
    )
    runner.train()
    written = next((hook.written for hook in runner.hooks if isinstance(hook, ExportHook)), None)
    return Pretrained(Path(runner.work_dir), written, find_latest_checkpoint(runner.work_dir))


def compare(
    config: str, inits: Mapping[str, str | Path | None], out: str | Path, *, jobs: int = 1, **settings: Any
) -> Results:
    """Train one config from several starts and compare them: what ``densessl compare`` does.

    Args:
        config: config of the detector or segmentor: a file, a shipped config's name or ``mmdet::NAME``.
        inits: weights file of each start by name, None for random weights; the others are compared with the first.
        out: folder for all results. After an interruption, the same call continues.
        jobs: number of simultaneous runs.
        settings: further fields of :class:`densessl.comparison.Grid`: ``seeds``, ``labels``, ``steps``, ``data_root`` …

    Returns:
        The :class:`densessl.comparison.Results`, also written to ``out``.

    Raises:
        DensesslError: something does not fit; nothing was run.
    """
    _check_names(compare, settings, [each.name for each in fields(Grid)])
    if not isinstance(inits, Mapping):
        raise SettingError(
            f"inits: found {inits!r:.80}, expected a dict of files by name, with None for random weights"
        )
    for name in ("seeds", "labels"):
        value = settings.get(name, ())
        if isinstance(value, str) or not isinstance(value, Iterable):
            raise SettingError(f"{name}: found {value!r}, expected a list, such as [{value!r}]")
    files = {name: _text(file) for name, file in inits.items()}
    results = run_grid(Grid(config, files, Path(out), **settings), jobs)
    write_results(results, Path(out))
    return results


def _text(path: str | Path | None) -> str | None:
    return None if path is None else str(path)


def _check_names(function: Callable, settings: Iterable[str], known: Iterable[str]) -> None:
    """Raise a SettingError that lists all ``settings`` that a function does not take, with the nearest names."""
    named = [name for name, each in inspect.signature(function).parameters.items() if each.kind != each.VAR_KEYWORD]
    wrong = [
        f"{function.__name__} has no setting {name!r}; {suggestion(name, {*known, *named})}"
        for name in settings
        if name not in known
    ]
    if wrong:
        raise SettingError("\n".join(wrong))
