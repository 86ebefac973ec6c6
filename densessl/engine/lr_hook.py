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
from torch import nn

from densessl.constraints import Config, Count, Range
from densessl.registry import HOOKS
from densessl.schedules import SCHEDULES, Horizon, build_schedule
from densessl.weights.state import bare_model


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


def counting_model(runner: Runner, hook: str) -> nn.Module:
    """The model without its distributed wrapper. Raises TypeError when it does not count optimiser steps."""
    model = bare_model(runner.model)
    if not hasattr(model, "step"):
        raise TypeError(
            f"{hook} needs a model that counts optimiser steps in `step`, as densessl.model.TwoBranch does; "
            f"{type(model).__name__} does not"
        )
    return model


def set_learning_rates(groups: Iterable[dict], lr: float, base: float | None) -> None:
    """Set the learning rate of parameter groups: ``lr * lr_scale``, and ``base * lr_scale`` where ``lr_constant``."""
    for group in groups:
        group["lr"] = (base if group.get("lr_constant") else lr) * group.get("lr_scale", 1.0)


RULES = {"linear": lambda ratio: ratio, "sqrt": math.sqrt, "none": lambda ratio: 1.0}


@HOOKS.register_module()
class LRHook(Hook):
    """Sets the learning rate of every parameter group to ``schedule(model.step, horizon) * group['lr_scale']``.

    ``model.step`` counts optimiser steps: all iterations accumulated into one step see one learning rate. Groups with
    ``lr_constant`` (:func:`densessl.engine.lars.split_parameters`) stay at the schedule's ``base``, warm-up or not.

    Args:
        schedule: config of :func:`densessl.schedules.build_schedule`.
        reference_batch: images an optimiser step of the published recipe takes. Where a run takes another number,
            ``schedule.base`` (of a constant schedule, ``value``) is scaled by ``rule``, and the log says so; ``final``
            is not. None leaves it alone.
        rule: "linear" (in the ratio of batches: Goyal et al., 2017), "sqrt" (often better for adaptive optimisers), or
            "none".

    Raises:
        ValueError: an unknown rule, a wrong schedule, or one without base where ``reference_batch`` or a group with
            ``lr_constant`` needs it.
    """

    priority = "HIGHEST"

    def __init__(
        self,
        schedule: Annotated[dict, Config(SCHEDULES, values=Range(0))],
        reference_batch: Count | None = None,
        rule: Literal["linear", "sqrt", "none"] = "linear",
    ):
        if rule not in RULES:
            raise ValueError(f"LRHook rule={rule!r}: expected one of {sorted(RULES)}")
        build_schedule(schedule)  # a wrong config is told before anything is set up
        self.config = dict(schedule)
        self.reference_batch = reference_batch
        self.rule = rule

    def before_train(self, runner: Runner) -> None:
        self.horizon = horizon_of(runner)
        self.model = counting_model(runner, type(self).__name__)
        batch, config = self.horizon.global_batch, dict(self.config)
        key = "value" if config["type"] == "constant" else "base"
        constant = any(group.get("lr_constant") for group in runner.optim_wrapper.param_groups)
        if key not in config and (constant or self.reference_batch):
            raise ValueError(
                f"LRHook schedule {config['type']!r} has no `base`, which "
                f"{'paramwise_cfg.constant_lr' if constant else 'reference_batch'} needs"
            )
        if self.reference_batch and batch != self.reference_batch and self.rule != "none":
            before = config[key]
            config[key] = before * RULES[self.rule](batch / self.reference_batch)
            runner.logger.info(
                f"lr: the recipe's {before:g} is for {self.reference_batch} images a step, this run takes {batch}; by "
                f"the {self.rule} rule it becomes {config[key]:g}"
            )
        self.base = config.get(key)
        self.schedule = build_schedule(config)

    def before_train_iter(self, runner: Runner, batch_idx: int, data_batch: dict | None = None) -> None:
        lr = self.schedule(self.model.step, self.horizon)
        set_learning_rates(runner.optim_wrapper.param_groups, lr, self.base)


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
        self.model = counting_model(runner, type(self).__name__)
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
