"""Synthetic pictures for ``--demo`` runs, which need no data. They all differ, and every run draws the same ones.

They imitate the cues that pretraining finds in photos: textures of many scales, soft shading, and objects with sharp
edges that are lit from one side and occlude each other.
"""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from densessl.data.rng import keyed_rng

COUNT = 30
SIZE = (400, 300)  # width, height
THINGS = (5, 12)  # fewest and most objects in a picture

# Angles of the corners of an ellipse, a box and a triangle.
OUTLINES = (np.linspace(0, 2 * np.pi, 40), np.array([0.6, 2.5, 3.8, 5.7]), np.array([0.5, 2.6, 4.7]))


def write_demo_photos(folder: Path) -> Path:
    """Write the ``COUNT`` pictures as JPEG files.

    Args:
        folder: created if it does not exist; pictures that already exist are kept.

    Returns:
        ``folder``.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        out = folder / f"drawn_{number:02}.jpg"
        if not out.exists():
            Image.fromarray(draw_scene(keyed_rng(0, "demo", number))).save(out, quality=92)
    return folder


def draw_scene(rng: np.random.Generator) -> np.ndarray:
    """Draw a picture, (H, W, 3) uint8: textured sky and ground with objects in front."""
    width, height = SIZE
    rows = np.linspace(0, 1, height, dtype=np.float32)[:, None, None]
    light = np.linspace(1.25, 0.65, width, dtype=np.float32)[:, None]
    smooth, rough = _clouds(rng, 3), _clouds(rng, 7)
    sky = _colour(rng) + (_colour(rng) - _colour(rng)) * rows + 40 * smooth
    ground = _colour(rng) * (0.6 + 0.6 * rows) + 60 * rough
    horizon = rng.uniform(0.3, 0.7) + 0.05 * smooth[:, ::-1]
    pixels = np.where(rows < horizon, sky, ground)
    for _ in range(rng.integers(*THINGS, endpoint=True)):
        (left, top, right, bottom), cover = _shape(rng)
        box = np.s_[top:bottom, left:right]
        texture = 25 * rough[::-1][box]  # upside down, so that it differs from the ground behind the object
        thing = (_colour(rng) + _pattern(rng, cover.shape[:2]) * (_colour(rng) - 128)) * light[left:right] + texture
        pixels[box] += cover * (thing - pixels[box])
    pixels += rng.normal(0, 3, pixels.shape)  # sensor noise
    return np.clip(pixels, 0, 255).astype(np.uint8)


def _colour(rng: np.random.Generator) -> np.ndarray:
    """A random colour, (3,) float32 from 30 to 225."""
    return rng.uniform(30, 225, 3).astype(np.float32)


def _clouds(rng: np.random.Generator, octaves: int) -> np.ndarray:
    """Noise around 0, (H, W, 1) float32: ``octaves`` scales from the whole picture down, finer ones weaker."""
    total = np.zeros(SIZE[::-1], np.float32)
    for octave in range(octaves):
        grid = rng.normal(0, 0.5 * 0.75**octave, (3 * 2**octave, 4 * 2**octave)).astype(np.float32)
        total += np.asarray(Image.fromarray(grid).resize(SIZE, Image.Resampling.BICUBIC))
    return total[..., None]


def _shape(rng: np.random.Generator) -> tuple[tuple[int, int, int, int], np.ndarray]:
    """Draw a rotated ellipse, box or triangle.

    Returns:
        its bounding box (left, top, right, bottom), and the share that it covers of each pixel in the box,
        (h, w, 1) float32 from 0 to 1.
    """
    angles = OUTLINES[int(rng.integers(len(OUTLINES)))] + rng.uniform(0, 2 * np.pi)
    radii = SIZE[1] * rng.uniform(0.08, 0.3) * np.array([1, rng.uniform(0.5, 1)])
    corners = rng.uniform((0, 0.2 * SIZE[1]), SIZE) + np.stack([np.cos(angles), np.sin(angles)], 1) * radii
    left, top = np.clip(np.floor(corners.min(0)), 0, SIZE).astype(int).tolist()
    right, bottom = np.clip(np.ceil(corners.max(0)), 0, SIZE).astype(int).tolist()
    size = (right - left, bottom - top)
    mask = Image.new("L", (2 * size[0], 2 * size[1]))
    ImageDraw.Draw(mask).polygon([tuple(corner) for corner in (2 * (corners - (left, top))).tolist()], fill=255)
    cover = np.asarray(mask.resize(size, Image.Resampling.BOX), np.float32) / 255
    return (left, top, right, bottom), cover[..., None]


def _pattern(rng: np.random.Generator, size: tuple[int, int]) -> np.ndarray:
    """A random pattern, (h, w, 1) float32 from -1 to 1: none (all zeros), stripes or checks."""
    y, x = np.ogrid[: size[0], : size[1]]
    angle, period = rng.uniform(0, np.pi), rng.uniform(8, 40)
    sine, cosine = (2 * np.pi / period * np.array([np.sin(angle), np.cos(angle)])).astype(np.float32)
    kind = rng.integers(3)
    waves = np.zeros(size, np.float32) if kind == 0 else 4 * np.sin(x * cosine + y * sine)
    if kind == 2:
        waves = waves * np.sin(y * cosine - x * sine)
    return np.tanh(waves)[..., None]
