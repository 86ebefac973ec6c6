"""Estimate batch-norm statistics for testing from training images (PreciseBN)."""

import itertools
import random
from bisect import bisect
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from mmengine.dataset import InfiniteSampler, worker_init_fn
from mmengine.dist import get_rank, is_distributed
from mmengine.hooks import Hook
from mmengine.runner import IterBasedTrainLoop, Runner
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.data import DataLoader

from densessl.constraints import Count
from densessl.errors import SettingError
from densessl.registry import HOOKS
from densessl.weights.state import bare_model
from densessl.wording import count


@torch.no_grad()
def set_precise_statistics(model: nn.Module, batches: Iterable[Any], forward: Callable[[Any], Any]) -> None:
    """Set running means and variances to the plain averages of the batches' statistics, with the current weights.

    A running average is dominated by the last few batches, and older ones belong to older weights. This is
    detectron2's PreciseBN (fvcore 0.1): the average over batches of each batch's mean and unbiased variance, here in
    float64; with several processes, over the batches of all.

    Norm layers in evaluation mode or without running statistics stay unchanged, and so do those that no batch passes.
    If a batch passes a norm several times, as in a head shared by levels, each pass counts.

    Args:
        model: must be in training mode, except norms that should stay unchanged.
        batches: arguments for ``forward``. With synchronised norms, every process needs the same number.
        forward: runs the model on one batch.
    """
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training and m.track_running_stats]
    if not norms:
        return
    before = [(norm.momentum, *(buffer.clone() for buffer in norm.buffers())) for norm in norms]
    sums = [norm.running_mean.new_zeros(2 * norm.num_features + 1, dtype=torch.float64) for norm in norms]

    def add(total: Tensor, norm: _BatchNorm, inputs: tuple[Tensor, ...], _: Tensor) -> None:
        if inputs[0].numel():
            total += torch.cat([norm.running_mean, norm.running_var, norm.running_mean.new_ones(1)]).double()

    handles = [norm.register_forward_hook(partial(add, total)) for norm, total in zip(norms, sums)]
    try:
        for norm in norms:
            norm.reset_running_stats()  # otherwise a value that is not finite would survive multiplication by 0
            norm.momentum = 1.0  # so that running statistics are those of the last batch
        for batch in batches:
            forward(batch)
    finally:
        for handle, norm, (momentum, *buffers) in zip(handles, norms, before):
            handle.remove()
            norm.momentum = momentum
            for buffer, value in zip(norm.buffers(), buffers):
                buffer.copy_(value)
    joined = torch.cat(sums)
    if is_distributed():
        dist.all_reduce(joined)
    for norm, total in zip(norms, joined.split([len(total) for total in sums])):
        mean, variance, count = total.split([norm.num_features, norm.num_features, 1])
        norm.running_mean.copy_(torch.where(count > 0, mean / count, norm.running_mean))
        norm.running_var.copy_(torch.where(count > 0, variance / count, norm.running_var))


@HOOKS.register_module()
class PreciseBNHook(Hook):
    """Estimate the norms' statistics before each validation, and before the checkpoint of the last step.

    The seed of the run and the step determine which training images are drawn, so they do not depend on earlier draws.
    The random state of training is restored afterwards.

    Args:
        batches: number of batches, of the training batch size, in each process; 200 in detectron2.

    Raises:
        SettingError: ``batches`` is not positive.
    """

    priority = "LOW"  # after the step and averaged weights, before the checkpoint (VERY_LOW)

    def __init__(self, batches: Count = 200) -> None:
        if batches < 1:
            raise SettingError(f"PreciseBNHook: batches={batches}, expected at least 1")
        self.batches = batches

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        loop = runner.train_loop
        if isinstance(loop, IterBasedTrainLoop) and _due(loop, loop.iter + 1, loop.max_iters):
            self.recompute(runner)

    def after_train_epoch(self, runner: Runner) -> None:
        loop = runner.train_loop
        if not isinstance(loop, IterBasedTrainLoop) and _due(loop, loop.epoch + 1, loop.max_epochs):
            self.recompute(runner)

    def recompute(self, runner: Runner) -> None:
        """Estimate the statistics now. The model must be in training mode, as it is after any step."""
        model = bare_model(runner.model)  # without its wrapper, as no gradients are exchanged

        def forward(batch: Any) -> None:
            with runner.optim_wrapper.optim_context(model):  # the precision of training
                model._run_forward(model.data_preprocessor(batch, True), mode="loss")

        key = np.random.SeedSequence([abs(runner.seed), runner.iter])
        seed = int(key.generate_state(1)[0] >> 1)
        with _random_numbers_of(seed + get_rank()):
            loader = _drawn_anew(runner.train_dataloader, seed)
            set_precise_statistics(model, itertools.islice(loader, self.batches), forward)
        runner.logger.info(
            f"PreciseBNHook: statistics of norm layers taken from {count(self.batches, 'batch', 'batches')}"
        )


def _due(loop: Any, done: int, last: int) -> bool:
    """Whether a validation, or the end of training, follows ``done`` steps or epochs: the condition of MMEngine's
    loops."""
    interval = loop.dynamic_intervals[bisect(loop.dynamic_milestones, done + 1) - 1]
    return done == last or (done >= loop.val_begin and done % interval == 0)


def _drawn_anew(loader: DataLoader, seed: int) -> DataLoader:
    """Return a loader of endless batches of a loader's data set, batched in the same way (images of similar aspect
    ratio together), in new order."""
    batch_sampler = loader.batch_sampler
    sampler = InfiniteSampler(loader.dataset, shuffle=True, seed=seed)
    return DataLoader(
        loader.dataset,
        batch_sampler=type(batch_sampler)(sampler, batch_sampler.batch_size, drop_last=False),
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        worker_init_fn=partial(worker_init_fn, num_workers=loader.num_workers, rank=get_rank(), seed=seed),
    )


@contextmanager
def _random_numbers_of(seed: int) -> Iterator[None]:
    """Seed all global random generators, and restore their states afterwards."""
    python, arrays = random.getstate(), np.random.get_state()
    try:
        with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
            random.seed(seed)
            np.random.seed(seed)
            torch.manual_seed(seed)
            yield
    finally:
        random.setstate(python)
        np.random.set_state(arrays)
