"""Sizes of images, from their headers."""

from pathlib import Path

from PIL import Image

from densessl.errors import FileMissing, SettingError

ORIENTATION = 0x0112  # EXIF tag; from 5 on, width and height are swapped when the image is shown upright


def size_of(path: Path) -> tuple[int, int]:
    """Return width and height in pixels of an image as MMDetection's loader shows it: upright, according to EXIF.

    Raises:
        FileMissing: there is no such file.
        SettingError: it is no image.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            return (height, width) if image.getexif().get(ORIENTATION, 1) >= 5 else (width, height)
    except FileNotFoundError as error:
        raise FileMissing(f"{path}: no such image, though its size is needed") from error
    except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
        raise SettingError(f"{path}: the size of this image cannot be read: {error}") from error
