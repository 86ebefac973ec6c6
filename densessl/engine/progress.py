"""Progress of training: a live line on a terminal, plain lines in log files, and scalars for the visualizer."""

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
from densessl.wording import count, duration


def batch_size_of(data_batch: Any) -> int:
    """Number of images in one batch of this process; 0 if the batch is of an unknown type.

    A batch of this library has ``views[0]`` (N, 3, H, W). A batch of MMEngine has ``inputs``, or is a tuple whose first
    entry holds them.
    """
    if hasattr(data_batch, "views"):
        return len(data_batch.views[0])
    try:
        return len(data_batch["inputs"] if isinstance(data_batch, Mapping) else data_batch[0])
    except (KeyError, IndexError, TypeError):
        return 0


class Means:
    """Running means of scalars, kept on their device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[str, Any] = {}
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, Any]) -> None:
        """Add one value of each figure. Calls may lack some figures; values other than scalars are ignored."""
        for name, value in figures.items():
            if isinstance(value, torch.Tensor) and value.numel() == 1:
                value = value.detach().reshape(())
                value = value.to(torch.promote_types(value.dtype, torch.float32))
            elif not isinstance(value, Real):
                continue
            self._sums[name] = self._sums.get(name, 0.0) + value
            self._counts[name] = self._counts.get(name, 0) + 1

    def read(self) -> dict[str, float]:
        """The means so far; synchronises with the device."""
        return {name: float(total) / self._counts[name] for name, total in self._sums.items()}


class StepTimer:
    """Measures the seconds spent in iterations, and between iterations in waiting for a batch.

    On CUDA it records events on the stream. The host runs ahead of the device, so the host may wait for the loader
    while the device is still busy; the events measure only the time in which the device is idle.
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
        """Discard all measurements."""
        self._waits: list[tuple] = []
        self._steps: list[tuple] = []

    def pause(self) -> None:
        """Do not count the time until the next batch as waiting: workers start, or a validation runs."""
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
        """(seconds spent waiting, seconds in total) since the last reset; synchronises with the device."""
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
    """Format figures as ``loss 2.314  loss_dense 1.201``: the loss first, with four significant digits.

    Losses of a detector's earlier decoder layers, which MMDetection names ``d0.loss_cls``, are left out; metrics.jsonl
    has them.
    """
    names = sorted(figures, key=lambda name: name != "loss")
    return "  ".join(f"{name} {figures[name]:.4g}" for name in names if not re.search(r"\bd\d+\.", name))


def loader_advice(share: float, num_workers: int) -> str:
    """Advice for a run that spent ``share`` of its time waiting for batches.

    Args:
        share: 0 to 1.
        num_workers: workers of each process.
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    processes = int(os.environ.get("LOCAL_WORLD_SIZE", get_world_size()))
    state = (
        f"The data loader is the bottleneck: {share:.0%} of this epoch's time was spent waiting for batches. "
        f"train_dataloader.num_workers is {num_workers} in each of {count(processes, 'process', 'processes')} here, "
        f"on {count(cores, 'core')}: "
    )
    if num_workers * processes < cores:
        return state + f"raise it, up to {cores // processes}."
    return state + "all cores are in use; store smaller images, use fewer or smaller views, or give the run more cores."


def global_step(runner, finished_iterations: int) -> int:
    """The step that scalars are logged under: the model's ``step`` (optimiser steps), or else finished iterations."""
    model = bare_model(runner.model)
    step = getattr(model, "step", None)
    return step if isinstance(step, int) else finished_iterations


@HOOKS.register_module()
class AsyncRuntimeInfoHook(RuntimeInfoHook):
    """MMEngine's RuntimeInfoHook without the copy of the model's figures to the message hub.

    The stock hook copies each figure from the device in every iteration, so the host waits for every step. Use this one
    as ``default_hooks.runtime_info`` with ProgressHook, which does not need the copies; LoggerHook does.
    """

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        pass


@HOOKS.register_module()
class ProgressHook(LoggerHook):
    """Logs the position, losses, speed and data wait of training.

    It replaces LoggerHook as ``default_hooks.logger``. It is a subclass, so that validation, testing, ``out_dir`` and
    closing the visualizer work as stock configs expect; only the logging of training differs. It runs last in every
    iteration, so that the time of other hooks does not count as waiting.

    Every ``interval`` iterations it writes to ``runner.visualizer``, as means over these iterations on this rank: every
    scalar that the model returned, ``lr`` (the largest of the parameter groups that follow the schedule),
    ``images_per_second`` over all processes, ``step_time`` and ``data_wait``, the part of it spent waiting, in seconds,
    and ``memory_mib``. They are logged under the model's ``step`` (optimiser steps), or under finished iterations if
    the model has none; so are validation metrics.

    Args:
        interval: iterations between two written lines. The first and the last iteration are always written.
        refresh: seconds between two readings of the figures for the live line; each reading synchronises with the
            device.
        data_wait_alarm: share of an epoch's time spent waiting for batches above which the log reports, once per run,
            that the loader is the bottleneck.
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
        if isinstance(runner._train_loop, BaseLoop):  # only a training run has built its loop by now
            # No hook is called on an exception or Ctrl-C, and the terminal must be restored in both cases.
            runner._train_loop.run = self._ending_the_line(runner._train_loop.run)

    def after_run(self, runner) -> None:
        self._live.stop()  # Runner.steps() does not call the wrapped run()
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
        self._first: tuple[int, float] | None = None  # finished iterations and time after this run's first iteration
        self._alarmed = False
        self._reset()
        for line in opening_lines(runner):
            runner.logger.info(line)

    def _reset(self) -> None:
        self._means, self._images, self._read_at = Means(), 0, time.monotonic()
        self._timer.reset()

    def before_train_epoch(self, runner) -> None:
        self._timer.pause()
        # Minus the current interval's time in the previous epoch, which is added when the interval is written.
        self._epoch_wait, self._epoch_time = (-seconds for seconds in self._timer.read())

    def before_val(self, runner) -> None:
        self._live.stop()
        if isinstance(runner._train_loop, BaseLoop):
            self._timer.pause()

    def before_train_iter(self, runner, batch_idx, data_batch=None) -> None:
        if is_main_process():
            # Read now, since a scheduler may change the rates before the iteration ends. `base_lr`, which MMEngine's
            # wrapper adds, carries no information if no group scales it.
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
        # Reading runner.iter in a run without training would build the training loop.
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
        """The log line: position, figures, speed and remaining time."""
        done, figures = runner.iter + 1, dict(self._figures)
        place = f"iter {done}/{runner.max_iters}"
        if runner.max_epochs > 1:
            length = len(runner.train_dataloader)
            place = f"epoch {runner.epoch + 1}/{runner.max_epochs}  iter {(done - 1) % length + 1}/{length}"
        rate, wait, step = (figures.pop(name, math.nan) for name in ("images_per_second", "data_wait", "step_time"))
        first, since = self._first
        pace = (time.monotonic() - since) / (done - first) if done > first else math.nan
        parts = [place, figures_text(figures)]
        if rate > 0:  # NaN if the batch size is unknown
            parts.append(f"{rate:.4g} img/s")
        if step > 0:
            parts.append(f"data wait {wait / step:.0%} ({wait:.3f} s)")
        return "  ".join([*parts, f"eta {duration(pace * (runner.max_iters - done))}"])


def _of_moving(runner, rates: list[float]) -> float:
    """The largest rate among groups that follow the schedule, or among all if every group has ``lr_constant``."""
    optimizer = getattr(runner.optim_wrapper, "optimizer", None)
    groups = optimizer.param_groups if optimizer is not None and len(optimizer.param_groups) == len(rates) else []
    return max([rate for rate, group in zip(rates, groups) if not group.get("lr_constant")] or rates)
