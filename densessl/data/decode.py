"""Decode image files into upright RGB arrays. A damaged file raises an error; it never yields a partly grey image.

Opening an image parses only its header. Its pixels are decoded once its crops are drawn, because the crops determine
at what reduced scale a JPEG may be decoded.

    encoded = open_image(path)
    crops = [draw_crop(rng, encoded.source_size, spec) for spec in specs]
    placed = encoded.decode(decode_denominator(crops, specs))

The formats are JPEG (including MPO), PNG, WebP, TIFF and BMP; of an animation or a multi-page file, the first picture
is read. The EXIF orientation is applied. Colours are those of ``PIL.Image.convert("RGB")``: grey is repeated, CMYK is
converted without a colour profile, and alpha and palette transparency are dropped rather than composited over a
background, as in torchvision and in OpenCV, with which MMDetection reads images. 16-bit samples keep their upper eight
bits.
"""

import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile

from densessl.data.placed import Placed
from densessl.errors import DensesslError, SettingError
from densessl.geometry import affine

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP")
DENOMINATORS = (1, 2, 4, 8)

_EXIF_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TIFF_BITS, _TIFF_PHOTOMETRIC, _WHITE_IS_ZERO = 258, 262, 0


class UnreadableImage(DensesslError, ValueError):
    """A file is missing, damaged, or not an image of a supported format. The message names the file and the reason.

    ``path`` is the file. It is empty if torch's DataLoader rebuilt the exception from the text of a worker's error.
    """

    def __init__(self, message: str, path: str = ""):
        super().__init__(message, path)
        self.path = path

    def __str__(self) -> str:
        return self.args[0]


class EncodedImage:
    """An image whose size is known. A JPEG's pixels are not decoded yet; other formats are decoded at once.

    Attributes:
        path: the file.
        source_size: (width, height) of the upright image at full resolution.

    Raises:
        UnreadableImage: see :func:`open_image`.
    """

    def __init__(self, path: str | os.PathLike):
        self.path = os.fspath(path)
        self._decoded: tuple[int, Placed] | None = None
        with _unreadable(self.path):
            self._bytes = Path(self.path).read_bytes()
            if not self._bytes:
                raise ValueError("the file is empty")
            self._opened = _open(self._bytes)
            self._stored_size = self._opened.size
            self._orientation = _orientation(self._opened)
        swapped = self._orientation >= 5
        self.source_size = self._stored_size[::-1] if swapped else self._stored_size

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
        with _unreadable(self.path):
            image, self._opened = self._opened or _open(self._bytes), None
            if isinstance(image, JpegImageFile):
                denominator = _reduce(image, denominator)
                if not _has_end(self._bytes):
                    raise ValueError("truncated: the JPEG has no end-of-image marker")
            else:
                denominator = 1
            image.load()
            decoded_size = image.size
            image = _rgb(image)
            to_source = affine.scaled_decode(denominator)
            if self._orientation != 1:
                image = image.transpose(_UPRIGHT[self._orientation])
                to_source = affine.compose(
                    affine.invert(affine.exif(self._orientation, self._stored_size)),
                    to_source,
                    affine.exif(self._orientation, decoded_size),
                )
            pixels = np.asarray(image)
        return Placed(pixels, to_source, self.source_size)


def open_image(path: str | os.PathLike) -> EncodedImage:
    """Read a file and its header.

    Raises:
        UnreadableImage: the file is missing, empty, truncated or not an image, or the image is so large that Pillow
            takes it for a decompression bomb (``PIL.Image.MAX_IMAGE_PIXELS`` sets the limit).
    """
    return EncodedImage(path)


def read_image(path: str | os.PathLike) -> Placed:
    """Open and decode a file at full resolution. Raises UnreadableImage."""
    return open_image(path).decode()


def _open(data: bytes) -> ImageFile.ImageFile:
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise ValueError(f"none of {kinds}, or with a damaged header; it begins with {data[:16]!r}") from error
    if not isinstance(image, JpegImageFile):
        # Only JPEGs gain from late decoding. Pillow rotates TIFFs itself, and learns their upright size only here.
        image.load()
    return image


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation 1..8; a missing, unreadable or invalid one counts as 1, as in image viewers."""
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF parser raises errors of many types; the pixels may still be intact.
        return 1
    return orientation if orientation in _UPRIGHT else 1


def _reduce(image: JpegImageFile, denominator: int) -> int:
    """Set Pillow's scaled decoding, and return the denominator that Pillow chose."""
    width, height = image.size
    # Pillow picks the strongest reduction that keeps both sides at least as long as requested. With the requested sides
    # rounded down, that is ``denominator`` unless a side has fewer pixels than ``denominator``.
    _, box = image.draft(None, (max(1, width // denominator), max(1, height // denominator)))
    return round(width / box[2])


# Markers that start a segment or end the image. The others (stuffed zeros, restarts, fill bytes) belong to scan data.
_MARKER = re.compile(rb"\xff[^\x00\x01\xff\xd0-\xd8]")


def _has_end(jpeg: bytes) -> bool:
    """Whether the JPEG has an end-of-image (EOI) marker.

    Without one, either libjpeg runs out of data, which Pillow reports, or it decodes the zeros that fill up an
    interrupted download as grey blocks, which Pillow does not report.
    """
    if jpeg.endswith(b"\xff\xd9"):
        return True
    position = 2
    while marker := _MARKER.search(jpeg, position):
        if marker.group() == b"\xff\xd9":
            return True
        position = marker.end() + int.from_bytes(jpeg[marker.end() : marker.end() + 2], "big")
    return False


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB":
        return image
    # Pillow before 11 opens 16-bit grey PNGs in mode "I", which in other formats means 32 bits of unknown white level.
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        return _grey8(image).convert("RGB")
    if image.mode in ("I", "F"):
        kind = "floating point" if image.mode == "F" else "32-bit or signed"
        raise ValueError(f"{kind} samples have no known black and white; convert the file to 8 or 16 bits")
    return image.convert("RGB")


def _grey8(image: Image.Image) -> Image.Image:
    """Reduce 16-bit grey, or the 12-bit grey of a TIFF, to its upper eight bits."""
    tags = getattr(image, "tag_v2", {})
    grey = np.asarray(image) >> (tags.get(_TIFF_BITS, (16,))[0] - 8)
    if tags.get(_TIFF_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts white-is-zero samples of 8 bits only
        grey = 255 - grey
    return Image.fromarray(grey.astype(np.uint8))


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
_before: tuple[bool, warnings.catch_warnings]


@contextmanager
def _strict_pillow() -> Iterator[None]:
    """Turn off Pillow's ``LOAD_TRUNCATED_IMAGES`` and its warnings.

    Both settings are global, so the first thread to enter changes them and the last one to leave restores them.
    """
    global _threads_inside, _before
    with _lock:
        if _threads_inside == 0:
            _before = ImageFile.LOAD_TRUNCATED_IMAGES, warnings.catch_warnings()
            ImageFile.LOAD_TRUNCATED_IMAGES = False
            _before[1].__enter__()
            warnings.simplefilter("ignore")
        _threads_inside += 1
    try:
        yield
    finally:
        with _lock:
            _threads_inside -= 1
            if _threads_inside == 0:
                ImageFile.LOAD_TRUNCATED_IMAGES = _before[0]
                _before[1].__exit__(None, None, None)
