"""Thumbnails of some images, with the boxes of their labels."""

import colorsys
import io
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densessl.data.decode import Reading, read_image
from densessl.datacheck.scan import Images
from densessl.datacheck.sets import ImageSet

SIDE = 480  # pixels of the longer side: sharp at the 240 that the sheet shows
LINE, FONT = 3, 20
NAMED = 12  # boxes of an image up to which each has its class written on it
QUALITY = 82


class Thumbnail(NamedTuple):
    """A small picture.

    Attributes:
        name: the image, relative to its data set.
        caption: data set, size and number of objects.
        jpeg: its file.
    """

    name: str
    caption: str
    jpeg: bytes


def thumbnails(sets: Sequence[ImageSet], images: Images, good: np.ndarray, most: int) -> Iterator[Thumbnail]:
    """Yield thumbnails of good images, evenly spread over all data sets.

    Args:
        good: (images,) bool by number of the image.
        most: number of thumbnails.
    """
    numbers = np.flatnonzero(good)
    for place in np.unique(np.linspace(0, len(numbers) - 1, min(most, len(numbers))).astype(int)):
        which, index = images.place(int(numbers[place]))
        chosen = sets[which]
        boxes = chosen.boxes(index)
        placed = read_image(images.file(int(numbers[place])), Reading(chosen.megapixels))
        width, height = placed.source_size
        said = f"{chosen.name}, {width} x {height}"
        if chosen.cleaned is not None:
            said += f", {len(boxes)} object{'' if len(boxes) == 1 else 's'}"
        names = chosen.cleaned.labels.names if chosen.cleaned is not None else []
        yield Thumbnail(chosen.listed.paths[index], said, draw(placed.image, boxes, names))


def draw(pixels: np.ndarray, boxes: Sequence[tuple[str, Sequence[float]]], classes: Sequence[str]) -> bytes:
    """Return a JPEG of an image, scaled down, with its boxes.

    Args:
        pixels: (h, w, 3) uint8.
        boxes: class and corners, x0, y0, x1, y1 in pixels of the image.
        classes: all classes, each of which has its colour.
    """
    picture = Image.fromarray(pixels)
    scale = SIDE / max(picture.size)
    size = [max(1, round(side * scale)) for side in picture.size]
    picture = picture.resize(size, Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)
    pen, font = ImageDraw.Draw(picture), ImageFont.load_default(FONT)
    for name, corners in boxes:
        x0, y0, x1, y1 = (round(number * scale) for number in corners)
        x1, y1 = max(x0 + 1, min(x1, size[0] - 1)), max(y0 + 1, min(y1, size[1] - 1))
        colour = _colour(classes.index(name))
        pen.rectangle((x0, y0, x1, y1), outline=(0, 0, 0), width=LINE + 2)
        pen.rectangle((x0 + 1, y0 + 1, max(x0 + 1, x1 - 1), max(y0 + 1, y1 - 1)), outline=colour, width=LINE)
        if len(boxes) <= NAMED:
            box = pen.textbbox((x0 + LINE + 2, y0 + LINE), name, font)
            pen.rectangle((box[0] - 2, box[1] - 2, box[2] + 2, box[3] + 2), fill=colour)
            pen.text((x0 + LINE + 2, y0 + LINE), name, (0, 0, 0), font)
    file = io.BytesIO()
    picture.save(file, "JPEG", quality=QUALITY)
    return file.getvalue()


def _colour(number: int) -> tuple[int, int, int]:
    """A light colour; those of neighbouring numbers are far apart."""
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(number * 0.618 % 1, 0.6, 1))
