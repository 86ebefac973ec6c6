"""Rules for ``"auto"``: batch size, queue length and epochs from the number of images."""

import os

from densessl.errors import SettingError

LARGEST_BATCH = 64  # images per process, if the config names no number
LARGEST_QUEUE = 65536  # MoCo v2's queue, for 1.28 M images
STEPS = 10_000  # approximate number of optimiser steps of a run with automatic length
EPOCHS = (20, 800)  # least and most epochs; 800 is the longest published schedule here


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
            f"train_dataloader.batch_size: found {images} images for {factor} batches a step, expected at least two "
            "images for each; add images, or use fewer processes or accumulated iterations"
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
    """Return the number of epochs that take about 10,000 steps of ``step`` images; at least 20, at most 800."""
    fewest, most = EPOCHS
    return max(fewest, min(most, round(STEPS * step / images)))


def processes(launcher: str) -> int:
    """Processes of a run, as far as it is known before they have met."""
    return int(os.environ.get("WORLD_SIZE", 1)) if launcher == "pytorch" else 1


def few_images(images: int, batch: int, processes: int) -> SettingError:
    """The error that a data set gives no full batch."""
    shared = f" on each of {processes} processes" if processes > 1 else ""
    return SettingError(
        f"train_dataloader.batch_size: found {images} images for a batch of {batch}{shared}: not one full batch. Add "
        "images, or take a smaller batch: --batch-size N, or --batch-size auto for what fits; the learning rate "
        "follows it"
    )
