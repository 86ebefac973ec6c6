"""Sizes that suit a data set: what ``"auto"`` stands for in settings of batch, queue and epochs."""

import os

from densessl.errors import SettingError

LARGEST_BATCH = 64  # images per process, where a config names none
LARGEST_QUEUE = 65536  # MoCo v2's, on 1.28 M images
STEPS = 10_000  # optimiser steps that a run of automatic length has about
EPOCHS = (20, 800)  # the fewest and the most of them; 800 is the longest published schedule here


def fitting_batch(images: int, factor: int = 1, largest: int | None = None) -> int:
    """Images per process and iteration: as many as the recipe has, or all there are for one step.

    Args:
        images: of the data set.
        factor: processes x accumulated iterations: the batches that one step takes.
        largest: of the recipe.

    Raises:
        SettingError: there are fewer than two images for each batch. One image has no other to differ from.
    """
    batch = min(largest or LARGEST_BATCH, images // factor)
    if batch < 2:
        raise SettingError(
            f"train_dataloader.batch_size: found {images} images for {factor} batches a step, expected at least two "
            "images for each; add images, or take fewer processes or accumulated iterations"
        )
    return batch


def fitting_queue(images: int, step: int) -> int:
    """Keys in a queue: the largest power of two that is at most half of the images, so that a key and its own image
    seldom meet, and at most MoCo's; at least two steps of keys.

    Args:
        images: of the data set.
        step: images an optimiser step takes.
    """
    half = max(images // 2, 1)
    return max(min(LARGEST_QUEUE, 1 << (half.bit_length() - 1)), 2 * step)


def fitting_epochs(images: int, step: int) -> int:
    """Epochs that take about ten thousand steps of ``step`` images; at least 20, at most 800."""
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
