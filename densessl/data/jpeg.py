"""JPEG files to RGB pixels. Every warning of libjpeg counts as damage.

libjpeg decodes a damaged file all the same: what it cannot read becomes grey or shifts, and it writes a warning that
Pillow and OpenCV drop. simplejpeg, which is libjpeg-turbo too and gives the same pixels, stops at the warning.
"""

import numpy as np
import simplejpeg

# A progressive file may draw the whole image again in each of its scans. Cameras and encoders write about ten.
_SCAN = b"\xff\xda"
_PROFILE, _APP2 = b"ICC_PROFILE\0", 0xE2
_MOST_PIXELS_DRAWN = 5e9


def decode_jpeg(data: bytes, size: tuple[int, int], denominator: int = 1) -> np.ndarray:
    """Decode a JPEG of any colour space but CMYK.

    Args:
        size: (width, height) of the stored image.
        denominator: 1, 2, 4 or 8: decode at 1/denominator of width and height, rounded up.

    Returns:
        (h, w, 3) uint8.

    Raises:
        ValueError: the file is damaged or cut short.
    """
    width, height = size
    check_scans(data, size)
    smaller = {}
    if denominator > 1:
        smaller = dict(min_width=-(-width // denominator), min_height=-(-height // denominator), min_factor=denominator)
    return _strictly(data, "RGB", **smaller)


def check_jpeg(data: bytes, size: tuple[int, int]) -> None:
    """Decode a CMYK JPEG and drop the pixels, which Pillow converts to RGB better. Raises ValueError for damage."""
    check_scans(data, size)
    _strictly(data, "CMYK")


def check_scans(data: bytes, size: tuple[int, int]) -> None:
    """Refuse a file that would keep a decoder busy for minutes. Raises ValueError."""
    scans = data.count(_SCAN)
    if scans * size[0] * size[1] > _MOST_PIXELS_DRAWN:
        raise ValueError(f"{scans} scans of {size[0]} x {size[1]} pixels: no camera or encoder writes so many")


def _strictly(data: bytes, space: str, **options: float) -> np.ndarray:
    try:
        return simplejpeg.decode_jpeg(data, space, strict=True, **options)
    except ValueError as error:
        if "ICC" in str(error) and len(rest := _without_profile(data)) < len(data):  # no pixel depends on a profile
            return _strictly(rest, space, **options)
        kind = "truncated" if "Premature end of JPEG file" in str(error) else "damaged"
        raise ValueError(f"{kind}: {error}") from error


def _without_profile(data: bytes) -> bytes:
    """The same file without the segments of its colour profile."""
    kept, position = [data[:2]], 2
    while position + 4 <= len(data) and data[position] == 0xFF and data[position : position + 2] != _SCAN:
        end = position + 2 + int.from_bytes(data[position + 2 : position + 4], "big")
        if data[position + 1] != _APP2 or not data.startswith(_PROFILE, position + 4):
            kept.append(data[position:end])
        position = end
    return b"".join([*kept, data[position:]])
