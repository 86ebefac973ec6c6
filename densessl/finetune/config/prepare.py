"""What the command line changes in the config of a detector or a segmentor: where its data is, what it starts from, how
many labels it sees, and how long it trains."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmengine.config import Config

from densessl.errors import SettingError
from densessl.finetune.config.annotations import check_classes
from densessl.finetune.config.data_files import check_data, set_data_root
from densessl.finetune.config.label_fractions import parse_labels, set_labels
from densessl.finetune.config.notes import NOTE, notes
from densessl.finetune.config.resize_schedule import bare_name, set_steps
from densessl.weights.read import NONE, Opened, open_init

if TYPE_CHECKING:  # which is on a floor above
    from densessl.runs import RunSettings

HOOKS = ("LoadBackboneHook", "LoadDetectorHook")


def change_config(cfg: Config, settings: "RunSettings") -> None:
    """Change the config of a detector or segmentor, in place, by the settings that need no data.

    Raises:
        SettingError: A setting does not go with this config or another setting, or the file of ``init`` is damaged.
        FileMissing, UnsafeCheckpointError: Of ``init``, see :func:`densessl.weights.read.open_init`.
    """
    for word, value in {
        "--demo": settings.demo,
        "--regions": settings.regions,
        "--epochs": settings.epochs,
        "--batch-size auto": settings.batch_size == "auto",
    }.items():
        if value:
            raise SettingError(f"{word} is for pretraining configs; {settings.config} has neither `views` nor `view`")
    if settings.evaluations is not None and settings.steps is None:
        raise SettingError("--evaluations needs --steps N; without it train_cfg.val_interval says when to evaluate")
    if settings.labels_seed is not None and settings.labels is None:
        raise SettingError("--labels-seed needs --labels; --seed is the seed of the run")
    if settings.labels is not None:
        parse_labels(settings.labels)  # a typo is told before files are read
    if settings.data_root:
        set_data_root(cfg, settings.data_root)
    if settings.batch_size is not None:
        cfg.train_dataloader.batch_size = settings.batch_size
    imports = dict(cfg.get("custom_imports") or dict(imports=[], allow_failed_imports=False))
    own = ["densessl.compat", *(["densessl.finetune"] if settings.init else [])]
    cfg.custom_imports = imports | dict(imports=list(dict.fromkeys([*imports["imports"], *own])))
    if settings.init:
        set_init(cfg, settings.init)


def read_data(cfg: Config, settings: "RunSettings") -> list[str]:
    """Change ``cfg``, in place, by the settings that need its data, once all of it has been looked for: ``steps`` and
    ``labels``.

    The length of a schedule is that of all labels, however few are chosen: so the schedules of all fractions are equal.

    Returns:
        Lines for the log.

    Raises:
        DataNotFound: See :func:`densessl.finetune.config.data_files.check_data`.
        SettingError: See :func:`densessl.finetune.config.annotations.check_classes`,
            :func:`densessl.finetune.config.resize_schedule.set_steps` and
            :func:`densessl.finetune.config.label_fractions.set_labels`.
    """
    check_data(cfg)
    lines = [f"{NOTE}{line}" for line in check_classes(cfg)]
    if settings.steps is not None:
        lines.append(set_steps(cfg, settings.steps, settings.evaluations or 1))
    if settings.labels is not None:
        lines += set_labels(cfg, settings.labels, settings.labels_seed or 0, Path(cfg.work_dir, "labels"))
        if "max_epochs" in cfg.train_cfg:
            lines.append(
                f"--labels: an epoch has fewer steps, and there are {cfg.train_cfg.max_epochs} epochs as before; "
                "--steps N keeps the length"
            )
    return lines + notes(cfg, settings.init, settings.launcher)


def set_init(cfg: Config, file: str) -> None:
    """Let training start from a file, or from random numbers (``"none"``), in place.

    The first of the config's loading hooks gets the file, others are left out; without any, one is added. For a file
    with a whole detector it is a LoadDetectorHook. Nothing else is loaded: ``init_cfg`` with weights, the older
    ``pretrained`` and ``load_from`` become None.
    """
    kind = "LoadDetectorHook" if file != NONE and _has_detector(open_init(file)) else "LoadBackboneHook"
    hooks = list(cfg.get("custom_hooks") or [])
    places = [i for i, hook in enumerate(hooks) if bare_name(hook.get("type", "")).endswith(HOOKS)]
    hook = dict(hooks[places[0]]) if places else {}
    given = bare_name(hook.get("type", ""))
    if file == NONE:
        kind = given or kind
    elif given != kind:
        hook = {}  # settings of another hook
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
    """Whether a file has a whole detector that was pretrained here, or converted: its ``meta`` says so."""
    described = opened.meta.get("densessl")
    return "detector" in opened.meta or (isinstance(described, Mapping) and "detector" in described)


def _dicts(node: Any) -> Iterator[dict[str, Any]]:
    """A config's entry and all dicts in it."""
    if isinstance(node, Mapping):
        yield node
        node = node.values()
    if not isinstance(node, str) and hasattr(node, "__iter__"):
        for each in list(node):
            yield from _dicts(each)
