"""The length of a run, and the current step of training."""

from typing import NamedTuple

import numpy as np

from densessl.data.rng import keyed_rng
from densessl.errors import SettingError
from densessl.wording import count


class Horizon(NamedTuple):
    """The length of a run, in the units of schedules.

    Attributes:
        steps_per_epoch: optimiser steps per epoch. Not a whole number if gradient accumulation does not divide the
            iterations of an epoch, since accumulation continues across the end of an epoch.
        epochs: length of the run in epochs; a fraction for a run measured in iterations.
        total_steps: optimiser steps of the whole run, including a last incomplete accumulation.
        num_images: number of images in the data set.
        global_batch: images in one optimiser step: batch per process x processes x accumulated iterations.
    """

    steps_per_epoch: float
    epochs: float
    total_steps: int
    num_images: int
    global_batch: int

    @classmethod
    def of(cls, num_images: int, batch_size: int, epochs: int) -> "Horizon":
        """The length of a training loop in one process that drops the last incomplete batch of an epoch and takes an
        optimiser step per batch.

        Raises:
            SettingError: the images do not fill one batch, or ``epochs`` is not above 0.
        """
        if not 0 < batch_size <= num_images:
            raise SettingError(
                f"found {count(num_images, 'image')} for a batch of {batch_size}, expected at least a full batch"
            )
        if not epochs > 0:
            raise SettingError(f"epochs: found {epochs}, expected more than 0")
        steps = num_images // batch_size
        return cls(steps, epochs, steps * epochs, num_images, batch_size)


class Step(NamedTuple):
    """The current step of training.

    Attributes:
        index: number of optimiser steps taken.
        horizon: length of the run; None outside a run.
        seed: seed of the run.
    """

    index: int
    horizon: Horizon | None = None
    seed: int = 0

    def horizon_for(self, setting: str) -> Horizon:
        """The length of the run, for a setting that depends on it.

        Raises:
            SettingError: outside a run; the message names the setting.
        """
        if self.horizon is None:
            raise SettingError(f"{setting} depends on the length of the run: call model.begin(horizon) first")
        return self.horizon

    def rng(self, purpose: str) -> np.random.Generator:
        """Batch-level random numbers of this step, equal on all ranks."""
        return keyed_rng(self.seed, purpose, self.index)
