"""The two hooks that tie a run to the model's step counter: learning rate, and the counter itself.

Both run before every other hook, so that whatever is logged, saved or measured in an iteration sees their result.
"""

import math
from collections.abc import Iterable
from typing import Annotated, Literal

import numpy as np
import torch
from mmengine.dist import get_rank, get_world_size
from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.constraints import Config, Count, Range
from densessl.counting import require
from densessl.errors import SettingError
from densessl.registry import HOOKS
from densessl.schedules import SCHEDULES, Horizon, build_schedule
from densessl.weights.state import bare_model
from densessl.wording import suggestion


def horizon_of(runner: Runner) -> Horizon:
    """The length of the run ``runner`` is set up for; its train loop and optimiser wrapper must be built."""
    loader, loop = runner.train_dataloader, runner.train_loop
    accumulation = runner.optim_wrapper._accumulative_counts
    batch = loader.batch_size if loader.batch_size is not None else loader.batch_sampler.batch_size
    iters_per_epoch = len(loader)
    return Horizon(
        steps_per_epoch=iters_per_epoch / accumulation,
        epochs=loop.max_iters / iters_per_epoch,
        total_steps=-(-loop.max_iters // accumulation),
        num_images=len(loader.dataset),
        global_batch=batch * get_world_size() * accumulation,
    )


def set_learning_rates(groups: Iterable[dict], lr: float, base: float) -> None:
    """Set the learning rate of parameter groups: ``lr * lr_scale``, and ``base * lr_scale`` where ``lr_constant``."""
    for group in groups:
        group["lr"] = (base if group.get("lr_constant") else lr) * group.get("lr_scale", 1.0)


RULES = {"linear": lambda ratio: ratio, "sqrt": math.sqrt, "none": lambda ratio: 1.0}

# Schedules a learning rate can have, and the key of each that is the rate.
RATE_KEYS = {"constant": "value", "warmup_cosine": "base", "warmup_multistep": "base"}
ShapeConfig = Annotated[
    dict,
    Config(
        {kind: SCHEDULES[kind] for kind in RATE_KEYS},
        moved=dict.fromkeys(RATE_KEYS.values(), "the learning rate stands in optim_wrapper.optimizer.lr only"),
        values=Range(0),
    ),
]


def with_rate(shape: dict, rate: float) -> dict:
    """The config of a schedule of the shape ``shape`` whose peak is ``rate``.

    Args:
        shape: config of :func:`densessl.schedules.build_schedule` without its rate, ``base`` or ``value``.

    Raises:
        SettingError: a schedule of another type; one that has a rate of its own.
    """
    kind = shape.get("type")
    if kind not in RATE_KEYS:
        raise SettingError(
            f"default_hooks.lr.schedule.type {kind!r} is no schedule of a learning rate; {suggestion(kind, RATE_KEYS)}"
        )
    key = RATE_KEYS[kind]
    if key in shape:
        raise SettingError(
            f"default_hooks.lr.schedule.{key}={shape[key]!r}: a learning rate's schedule has no rate of its own; "
            "leave it out and set optim_wrapper.optimizer.lr"
        )
    return {**shape, key: rate}


@HOOKS.register_module()
class LRHook(Hook):
    """Sets the learning rate of every parameter group to ``schedule(model.step, horizon) * group['lr_scale']``.

    The rate itself is the optimiser's, ``optim_wrapper.optimizer.lr``, as the config has it: what the parameter groups
    of a checkpoint hold is the rate of one step. ``model.step`` counts optimiser steps: all iterations accumulated into
    one step see one learning rate. Groups with ``lr_constant`` (:func:`densessl.engine.lars.split_parameters`) stay at
    the optimiser's rate, warm-up or not.

    Args:
        schedule: shape of the schedule: config of :func:`densessl.schedules.build_schedule` without the rate, that is
            "warmup_cosine" or "warmup_multistep" without ``base``, or "constant" without ``value``.
        reference_batch: images an optimiser step of the published recipe takes. Where a run takes another number, the
            rate is scaled by ``rule``, and the log says so; the schedule's ``final`` is not. None leaves it alone.
        rule: "linear" (in the ratio of batches: Goyal et al., 2017), "sqrt" (often better for adaptive optimisers), or
            "none".

    Raises:
        SettingError: a schedule with a rate of its own, or of a type that scales none; an optimiser without a rate.
        ValueError: an unknown rule, a wrong schedule.
    """

    priority = "HIGHEST"

    def __init__(
        self,
        schedule: ShapeConfig,
        reference_batch: Count | None = None,
        rule: Literal["linear", "sqrt", "none"] = "linear",
    ):
        if rule not in RULES:
            raise SettingError(f"LRHook rule={rule!r}: expected one of {sorted(RULES)}")
        build_schedule(with_rate(schedule, 1.0))  # a wrong config is told before anything is set up
        self.shape = dict(schedule)
        self.reference_batch = reference_batch
        self.rule = rule

    def before_train(self, runner: Runner) -> None:
        self.horizon = horizon_of(runner)
        self.model = require(bare_model(runner.model), type(self).__name__, "step")
        self.base = self._scaled(configured_rate(runner), runner)
        self.schedule = build_schedule(with_rate(self.shape, self.base))

    def _scaled(self, rate: float, runner: Runner) -> float:
        """``rate`` for the images a step of this run."""
        batch = self.horizon.global_batch
        if not self.reference_batch or batch == self.reference_batch or self.rule == "none":
            return rate
        scaled = rate * RULES[self.rule](batch / self.reference_batch)
        runner.logger.info(
            f"lr: the recipe's {rate:g} is for {self.reference_batch} images a step, this run takes {batch}; by the "
            f"{self.rule} rule it becomes {scaled:g}"
        )
        return scaled

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        lr = self.schedule(self.model.step, self.horizon)
        set_learning_rates(runner.optim_wrapper.param_groups, lr, self.base)


def configured_rate(runner: Runner) -> float:
    """The learning rate the optimiser was built with. Its groups have another one after a resume."""
    optimizer = runner.optim_wrapper.optimizer
    if "lr" not in optimizer.defaults:
        raise SettingError(
            f"optim_wrapper.optimizer.lr is missing: LRHook schedules it, and {type(optimizer).__name__} has no default"
        )
    return optimizer.defaults["lr"]


@HOOKS.register_module()
class StepHook(Hook):
    """Tells the model the length of the run and every optimiser step, and makes its random numbers repeatable.

    ``model.begin(horizon, seed)`` is called before training and ``model.advance()`` after each iteration in which the
    optimiser was stepped. (An fp16 step that the loss scaler skipped counts: skipping is a matter of a rank's luck
    with overflow, and schedules must agree.)

    Args:
        reseed: seed PyTorch's default generators, of the CPU and of the current CUDA device, from (seed, step,
            accumulated iteration, rank) before each iteration, and before each epoch, when a loader draws the seed of
            its workers. Dropout then depends on the position in the run and not on its history, and resuming is
            exact. The generators of ``random`` and ``numpy`` are left alone: nothing in this library draws from them.
    """

    priority = "HIGHEST"

    def __init__(self, reseed: bool = True):
        self.reseed = reseed

    def before_train(self, runner: Runner) -> None:
        self.model = require(bare_model(runner.model), type(self).__name__, "step", "begin", "advance")
        self.model.begin(horizon_of(runner), runner.seed)

    def before_train_epoch(self, runner: Runner) -> None:
        if self.reseed:
            seed_torch(runner.seed, self.model.step, 0, get_rank(), 1)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        if self.reseed:
            wrapper = runner.optim_wrapper
            seed_torch(runner.seed, self.model.step, wrapper.inner_count % wrapper._accumulative_counts, get_rank(), 0)

    def after_train_iter(
        self, runner: Runner, batch_idx: int, data_batch: dict | None = None, outputs: dict | None = None
    ) -> None:
        # The wrapper counted this iteration during the backward pass; its answer still is the one it acted on.
        if runner.optim_wrapper.should_update():
            self.model.advance()


def seed_torch(*key: int) -> None:
    """Seed the default generators of the CPU and of the current CUDA device from non-negative integers."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)
