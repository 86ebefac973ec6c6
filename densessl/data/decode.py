"""Decode image files into upright RGB arrays. A damaged file raises an error; it never yields a partly grey image.

Opening an image parses only its header. Its pixels are decoded once its crops are drawn, because the crops determine
at what reduced scale a JPEG may be decoded.

    encoded = open_image(path)
    crops = [draw_crop(rng, encoded.source_size, spec) for spec in specs]
    placed = encoded.decode(decode_denominator(crops, specs))

The formats are those of :mod:`densessl.data.formats`; of an animation or a multi-page file, the first picture is read.
The EXIF orientation is applied, as by OpenCV; one that only XMP states is not. Colours are those of
``PIL.Image.convert("RGB")``: grey is repeated, CMYK is converted without a colour profile, and alpha and palette
transparency are dropped rather than composited over a background, as in torchvision and in OpenCV, with which
MMDetection reads images. Samples of more than 8 bits are stretched from their range (:mod:`densessl.data.depth`).
"""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageFile

from densessl.data import formats
from densessl.data.archives import read_file
from densessl.data.depth import DepthRange
from densessl.data.placed import Placed
from densessl.errors import DATA, DensesslError, SettingError
from densessl.geometry import affine

DENOMINATORS = (1, 2, 4, 8)
MEGAPIXELS = 100  # 100 megapixels take up to 800 MB while they are decoded


class Reading(NamedTuple):
    """How image files are read.

    Attributes:
        megapixels: what an image may have at most, by its header: a file of 20 kB can declare 200 megapixels.
        depth: range of samples of more than 8 bits; None: each file's own (:mod:`densessl.data.depth`).
    """

    megapixels: float = MEGAPIXELS
    depth: DepthRange | None = None


class UnreadableImage(DensesslError, ValueError):
    """A file is missing, damaged, or not an image of a supported format. The message names the file and the reason.

    ``path`` is the file. It is empty if torch's DataLoader rebuilt the exception from the text of a worker's error.
    """

    exit_code = DATA

    def __init__(self, message: str, path: str = ""):
        super().__init__(message, path)
        self.path = path

    def __str__(self) -> str:
        return self.args[0]

    @property
    def reason(self) -> str:
        """The message without the file."""
        return self.args[0].removeprefix(f"{self.path}: ")


class EncodedImage:
    """An image whose size is known. A JPEG's pixels are not decoded yet; other formats are decoded at once.

    Attributes:
        path: the file.
        source_size: (width, height) of the upright image at full resolution.
        format, mode, bits: see :class:`densessl.data.formats.Stored`.

    Args:
        data: the bytes of the file, where they have been read already.

    Raises:
        UnreadableImage: see :func:`open_image`.
    """

    def __init__(self, path: str | os.PathLike, reading: Reading | None = None, data: bytes | None = None):
        self.path = os.fspath(path)
        reading = reading or Reading()
        self._decoded: tuple[int, Placed] | None = None
        with _unreadable(self.path):
            data = read_file(self.path) if data is None else data
            if not data:
                raise ValueError("the file is empty")
            self._image = formats.open_stored(data, reading.megapixels, reading.depth)
        self.format, self.mode, self.bits = self._image.format, self._image.mode, self._image.bits
        width, height = self._image.size
        self.source_size = (height, width) if self._image.orientation >= 5 else (width, height)

    def samples(self) -> np.ndarray | None:
        """The samples of an image of more than 8 bits, (h, w) or (h, w, 3), as they are in the file; None for others.

        Raises:
            UnreadableImage: as :meth:`decode`.
        """
        with _unreadable(self.path):
            return self._image.samples()

    def decode(self, denominator: int = 1) -> Placed:
        """Decode the pixels. A JPEG can be decoded at 1/denominator of its width and height, which is faster.

        Other formats, and JPEGs with fewer than ``denominator`` rows or columns, are decoded at a larger scale;
        ``Placed.to_source`` holds the actual scale.

        Args:
            denominator: 1, 2, 4 or 8.

        Returns:
            The (h, w, 3) uint8 pixels, read-only, and their exact map to the source.

        Raises:
            UnreadableImage: the pixel data are truncated or damaged, or have no 8-bit RGB meaning.
            SettingError: ``denominator`` is none of the four.
        """
        if self._decoded is None or self._decoded[0] != denominator:  # kept: a region generator decodes it too
            self._decoded = denominator, self._decode(denominator)
        return self._decoded[1]

    def _decode(self, denominator: int) -> Placed:
        if denominator not in DENOMINATORS:
            raise SettingError(f"denominator={denominator!r}: expected one of {DENOMINATORS}")
        orientation, stored_size = self._image.orientation, self._image.size
        with _unreadable(self.path):
            pixels, denominator = self._image.pixels(denominator)
        to_source = affine.scaled_decode(denominator)
        if orientation != 1:
            decoded_size = pixels.shape[1], pixels.shape[0]
            pixels = formats.upright(pixels, orientation)
            to_source = affine.compose(
                affine.invert(affine.exif(orientation, stored_size)),
                to_source,
                affine.exif(orientation, decoded_size),
            )
        pixels.flags.writeable = False
        return Placed(pixels, to_source, self.source_size)


def open_image(path: str | os.PathLike, reading: Reading | None = None) -> EncodedImage:
    """Read a file and its header.

    Args:
        path: of a file; or of one in an archive, ``photos.zip/1.jpg``.

    Raises:
        UnreadableImage: the file is missing, empty, no regular file, truncated, not an image, or larger than
            ``reading.megapixels``.
    """
    return EncodedImage(path, reading)


def read_image(path: str | os.PathLike, reading: Reading | None = None) -> Placed:
    """Open and decode a file at full resolution. Raises UnreadableImage."""
    return open_image(path, reading).decode()


@contextmanager
def _unreadable(path: str) -> Iterator[None]:
    """Run Pillow strictly and without warnings, and turn any error it raises into UnreadableImage."""
    try:
        with _strict_pillow():
            yield
    except MemoryError:
        raise  # not the file's fault
    except Exception as error:  # decoders raise OSError, ValueError, SyntaxError, struct.error, EOFError and others
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UnreadableImage(f"{path}: {reason or type(error).__name__}", path) from error


_lock = threading.Lock()
_threads_inside = 0
_before: tuple[bool, int | None, warnings.catch_warnings]


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Turn off Pillow's ``LOAD_TRUNCATED_IMAGES``, its limit of pixels, for which ``Reading`` has its own, and its
    warnings.

    These settings are global, so the first thread to enter changes them and the last one to leave restores them.
    """
    global _threads_inside, _before
    with _lock:
        if _threads_inside == 0:
            _before = ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS, warnings.catch_warnings()
            ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = False, None
            _before[-1].__enter__()
            warnings.simplefilter("ignore")
        _threads_inside += 1
    try:
        yield
    finally:
        with _lock:
            _threads_inside -= 1
            if _threads_inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES, Image.MAX_IMAGE_PIXELS = _before[:2]
                _before[-1].__exit__(None, None, None)
