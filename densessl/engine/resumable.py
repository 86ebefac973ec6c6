"""Whether a run can go on from a checkpoint: its steps, its epochs and its length."""

import logging

from mmengine.runner import BaseLoop, EpochBasedTrainLoop

from densessl.errors import CheckpointError
from densessl.wording import count


def check_steps(before: dict, now: dict, filename: str, logger: logging.Logger) -> None:
    """Raise CheckpointError if steps or epochs of the run ``before`` differ in length from those of the run ``now``.

    Args:
        before, now: facts of :meth:`densessl.engine.runner.DenseRunner.save_checkpoint`; ``before`` may lack some.
    """
    before = {**now, **before}
    if before["images_per_step"] != now["images_per_step"]:
        batch, rest = divmod(before["images_per_step"], now["world_size"] * now["accumulative_counts"])
        how = f"Give --batch-size {batch}" if not rest else "Change the number of processes or accumulated iterations"
        raise CheckpointError(
            f"cannot resume {filename}: it was trained with {_arithmetic(before)}, this run has "
            f"{_arithmetic(now)}. {how}, or start a new run from its weights with --init, in another work folder"
        )
    if before["iters_per_epoch"] != now["iters_per_epoch"]:
        raise CheckpointError(
            f"cannot resume {filename}: its epochs have {count(before['iters_per_epoch'], 'iteration')} of "
            f"{_arithmetic(before)}, those of this run {now['iters_per_epoch']} of {_arithmetic(now)}: the data "
            "set or the sampler differs. Start a new run from its weights with --init, in another work folder"
        )
    if before["world_size"] != now["world_size"]:
        logger.warning(
            f"{filename} was trained by {count(before['world_size'], 'process', 'processes')}, this run has "
            f"{now['world_size']}: the images of each step are the same, "
            "but the random numbers of each process (dropout) differ."
        )


def check_length(meta: dict, loop: BaseLoop, filename: str) -> None:
    """Raise CheckpointError if the run of ``meta`` has trained longer than ``loop`` lasts."""
    if meta["iter"] > loop.max_iters:
        epochs = isinstance(loop, EpochBasedTrainLoop)
        done, length = (meta["epoch"], loop.max_epochs) if epochs else (meta["iter"], loop.max_iters)
        unit, key = ("epoch", "max_epochs") if epochs else ("iteration", "max_iters")
        raise CheckpointError(
            f"cannot resume {filename}: it has trained {count(done, unit)}, this run lasts {length:,} "
            f"(train_cfg.{key}). Expected at least {done:,}; or start a new run in another work folder"
        )


def _arithmetic(facts: dict) -> str:
    return (
        f"{count(facts['images_per_step'], 'image')} a step ({facts['batch_size']} x "
        f"{count(facts['world_size'], 'process', 'processes')} x "
        f"{facts['accumulative_counts']} accumulated)"
    )
