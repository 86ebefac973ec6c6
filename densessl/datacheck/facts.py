"""What is known of one image file after reading it once."""

import hashlib
from functools import lru_cache
from importlib.util import find_spec
from typing import NamedTuple

import numpy as np
from PIL import Image

from densessl.data.archives import read_file
from densessl.data.decode import DENOMINATORS, EncodedImage, Reading, UnreadableImage

HASHED_AT = 256  # pixels; a JPEG is decoded no smaller, so that its hash is that of the same picture in another format


class Fact(NamedTuple):
    """An image file.

    Attributes:
        reason: why it cannot be read; empty if it can. Only ``bytes`` and ``digest`` are known of an unreadable one.
        bytes: size of the file.
        digest: BLAKE2 of its bytes, 16 bytes; empty if the file could not be opened.
        width, height: of the upright image, in pixels.
        format, mode, bits: see :class:`densessl.data.formats.Stored`.
        low, high: least and greatest sample of an image of more than 8 bits; None for others.
        look: perceptual hash, 64 bits; None without ImageHash.
    """

    reason: str = ""
    bytes: int = 0
    digest: bytes = b""
    width: int = 0
    height: int = 0
    format: str = ""
    mode: str = ""
    bits: int = 8
    low: float | None = None
    high: float | None = None
    look: int | None = None


@lru_cache
def can_hash() -> bool:
    """Whether ImageHash is installed, without which near duplicates are not looked for."""
    return find_spec("imagehash") is not None


def fact_of(path: str, reading: Reading) -> Fact:
    """Read and decode an image as training does."""
    try:
        data = read_file(path)
    except (OSError, ValueError):
        data = None  # EncodedImage fails in the same way, and its error has the reason
    known = Fact() if data is None else Fact("", len(data), hashlib.blake2b(data, digest_size=16).digest())
    try:
        encoded = EncodedImage(path, reading, data)
        width, height = encoded.source_size
        samples = encoded.samples()
        placed = encoded.decode(max(d for d in DENOMINATORS if d == 1 or min(width, height) // d >= HASHED_AT))
    except UnreadableImage as error:
        return known._replace(reason=error.reason)
    low, high = (None, None) if samples is None else _range(samples)
    return known._replace(
        width=width,
        height=height,
        format=encoded.format,
        mode=encoded.mode,
        bits=encoded.bits,
        low=low,
        high=high,
        look=look_of(placed.image) if can_hash() else None,
    )


def look_of(pixels: np.ndarray) -> int:
    """The perceptual hash (pHash) of (h, w, 3) uint8 pixels: signs of the lowest 8 x 8 frequencies of the grey image.

    Hashes of a picture and of its re-encoded or resized copy differ in few of the 64 bits.
    """
    from imagehash import phash  # optional: the extra `check`

    bits = phash(Image.fromarray(pixels)).hash
    return int.from_bytes(np.packbits(bits).tobytes(), "big")


def _range(samples: np.ndarray) -> tuple[float | None, float | None]:
    finite = samples[np.isfinite(samples)]
    return (float(finite.min()), float(finite.max())) if finite.size else (None, None)
