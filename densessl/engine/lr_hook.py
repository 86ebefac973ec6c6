"""The hooks of the step counter: :class:`StepHook` advances it, and :class:`LRHook` sets the learning rate by it.

Both run before all other hooks, so that everything logged, saved or measured in an iteration sees their result.
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
from densessl.wording import count, suggestion


def horizon_of(runner: Runner) -> Horizon:
    """The length of the run in steps, epochs and images. The train loop and optimiser wrapper must be built already."""
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
    """Set the learning rate of each group to ``lr * lr_scale``, or to ``base * lr_scale`` if it has ``lr_constant``."""
    for group in groups:
        group["lr"] = (base if group.get("lr_constant") else lr) * group.get("lr_scale", 1.0)


RULES = {"linear": lambda ratio: ratio, "sqrt": math.sqrt, "none": lambda ratio: 1.0}

# Schedules that a learning rate can have, and the key of each that holds the rate.
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
    """The config of a schedule with shape ``shape`` and peak ``rate``.

    Args:
        shape: config of :func:`densessl.schedules.build_schedule` without its rate, which is ``base`` or ``value``.

    Raises:
        SettingError: the type is not one of ``RATE_KEYS``, or ``shape`` contains a rate.
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

    The peak rate is the config's ``optim_wrapper.optimizer.lr``; it is not read from a checkpoint, whose parameter
    groups hold the rate of one step. ``model.step`` counts optimiser steps, so all iterations accumulated into one step
    use the same learning rate. Groups with ``lr_constant`` (:func:`densessl.engine.lars.split_parameters`) stay at the
    peak rate, even during warm-up.

    Args:
        schedule: shape of the schedule: a config of :func:`densessl.schedules.build_schedule` without the rate, that is
            "warmup_cosine" or "warmup_multistep" without ``base``, or "constant" without ``value``.
        reference_batch: images per optimiser step in the published recipe. If a run uses another number, the peak rate
            is scaled by ``rule``, and the log says so; the schedule's ``final`` is not scaled. None never scales.
        rule: how the rate scales with the batch: "linear" (Goyal et al., 2017), "sqrt" (often better for adaptive
            optimisers), or "none".

    Raises:
        SettingError: ``schedule`` is invalid or contains a rate, ``rule`` is unknown, or the optimiser has no rate.
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
        build_schedule(with_rate(schedule, 1.0))  # refuses an invalid config before anything is set up
        self.shape = dict(schedule)
        self.reference_batch = reference_batch
        self.rule = rule

    def before_train(self, runner: Runner) -> None:
        self.horizon = horizon_of(runner)
        self.model = require(bare_model(runner.model), type(self).__name__, "step")
        self.base = self._scaled(configured_rate(runner), runner)
        self.schedule = build_schedule(with_rate(self.shape, self.base))
        warmup = self.shape.get("warmup_epochs", 0)
        if warmup > self.horizon.epochs:
            runner.logger.warning(
                f"lr: the warm-up of {count(warmup, 'epoch')} is longer than the run of "
                f"{count(self.horizon.epochs, 'epoch')}: the peak rate {self.base:g} is never reached "
                "(default_hooks.lr.schedule.warmup_epochs)"
            )

    def _scaled(self, rate: float, runner: Runner) -> float:
        """``rate`` scaled to this run's number of images per step."""
        batch = self.horizon.global_batch
        if not self.reference_batch or batch == self.reference_batch or self.rule == "none":
            return rate
        scaled = rate * RULES[self.rule](batch / self.reference_batch)
        runner.logger.info(
            f"lr: the recipe's {rate:g} is for {count(self.reference_batch, 'image')} a step, this run takes {batch}; "
            f"by the {self.rule} rule it becomes {scaled:g}"
        )
        return scaled

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        lr = self.schedule(self.model.step, self.horizon)
        set_learning_rates(runner.optim_wrapper.param_groups, lr, self.base)


def configured_rate(runner: Runner) -> float:
    """The learning rate that the optimiser was built with. (After a resume, its groups hold the rate of one step.)"""
    optimizer = runner.optim_wrapper.optimizer
    if "lr" not in optimizer.defaults:
        raise SettingError(
            f"optim_wrapper.optimizer.lr is missing: LRHook schedules it, and {type(optimizer).__name__} has no default"
        )
    return optimizer.defaults["lr"]


@HOOKS.register_module()
class StepHook(Hook):
    """Passes the length of the run and each optimiser step to the model, and makes its random numbers repeatable.

    It calls ``model.begin(horizon, seed)`` before training, and ``model.advance()`` after each iteration that ends with
    an optimiser step. (An fp16 step that the loss scaler skips counts as well: overflow differs between ranks, and
    their schedules must agree.)

    Args:
        reseed: seed PyTorch's default generators, of the CPU and of the current CUDA device, from (seed, step,
            accumulated iteration, rank) before each iteration, and before each epoch, when a loader draws the seed of
            its workers. Dropout then depends only on the position in the run, and resuming is exact. The generators of
            ``random`` and ``numpy`` are not seeded: nothing in this library draws from them.
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
        # The wrapper counted this iteration in backward(), so should_update() still answers for this iteration.
        if runner.optim_wrapper.should_update():
            self.model.advance()


def seed_torch(*key: int) -> None:
    """Seed the default generators of the CPU and of the current CUDA device from non-negative integers."""
    seed = int(np.random.SeedSequence(key).generate_state(1, np.uint64)[0] >> np.uint64(1))
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_available():
        torch.cuda.manual_seed(seed)
