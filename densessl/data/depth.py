"""Samples of more than 8 bits to 8 bits.

An image of 9 to 16 bits, or of floating-point numbers, has a range that its format only bounds: a camera of 12 bits
writes 0 to 4095 into samples of 16. Such samples are stretched from their range to 0..255. The range is, first found
first taken:

1. the one given, for all files of a data set (:func:`estimate`);
2. the one that the file states (TIFF's SMinSampleValue and SMaxSampleValue);
3. for whole numbers, 0 to 2^bits - 1: the bits that the file states where they are fewer than its samples hold, or else
   the least of 8, 10, 12, 14 and 16 that its brightest sample fits in;
4. for floating-point and signed numbers, 0 to 1 or 0 to 255 where all samples lie in it, or else from the file's least
   to its greatest number.
"""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

BITS = (8, 10, 12, 14, 16)
STRETCH = (0.1, 99.9)  # percentiles of a data set whose numbers have no known range


class DepthRange(NamedTuple):
    """Numbers that become black (0) and white (255)."""

    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.low:g} to {self.high:g}"


def to_uint8(samples: np.ndarray, range_: DepthRange) -> np.ndarray:
    """Stretch a range to 0..255. Numbers outside are clipped; what is no number is black.

    Whole numbers over 0 to 2^bits - 1 keep their upper eight bits, as decoders do it.

    Args:
        samples: of any shape, integers or floating point.
    """
    low, high = range_
    bits = int(high + 1).bit_length() - 1
    if samples.dtype.kind == "u" and low == 0 and high == 2**bits - 1 and bits >= 8:
        return np.minimum(samples >> (bits - 8), 255).astype(np.uint8)
    scaled = (samples.astype(np.float32) - np.float32(low)) * np.float32(255 / (high - low) if high > low else 0)
    return np.clip(np.nan_to_num(scaled, nan=0.0, posinf=255.0, neginf=0.0) + 0.5, 0, 255).astype(np.uint8)


def own_range(samples: np.ndarray, stated: DepthRange | None = None, bits: int | None = None) -> DepthRange:
    """The range of one file; see the module's docstring.

    Args:
        stated: what the file says; ignored where its samples lie outside.
        bits: of a sample as the file says, where that is fewer than the samples hold.

    Raises:
        ValueError: no sample is a number.
    """
    least, greatest = limits(samples)
    if stated is not None and stated.low <= least and greatest <= stated.high and stated.low < stated.high:
        return stated
    if samples.dtype.kind == "u":
        return DepthRange(0, 2 ** (bits or bits_for(greatest)) - 1)
    for high in (1, 255):
        if least >= 0 and greatest <= high:
            return DepthRange(0, high)
    return DepthRange(least, greatest)


def limits(samples: np.ndarray) -> tuple[float, float]:
    """Least and greatest number. Raises ValueError: there is none."""
    finite = samples if samples.dtype.kind in "ui" else samples[np.isfinite(samples)]
    if finite.size == 0:
        raise ValueError("no sample is a number")
    return float(finite.min()), float(finite.max())


def bits_for(greatest: float) -> int:
    """The least of ``BITS`` that a number fits in."""
    return next((bits for bits in BITS if greatest < 2**bits), BITS[-1])


def estimate(files: Iterable[np.ndarray], stretch: Sequence[float] | None = None) -> DepthRange | None:
    """One range for the files of a data set, from the samples of some.

    Args:
        files: their samples, without those of 8-bit files.
        stretch: percentiles of all samples that become black and white; None: by the rules 3 and 4 above, over all.

    Returns:
        None if there are no files.
    """
    seen = [_thinned(samples) for samples in files]
    if not seen:
        return None
    whole = all(samples.dtype.kind == "u" for samples in seen)
    together = np.concatenate([samples if whole else samples.astype(np.float64) for samples in seen])
    together = together if whole else together[np.isfinite(together)]
    if together.size == 0:
        return None
    if stretch is None and whole:
        return DepthRange(0, 2 ** bits_for(together.max()) - 1)
    if stretch is None and together.min() >= 0 and together.max() <= 255:
        return DepthRange(0, 1 if together.max() <= 1 else 255)
    low, high = np.percentile(together, stretch or STRETCH)
    return DepthRange(float(low), float(high)) if high > low else DepthRange(float(low), float(low) + 1)


def _thinned(samples: np.ndarray, most: int = 1 << 18) -> np.ndarray:
    """At most so many samples, evenly spaced, and the extremes."""
    flat = samples.reshape(-1)
    step = max(1, flat.size // most)
    finite = flat if flat.dtype.kind in "ui" else flat[np.isfinite(flat)]
    extremes = [finite.min(), finite.max()] if finite.size else []
    return np.concatenate([flat[::step], np.asarray(extremes, flat.dtype)])
