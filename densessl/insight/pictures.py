"""Pictures of what was measured."""

import colorsys

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from densessl.insight.matching import MatchingResult
from densessl.insight.stereo import StereoPair
from densessl.wording import at_least

SCALE = 2  # lines are drawn this much larger and scaled down, which smooths them
GAP, CAPTION = 8, 30  # pixels
BACKGROUND = 60  # mean brightness of the images under the points


def draw_matches(pair: StereoPair, result: MatchingResult, points: int = 120, tolerance: float = 16.0) -> Image.Image:
    """The left image with query points, and the right one with what was found for each.

    A query and its match have the same colour, which follows the query's position. In the right image a dot is what was
    found and a ring the truth; where they are further apart than ``tolerance`` a line leads from one to the other.

    Args:
        points: about how many queries are drawn, on a regular grid.
        tolerance: in pixels.

    Returns:
        An RGB image, twice as wide as the pair's, with a caption below.
    """
    height, width = pair.left.shape[:2]
    shift = width + GAP
    canvas = Image.new("RGB", (shift + pair.right.shape[1], height + CAPTION), "white")
    for image, x in ((pair.left, 0), (pair.right, shift)):
        # Towards grey, and of one dark mean, so that the colours of the points are read easily.
        faded = 0.65 * image.mean(axis=2, keepdims=True) + 0.35 * image
        faded *= BACKGROUND / max(faded.mean(), 1)
        canvas.paste(Image.fromarray(faded.clip(0, 255).astype(np.uint8)), (x, 0))
    canvas = canvas.resize((canvas.width * SCALE, canvas.height * SCALE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)

    at_least("--points", points, 1)
    chosen = _on_a_grid(result.query, result.cell, points)
    for at in chosen[np.argsort(result.error[chosen])[::-1]]:  # the good ones on top
        query, truth, found = result.query[at], result.truth[at] + (shift, 0), result.found[at] + (shift, 0)
        colour = _colour(query / (width, height))
        if result.error[at] > tolerance:
            draw.line([*(truth * SCALE), *(found * SCALE)], fill=colour, width=SCALE)
        _disc(draw, query, 5, fill=colour, outline="white")
        _disc(draw, truth, 7, outline=colour)
        _disc(draw, found, 4, fill=colour, outline="white")

    share = (result.error <= tolerance).mean()
    _caption(draw, 0, height, f"left image: {len(chosen)} of {len(result.query)} query cells")
    _caption(
        draw, shift, height, f"right image: dot = found, ring = truth; {share:.0%} of all within {tolerance:g} pixels"
    )
    return canvas.resize((canvas.width // SCALE, canvas.height // SCALE), Image.Resampling.LANCZOS)


def _on_a_grid(points: np.ndarray, cell: tuple[float, float], count: int) -> np.ndarray:
    """Indices of about ``count`` of the points (K, 2), which are centres of cells: every n-th of rows and columns."""
    step = max(1, round((len(points) / count) ** 0.5))
    column, row = np.floor(points / cell).astype(int).T
    return np.flatnonzero((column % step == step // 2) & (row % step == step // 2))


def _colour(position: np.ndarray) -> tuple[int, int, int]:
    """A vivid colour for a position (x, y) in 0 to 1: hue from left to right, paler downwards."""
    red, green, blue = colorsys.hsv_to_rgb(0.85 * position[0], 1 - 0.6 * position[1], 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _disc(draw: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, **style) -> None:
    low, high = (centre - radius) * SCALE, (centre + radius) * SCALE
    draw.ellipse([*low, *high], width=SCALE, **style)


def _caption(draw: ImageDraw.ImageDraw, x: int, height: int, text: str) -> None:
    draw.text(((x + 4) * SCALE, (height + 6) * SCALE), text, fill="black", font=ImageFont.load_default(15 * SCALE))
