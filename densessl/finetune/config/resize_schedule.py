"""Resize any MMEngine schedule to a given number of optimiser steps, with the same shape.

Comparisons on few labels use equal numbers of steps, so the loop counts iterations, and milestones, warm-ups, and the
begin and end of each scheduler keep their share of the schedule.
"""

import copy
import itertools
import math
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction
from typing import Any

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from densessl.errors import SettingError
from densessl.wording import count

# Schedulers of MMEngine and MMDetection, without their suffix: …LR, …Momentum, …ParamScheduler.
RAMPS = ("Linear", "Constant", "QuadraticWarmup")  # need at least two steps to reach their end
# the argument that defaults to the scheduler's length
LENGTHS = {"CosineAnnealing": "T_max", "OneCycle": "total_steps"}
OTHERS = ("MultiStep", "Step", "Exponential", "Poly", "CosineRestart")


def set_steps(cfg: Config, steps: int, evaluations: int = 1, epoch_length: int | None = None) -> str:
    """Make ``cfg`` train for ``steps`` optimiser steps, in place.

    Iteration p of the old schedule, of T iterations, becomes step ``round(p / T * steps)``, times the number of
    accumulated iterations per step. Schedulers by epoch become schedulers by iteration, as with
    ``convert_to_iter_based``: a staircase of epochs becomes the line through its left corners. Ramps (warm-ups) take at
    least two steps, the fewest in which MMEngine's reach their end; schedulers that began at the end of such a ramp
    still do.

    Validation runs ``evaluations`` times, evenly spread, the last time at the end. A checkpoint is written at the end
    only. Logs count iterations. The sampler of the train set becomes infinite.

    Args:
        epoch_length: Iterations of an epoch before the change. If None, and if it matters (warm-up in iterations, the
            rest in epochs), the train set is built to count them.

    Returns:
        A line for the log.

    Raises:
        SettingError: A number is out of range, or the config has a scheduler or hook that cannot be resized.
    """
    if steps < 1:
        raise SettingError(f"--steps: found {steps}, expected at least 1")
    if not 1 <= evaluations <= steps:
        raise SettingError(
            f"--evaluations: found {evaluations} in {count(steps, 'step')}, expected 1 to {steps}; "
            f"the nearest is {1 if evaluations < 1 else steps}"
        )
    _refuse_epochs(cfg)
    accumulated = int(cfg.get("optim_wrapper", {}).get("accumulative_counts", 1))
    iters = steps * accumulated
    epochs, total = _length(cfg.train_cfg)
    schedulers = list(_schedulers(cfg.get("param_scheduler")))
    for each in schedulers:
        _kind(each)  # refuse unknown ones before anything is built
    if any(bool(each.get("by_epoch", True)) != epochs for each in schedulers):
        epoch_length = epoch_length or iters_per_epoch(cfg)
    unit = epoch_length or 1  # if all count in the same unit, the unit does not matter
    total *= unit if epochs else 1
    _resize(schedulers, Fraction(iters, total), total, unit)
    cfg.train_cfg = _loop(iters, [accumulated * round(n * steps / evaluations) for n in range(1, evaluations + 1)])
    _count_iterations(cfg, iters)
    sampler = cfg.train_dataloader.get("sampler") or {}
    if bare_name(sampler.get("type", "DefaultSampler")) == "DefaultSampler":
        cfg.train_dataloader.sampler = dict(type="InfiniteSampler", shuffle=sampler.get("shuffle", True))
    was = count(total // unit, "epoch") if epochs else count(total, "iteration")
    more = f" of {accumulated} iterations" if accumulated > 1 else ""
    return f"--steps: the schedule of {was} in {count(steps, 'step')}{more}, evaluated {count(evaluations, 'time')}"


def iters_per_epoch(cfg: Config) -> int:
    """Return the iterations per epoch of the config's train set over all processes of the launcher. Builds the train
    set."""
    loader = cfg.train_dataloader
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope") or "mmengine"):
        images = len(DATASETS.build(copy.deepcopy(loader.dataset)))
    # The process group is not running yet, so its size comes from the environment.
    variable = {"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}.get(cfg.get("launcher", "none"), "")
    batch = loader.get("batch_size") or loader.batch_sampler.batch_size
    return max(1, math.ceil(images / (batch * int(os.environ.get(variable, 1)))))


def _length(loop: Mapping[str, Any]) -> tuple[bool, int]:
    """Return whether a train loop counts epochs, and its number of epochs or iterations."""
    kind = bare_name(loop.get("type", "EpochBasedTrainLoop" if loop.get("by_epoch", True) else "IterBasedTrainLoop"))
    if kind not in ("EpochBasedTrainLoop", "IterBasedTrainLoop"):
        raise SettingError(
            f"--steps: train_cfg.type is {kind}, expected EpochBasedTrainLoop or IterBasedTrainLoop; "
            "set its own settings for the length with --set"
        )
    epochs = kind == "EpochBasedTrainLoop"
    return epochs, int(loop["max_epochs" if epochs else "max_iters"])


def _loop(iters: int, points: list[int]) -> dict[str, Any]:
    """Return a loop by iterations that validates at the given points, at any distances. Between two points, the
    interval is the later point itself, because no smaller number is a multiple of it."""
    loop = dict(type="IterBasedTrainLoop", max_iters=iters, val_interval=points[0])
    if points != [points[0] * (i + 1) for i in range(len(points))]:
        loop["dynamic_intervals"] = [(before + 2, point) for before, point in itertools.pairwise(points)]
    return loop


def _schedulers(node: Any) -> Iterator[dict[str, Any]]:
    """Yield the schedulers of ``param_scheduler``: one, a list, or one or a list for each of several optimisers."""
    if isinstance(node, Mapping):
        yield from [node] if "type" in node else (each for part in node.values() for each in _schedulers(part))
    elif node is not None:
        yield from (each for part in node for each in _schedulers(part))


def _resize(schedulers: list[dict[str, Any]], scale: Fraction, total: int, unit: int) -> None:
    """Scale schedulers in place; ``total`` is the schedule's length in iterations, ``unit`` that of an epoch."""
    spans = []
    for each in schedulers:
        own = unit if each.get("by_epoch", True) else 1
        end = each.get("end")
        spans.append((int(each.get("begin", 0) * own), total if end is None else int(end * own), own))
    moved: dict[int, int] = {}

    def at(place: float) -> int:
        return moved.get(place, math.floor(Fraction(place) * scale + Fraction(1, 2)))

    for each, (begin, end, _) in zip(schedulers, spans):
        if _kind(each) in RAMPS and at(end) < at(begin) + 2:
            moved[end] = at(begin) + 2
    for each, (begin, end, own) in zip(schedulers, spans):
        _resize_one(each, begin, min(end, total), own, at)
        each.pop("convert_to_iter_based", None)
        each.update(by_epoch=False, begin=at(begin), end=max(at(end), at(begin) + 1))
        if _kind(each) == "Exponential":
            each["gamma"] = each["gamma"] ** float(1 / (scale * own))


def _resize_one(each: dict[str, Any], begin: int, end: int, unit: int, at: Callable[[float], int]) -> None:
    """Scale the settings that a scheduler counts from its own begin, in its own unit."""

    def after(places: Iterable[float]) -> list[int]:
        return [max(1, at(begin + place * unit) - at(begin)) for place in places]

    kind = _kind(each)
    if kind == "MultiStep":
        each["milestones"] = after(each["milestones"])
    elif kind == "Step":  # multiples of a rounded step size would drift, so list them as milestones
        size = each.pop("step_size")
        each["milestones"] = after(range(size, -(-(end - begin) // unit), size))
        each["type"] = each["type"] if isinstance(each["type"], str) else each["type"].__name__
        each["type"] = each["type"].replace("Step", "MultiStep")
    elif kind == "CosineRestart":
        ends = after(itertools.accumulate(each["periods"]))
        each["periods"] = [max(1, b - a) for a, b in itertools.pairwise([0, *ends])]
    elif each.get(LENGTHS.get(kind)) is not None:
        each[LENGTHS[kind]] = after([each[LENGTHS[kind]]])[0]


def _kind(scheduler: Mapping[str, Any]) -> str:
    name = bare_name(scheduler["type"])
    kind = re.sub(r"(LR|Momentum|ParamScheduler)$", "", name)
    known = (*RAMPS, *LENGTHS, *OTHERS)
    if kind not in known:
        raise SettingError(
            f"--steps: param_scheduler has a {name}, which cannot be resized; known are {', '.join(known)}"
        )
    return kind


def bare_name(kind: Any) -> str:
    """Return the bare name of a type, which may be a class or have a scope."""
    return kind.rpartition(".")[2] if isinstance(kind, str) else kind.__name__


def _count_iterations(cfg: Config, iters: int) -> None:
    """Make logs count iterations, and keep one checkpoint, at the end."""
    cfg.log_processor = {**(cfg.get("log_processor") or dict(type="LogProcessor", window_size=50)), "by_epoch": False}
    hooks = dict(cfg.get("default_hooks") or {})
    hooks["logger"] = {"type": "LoggerHook", **(hooks.get("logger") or {}), "log_metric_by_epoch": False}
    checkpoint = {"type": "CheckpointHook", **(hooks.get("checkpoint") or {}), "by_epoch": False, "interval": iters}
    for key in ("save_best", "rule", "greater_keys", "less_keys", "save_begin"):
        checkpoint.pop(key, None)
    cfg.default_hooks = {**hooks, "checkpoint": checkpoint}


def _refuse_epochs(cfg: Config) -> None:
    """Raise if a hook waits for an epoch: a loop by iterations has only one, so the hook would never act."""
    for number, hook in enumerate(cfg.get("custom_hooks") or []):
        waits = {k: v for k, v in hook.items() if "epoch" in k and not isinstance(v, bool) and v}
        if waits:
            raise SettingError(
                f"--steps: custom_hooks.{number}, {bare_name(hook['type'])}, counts epochs ({waits}), but a run of "
                "--steps has none; remove the hook from the config, or omit --steps"
            )
