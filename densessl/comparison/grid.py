"""The grid of a comparison: its runs, what determines their results, and their number of steps."""

import argparse
import difflib
import hashlib
import json
import os
import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.config import Config, DictAction

from densessl.comparison.cells import CHECKPOINTS, RUN, Cell, CompareError
from densessl.comparison.results import read_run, read_step_seconds
from densessl.configs import is_pretraining, load_config
from densessl.errors import FileMissing, SettingError
from densessl.files import sha256
from densessl.finetune.config.annotations import labels_digest
from densessl.finetune.config.data_files import check_data, leaves, set_data_root
from densessl.finetune.config.label_fractions import parse_labels
from densessl.finetune.config.own_data import read_own_data, set_own_data
from densessl.overrides import apply_options
from densessl.run_settings import RunSettings
from densessl.weights.detector.export import LOADERS
from densessl.weights.io.torch_files import existing
from densessl.weights.read import NONE
from densessl.wording import count, nearest

TRAINER = ("-m", "densessl", "train")  # arguments of Python that train
ALL = "all"  # the fraction of a grid that names none
TIMED_STEPS = 30
SHOWN = 20  # most lines to show of the difference of two configs
# Entries of a config that change what a run prints and stores, but not what it computes.
LOGGING = ("work_dir", "experiment_name", "visualizer", "vis_backends", "log_processor", "log_level", "auto_resume")
LOGGING += (
    "default_hooks.logger",
    "default_hooks.timer",
    "default_hooks.checkpoint",
    "default_hooks.visualization",
)


@dataclass(frozen=True)
class Grid:
    """A comparison: every start with every fraction of the labels and every seed.

    Attributes:
        config: Config of the detector or segmentor, a file or ``mmdet::NAME``.
        inits: Weights file of each start by name, None for random weights. The others are compared with the first.
        out: Folder for the results.
        seeds: Seeds of the runs; the same for every start, so that differences are paired.
        labels: Fractions, as for ``densessl train --labels``; ``"all"`` omits the option.
        steps: Optimiser steps of every run. Without ``steps`` and ``minutes``, the config's own schedule.
        minutes: Minutes that the steps of a run may take, without validation and start-up; sets the number of steps.
        evaluations: Number of evaluations of every run, evenly spread, the last one at its end.
        data_root: Folder of the data; None for the config's own.
        own_data: Other data than the config's: ``train_json``, ``voc_root``, ``classes`` and the other fields of
            :class:`densessl.run_settings.RunSettings` for it.
        cfg_options: ``KEY=VALUE`` for all runs.
        hashes: SHA-256, by name, of weights files that are not present; enough if their runs are done.
        threads: ``OMP_NUM_THREADS`` of a run; None leaves it unchanged.
        trainer: Arguments of Python that start a training.
    """

    config: str
    inits: Mapping[str, str | None]
    out: Path
    seeds: Sequence[int] = (0, 1, 2)
    labels: Sequence[str] = (ALL,)
    steps: int | None = None
    minutes: float | None = None
    evaluations: int | None = None
    data_root: str | None = None
    own_data: Mapping[str, Any] = field(default_factory=dict)
    cfg_options: Sequence[str] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)
    threads: int | None = None
    trainer: Sequence[str] = TRAINER


def check(grid: Grid) -> None:
    """Check a grid before anything runs. Raises a CompareError that lists everything that is wrong."""
    wrong = []
    for name, file in grid.inits.items():
        if not is_name(name):
            wrong.append(f"--init {name!s:.40}=…: expected a name of up to 100 letters, digits and . + - _")
        if file is not None and name not in grid.hashes:
            try:
                existing(file)
            except FileMissing as error:
                wrong.append(f"--init {name}: {error}")
    if not grid.inits:
        wrong.append("--init: expected NAME=FILE at least once, found none")
    for name, values in (("seeds", grid.seeds), ("labels", grid.labels)):
        if not values or len(set(values)) < len(values):
            wrong.append(f"--{name}: expected one or more, all different, found {list(values)}")
    for labels in grid.labels:
        try:
            parse_labels("100%" if labels == ALL else labels)
        except SettingError as error:
            wrong.append(str(error))
    for name in ("steps", "minutes", "evaluations"):
        number = getattr(grid, name)
        if number is not None and number <= 0:
            wrong.append(f"--{name}: expected more than 0, found {number}")
    if grid.steps is not None and grid.minutes is not None:
        wrong.append(f"--steps {grid.steps} --minutes {grid.minutes:g}: expected one of them")
    if grid.data_root is not None:
        wrong += missing_folder("--data-root", Path(grid.data_root))
    if wrong:
        raise CompareError("\n".join(wrong))


def is_name(name: Any) -> bool:
    """Whether a start may have this name, which is part of file names."""
    return isinstance(name, str) and re.fullmatch(r"[\w.+-]{1,100}", name) is not None


def missing_folder(what: str, path: Path) -> list[str]:
    """Return a line with the nearest name if there is no such folder; otherwise nothing."""
    if path.is_dir():
        return []
    if path.exists():
        return [f"{what}: {path} is a file, expected a folder"]
    folder = next((parent for parent in path.absolute().parents if parent.is_dir()), Path("/"))
    near = nearest(path.name, sorted(os.listdir(folder)), 1, 0.0)
    return [f"{what}: nothing at {path}; nearest in {folder} is {near[0] if near else 'none'}"]


def config_text(cfg: Config) -> str:
    """Return the entries of a config that determine the result of a run, as JSON with sorted keys: all except
    :data:`LOGGING`, the seed, and the path of the weights, whose hash is stored separately."""
    content = json.loads(json.dumps(cfg.to_dict(), default=str))
    for key in (*LOGGING, "randomness.seed"):
        *path, last = key.split(".")
        node = content
        for part in path:
            node = node.get(part) or {}
        node.pop(last, None)
    content = {key: value for key, value in content.items() if value != {}}  # an emptied entry equals a missing one
    for hook in content.get("custom_hooks") or ():
        if hook["type"].endswith(LOADERS):
            hook.pop("checkpoint", None)
    return json.dumps(content, indent=1, sort_keys=True)


def shared_identity(grid: Grid) -> tuple[dict[str, Any], dict[str, str]]:
    """Return what the runs of a grid share: the part of their identities that has the hashes of the config and of the
    files that list images and annotations, and the environment variables that the config depends on. The text of the
    config is stored in ``OUT/configs`` under its hash, for :func:`explain`.

    Raises:
        FileNotFoundError: The config, or images or annotations, do not exist; the message lists all missing files.
        MissingPackage: The config is of a package that is not installed.
    """
    cfg = load_config(grid.config)
    if is_pretraining(cfg):
        raise CompareError(f"--config: {grid.config} pretrains; expected the config of a detector or segmentor")
    apply_options(cfg, options_of(grid.cfg_options))
    text = config_text(cfg)
    if grid.data_root:
        set_data_root(cfg, str(grid.data_root))
    if grid.own_data:
        cfg.work_dir = str(grid.out)
        settings = RunSettings(grid.config, **grid.own_data)
        set_own_data(cfg, settings)
        read_own_data(cfg, settings)
    check_data(cfg)
    listed = [leaf for loader in ("train_dataloader", "val_dataloader") for leaf in leaves(cfg, loader)]
    digest = hashlib.sha256(text.encode()).hexdigest()
    path = text_path(grid.out, digest)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    data = {leaf.key: found for leaf in listed if (found := labels_digest(leaf))}
    kept = {key: value for key, value in grid.own_data.items() if key in ("classes", "boxes_as_masks")}
    own = dict(own_data=kept) if grid.own_data else {}
    return dict(config=digest, data=data, **own), {k: os.environ[k] for k in cfg.env_variables if k in os.environ}


def options_of(words: Sequence[str]) -> dict[str, Any]:
    """Parse ``KEY=VALUE`` words as the command line of a run does."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--set", nargs="*", action=DictAction, default={})
    return parser.parse_args(["--set", *words]).set if words else {}


def text_path(folder: Path, digest: str) -> Path:
    return folder / "configs" / f"{digest[:16]}.json"


def explain(folder: Path, key: str, found: Any, expected: Any) -> str:
    """Return two values of an identity's entry as text; for the config's hash, the lines that differ."""
    values = f"{found!r} there, {expected!r} now"
    if key != "config" or not (found and text_path(folder, found).exists()):
        return values
    texts = [text_path(folder, digest).read_text(encoding="utf-8").splitlines() for digest in (found, expected)]
    diff = difflib.unified_diff(*texts, n=0, lineterm="")
    lines = [line for line in diff if not line.startswith(("---", "+++", "@@"))]
    rest = [f"and {count(len(lines) - SHOWN, 'more line')}"] if len(lines) > SHOWN else []
    return "".join(f"\n    {line}" for line in lines[:SHOWN] + rest)


def init_hashes(grid: Grid) -> dict[str, str | None]:
    """Return the SHA-256 of each start's file; None for random weights. ``grid.hashes`` has those of absent files."""
    hashes: dict[str, str | None] = dict.fromkeys(grid.inits)
    for name, file in grid.inits.items():
        if file is not None:
            hashes[name] = sha256(file) if Path(file).is_file() else grid.hashes[name]
    return hashes


def identity(fixed: Mapping[str, Any], init: str | None, labels: str, seed: int) -> dict[str, Any]:
    """Return the identity of a run: ``fixed``, which all runs of a grid share, and its own part."""
    return dict(fixed, init=init, labels=labels, seed=seed)


def cell_name(init: str, labels: str, seed: int) -> str:
    """Return the name of a cell: ``cells/pixpro_10pct_seed0``."""
    return f"cells/{init}_{re.sub(r'[^0-9A-Za-z.+-]', '-', labels.replace('%', 'pct'))}_seed{seed}"


def command(grid: Grid, init: str | None, labels: str, seed: int, steps: int | None) -> list[str]:
    """Return the command line of a run."""
    words = [sys.executable, *grid.trainer, grid.config]
    words += ["--data-root", str(grid.data_root)] if grid.data_root else []
    for name, value in grid.own_data.items():
        words += [f"--{name.replace('_', '-')}", *([] if value is True else [str(value)])]
    words += ["--init", NONE if init is None else str(init)]
    words += ["--labels", labels] if labels != ALL else []
    words += ["--steps", str(steps)] if steps else []
    words += ["--evaluations", str(grid.evaluations)] if grid.evaluations else []
    words += ["--seed", str(seed), "--work-dir", RUN]
    return words + (["--cfg-options", *grid.cfg_options] if grid.cfg_options else [])


def cells(
    grid: Grid, fixed: Mapping[str, Any], environment: Mapping[str, str], steps: int | None, keep: bool = False
) -> list[Cell]:
    """Return the runs of a grid as cells, seed by seed, so that partial results are comparable at any time.

    Args:
        fixed: The shared part of their identities.
        environment: Environment variables that the config depends on.
        steps: Optimiser steps of every run.
        keep: Keep their checkpoints.
    """
    threads = {"OMP_NUM_THREADS": str(grid.threads)} if grid.threads else {}
    hashes = init_hashes(grid)
    return [
        Cell(
            name=cell_name(init, labels, seed),
            identity=identity(fixed, hashes[init], labels, seed),
            about=dict(config=grid.config, init=init, file=None if file is None else str(file)),
            command=command(grid, file, labels, seed, steps),
            environment={**environment, **threads},
            read=partial(read_run, steps=steps),
            drops=() if keep else CHECKPOINTS,
        )
        for seed in grid.seeds
        for labels in grid.labels
        for init, file in grid.inits.items()
    ]


def timing_cell(grid: Grid, shared: Mapping[str, Any], environment: Mapping[str, str]) -> Cell:
    """Return the short run that plans the steps for ``minutes``, from random weights, because a step takes the same
    time from every start. Its result has ``step_seconds`` and ``steps``."""
    timed = replace(
        grid,
        inits={"plan": None},
        labels=grid.labels[:1],
        seeds=grid.seeds[:1],
        evaluations=1,
        # A logged time is a mean over a window, which must not include the first steps.
        cfg_options=(*grid.cfg_options, "default_hooks.logger.interval=5", "log_processor.window_size=5"),
    )
    (cell,) = cells(timed, shared, environment, TIMED_STEPS)
    own = dict(shared, labels=grid.labels[0], minutes=grid.minutes)
    return replace(cell, name="plan", identity=own, read=partial(read_plan, minutes=grid.minutes))


def read_plan(run: Path, minutes: float) -> dict[str, Any]:
    """Return the seconds per step, and the number of steps that take ``minutes``."""
    seconds = read_step_seconds(run, TIMED_STEPS)
    return dict(step_seconds=seconds, minutes=minutes, steps=max(1, int(60 * minutes / seconds)))
