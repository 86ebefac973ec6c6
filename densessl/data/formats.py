"""Image files of each format: the header with its checks, and the pixels.

JPEG (and MPO, of which the first picture is read), PNG, WebP, TIFF, BMP, GIF, PPM (and PGM, PBM, PFM), JPEG 2000 and
AVIF, and HEIC with the extra ``heif``.
"""

import io
import struct
from dataclasses import dataclass, field
from functools import lru_cache

import cv2
import numpy as np
import simplejpeg
from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.JpegImagePlugin import JpegImageFile
from PIL.TiffImagePlugin import ImageFileDirectory_v2, TiffImageFile

from densessl.data import containers
from densessl.data.depth import DepthRange, own_range, to_uint8
from densessl.data.jpeg import check_jpeg, decode_jpeg
from densessl.extras import how_to_install

FORMATS = ("JPEG", "PNG", "WEBP", "TIFF", "BMP", "GIF", "PPM", "JPEG2000", "AVIF")
_HEIC_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

_EXIF_ORIENTATION = 0x0112
_ORIENTATIONS = range(1, 9)
_XMP = ("xmp", "XML:com.adobe.xmp", "Raw profile type exif")  # in Image.info; Pillow looks for an orientation there
_WHITE_IS_ZERO, _PHOTOMETRIC = 0, 262
_PLANES = 284
_LEAST_SAMPLE, _GREATEST_SAMPLE = 340, 341


@dataclass
class Stored:
    """An image as it is stored in a file, not turned upright.

    Attributes:
        size: (width, height).
        orientation: EXIF's, 1 to 8, that is still to be applied.
        format: Pillow's name of the format: ``"JPEG"``, ``"PNG"``.
        mode: Pillow's name of the kind of pixels: ``"RGB"``, ``"L"``, ``"I;16"``.
    """

    size: tuple[int, int]
    orientation: int
    format: str
    mode: str
    _data: bytes
    _depth: DepthRange | None
    _image: ImageFile.ImageFile | None = field(default=None, repr=False)  # none of a JPEG, which is decoded when asked

    def pixels(self, denominator: int) -> tuple[np.ndarray, int]:
        """Decode.

        Returns:
            (h, w, 3) uint8 RGB, and the denominator of the scale that was taken.
        """
        if self.format == "JPEG":
            denominator = _possible(denominator, self.size)
            if self.mode != "CMYK":
                return decode_jpeg(self._data, self.size, denominator), denominator
            check_jpeg(self._data, self.size)
            image = _identify(self._data)
            image.draft(None, tuple(max(1, side // denominator) for side in self.size))
            return np.asarray(image.convert("RGB")), denominator
        deep = self.samples()
        if deep is not None:
            return self._eight_bits(deep), 1
        return np.asarray(self._image if self._image.mode == "RGB" else self._image.convert("RGB")), 1

    @property
    def bits(self) -> int:
        """Bits of a sample: 8 or fewer, the number that a PNG or TIFF states, 16, or 32 for floating point."""
        if self.format in ("PNG", "TIFF"):
            return _bits(self._image, self._data)
        return {"1": 1, "F": 32, "I": 32}.get(self.mode, 16 if self.mode.startswith("I;16") else 8)

    def samples(self) -> np.ndarray | None:
        """Samples of more than 8 bits, (h, w) or (h, w, 3) RGB; None where the image has 8."""
        if self.format == "JPEG":
            return None
        mode = self._image.mode
        if mode.startswith("I;16") or (mode == "I" and self._image.format in ("PNG", "PPM")):
            return np.asarray(self._image).astype(np.uint16)
        if mode in ("I", "F"):
            return np.asarray(self._image)
        if _bits(self._image, self._data) > 8:  # Pillow keeps the upper eight bits of colours
            if getattr(self._image, "tag_v2", {}).get(_PLANES, 1) == 2:  # OpenCV mixes their bytes up
                raise ValueError("colours of more than 8 bits in separate planes (PlanarConfiguration 2)")
            return _opencv_samples(self._data)
        return None

    def _eight_bits(self, samples: np.ndarray) -> np.ndarray:
        tags = getattr(self._image, "tag_v2", {})
        pixels = to_uint8(samples, self._depth or self._range(samples))
        if tags.get(_PHOTOMETRIC) == _WHITE_IS_ZERO:  # Pillow inverts 8-bit samples of this kind, but not these
            pixels = 255 - pixels
        return np.repeat(pixels[..., None], 3, axis=2) if pixels.ndim == 2 else np.ascontiguousarray(pixels)

    def _range(self, samples: np.ndarray) -> DepthRange:
        """The file's own range."""
        return own_range(samples, _stated(self._image), _fewer_bits(self._image))


@dataclass
class StoredSamples(Stored):
    """An image of more than 8 bits that Pillow has no mode for; ``deep`` are its samples, (h, w) or (h, w, 3) RGB."""

    deep: np.ndarray = field(default=None, repr=False)

    @property
    def bits(self) -> int:
        return self.deep.dtype.itemsize * 8

    def samples(self) -> np.ndarray:
        return self.deep

    def _range(self, samples: np.ndarray) -> DepthRange:
        return own_range(samples)


def open_stored(data: bytes, megapixels: float, depth: DepthRange | None) -> Stored:
    """Read a file's header, check its container, and decode it if it is no JPEG.

    Args:
        megapixels: limit of the declared size.
        depth: range of samples of more than 8 bits; None: the file's own.

    Raises:
        ValueError, OSError, SyntaxError, …: whatever a decoder raises for what is damaged or no image.
    """
    if containers.is_jpeg(data):
        return _open_jpeg(data, megapixels)
    if containers.is_png(data):
        data = containers.checked_png(data)
    elif containers.is_webp(data):
        containers.check_webp(data)
    try:
        image = _identify(data)
    except ValueError:
        deep = _deep_tiff(data, megapixels, depth)
        if deep is None:
            raise
        return deep
    _check_size(image.size, megapixels)
    if isinstance(image, TiffImageFile):
        containers.check_tiff(image, data)
    elif image.format == "BMP":
        containers.check_bmp(data)
    elif image.format in ("GIF", "JPEG2000"):
        check_by_opencv(data, image.format)
    orientation = _orientation(image) if image.format != "TIFF" else 1  # Pillow turns a TIFF itself
    image.load()  # nothing is gained by waiting, and Pillow knows the upright size of a TIFF only now
    return Stored(image.size, orientation, image.format, image.mode, data, depth, image)


def check_by_opencv(data: bytes, kind: str) -> None:
    """Raises ValueError: OpenCV, whose decoder is strict, refuses a file. Pillow's leaves out what it cannot decode."""
    if _opencv(data) is None and _opencv_decodes(kind):
        raise ValueError(f"damaged: OpenCV cannot decode the {kind}")


@lru_cache
def _opencv_decodes(kind: str) -> bool:
    """Whether this OpenCV has a decoder of a format; those before 4.11 have none for GIF."""
    file = io.BytesIO()
    Image.new("L", (8, 8)).save(file, kind)
    return _opencv(file.getvalue()) is not None


def upright(pixels: np.ndarray, orientation: int) -> np.ndarray:
    """Apply an EXIF orientation to (h, w, 3) pixels."""
    if orientation >= 5:
        pixels = pixels.transpose(1, 0, 2)
    rows, columns = {2: (1, -1), 3: (-1, -1), 4: (-1, 1), 6: (1, -1), 7: (-1, -1), 8: (-1, 1)}.get(orientation, (1, 1))
    return np.ascontiguousarray(pixels[::rows, ::columns])


def _open_jpeg(data: bytes, megapixels: float) -> Stored:
    try:
        image = _identify(data)
        if not isinstance(image, JpegImageFile):
            raise ValueError(f"begins like a JPEG, and is a {image.format}")
        size, orientation, mode = image.size, _orientation(image), image.mode
    except Exception:  # Pillow stumbles over metadata, on which no pixel depends
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
        mode = {"CMYK": "CMYK", "YCCK": "CMYK", "Gray": "L", "GRAY": "L"}.get(space, "RGB")
        size, orientation = (width, height), 1
    _check_size(size, megapixels)
    return Stored(size, orientation, "JPEG", mode, data, None)


def _identify(data: bytes) -> ImageFile.ImageFile:
    try:
        return Image.open(io.BytesIO(data), formats=_formats(data))
    except UnidentifiedImageError as error:
        kinds = ", ".join(FORMATS)
        raise ValueError(f"none of {kinds}, or with a damaged header; it begins with {data[:16]!r}") from error


def _formats(data: bytes) -> tuple[str, ...]:
    if data[4:8] != b"ftyp" or data[8:12] not in _HEIC_BRANDS:
        return FORMATS
    try:
        from pillow_heif import register_heif_opener  # optional, and only for this format
    except ModuleNotFoundError as error:
        raise ValueError(f"a HEIC file; to read it: {how_to_install('heif')}") from error
    register_heif_opener()
    return ("HEIF",)


def _check_size(size: tuple[int, int], megapixels: float) -> None:
    if size[0] * size[1] > megapixels * 1e6:
        raise ValueError(
            f"{size[0]} x {size[1]} pixels, more than the limit of {megapixels:g} megapixels (dataset.max_megapixels)"
        )


def _orientation(image: ImageFile.ImageFile) -> int:
    """EXIF orientation 1..8; a missing, unreadable or invalid one counts as 1, as in image viewers."""
    for key in _XMP:
        image.info.pop(key, None)
    try:
        orientation = image.getexif().get(_EXIF_ORIENTATION, 1)
    except Exception:  # Pillow's EXIF parser raises many kinds of errors; the pixels are good all the same
        return 1
    return orientation if orientation in _ORIENTATIONS else 1


def _possible(denominator: int, size: tuple[int, int]) -> int:
    """The largest scale up to ``denominator`` at which no side is decoded to less than a pixel."""
    most = min(side // max(1, side // denominator) for side in size)
    return max(d for d in (1, 2, 4, 8) if d <= min(denominator, most))


def _bits(image: ImageFile.ImageFile, data: bytes) -> int:
    if containers.is_png(data):
        return containers.png_bits(data)
    return max(containers.tiff_bits(image) or (8,))


def _deep_tiff(data: bytes, megapixels: float, depth: DepthRange | None) -> StoredSamples | None:
    """A TIFF of floating-point colours, of 64 bits, or of signed samples, by OpenCV; None if it is something else."""
    if data[:4] not in (b"II*\0", b"MM\0*"):
        return None
    tags, file = ImageFileDirectory_v2(data[:8]), io.BytesIO(data)
    try:
        file.seek(tags.next)
        tags.load(file)
        size, bits, kind = (int(tags[256]), int(tags[257])), tags.get(258, (1,)), tags.get(339, (1,))
    except (KeyError, TypeError, ValueError, SyntaxError, struct.error, OSError):
        return None
    if min(size) < 1 or (max(bits) < 16 and 2 not in kind) or tags.get(_PLANES, 1) == 2:
        return None
    _check_size(size, megapixels)
    samples = _opencv(data)
    if samples is None or samples.dtype == np.uint8 or samples.ndim not in (2, 3):
        return None
    mode = f"{samples.dtype}"
    if samples.ndim == 3:
        samples = samples[..., 2::-1] if samples.shape[2] > 2 else samples[..., 0]
    return StoredSamples(samples.shape[1::-1], 1, "TIFF", mode, data, depth, deep=samples)


def _opencv_samples(data: bytes) -> np.ndarray:
    """(h, w, 3) samples of an image in colour of 16 bits."""
    samples = _opencv(data)
    if samples is None:
        raise ValueError("damaged: its samples of more than 8 bits cannot be decoded")
    return samples if samples.ndim == 2 else samples[..., 2::-1]


def _opencv(data: bytes) -> np.ndarray | None:
    """What OpenCV makes of a file, without its messages; None if it refuses the file."""
    level = cv2.setLogLevel(0)
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error:
        return None
    finally:
        cv2.setLogLevel(level)


def _stated(image: ImageFile.ImageFile) -> DepthRange | None:
    """The range that a file states for its samples."""
    if image.format == "PPM":  # Pillow has scaled them by the file's greatest value
        return DepthRange(0, 65535) if image.mode.startswith("I") else None
    tags = getattr(image, "tag_v2", {})
    low, high = (tags.get(tag) for tag in (_LEAST_SAMPLE, _GREATEST_SAMPLE))
    low, high = (value[0] if isinstance(value, tuple) else value for value in (low, high))
    return DepthRange(float(low or 0), float(high)) if high else None


def _fewer_bits(image: ImageFile.ImageFile) -> int | None:
    """Bits of a sample of a TIFF whose samples are of 9 to 15 bits."""
    bits = max(containers.tiff_bits(image) or (16,))
    return bits if 8 < bits < 16 else None
