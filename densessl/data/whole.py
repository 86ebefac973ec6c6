"""Whole images as detectors see them: flipped, resized by their short side, sometimes cropped in between."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from densessl.data import placed as P
from densessl.data.placed import Placed


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
        interpolation: "bilinear" or "bicubic", antialiased.
    """

    short: Sequence[int] = (320, 336, 352, 368, 400, 416, 432, 448, 464, 480)
    longest: int = 600
    hflip: float = 0.5
    crop: float = 0.5
    crop_short: Sequence[int] = (400, 500, 600)
    crop_sides: tuple[int, int] = (384, 600)
    interpolation: P.Interpolation = "bilinear"


def by_short_side(size: tuple[int, int], short: int, longest: int | None) -> tuple[int, int]:
    """(width, height) of an image of ``size`` resized so that its short side is ``short``, or as much less as
    ``longest`` demands of the other one. Rounded as DETR's code does."""
    low, high = min(size), max(size)
    if longest is not None and high / low * short > longest:
        short = round(longest * low / high)
    width, height = size
    if low == short:
        return size
    return (short, int(short * height / width)) if width < height else (int(short * width / height), short)


def draw_whole(rng: np.random.Generator, size: tuple[int, int], spec: WholeSpec) -> list[Flip | Resize | Crop]:
    """What is done to an image of ``size`` = (width, height), in this order."""
    steps: list[Flip | Resize | Crop] = [Flip()] if rng.random() < spec.hflip else []
    if rng.random() < spec.crop:
        size = by_short_side(size, int(rng.choice(spec.crop_short)), None)
        low, high = spec.crop_sides
        sides = [int(rng.integers(min(low, side), min(side, high), endpoint=True)) for side in size]
        left, top = (int(rng.integers(side - part, endpoint=True)) for side, part in zip(size, sides))
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
