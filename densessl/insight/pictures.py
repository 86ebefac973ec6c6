"""Pictures of dense matches."""

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
    """Draw the left image with query points, and beside it the right image with their matches.

    A query and its match have the same colour, which encodes the query's position. In the right image, a dot marks the
    match and a ring the true position; a line connects them if they are further apart than ``tolerance``.

    Args:
        points: approximate number of queries to draw, on a regular grid.
        tolerance: in pixels of the original images.

    Returns:
        an RGB image, twice as wide as an image of the pair, with a caption below.
    """
    height, width = pair.left.shape[:2]
    shift = width + GAP
    canvas = Image.new("RGB", (shift + pair.right.shape[1], height + CAPTION), "white")
    for image, x in ((pair.left, 0), (pair.right, shift)):
        # Desaturate and darken the images, so that the colours of the points stand out.
        faded = 0.65 * image.mean(axis=2, keepdims=True) + 0.35 * image
        faded *= BACKGROUND / max(faded.mean(), 1)
        canvas.paste(Image.fromarray(faded.clip(0, 255).astype(np.uint8)), (x, 0))
    canvas = canvas.resize((canvas.width * SCALE, canvas.height * SCALE), Image.Resampling.LANCZOS)
    draw = ImageDraw.Draw(canvas)

    at_least("--points", points, 1)
    chosen = _on_a_grid(result.query, result.cell, points)
    for at in chosen[np.argsort(result.error[chosen])[::-1]]:  # the smallest errors last, on top
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
    """Indices of about ``count`` of the points (K, 2), which are cell centres, in every n-th row and column."""
    step = max(1, round((len(points) / count) ** 0.5))
    column, row = np.floor(points / cell).astype(int).T
    return np.flatnonzero((column % step == step // 2) & (row % step == step // 2))


def _colour(position: np.ndarray) -> tuple[int, int, int]:
    """A vivid colour for a position (x, y), 0 to 1: the hue changes from left to right; colours fade downwards."""
    red, green, blue = colorsys.hsv_to_rgb(0.85 * position[0], 1 - 0.6 * position[1], 1.0)
    return round(255 * red), round(255 * green), round(255 * blue)


def _disc(draw: ImageDraw.ImageDraw, centre: np.ndarray, radius: float, **style) -> None:
    low, high = (centre - radius) * SCALE, (centre + radius) * SCALE
    draw.ellipse([*low, *high], width=SCALE, **style)


def _caption(draw: ImageDraw.ImageDraw, x: int, height: int, text: str) -> None:
    draw.text(((x + 4) * SCALE, (height + 6) * SCALE), text, fill="black", font=ImageFont.load_default(15 * SCALE))
