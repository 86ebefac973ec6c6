"""The segmentation against scikit-image and a slow union of sets; smoothing and colours against their definitions."""

import math

import numpy as np
import pytest
from scipy.ndimage import gaussian_filter
from skimage import color, segmentation

from densessl.regions.colour import SPACES
from densessl.regions.felzenszwalb import felzenszwalb, half_gaussian, smooth

DIRECTIONS = ((0, 1), (1, 0), (1, 1), (-1, 1))


def draw(seed, shape=(7, 9), values=256, depth=3):
    """(C, h, w) whole numbers: their squared distances are exact."""
    return np.random.default_rng(seed).integers(0, values, (depth, *shape)).astype(np.float32)


def edges_of(planes):
    """(rounded length, pixel, direction, pixel it ends at) of all edges, sorted."""
    _, height, width = planes.shape
    edges = []
    for y in range(height):
        for x in range(width):
            for direction, (dy, dx) in enumerate(DIRECTIONS):
                if 0 <= y + dy < height and x + dx < width:
                    square = sum((planes[:, y, x].astype(float) - planes[:, y + dy, x + dx]) ** 2)
                    length = math.floor(math.sqrt(square) * 128 + 0.5)
                    edges.append((length, y * width + x, direction, (y + dy) * width + x + dx))
    return sorted(edges)


def slow_segments(planes, scale, min_size):
    """Each component a set of pixels with its longest edge."""
    _, height, width = planes.shape
    component = {pixel: ({pixel}, 0) for pixel in range(height * width)}

    def unite(a, b, length):
        joined = (a[0] | b[0], length)
        for pixel in joined[0]:
            component[pixel] = joined

    edges = edges_of(planes)
    for length, start, _, stop in edges:
        a, b = component[start], component[stop]
        if a is not b and all(length <= longest + 128 * scale / len(pixels) for pixels, longest in (a, b)):
            unite(a, b, length)
    for length, start, _, stop in edges:
        a, b = component[start], component[stop]
        if a is not b and min(len(a[0]), len(b[0])) < min_size:
            unite(a, b, length)
    names = {}
    for pixel in range(height * width):
        names.setdefault(id(component[pixel]), len(names))
    return np.array([names[id(component[pixel])] for pixel in range(height * width)]).reshape(height, width)


def renamed(labels):
    """Labels by the raster order of their first pixels."""
    _, first, names = np.unique(labels, return_index=True, return_inverse=True)
    return np.argsort(np.argsort(first))[names.reshape(labels.shape)]


@pytest.mark.parametrize("shape", [(7, 9), (1, 1), (1, 12), (12, 1), (2, 2)])
@pytest.mark.parametrize("scale, min_size", [(0, 1), (300, 1), (300, 4), (2000, 1), (100, 100)])
@pytest.mark.parametrize("values", [3, 256])  # three values: most edges are equally long
def test_segments_are_those_of_slow_unions(shape, scale, min_size, values):
    for seed in range(3):
        planes = draw(seed, shape, values) * (255 // (values - 1))
        np.testing.assert_array_equal(felzenszwalb(planes, scale, 0, min_size), slow_segments(planes, scale, min_size))


@pytest.mark.parametrize("scale, min_size", [(100, 1), (400, 1), (100, 5), (600, 3)])
def test_segments_are_those_of_scikit_image(scale, min_size):
    tested = 0
    for seed in range(20):
        planes = draw(seed)
        lengths = [length for length, *_ in edges_of(planes)]
        if len(set(lengths)) < len(lengths):
            continue  # scikit-image orders equal edges in another way
        theirs = segmentation.felzenszwalb(planes.transpose(1, 2, 0) / 255, scale, 0, min_size)
        ours = felzenszwalb(planes, scale, 0, min_size)
        np.testing.assert_array_equal(ours, renamed(theirs))
        mirrored = felzenszwalb(np.ascontiguousarray(planes[:, :, ::-1]), scale, 0, min_size)
        np.testing.assert_array_equal(renamed(mirrored[:, ::-1]), ours)
        tested += ours.max() > 0
    assert tested >= 3


def test_numbers_of_segments_of_a_photo_like_scikit_image():
    y, x = np.mgrid[:60, :80]
    photo = np.stack([128 + 100 * np.sin(x / 9) * np.cos(y / 7), 2 * x + y, 255.0 * (x**2 + y**2 < 2500)])
    photo = (photo + np.random.default_rng(0).normal(0, 6, photo.shape)).clip(0, 255).astype(np.float32)
    for scale in (10, 30, 100):
        theirs = segmentation.felzenszwalb(photo.transpose(1, 2, 0) / 255, scale, 0.8, 20).max() + 1
        assert theirs > 5
        # Their Gaussian is cut at 3 pixels and mirrors at the border.
        assert abs(felzenszwalb(photo, scale, 0.8, 20).max() + 1 - theirs) <= max(2, 0.1 * theirs)


@pytest.mark.parametrize("sigma", [0, 0.5, 0.8, 2])
@pytest.mark.parametrize("shape", [(11, 13), (1, 1), (1, 6), (6, 1)])
def test_smoothing_is_a_gaussian_with_the_border_going_on(sigma, shape):
    planes = draw(0, shape)
    expected = planes
    if sigma:
        expected = [
            gaussian_filter(plane.astype(float), sigma, mode="nearest", radius=math.ceil(4 * sigma)) for plane in planes
        ]
    np.testing.assert_allclose(smooth(planes, half_gaussian(sigma)), expected, atol=1e-4)


def test_a_flat_image_is_one_segment_and_unlike_halves_are_two():
    planes = np.full((3, 6, 8), 77, np.float32)
    assert felzenszwalb(planes, 0, 0.8, 1).max() == 0
    planes[:, :, 3:] = 87  # 17.3 away
    np.testing.assert_array_equal(felzenszwalb(planes, 17 * 18, 0, 1), [[0] * 3 + [1] * 5] * 6)
    assert felzenszwalb(planes, 18 * 30, 0, 1).max() == 0


IMAGE = np.random.default_rng(5).integers(0, 256, (19, 23, 3), dtype=np.uint8)
IMAGE[0, :6] = [[0, 0, 0], [255, 255, 255], [7, 7, 7], [255, 0, 0], [0, 0, 255], [255, 0, 1]]


def test_colour_spaces():
    planes = {name: space(IMAGE) for name, space in SPACES.items()}
    for found in planes.values():
        assert found.dtype == np.float32 and found.min() > -1e-3 and found.max() < 255.001
    pixels = IMAGE.astype(float)
    total = pixels.sum(2)
    shares = pixels / np.where(total, total, 1)[..., None]
    shares[total == 0] = 1 / 3
    expected = {
        "rgb": pixels.transpose(2, 0, 1),
        "grey": total[None] / 3,
        "rgi": [255 * shares[..., 0], 255 * shares[..., 1], total / 3],
        "hsv": 255 * color.rgb2hsv(IMAGE).transpose(2, 0, 1),
        "lab": (color.rgb2lab(IMAGE) * [2.55, 1, 1] + [0, 128, 128]).transpose(2, 0, 1),
    }
    assert planes.keys() == expected.keys()
    for name, found in planes.items():
        # scikit-image rounds the white point to four digits.
        np.testing.assert_allclose(found, expected[name], atol=0.02 if name == "lab" else 1e-3, err_msg=name)
