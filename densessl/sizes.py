"""Rules for ``"auto"``: batch size, queue length and epochs from the number of images."""

import os

from densessl.errors import SettingError
from densessl.wording import count

LARGEST_BATCH = 64  # images per process, if the config names no number
LARGEST_QUEUE = 65536  # MoCo v2's queue, for 1.28 M images
SETTLED = "settled"  # entry of a config, and of its checkpoints: what "auto" stood for, by dotted name
# The length of a run with automatic length. More than 200 epochs learn little more from few images, and fewer than 20
# show a large data set too few times; no run is longer than 100,000 steps, unless a single epoch is.
STEPS = 10_000  # optimiser steps that it aims at
MOST_STEPS = 100_000
EPOCHS = (20, 200)  # least and most epochs


def fitting_batch(images: int, factor: int = 1, largest: int | None = None) -> int:
    """Return the images per process and iteration: the recipe's number, or as many as one step can have.

    Args:
        images: number of images in the data set.
        factor: batches per optimiser step: processes x accumulated iterations.
        largest: the recipe's batch size, which is the upper limit.

    Raises:
        SettingError: there are fewer than two images for each batch: a single image has no negatives.
    """
    batch = min(largest or LARGEST_BATCH, images // factor)
    if batch < 2:
        raise SettingError(
            f"train_dataloader.batch_size: found {count(images, 'image')} for {count(factor, 'batch', 'batches')} a "
            "step, expected at least two images for each; add images, or use fewer processes or accumulated iterations"
        )
    return batch


def fitting_queue(images: int, step: int) -> int:
    """Return the length of a queue: the largest power of two that is at most half the number of images, so that a query
    seldom meets a key of its own image; at most MoCo's length, and at least the keys of two steps.

    Args:
        images: number of images in the data set.
        step: images per optimiser step.
    """
    half = max(images // 2, 1)
    return max(min(LARGEST_QUEUE, 1 << (half.bit_length() - 1)), 2 * step)


def fitting_epochs(images: int, step: int) -> int:
    """Return the number of epochs of a run: as many as take about 10,000 steps, at least 20 and at most 200; but no
    more than 100,000 steps, and at least one epoch. With 64 images per step, or all 50:

    ===========  ======  =======
    images       epochs    steps
    ===========  ======  =======
             50     200      200
          1,000     200    3,000
         10,000      64    9,984
        118,000      20   36,860
      1,280,000       5  100,000
    ===========  ======  =======

    Args:
        images: number of images in the data set.
        step: images per optimiser step. An epoch drops its last, incomplete step.
    """
    in_an_epoch = max(1, images // step)
    fewest, most = EPOCHS
    epochs = max(fewest, min(most, round(STEPS / in_an_epoch)))
    return max(1, min(epochs, MOST_STEPS // in_an_epoch))


def processes(launcher: str) -> int:
    """Processes of a run, as far as it is known before they have met."""
    variable = {"pytorch": "WORLD_SIZE", "slurm": "SLURM_NTASKS"}.get(launcher)
    return int(os.environ.get(variable, 1)) if variable else 1


def few_images(images: int, batch: int, processes: int) -> SettingError:
    """The error that a data set gives no full batch."""
    shared = f" on each of {processes} processes" if processes > 1 else ""
    return SettingError(
        f"train_dataloader.batch_size: found {count(images, 'image')} for a batch of {batch}{shared}: not one full "
        "batch. Add images, or take a smaller batch: --batch-size N, or --batch-size auto for what fits; the learning "
        "rate follows it"
    )
