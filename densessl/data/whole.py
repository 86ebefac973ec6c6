"""Whole images as detectors see them: flipped, resized by their short side, sometimes cropped in between."""

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
    """To (width, height)."""

    width: int
    height: int


class Crop(NamedTuple):
    """A box in the pixels of the image as it is by then."""

    left: int
    top: int
    width: int
    height: int


@dataclass(frozen=True)
class WholeSpec:
    """How a detector's training image is made (DETR's recipe; fact sheet of the detectors, section 3.3).

    Attributes:
        short: sides that the short side is resized to, one drawn.
        longest: what the long side may have at most.
        hflip: probability.
        crop: probability that the image is first resized to one of ``crop_short`` and a box cut out whose sides are
            drawn from ``crop_sides`` (and the image's own, where it is smaller).
        crop_short: sides that the short side is resized to before the crop, one drawn.
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
        """Of the ``view`` of a config. Raises TypeError: it has keys that are not known; the message names those."""
        unknown, known = sorted(set(view) - set(cls.__dataclass_fields__)), sorted(cls.__dataclass_fields__)
        if unknown:
            raise SettingError(f"view has unknown keys {unknown}; known are {known}")
        return cls(**view)


WholeConfig = Annotated[dict, Config(WholeSpec, trial=True)]  # the `view` of a config


def by_short_side(size: tuple[int, int], short: int, longest: int | None) -> tuple[int, int]:
    """(width, height) of an image of ``size`` resized so that its short side is ``short``, or as much less as
    ``longest`` demands of the other one. Rounded as DETR's code does."""
    low, high = min(size), max(size)
    if longest is not None and high / low * short > longest:
        short = round(longest * low / high)
    width, height = size
    if low == short:
        return size
    short = max(1, short)  # of an image hundreds of times as long as high
    return (short, int(short * height / width)) if width < height else (int(short * width / height), short)


def draw_whole(rng: np.random.Generator, size: tuple[int, int], spec: WholeSpec) -> list[Flip | Resize | Crop]:
    """What is done to an image of ``size`` = (width, height), in this order."""
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
    """Do what was drawn."""
    for step in steps:
        if isinstance(step, Flip):
            image = P.hflip(image)
        elif isinstance(step, Resize):
            image = P.resize(image, tuple(step), interpolation, backend)
        else:
            image = P.crop(image, *step)
    return image
