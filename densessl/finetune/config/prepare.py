"""What the command line changes in the config of a detector or a segmentor: where its data is, what it starts from, how
many labels it sees, and how long it trains."""

import argparse
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

from densessl.errors import SettingError
from densessl.finetune.config.annotations import check_classes
from densessl.finetune.config.data_files import check_data, set_data_root
from densessl.finetune.config.label_fractions import parse_labels, set_labels
from densessl.finetune.config.notes import NOTE, notes
from densessl.finetune.config.resize_schedule import bare_name, set_steps
from densessl.weights.read import NONE, Opened, open_init

HOOKS = ("LoadBackboneHook", "LoadDetectorHook")


def prepare_transfer(cfg: Config, args: argparse.Namespace) -> None:
    """Change ``cfg``, in place, by the words that need no data: ``--data-root`` and ``--init``.

    Raises:
        SettingError: A word does not go with this config or with another word, or the file of ``--init`` is damaged.
        FileNotFoundError, UnsafeCheckpointError: Of ``--init``, see :func:`densessl.weights.read.open_init`.
    """
    for word, value in {"--demo": args.demo, "--regions": args.regions}.items():
        if value:
            raise SettingError(f"{word} is for pretraining configs; {args.config} has neither `views` nor `view`")
    if args.evaluations is not None and args.steps is None:
        raise SettingError("--evaluations is of a run of --steps N; without it train_cfg.val_interval says when")
    if args.labels_seed is not None and args.labels is None:
        raise SettingError("--labels-seed is of --labels; --seed is that of the run")
    if args.labels is not None:
        parse_labels(args.labels)  # a slip of the pen is told before files are read
    if args.data_root:
        set_data_root(cfg, args.data_root)
    imports = dict(cfg.get("custom_imports") or dict(imports=[], allow_failed_imports=False))
    own = ["densessl.compat", *(["densessl.finetune"] if args.init else [])]
    cfg.custom_imports = imports | dict(imports=list(dict.fromkeys([*imports["imports"], *own])))
    if args.init:
        set_init(cfg, args.init)


def complete(cfg: Config, args: argparse.Namespace) -> list[str]:
    """Change ``cfg``, in place, by what needs its data: all of it is looked for, then ``--steps`` and ``--labels``.

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
    said = [f"{NOTE}{line}" for line in check_classes(cfg)]
    if args.steps is not None:
        said.append(set_steps(cfg, args.steps, 1 if args.evaluations is None else args.evaluations))
    if args.labels is not None:
        said += set_labels(cfg, args.labels, args.labels_seed or 0, Path(cfg.work_dir, "labels"))
        if "max_epochs" in cfg.train_cfg:
            said.append(
                f"--labels: an epoch has as many steps fewer, and there are {cfg.train_cfg.max_epochs} as before; "
                "--steps N keeps the length"
            )
    return said + notes(cfg, args.init, args.launcher)


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
