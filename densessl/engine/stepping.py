"""Train one iteration at a time, for notebooks and for programs that inspect a run between iterations."""

from collections.abc import Iterator
from typing import Any

from mmengine.hooks import Hook
from mmengine.runner import EpochBasedTrainLoop, Runner
from torch import Tensor

from densessl.errors import SettingError
from densessl.wording import count


def steps(runner: Runner) -> Iterator[dict[str, Tensor]]:
    """Train as ``runner.train()`` does, with all hooks, and yield after every iteration.

    An iterator that runs to its end has the same results as ``train()``. One that is closed early keeps the model and
    the checkpoints as they are, closes the logs, and exports nothing.

    Yields:
        the outputs of the model in the iteration: ``"loss"``, and all losses and figures by name. With gradient
        accumulation, several iterations make one optimiser step.

    Raises:
        SettingError: the run counts iterations instead of epochs, or has trained already.
    """
    loop, last = _ready(runner)
    try:
        runner.call_hook("before_train")
        while loop.epoch < loop.max_epochs and not loop.stop_training:
            runner.call_hook("before_train_epoch")
            runner.model.train()
            for index, batch in enumerate(loop.dataloader):
                loop.run_iter(index, batch)
                yield last.outputs
            runner.call_hook("after_train_epoch")
            loop._epoch += 1
            _validate(runner, loop)
        runner.call_hook("after_train")
    finally:
        runner.call_hook("after_run")


class _LastOutputs(Hook):
    """Keeps the outputs of the model in the last iteration."""

    priority = "LOWEST"
    outputs: Any = None

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None) -> None:
        self.outputs = outputs


class _Ready(Exception):
    """Raised in place of the loop, to leave ``Runner.train`` after its set-up."""


def _ready(runner: Runner) -> tuple[EpochBasedTrainLoop, _LastOutputs]:
    """Run the set-up of ``runner.train()`` without its loop. Returns the loop and a hook with the last outputs."""
    loop = runner.train_loop
    if not isinstance(loop, EpochBasedTrainLoop):
        raise SettingError(
            f"train_cfg: found {type(loop).__name__}, expected a loop over epochs (by_epoch=True) to step through"
        )
    if runner.iter:
        raise SettingError(
            f"steps(): this run has trained {count(runner.iter, 'iteration')} already. Keep its iterator to continue "
            "(steps = runner.steps(); next(steps)), or build another run"
        )
    last = _LastOutputs()
    runner.register_hook(last)

    def leave() -> None:
        raise _Ready

    loop.run = leave
    try:
        runner.train()
    except _Ready:
        pass
    finally:
        del loop.run
    return loop, last


def _validate(runner: Runner, loop: EpochBasedTrainLoop) -> None:
    """Validate after an epoch if the loop's own ``run`` would."""
    loop._decide_current_val_interval()
    due = loop.epoch % loop.val_interval == 0 or loop.epoch == loop.max_epochs
    if runner.val_loop is not None and loop.epoch >= loop.val_begin and due:
        runner.val_loop.run()
