"""Colour spaces of selective search (Uijlings et al., IJCV 2013, section 3.2), each with different invariances.

A space is a function from (h, w, 3) uint8 sRGB to (C, h, w) float32 planes with values from 0 to 255.
"""

import numpy as np
from numba import njit


@njit(cache=True, nogil=True)
def rgb(image: np.ndarray) -> np.ndarray:
    """Red, green, blue."""
    height, width, _ = image.shape
    out = np.empty((3, height, width), np.float32)
    for c in range(3):
        out[c] = image[:, :, c]
    return out


@njit(cache=True, nogil=True)
def grey(image: np.ndarray) -> np.ndarray:
    """(1, h, w), the mean of red, green and blue: texture and edges without colour."""
    height, width, _ = image.shape
    out = np.empty((1, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            out[0, y, x] = (np.float32(image[y, x, 0]) + image[y, x, 1] + image[y, x, 2]) / 3
    return out


@njit(cache=True, nogil=True)
def rgi(image: np.ndarray) -> np.ndarray:
    """Shares of red and green in the sum of the channels (1/3 for black), which ignore shadows, and a third of it."""
    height, width, _ = image.shape
    out = np.empty((3, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            red, green, total = np.float32(image[y, x, 0]), np.float32(image[y, x, 1]), np.float32(image[y, x].sum())
            out[0, y, x] = 255 * red / total if total > 0 else 85
            out[1, y, x] = 255 * green / total if total > 0 else 85
            out[2, y, x] = total / 3
    return out


@njit(cache=True, nogil=True)
def hsv(image: np.ndarray) -> np.ndarray:
    """Hue (0 where there is none; red is at both ends), saturation and value."""
    height, width, _ = image.shape
    out = np.empty((3, height, width), np.float32)
    for y in range(height):
        for x in range(width):
            red, green, blue = np.float32(image[y, x, 0]), np.float32(image[y, x, 1]), np.float32(image[y, x, 2])
            top = max(red, green, blue)
            spread = top - min(red, green, blue)
            sixths = np.float32(0)
            if spread > 0:
                if top == red:
                    sixths = (green - blue) / spread + (6 if green < blue else 0)
                elif top == green:
                    sixths = (blue - red) / spread + 2
                else:
                    sixths = (red - green) / spread + 4
            out[0, y, x] = sixths * np.float32(42.5)
            out[1, y, x] = 255 * spread / top if top > 0 else 0
            out[2, y, x] = top
    return out


# sRGB to linear light, and linear sRGB to XYZ over the white point D65 (IEC 61966-2-1).
_SRGB = np.arange(256) / 255
LINEAR = np.where(_SRGB <= 0.04045, _SRGB / 12.92, ((_SRGB + 0.055) / 1.055) ** 2.4).astype(np.float32)
XYZ = np.array([[0.412453, 0.357580, 0.180423], [0.212671, 0.715160, 0.072169], [0.019334, 0.119193, 0.950227]])
XYZ = (XYZ / XYZ.sum(1, keepdims=True)).astype(np.float32)


@njit(cache=True, nogil=True)
def lab(image: np.ndarray) -> np.ndarray:
    """CIE L*a*b*: lightness times 2.55, and both opponent colours plus 128. Distances approximate perceived ones."""
    height, width, _ = image.shape
    out = np.empty((3, height, width), np.float32)
    root = np.empty(3, np.float32)
    for y in range(height):
        for x in range(width):
            red, green, blue = LINEAR[image[y, x, 0]], LINEAR[image[y, x, 1]], LINEAR[image[y, x, 2]]
            for i in range(3):
                light = XYZ[i, 0] * red + XYZ[i, 1] * green + XYZ[i, 2] * blue
                root[i] = (
                    np.cbrt(light) if light > 216 / 24389 else np.float32(24389 / 27 / 116) * light + np.float32(4 / 29)
                )
            out[0, y, x] = (116 * root[1] - 16) * np.float32(2.55)
            out[1, y, x] = 500 * (root[0] - root[1]) + 128
            out[2, y, x] = 200 * (root[1] - root[2]) + 128
    return out


SPACES = {space.__name__: space for space in (rgb, grey, rgi, hsv, lab)}
