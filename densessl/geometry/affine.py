"""2x3 affine maps in float64, which data workers compose.

Convention everywhere in densessl: *pixel-edge* coordinates. A pixel ``(column c, row r)`` covers the square
``[c, c+1) x [r, r+1)``; its centre is ``(c + 0.5, r + 0.5)``; an image of width ``w`` spans ``[0, w]``. Points are
``(x, y)``. The map of an image operation leads from *output pixel to input pixel*, which is the direction that
resampling needs. The maps of successive operations therefore multiply left to right:

    source <- crop <- resize <- flip:   to_source = compose(crop(...), resize(...), hflip(...))
"""

import math

import numpy as np

Size = tuple[float, float]


def identity() -> np.ndarray:
    """The identity map, (2, 3) float64."""
    return np.array([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]])


def compose(*maps: np.ndarray) -> np.ndarray:
    """The map (2, 3) float64 of a chain of operations, given in the order in which they were applied to the image."""
    total = identity()
    for inner in maps:
        total = np.hstack([total[:, :2] @ inner[:, :2], total[:, :2] @ inner[:, 2:] + total[:, 2:]])
    return total


def invert(matrix: np.ndarray) -> np.ndarray:
    """The inverse map, (2, 3) float64. Raises numpy.linalg.LinAlgError if ``matrix`` is singular."""
    linear = np.linalg.inv(matrix[:, :2])
    return np.hstack([linear, -linear @ matrix[:, 2:]])


def apply(matrix: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Map points (..., 2) given as (x, y); same shape, float64."""
    return np.asarray(points, np.float64) @ matrix[:, :2].T + matrix[:, 2]


def crop(left: float, top: float) -> np.ndarray:
    """The map of cropping a box with the upper left corner (left, top). Padding is a crop with a negative corner."""
    return np.array([[1.0, 0.0, left], [0.0, 1.0, top]])


def resize(from_size: Size, to_size: Size) -> np.ndarray:
    """The map of resampling an image of ``from_size`` to ``to_size``, both (width, height)."""
    return np.array([[from_size[0] / to_size[0], 0.0, 0.0], [0.0, from_size[1] / to_size[1], 0.0]])


def hflip(width: float) -> np.ndarray:
    """The map of mirroring an image of this width left to right."""
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])


def vflip(height: float) -> np.ndarray:
    """The map of mirroring an image of this height top to bottom."""
    return np.array([[1.0, 0.0, 0.0], [0.0, -1.0, height]])


def transpose() -> np.ndarray:
    """The map of exchanging the rows and columns of an image."""
    return np.array([[0.0, 1.0, 0.0], [1.0, 0.0, 0.0]])


def rotate(degrees: float, size: Size) -> np.ndarray:
    """The map of rotating the content of an image of ``size`` counter-clockwise about its centre; the size is kept."""
    angle = math.radians(degrees)
    cos, sin = math.cos(angle), math.sin(angle)
    cx, cy = size[0] / 2, size[1] / 2
    # An output pixel reads the input pixel that lies clockwise of it; y points down.
    return np.array([[cos, -sin, cx - cos * cx + sin * cy], [sin, cos, cy - sin * cx - cos * cy]])


def scaled_decode(denominator: int) -> np.ndarray:
    """The map of decoding a JPEG at 1/denominator. Each decoded pixel covers exactly ``denominator`` source pixels,
    even where the source size is not a multiple of it and the decoder rounds the size up."""
    return np.array([[float(denominator), 0.0, 0.0], [0.0, float(denominator), 0.0]])


def exif(orientation: int, stored_size: Size) -> np.ndarray:
    """The map of rotating a stored image upright: upright pixel to stored pixel.

    Args:
        orientation: EXIF tag 0x0112, 1 to 8; as in image viewers, other values mean 1.
        stored_size: (width, height) of the image as stored.
    """
    width, height = stored_size
    table = {
        2: (hflip(width),),
        3: (hflip(width), vflip(height)),
        4: (vflip(height),),
        5: (transpose(),),
        6: (vflip(height), transpose()),
        7: (hflip(width), vflip(height), transpose()),
        8: (hflip(width), transpose()),
    }
    return compose(*table.get(orientation, ()))
