"""Augment whole images for training detectors: flip, sometimes crop, and resize by the short side."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, NamedTuple

import numpy as np

from densessl.constraints import Ascending, Config, Count, Share
from densessl.data import placed as P
from densessl.data.placed import Placed
from densessl.errors import SettingError


class Flip(NamedTuple):
    """Mirror left-right."""


class Resize(NamedTuple):
    """Resize to (width, height) pixels."""

    width: int
    height: int


class Crop(NamedTuple):
    """Cut out a box, in pixels of the image at this step."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class WholeSpec:
    """Geometric augmentation of a detector's training image (DETR's recipe at DETReg's sizes; DETReg's released code,
    datasets/selfdet.py). All lengths are in pixels.

    Attributes:
        short: lengths of the short side after the resize, of which one is drawn.
        longest: most pixels of the long side.
        hflip: probability of mirroring left-right.
        crop: probability of a crop before the resize: the image is resized to one of ``crop_short``, and a box is cut
            out whose sides are drawn from ``crop_sides``, or are the image's where it is smaller.
        crop_short: lengths of the short side before the crop, of which one is drawn.
        crop_sides: least and most pixels of a side of the crop.
        interpolation: "bilinear" or "bicubic", antialiased.
    """

    short: Sequence[Count] = (320, 336, 352, 368, 400, 416, 432, 448, 464, 480)
    longest: Count = 600
    hflip: Share = 0.5
    crop: Share = 0.5
    crop_short: Sequence[Count] = (400, 500, 600)
    crop_sides: Annotated[tuple[Count, Count], Ascending()] = (384, 600)
    interpolation: P.Interpolation = "bilinear"

    def __post_init__(self):
        for name in ("short", "crop_short", "crop_sides"):
            values = getattr(self, name)
            if not isinstance(values, Sequence) or not values or min(values) < 1:
                raise SettingError(f"view.{name} is {values!r}, expected pixels, a list of one or more")
        if len(self.crop_sides) != 2 or self.crop_sides[0] > self.crop_sides[1]:
            raise SettingError(f"view.crop_sides is {self.crop_sides!r}, expected (least, most)")
        for name in ("hflip", "crop"):
            if not 0 <= getattr(self, name) <= 1:
                raise SettingError(f"view.{name} is {getattr(self, name)!r}, expected a probability")

    @classmethod
    def parse(cls, view: Mapping) -> "WholeSpec":
        """Build the spec from a config's ``view``. Raises SettingError: a key is unknown, or a value impossible."""
        unknown, known = sorted(set(view) - set(cls.__dataclass_fields__)), sorted(cls.__dataclass_fields__)
        if unknown:
            raise SettingError(f"view has unknown keys {unknown}; known are {known}")
        return cls(**view)


WholeConfig = Annotated[dict, Config(WholeSpec, trial=True)]  # the `view` of a config


def by_short_side(size: tuple[int, int], short: int, longest: int | None) -> tuple[int, int]:
    """(width, height) after resizing the short side to ``short``, or to less if the long side would exceed ``longest``.

    Rounds as DETR's released code does.
    """
    low, high = min(size), max(size)
    if longest is not None and high / low * short > longest:
        short = round(longest * low / high)
    width, height = size
    if low == short:
        return size
    short = max(1, short)  # an image hundreds of times as wide as high would round to 0
    return (short, int(short * height / width)) if width < height else (int(short * width / height), short)


def draw_whole(rng: np.random.Generator, size: tuple[int, int], spec: WholeSpec) -> list[Flip | Resize | Crop]:
    """Draw the operations on an image of ``size`` = (width, height), in the order in which they are applied."""
    steps: list[Flip | Resize | Crop] = [Flip()] if rng.random() < spec.hflip else []
    if rng.random() < spec.crop:
        size = by_short_side(size, int(rng.choice(spec.crop_short)), None)
        low, high = spec.crop_sides
        sides = [int(rng.integers(min(low, side), min(side, high), endpoint=True)) for side in size]
        top, left = (int(rng.integers(size[axis] - sides[axis], endpoint=True)) for axis in (1, 0))
        steps += [Resize(*size), Crop(left, top, *sides)]
        size = (sides[0], sides[1])
    return [*steps, Resize(*by_short_side(size, int(rng.choice(spec.short)), spec.longest))]


def cut_whole(
    image: Placed,
    steps: Sequence[Flip | Resize | Crop],
    interpolation: P.Interpolation = "bilinear",
    backend: str = "fast",
) -> Placed:
    """Apply the drawn operations in order."""
    for step in steps:
        if isinstance(step, Flip):
            image = P.hflip(image)
        elif isinstance(step, Resize):
            image = P.resize(image, tuple(step), interpolation, backend)
        else:
            image = P.crop(image, *step)
    return image
