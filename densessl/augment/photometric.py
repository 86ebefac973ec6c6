"""The photometric recipe of one view: random numbers drawn in the worker, pixels changed where the tensors are.

An operation splits in two. ``draw`` is the only place where randomness enters; it runs in the data worker, once for
each sample, and returns a row of numbers. The pixel work takes a batch and those rows, on whatever device the batch is.
The rows stay on the CPU, so which images an operation touches is known without waiting for the device.
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

# On the CPU, images go one at a time through the whole recipe and so stay in the cache of a core: 32 images of
# 224 x 224 at once take 1.4 to 2.2 times as long.
CPU_ROWS = 1


# RGB, of 0 to 255.
IMAGENET_MEAN = (123.675, 116.28, 103.53)
IMAGENET_STD = (58.395, 57.12, 57.375)

OpConfig = Annotated[dict, Config(AUGMENTATIONS, trial=True)]  # dict(type="Grayscale", p=0.2)


class PhotometricOp:
    """Base of the operations: applied to each sample with probability ``p``.

    A subclass sets ``width``, draws its own ``width - 1`` numbers in ``parameters`` and changes pixels in
    ``transform_``. The first column of its draws is 1 where the operation is applied and 0 elsewhere; the other columns
    are drawn in either case, so that one operation's coin does not shift the random numbers of the next.

    Args:
        p: probability that a sample is changed.

    Raises:
        ValueError: ``p`` is outside [0, 1].
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
        """This operation alone, as a recipe of one: see :meth:`Photometric.__call__`."""
        return Photometric([self])(images, draws)

    def parameters(self, rng: np.random.Generator) -> Sequence[float]:
        """The ``width - 1`` numbers of one sample that say how the operation is applied."""
        return ()

    def transform_(self, images: Tensor, parameters: Tensor) -> None:
        """Change all ``images`` (n, 3, H, W), at least fp32 and n > 0, in place; row i by ``parameters[i]``.

        Args:
            parameters: (n, width - 1) on the CPU. What the device needs of it is moved with ``non_blocking=True``.
        """
        raise NotImplementedError

    def apply_(self, images: Tensor, draws: Tensor) -> None:
        """Transform in place the rows whose first column in ``draws`` (N, width) is set; the others are not written."""
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
        ops: Operations, or their configs (``dict(type="Grayscale", p=0.2)``).

    Raises:
        KeyError: a config names no registered operation.
        TypeError: an entry is something else.
    """

    def __init__(self, ops: Sequence[dict | PhotometricOp]):
        self.ops = [_build(position, op) for position, op in enumerate(ops)]
        self.width = sum(op.width for op in self.ops)

    def draw(self, rng: np.random.Generator) -> np.ndarray:
        """The random numbers of one sample, (width,) float32: the columns of the operations, side by side."""
        return np.concatenate([np.empty(0, np.float32), *(op.draw(rng) for op in self.ops)])

    @torch.no_grad()
    def __call__(self, images: Tensor, draws: Tensor) -> Tensor:
        """Apply the recipe; row i of the result depends on row i of the arguments only.

        Args:
            images: (N, 3, H, W) floating point in [0, 1], on any device. Not changed.
            draws: (N, width) on the CPU, rows as :meth:`draw` returns them.

        Returns:
            A new (N, 3, H, W) tensor, at least fp32 also under autocast. Rows that no operation touches are
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
        # A dotted name is a scope or an import path: the registry resolves it.
        if name is None or (isinstance(name, str) and "." not in name and name not in known):
            raise SettingError(f"photometric[{position}].type {name!r} is unknown; {suggestion(name, known)}")
        op = AUGMENTATIONS.build(op)
    if not isinstance(op, PhotometricOp):
        raise SettingError(f"ops[{position}] is a {type(op).__name__}, expected a PhotometricOp or its config")
    return op


def normalize(images: Tensor, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """``(255 * images - mean) / std`` for each channel.

    ``mean`` and ``std`` are in units of 0..255, the numbers an MMDetection ``data_preprocessor`` takes, so that
    pretraining and detector configs can be compared at sight. ImageNet's are (123.675, 116.28, 103.53) and
    (58.395, 57.12, 57.375).

    Args:
        images: (N, 3, H, W) floating point in [0, 1].

    Returns:
        (N, 3, H, W), at least fp32.

    Raises:
        ValueError: not three numbers each, a ``std`` that is not positive, or numbers in units of 0..1.
    """
    if len(mean) != 3 or len(std) != 3 or min(std) <= 0:
        raise SettingError(f"expected three means and three positive deviations, found mean={mean}, std={std}")
    if 0 < max(mean) <= 1 and max(std) <= 1:
        raise SettingError(f"mean={mean}, std={std} look like units of 0..1, expected 0..255: multiply them by 255")
    dtype = torch.promote_types(images.dtype, torch.float32)
    # Moved rather than made on the device, which would wait for it.
    offset, scale = (torch.tensor([mean, std], dtype=dtype) / 255).to(images.device, non_blocking=True)
    return images.to(dtype).sub(offset[:, None, None]).div_(scale[:, None, None])
