"""Apply the settings of a run to the config of a detector or segmentor: data, initial weights, labels and length."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densessl.errors import SettingError
from densessl.finetune.config.annotations import check_classes
from densessl.finetune.config.bad_images import tolerate_bad_images
from densessl.finetune.config.counts import count_train_set, lines_of
from densessl.finetune.config.data_files import check_data, set_data_root
from densessl.finetune.config.label_fractions import parse_labels, set_labels
from densessl.finetune.config.notes import NOTE, notes
from densessl.finetune.config.own_data import read_own_data, set_own_data
from densessl.finetune.config.resize_schedule import bare_name, set_steps
from densessl.finetune.config.settle import settle_labels
from densessl.run_settings import RunSettings
from densessl.weights.read import NONE, Opened, open_init
from densessl.wording import count

HOOKS = ("LoadBackboneHook", "LoadDetectorHook")


def change_config(cfg: Config, settings: RunSettings) -> None:
    """Apply the settings that need no data to the config of a detector or segmentor, in place.

    Raises:
        SettingError: A setting does not fit this config or another setting, or the file of ``init`` is damaged.
        FileMissing, UnsafeCheckpointError: The file of ``init``, see :func:`densessl.weights.read.open_init`.
    """
    for option, value in {
        "--demo": settings.demo,
        "--regions": settings.regions,
        "--epochs": settings.epochs,
        "--batch-size auto": settings.batch_size == "auto",
    }.items():
        if value:
            raise SettingError(f"{option} is for pretraining configs; {settings.config} has neither `views` nor `view`")
    if settings.evaluations is not None and settings.steps is None:
        raise SettingError("--evaluations needs --steps N; without it train_cfg.val_interval says when to evaluate")
    if settings.labels_seed is not None and settings.labels is None:
        raise SettingError("--labels-seed needs --labels; --seed is the seed of the run")
    if settings.labels is not None:
        parse_labels(settings.labels)  # report a typo before reading files
    if isinstance(settings.data_root, tuple):
        raise SettingError("--data-root: several places are for pretraining; a detector's config has one data_root")
    set_own_data(cfg, settings)
    if settings.data_root:
        set_data_root(cfg, settings.data_root)
    if settings.batch_size is not None:
        cfg.train_dataloader.batch_size = settings.batch_size
    imports = dict(cfg.get("custom_imports") or dict(imports=[], allow_failed_imports=False))
    own = ["densessl.compat", "densessl.engine", "densessl.finetune", "densessl.finetune.reading"]
    cfg.custom_imports = imports | dict(imports=list(dict.fromkeys([*imports["imports"], *own])))
    if settings.init:
        set_init(cfg, settings.init)


def read_data(cfg: Config, settings: RunSettings) -> list[str]:
    """Check that all data exists, and apply the settings that need it, ``steps`` and ``labels``, to ``cfg``, in place.

    An epoch counts as that of all labels, however few are chosen, so that all fractions have the same schedule.

    Returns:
        Lines for the log.

    Raises:
        DataNotFound: See :func:`densessl.finetune.config.data_files.check_data`.
        SettingError: See :func:`densessl.finetune.config.annotations.check_classes`,
            :func:`densessl.finetune.config.resize_schedule.set_steps` and
            :func:`densessl.finetune.config.label_fractions.set_labels`.
    """
    told = read_own_data(cfg, settings)
    check_data(cfg)
    labels = Path(cfg.work_dir, "labels").absolute()
    told += check_classes(cfg)
    told += settle_labels(cfg, settings.boxes_as_masks, labels)
    lines = [f"{NOTE}{line}" for line in told]
    counts = count_train_set(cfg)
    built = lines_of(counts) if counts else []
    if settings.steps is not None:
        lines.append(set_steps(cfg, settings.steps, settings.evaluations or 1))
    if settings.labels is not None:
        lines += set_labels(cfg, settings.labels, settings.labels_seed or 0, labels)
        if "max_epochs" in cfg.train_cfg:
            lines.append(
                f"--labels: an epoch has fewer steps, and the run still has {count(cfg.train_cfg.max_epochs, 'epoch')}"
                "; --steps N keeps the length"
            )
    else:
        lines += built
    tolerate_bad_images(cfg, settings.bad_images)
    return lines + notes(cfg, settings.init, settings.launcher)


def set_init(cfg: Config, file: str) -> None:
    """Make training start from a file, or from random weights (``"none"``), in place.

    The first loading hook of the config gets the file, and other loading hooks are removed; if there is none, one is
    added. For a file with a whole detector it is a LoadDetectorHook. Nothing else is loaded: ``init_cfg`` with weights,
    the older ``pretrained``, and ``load_from`` become None.
    """
    kind = "LoadDetectorHook" if file != NONE and _has_detector(open_init(file)) else "LoadBackboneHook"
    hooks = list(cfg.get("custom_hooks") or [])
    places = [i for i, hook in enumerate(hooks) if bare_name(hook.get("type", "")).endswith(HOOKS)]
    hook = dict(hooks[places[0]]) if places else {}
    given = bare_name(hook.get("type", ""))
    if file == NONE:
        kind = given or kind
    elif given != kind:
        hook = {}  # its settings are for the other kind of hook
    hook.update(type=f"densessl.{kind}", checkpoint=None if file == NONE else file)
    at = places[0] if places else len(hooks)
    cfg.custom_hooks = [*hooks[:at], hook, *(each for i, each in enumerate(hooks[at:], at) if i not in places)]
    cfg.load_from = None
    for node in _dicts(cfg.model):
        if isinstance(node.get("init_cfg"), Mapping) and node["init_cfg"].get("type") == "Pretrained":
            node["init_cfg"] = None
        if isinstance(node.get("pretrained"), str):
            node["pretrained"] = None


def _has_detector(opened: Opened) -> bool:
    """Whether a file has a whole detector that densessl pretrained or converted, according to its ``meta``."""
    described = opened.meta.get("densessl")
    return "detector" in opened.meta or (isinstance(described, Mapping) and "detector" in described)


def _dicts(node: Any) -> Iterator[dict[str, Any]]:
    """Yield a config's entry and all dicts in it."""
    if isinstance(node, Mapping):
        yield node
        node = node.values()
    if not isinstance(node, str) and hasattr(node, "__iter__"):
        for each in list(node):
            yield from _dicts(each)
