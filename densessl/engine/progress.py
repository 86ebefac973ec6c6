"""What a training run tells its user: one live line on a terminal, plain lines in files, scalars to the visualizer."""

import functools
import math
import os
import re
import time
from collections.abc import Callable, Iterable, Mapping
from numbers import Real
from typing import Any

import torch
from mmengine.dist import get_world_size, is_main_process
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import BaseLoop

from densessl.constraints import Count, NonNegative, Share
from densessl.engine.live import LiveLine
from densessl.engine.opening import opening_lines
from densessl.registry import HOOKS
from densessl.weights.state import bare_model
from densessl.wording import duration


def batch_size_of(data_batch: Any) -> int:
    """Images in one batch of this process: of ours (``views[0]`` is (N, 3, H, W)), of MMEngine's (``inputs``, or the
    first of a tuple). 0 for anything else: the rate is then not told."""
    if hasattr(data_batch, "views"):
        return len(data_batch.views[0])
    try:
        return len(data_batch["inputs"] if isinstance(data_batch, Mapping) else data_batch[0])
    except (KeyError, IndexError, TypeError):
        return 0


class Means:
    """Means of scalar figures, kept on the device they come from until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, Any]) -> None:
        """Add one value of each figure. A figure may be missing at times; what is no scalar is ignored."""
        for name, value in figures.items():
            if isinstance(value, torch.Tensor) and value.numel() == 1:
                value = value.detach().reshape(())
                value = value.to(torch.promote_types(value.dtype, torch.float32))
            elif not isinstance(value, Real):
                continue
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means so far; waits for the device."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}


class StepTimer:
    """Seconds spent in iterations, and between them in waiting for a batch.

    On CUDA the marks are events of the stream: the host runs ahead of the device, so what its clock calls waiting for
    the loader may pass while the device is busy. What is measured is the time the device had nothing to do.
    """

    def __init__(self, cuda: bool):
        self._cuda = cuda
        self._last: Any = None
        self.reset()

    def _mark(self) -> Any:
        if not self._cuda:
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def reset(self) -> None:
        """Forget what was measured."""
        self._waits: list[tuple] = []
        self._steps: list[tuple] = []

    def pause(self) -> None:
        """What passes until the next batch is not waiting: the start of workers, a validation."""
        self._last = None

    def batch_arrived(self) -> None:
        now = self._mark()
        if self._last is not None:
            self._waits.append((self._last, now))
        self._last = now

    def step_done(self) -> None:
        now = self._mark()
        self._steps.append((self._last, now))
        self._last = now

    def read(self) -> tuple[float, float]:
        """(seconds waited, seconds in all) since the last reset; waits for the device."""
        if self._cuda and self._steps:
            self._steps[-1][1].synchronize()
        waited, stepped = self._seconds(self._waits), self._seconds(self._steps)
        return waited, waited + stepped

    @property
    def steps(self) -> int:
        """Iterations since the last reset."""
        return len(self._steps)

    def _seconds(self, spans: Iterable[tuple]) -> float:
        if self._cuda:
            return sum(begin.elapsed_time(end) for begin, end in spans) / 1e3
        return sum(end - begin for begin, end in spans)


def figures_text(figures: Mapping[str, float]) -> str:
    """``loss 2.314  loss_dense 1.201``: the loss first, four significant digits. Figures of a detector's
    decoder layers but the last, which MMDetection calls ``d0.loss_cls``, are left to the files."""
    names = sorted(figures, key=lambda name: name != "loss")
    return "  ".join(f"{name} {figures[name]:.4g}" for name in names if not re.search(r"\bd\d+\.", name))


def loader_advice(share: float, num_workers: int) -> str:
    """What to do when ``share`` of the time went into waiting for batches, with this many workers a process."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", get_world_size()))
    state = (
        f"The data loader is the bottleneck: {share:.0%} of this epoch's time went into waiting for batches. "
        f"train_dataloader.num_workers is {num_workers} in each of {processes} process(es) here, on {cores} cores: "
    )
    if num_workers * processes < cores:
        return state + f"raise it, up to {cores // processes}."
    return state + "all are in use; store smaller images, ask for fewer or smaller views, or take more cores."


def global_step(runner, finished_iterations: int) -> int:
    """The step scalars are written under: the model's ``step`` (optimiser steps) where it counts them."""
    model = bare_model(runner.model)
    step = getattr(model, "step", None)
    return step if isinstance(step, int) else finished_iterations


@HOOKS.register_module()
class AsyncRuntimeInfoHook(RuntimeInfoHook):
    """RuntimeInfoHook that leaves the model's figures alone: the stock one copies each of them from the device to the
    message hub at every iteration, which makes the host wait for every step. ProgressHook does not read them there.
    Use it as ``default_hooks.runtime_info`` with ProgressHook; not with LoggerHook, which does."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        pass


@HOOKS.register_module()
class ProgressHook(LoggerHook):
    """Tells how training goes: where, how well, how fast, and what it waits for.

    It subclasses LoggerHook, and takes its place as ``default_hooks.logger``, because validation, testing, ``out_dir``
    and the closing of the visualizer are to stay what stock configs expect; only the training side is its own. It
    runs last in every iteration, so that what other hooks spend is not taken for waiting.

    Written to ``runner.visualizer`` every ``interval`` iterations, as means over these iterations on this rank, under
    the model's ``step`` (optimiser steps; finished iterations for a model without): every scalar the model returned,
    ``lr`` (the largest of the parameter groups that follow the schedule), ``images_per_second`` over all processes,
    ``step_time`` and the ``data_wait`` in it in seconds, ``memory_mib``. Validation metrics have the same axis.

    Args:
        interval: iterations between two written lines. The first and the last iteration are always written.
        refresh: seconds between two readings of the figures for the live line. Reading waits for the device.
        data_wait_alarm: share of an epoch's time above which the loader is called the bottleneck, once a run.
        logger_hook: further arguments of LoggerHook.
    """

    priority = "LOWEST"

    def __init__(
        self, interval: Count = 50, refresh: NonNegative = 2.0, data_wait_alarm: Share = 0.2, **logger_hook: Any
    ) -> None:
        super().__init__(interval=interval, **logger_hook)
        self.refresh = refresh
        self.data_wait_alarm = data_wait_alarm
        self._live = LiveLine()

    def before_run(self, runner) -> None:
        super().before_run(runner)
        if isinstance(runner._train_loop, BaseLoop):  # built by now in a training run, and only there
            # No hook hears of an exception or of Ctrl-C, and both must find the terminal as it was.
            runner._train_loop.run = self._ending_the_line(runner._train_loop.run)

    def after_run(self, runner) -> None:
        self._live.stop()  # of a run that was stepped through
        super().after_run(runner)

    def _ending_the_line(self, run: Callable) -> Callable:
        @functools.wraps(run)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            try:
                return run(*args, **kwargs)
            finally:
                self._live.stop()

        return wrapped

    def before_train(self, runner) -> None:
        self._cuda = next(runner.model.parameters()).is_cuda
        self._timer = StepTimer(self._cuda)
        self._figures: dict[str, float] = {}
        self._first: tuple[int, float] | None = None  # iterations finished, and when, at the first one of this run
        self._alarmed = False
        self._reset()
        for line in opening_lines(runner):
            runner.logger.info(line)

    def _reset(self) -> None:
        self._means, self._images, self._read_at = Means(), 0, time.monotonic()
        self._timer.reset()

    def before_train_epoch(self, runner) -> None:
        self._timer.pause()
        # Less what the running interval has from the epoch before: it is added when the interval is written.
        self._epoch_wait, self._epoch_time = (-seconds for seconds in self._timer.read())

    def before_val(self, runner) -> None:
        self._live.stop()
        if isinstance(runner._train_loop, BaseLoop):
            self._timer.pause()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if is_main_process():
            # What was set for this iteration: a scheduler may have moved on when it is over.
            # MMEngine's wrapper adds its own `base_lr`, which says nothing where no group scales it.
            rates = runner.optim_wrapper.get_lr().items()
            self._lr = {name: _of_moving(runner, values) for name, values in rates if values and name != "base_lr"}
            self._live.start()
            self._timer.batch_arrived()

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        if not is_main_process():
            return
        self._timer.step_done()
        self._means.add(outputs or {})
        self._images += batch_size_of(data_batch)
        done, now = runner.iter + 1, time.monotonic()
        write = self._first is None or done % self.interval == 0 or done == runner.max_iters
        self._first = self._first or (done, now)
        if write or (self._live.active and now - self._read_at > self.refresh):
            self._figures, self._read_at = self._read(runner), now
        if self._live.active:
            self._live.show(done / runner.max_iters, self._text(runner))
        if write:
            runner.logger.info(self._text(runner), extra={"shown_live": True})
            step = global_step(runner, done)
            runner.visualizer.add_scalars(self._figures, step=step, file_path=self.json_log_path)
            waited, spent = self._timer.read()
            self._epoch_wait, self._epoch_time = self._epoch_wait + waited, self._epoch_time + spent
            self._reset()

    def after_train_epoch(self, runner) -> None:
        self._live.stop()
        if not is_main_process() or self._alarmed:
            return
        waited, spent = (a + b for a, b in zip((self._epoch_wait, self._epoch_time), self._timer.read()))
        if waited > self.data_wait_alarm * spent:
            self._alarmed = True
            runner.logger.info(loader_advice(waited / spent, runner.train_dataloader.num_workers))

    def after_val_epoch(self, runner, metrics=None) -> None:
        tag, text = runner.log_processor.get_log_after_epoch(runner, len(runner.val_dataloader), "val")
        runner.logger.info(text)
        # Asking for runner.iter where nothing trains would build the training loop.
        step = global_step(runner, runner.iter if isinstance(runner._train_loop, BaseLoop) else 0)
        runner.visualizer.add_scalars(tag, step=step, file_path=self.json_log_path)

    def _read(self, runner) -> dict[str, float]:
        figures = {**self._means.read(), **self._lr}
        waited, spent = self._timer.read()
        if self._images and spent > 0:
            figures["images_per_second"] = self._images * get_world_size() / spent
        figures["step_time"], figures["data_wait"] = spent / self._timer.steps, waited / self._timer.steps
        if self._cuda:
            figures["memory_mib"] = torch.cuda.max_memory_allocated() / 2**20
        return figures

    def _text(self, runner) -> str:
        """The line: position, figures, speed, time left."""
        done, figures = runner.iter + 1, dict(self._figures)
        place = f"iter {done}/{runner.max_iters}"
        if runner.max_epochs > 1:
            length = len(runner.train_dataloader)
            place = f"epoch {runner.epoch + 1}/{runner.max_epochs}  iter {(done - 1) % length + 1}/{length}"
        rate, wait, step = (figures.pop(name, math.nan) for name in ("images_per_second", "data_wait", "step_time"))
        first, since = self._first
        pace = (time.monotonic() - since) / (done - first) if done > first else math.nan
        parts = [place, figures_text(figures)]
        if rate > 0:  # not where the size of a batch is unknown
            parts.append(f"{rate:.4g} img/s")
        if step > 0:
            parts.append(f"data wait {wait / step:.0%} ({wait:.3f} s)")
        return "  ".join([*parts, f"eta {duration(pace * (runner.max_iters - done))}"])


def _of_moving(runner, rates: list[float]) -> float:
    """The largest rate, leaving out groups whose rate is held constant (``lr_constant``), unless all are."""
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    groups = optimizer.param_groups if optimizer is not None and len(optimizer.param_groups) == len(rates) else []
    return max([rate for rate, group in zip(rates, groups) if not group.get("lr_constant")] or rates)
