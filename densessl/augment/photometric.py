"""The photometric recipe of one view: data workers draw the random numbers, and the device changes the pixels.

An operation has two parts. ``draw`` is the only source of randomness: it runs in the data worker, once for each sample,
and returns a row of numbers. The other part changes the pixels of a batch by these rows, on the device of the batch.
The rows stay on the CPU, so that finding the images that an operation changes does not wait for the device.
"""

from collections.abc import Sequence
from typing import Annotated

import numpy as np
import torch
from torch import Tensor

from densessl.constraints import Config, Share
from densessl.errors import SettingError
from densessl.registry import AUGMENTATIONS
from densessl.wording import suggestion

# Images per pass on the CPU. A single image stays in the cache of a core through the whole recipe; a batch of 32 images
# of 224 x 224 takes 1.4 to 2.2 times as long.
CPU_ROWS = 1


# Of RGB, in units of 0..255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

OpConfig = Annotated[dict, Config(AUGMENTATIONS, trial=True)]  # dict(type="Grayscale", p=0.2)


class PhotometricOp:
    """Base of the operations, each of which is applied to a sample with probability ``p``.

    A subclass sets ``width``, draws ``width - 1`` numbers in ``parameters`` and changes pixels in ``transform_``. The
    first column of its draws is 1 where the operation is applied and 0 elsewhere. The other columns are drawn in either
    case, so that the random numbers of the next operation do not depend on whether this one is applied.

    Args:
        p: probability that a sample is changed.

    Raises:
        SettingError: ``p`` is outside [0, 1].
    """

    width: int = 1

    def __init__(self, p: Share):
        if not 0 <= p <= 1:
            raise SettingError(f"{type(self).__name__}: p={p} is not a probability in [0, 1]")
        self.p = p

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The random numbers of one sample, (width,) float32."""
        return np.array([rng.random() < self.p, *self.parameters(rng)], np.float32)

    def apply(self, images: Tensor, draws: Tensor) -> Tensor:
        """Apply this operation alone; arguments and result are those of :meth:`Photometric.__call__`."""
        return Photometric([self])(images, draws)

    def parameters(self, rng: np.random.Generator) -> Sequence[float]:
        """The ``width - 1`` random numbers of one sample that determine how the operation is applied."""
        return ()

    def transform_(self, images: Tensor, parameters: Tensor) -> None:
        """Change all ``images`` (n, 3, H, W), of at least fp32 and n > 0, in place: image i by ``parameters[i]``.

        Args:
            images: pixels in [0, 1].
            parameters: (n, width - 1) on the CPU. Move what the device needs with ``non_blocking=True``.
        """
        raise NotImplementedError

    def apply_(self, images: Tensor, draws: Tensor) -> None:
        """Transform in place the images whose first column in ``draws`` (N, width) is 1; others are not written."""
        rows = draws[:, 0].nonzero().squeeze(1)
        if len(rows) == len(images) > 0:
            self.transform_(images, draws[:, 1:])
        elif len(rows):
            update_rows_(images, rows.to(images.device, non_blocking=True), self.transform_, draws[rows, 1:])


def update_rows_(images: Tensor, index: Tensor, transform_, *arguments) -> None:
    """``transform_(images[index], *arguments)`` in place, where ``index`` (n,) lies on the device of ``images``."""
    part = images.index_select(0, index)
    transform_(part, *arguments)
    images.index_copy_(0, index, part)


class Photometric:
    """The operations of one view, in the order listed.

    Args:
        ops: operations, or their configs (``dict(type="Grayscale", p=0.2)``).

    Raises:
        SettingError: a config names an unknown operation, or an entry is neither an operation nor a config.
    """

    def __init__(self, ops: Sequence[dict | PhotometricOp]):
        self.ops = [_build(position, op) for position, op in enumerate(ops)]
        self.width = sum(op.width for op in self.ops)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The random numbers of one sample, (width,) float32: those of all operations, concatenated."""
        return np.concatenate([np.empty(0, np.float32), *(op.draw(rng) for op in self.ops)])

    @torch.no_grad()
    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Apply the recipe. Row i of the result depends only on row i of the arguments.

        Args:
            images: (N, 3, H, W) floating point in [0, 1], on any device. Not changed.
            draws: (N, width) on the CPU, with rows from :meth:`draw`.

        Returns:
            A new (N, 3, H, W) tensor, in at least fp32 also under autocast. Images that no operation changes are
            bit-identical.

        Raises:
            TypeError: ``images`` are not floating point.
            ValueError: a shape is wrong, or ``draws`` are not on the CPU.
        """
        self._check(images, draws)
        out = images.to(
            torch.promote_types(images.dtype, torch.float32), memory_format=torch.contiguous_format, copy=True
        )
        rows = CPU_ROWS if out.device.type == "cpu" else max(len(out), 1)
        with torch.autocast(out.device.type, enabled=False):
            for part, part_draws in zip(out.split(rows), draws.split(rows)):
                for op, columns in zip(self.ops, part_draws.split([op.width for op in self.ops], dim=1)):
                    op.apply_(part, columns)
        return out

    def _check(self, images: Tensor, draws: Tensor) -> None:
        if not images.is_floating_point():
            raise TypeError(f"images are {images.dtype}, expected floating point in [0, 1]: divide bytes by 255")
        if images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"images have shape {tuple(images.shape)}, expected (N, 3, H, W)")
        if draws.shape != (len(images), self.width):
            columns = " + ".join(f"{type(op).__name__} {op.width}" for op in self.ops) or "no operation"
            raise ValueError(f"draws have shape {tuple(draws.shape)}, expected {(len(images), self.width)} ({columns})")
        if draws.device.type != "cpu":
            raise ValueError(
                f"draws are on {draws.device}, expected the CPU: reading them there would stall the device"
            )


def _build(position: int, op: dict | PhotometricOp) -> PhotometricOp:
    if isinstance(op, dict):
        name, known = op.get("type"), sorted(AUGMENTATIONS.module_dict)
        # A name with a dot has a scope or is an import path; the registry resolves it.
        if name is None or (isinstance(name, str) and "." not in name and name not in known):
            raise SettingError(f"photometric[{position}].type {name!r} is unknown; {suggestion(name, known)}")
        op = AUGMENTATIONS.build(op)
    if not isinstance(op, PhotometricOp):
        raise SettingError(f"ops[{position}] is a {type(op).__name__}, expected a PhotometricOp or its config")
    return op


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(255 * images - mean) / std`` for each channel.

    Args:
        images: (N, 3, H, W) floating point in [0, 1].
        mean, std: three numbers each in units of 0..255, as in MMDetection's ``data_preprocessor``, so that configs of
            pretraining and detectors can be compared directly. ImageNet's are (123.675, 116.28, 103.53) and
            (58.395, 57.12, 57.375).

    Returns:
        (N, 3, H, W), in at least fp32.

    Raises:
        SettingError: not three numbers each, a ``std`` that is not positive, or numbers in units of 0..1.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise SettingError(f"expected three means and three positive deviations, found mean={mean}, std={std}")
    if 0 < max(mean) <= 1 and max(std) <= 1:
        raise SettingError(f"mean={mean}, std={std} look like units of 0..1, expected 0..255: multiply them by 255")
    dtype = torch.promote_types(images.dtype, torch.float32)
    # Created on the CPU and moved without blocking: creating it on the device would wait for the device.
    offset, scale = (torch.tensor([mean, std], dtype=dtype) / 255).to(images.device, non_blocking=True)
    return images.to(dtype).sub(offset[:, None, None]).div_(scale[:, None, None])
