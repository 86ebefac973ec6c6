"""A picture of regions on some images."""

import colorsys
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densessl.regions.proposals import Proposals
from densessl.regions.recall import pairwise_iou
from densessl.wording import count

PANEL = 560, 330  # largest width and height of an image in pixels
SCALE = 2  # lines are drawn this much larger and scaled down, which smooths them
GAP, CAPTION, FONT = 10, 26, 15
FOUND_IOU = 0.5
MISSED, FOUND, COVER = (255, 70, 70), (80, 255, 110), (255, 255, 255)


@dataclass(frozen=True)
class Shown:
    """An image to draw.

    Attributes:
        name: name for the caption.
        pixels: (h, w, 3) uint8.
        found: the image's regions.
        truth: (G, 4) boxes of its annotated objects; None without annotations.
    """

    name: str
    pixels: np.ndarray
    found: Proposals
    truth: np.ndarray | None = None


def draw_regions(images: Sequence[Shown], first: int = 30, covering: int = 100) -> Image.Image:
    """Draw the first boxes of each image, coloured by level, and beside them the annotated objects, if known.

    An object is green if one of the first ``covering`` boxes overlaps it with an IoU of at least 0.5, and that box is
    drawn in white; otherwise the object is red.

    Args:
        first: number of boxes to draw.
        covering: number of boxes among which the one that covers an object is looked for.

    Returns:
        an RGB image with a legend at the bottom.
    """
    truth = any(image.truth is not None for image in images)
    highest = max(int(image.found.levels[:first].max(initial=1)) for image in images)
    panels = []
    for image in images:
        panels.append(_first_boxes(image, first, highest))
        if image.truth is not None:
            panels.append(_covered(image, covering))
    columns = 4 if truth else 3
    rows = [panels[start : start + columns] for start in range(0, len(panels), columns)]
    legend = _legend(highest, truth)
    width = max(legend.width, *(sum(panel.width + GAP for panel in row) for row in rows)) + GAP
    heights = [max(panel.height for panel in row) + GAP for row in rows]
    canvas = Image.new("RGB", (width, GAP + sum(heights) + legend.height), "white")
    y = GAP
    for row, height in zip(rows, heights):
        x = GAP
        for panel in row:
            canvas.paste(panel, (x, y))
            x += panel.width + GAP
        y += height
    canvas.paste(legend, (GAP, y))
    return canvas


def _first_boxes(image: Shown, first: int, highest: int) -> Image.Image:
    panel = _Panel(image.pixels)
    for box, level in list(zip(image.found.boxes, image.found.levels))[first - 1 :: -1]:  # the first on top
        panel.box(box, _level_colour(level, highest))
    boxes = len(image.found.boxes)
    return panel.captioned(f"{_short(image.name)}: {min(first, boxes)} of {count(boxes, 'box', 'boxes')}")


def _covered(image: Shown, covering: int) -> Image.Image:
    panel = _Panel(image.pixels)
    iou = pairwise_iou(image.found.boxes[:covering], image.truth)
    found = iou.max(0, initial=0.0) >= FOUND_IOU
    for box in image.truth[~found]:
        panel.box(box, MISSED)
    for number in np.flatnonzero(found):
        panel.box(image.found.boxes[iou[:, number].argmax()], COVER, width=1)
        panel.box(image.truth[number], FOUND)
    return panel.captioned(f"{found.sum()} of {count(len(found), 'object')} found by {count(len(iou), 'box', 'boxes')}")


class _Panel:
    """A darkened image to draw on, in source pixels."""

    def __init__(self, pixels: np.ndarray):
        height, width = pixels.shape[:2]
        self._zoom = min(PANEL[0] / width, PANEL[1] / height)
        size = round(width * self._zoom), round(height * self._zoom)
        small = np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS), np.float64)
        dark = 0.8 * (0.5 * small + 0.5 * small.mean(axis=2, keepdims=True))
        image = Image.fromarray(dark.astype(np.uint8))
        self._image = image.resize((size[0] * SCALE, size[1] * SCALE), Image.Resampling.BICUBIC)
        self._draw = ImageDraw.Draw(self._image)

    def box(self, box: np.ndarray, colour: tuple[int, int, int], width: int = 2) -> None:
        """Draw the outline of a box, inside the box."""
        x0, y0, x1, y1 = np.asarray(box) * self._zoom * SCALE
        self._draw.rectangle([x0, y0, max(x0, x1 - 1), max(y0, y1 - 1)], outline=colour, width=width * SCALE)

    def captioned(self, text: str) -> Image.Image:
        """The panel, scaled to its final size, with a caption below."""
        image = self._image.resize((self._image.width // SCALE, self._image.height // SCALE), Image.Resampling.LANCZOS)
        font = ImageFont.load_default(FONT)
        canvas = Image.new("RGB", (max(image.width, int(font.getlength(text)) + 4), image.height + CAPTION), "white")
        canvas.paste(image, (0, 0))
        ImageDraw.Draw(canvas).text((1, image.height + 3), text, fill="black", font=font)
        return canvas


def _legend(highest: int, truth: bool) -> Image.Image:
    levels = np.unique(np.geomspace(1, highest, 6).round().astype(int))
    entries = [(_level_colour(level, highest), f"level {level}" if highest > 1 else "box") for level in levels]
    if truth:
        entries += [
            (FOUND, f"object with a box of IoU {FOUND_IOU:g} or more"),
            (COVER, "that box"),
            (MISSED, "other object"),
        ]
    font = ImageFont.load_default(FONT)
    canvas = Image.new("RGB", (sum(46 + int(font.getlength(text)) for _, text in entries), CAPTION), "white")
    draw, x = ImageDraw.Draw(canvas), 0
    for colour, text in entries:
        draw.rectangle([x, 4, x + 18, 16], fill=colour, outline="grey")
        draw.text((x + 24, 1), text, fill="black", font=font)
        x += 46 + int(font.getlength(text))
    return canvas


def _level_colour(level: int, highest: int) -> tuple[int, int, int]:
    """Colour of a level, on a logarithmic scale: from yellow for level 1 over green and blue to magenta."""
    share = np.log(level) / max(np.log(highest), 1e-9)
    return tuple(round(255 * part) for part in colorsys.hsv_to_rgb(0.15 + 0.68 * share, 0.75, 1.0))


def _short(name: str, most: int = 30) -> str:
    return name if len(name) <= most else f"…{name[1 - most :]}"
