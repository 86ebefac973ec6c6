"""Selective search as a generator: what it finds, in which order, of which images, and without its extra."""

import subprocess
import sys

import numpy as np
import pytest

from densessl.regions import Proposals
from densessl.regions.fast import DiverseSelectiveSearch, FastSelectiveSearch
from densessl.regions.recall import pairwise_iou
from densessl.registry import REGION_GENERATORS

RNG = np.random.default_rng(0)


def search(image, **arguments) -> Proposals:
    return FastSelectiveSearch(**arguments)(image, RNG)


def photo(height=60, width=80, seed=0):
    """Discs of several colours before a gradient, with noise."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width]
    image = np.stack([60 + x % 200, 60 + y % 200, 0 * x + 90], -1).astype(float)
    for _ in range(12):
        centre, radius = rng.random(2) * (height, width), rng.uniform(3, 14)
        image[(y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2] = rng.random(3) * 255
    return (image + rng.normal(0, 5, image.shape)).clip(0, 255).astype(np.uint8)


def rectangle(height, width, box, colour=(200, 40, 40)):
    image = np.full((height, width, 3), 60, np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = colour
    return image


def holds(boxes, box):
    return (boxes == np.array(box)).all(1).any()


@pytest.mark.parametrize("colour", ["rgb", "grey", "rgi", "hsv", "lab"])
def test_a_rectangle_is_found_to_the_pixel(colour):
    found = search(rectangle(60, 90, (20, 10, 50, 43)), colours=[colour], sigma=0)
    assert found.boxes.tolist() == [[0, 0, 90, 60], [20, 10, 50, 43]]
    assert found.levels.tolist() == [1, 1]  # the background has the whole image's box


def test_a_rectangle_is_found_when_smoothed_and_shrunk():
    box = (200, 100, 800, 640)
    found = search(rectangle(900, 1200, box), max_side=300)
    assert found.boxes.max(0).tolist()[2:] == [1200, 900]
    assert pairwise_iou(found.boxes, np.array([box])).max() > 0.97


def test_boxes_of_a_shrunk_image_fit_it():
    image = photo(61, 97)
    found = search(image, max_side=50)
    assert found.boxes[:, ::2].max() == 97 and found.boxes[:, 1::2].max() == 61  # 50 x 31
    steps = found.boxes / [97 / 50, 61 / 31, 97 / 50, 61 / 31]
    np.testing.assert_allclose(steps, steps.round(), atol=1e-9)


def test_mirrored_shapes_have_mirrored_boxes():
    y, x = np.mgrid[:50, :70]
    image = np.full((50, 70, 3), 40, np.uint8)
    image[(y - 20) ** 2 + (x - 18) ** 2 < 120] = (220, 30, 30)
    image[(y > 12) & (y < 44) & (x > 40) & (x + y < 90)] = (30, 200, 220)
    boxes = search(image, min_size=10).boxes
    mirrored = search(np.ascontiguousarray(image[:, ::-1]), min_size=10).boxes
    assert len(boxes) > 3
    for shape in (image[..., 0] == 220, image[..., 0] == 30):
        rows, columns = np.nonzero(shape.any(1))[0], np.nonzero(shape.any(0))[0]
        box = np.array([[columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]], float)
        best = pairwise_iou(boxes, box).max()
        assert best > 0.85
        box[:, ::2] = 70 - box[:, 2::-2]
        assert pairwise_iou(mirrored, box).max() == best


@pytest.mark.parametrize("method", [FastSelectiveSearch, DiverseSelectiveSearch])
@pytest.mark.parametrize("near", [0.6, 0.8, 1.0])
def test_order_of_the_boxes(method, near):
    """Coarse to fine, strategies in turn, first finds of each box only, near ones last."""
    generator = method(min_size=8, near=near)
    image = photo()
    levels, first, last = {}, [], []
    strategies = [(boxes[::-1], depths[::-1]) for boxes, depths in generator.groupings(image)]
    assert len(strategies) == len(generator.colours) * len(generator.scales) * len(generator.similarities)
    for place in range(max(len(boxes) for boxes, _ in strategies)):
        for boxes, depths in strategies:
            if place < len(boxes):
                box = tuple(map(int, boxes[place]))
                levels.setdefault(box, []).append(depths[place])
    for box in levels:
        overlaps = pairwise_iou(np.array([box]), np.array(first).reshape(-1, 4))
        (last if overlaps.max(initial=0) > near else first).append(box)
    found = generator(image, RNG)
    assert len(found.boxes) > 40 and (len(last) > 0) == (near < 1)
    np.testing.assert_array_equal(found.boxes, first + last)
    np.testing.assert_array_equal(found.levels, [min(levels[box]) for box in first + last])
    assert found.boxes.dtype == np.float64 and found.levels.dtype == np.int64


def test_repeats_draws_nothing_and_leaves_the_image_alone():
    image, rng = photo(), np.random.default_rng(3)
    kept, state = image.copy(), rng.bit_generator.state
    first, second = (DiverseSelectiveSearch()(image, rng) for _ in range(2))
    np.testing.assert_array_equal(first.boxes, second.boxes)
    np.testing.assert_array_equal(first.levels, second.levels)
    np.testing.assert_array_equal(image, kept)
    assert rng.bit_generator.state == state


def test_layout_of_the_array_does_not_matter():
    image = photo()
    expected = search(image).boxes
    frozen = image.copy()
    frozen.setflags(write=False)
    for same in (frozen, np.asfortranarray(image), np.repeat(image, 2, 1)[:, ::2]):
        np.testing.assert_array_equal(search(same).boxes, expected)
        np.testing.assert_array_equal(search(same, max_side=40).boxes, search(image, max_side=40).boxes)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (1, 70), (70, 1), (2, 2), (3, 900)])
@pytest.mark.parametrize("flat", [True, False])
def test_odd_images(size, flat):
    image = np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8)
    if flat:
        image[:] = 128
    for generator in (FastSelectiveSearch(min_size=1, max_side=64), DiverseSelectiveSearch()):
        boxes, levels = generator(image, RNG)
        assert holds(boxes, (0, 0, size[1], size[0]))
        assert (boxes[:, :2] >= 0).all() and (boxes[:, 2:] <= size[::-1]).all()
        assert (boxes[:, :2] < boxes[:, 2:]).all() and levels.min() == 1
        assert len(np.unique(boxes, axis=0)) == len(boxes)
        assert not flat or len(boxes) == 1


def test_a_grey_image_in_colour_spaces_without_colour():
    image = np.repeat(photo()[:, :, :1], 3, 2)
    for colour in ("rgb", "hsv", "lab", "rgi", "grey"):
        assert len(search(image, colours=[colour], min_size=8).boxes) > 10


@pytest.mark.parametrize(
    "arguments, named",
    [
        (dict(colours=["luv"]), "colours has 'luv'"),
        (dict(colours="lab"), "colours is 'lab'"),
        (dict(colours=[]), "colours is"),
        (dict(scales=5), "scales is 5"),
        (dict(similarities=["CTX"]), "similarities has 'CTX'"),
        (dict(similarities=["CC"]), "similarities has 'CC'"),
        (dict(scales=[]), "scales is"),
        (dict(scales=[-1]), "scales is"),
        (dict(sigma=-1), "sigma=-1"),
        (dict(min_size=0), "min_size=0"),
        (dict(near=0), "near=0"),
        (dict(max_side=0), "max_side is 0"),
    ],
)
def test_wrong_arguments_are_named(arguments, named):
    with pytest.raises(ValueError, match=named):
        REGION_GENERATORS.build(dict(type="FastSelectiveSearch", **arguments))


@pytest.mark.parametrize("image", [np.zeros((4, 5), np.uint8), np.zeros((4, 5, 3)), np.zeros((0, 5, 3), np.uint8)])
def test_wrong_images_are_refused(image):
    with pytest.raises(ValueError, match="expected \\(h, w, 3\\) of uint8"):
        search(image)


def test_without_numba_the_error_names_the_extra():
    code = """
import sys
sys.modules["numba"] = None
from densessl.errors import MissingPackage
from densessl.regions.fast import FastSelectiveSearch
try:
    FastSelectiveSearch()
except MissingPackage as error:
    assert "FastSelectiveSearch needs the package 'numba'" in str(error) and "'.[regions]'" in str(error), error
else:
    raise AssertionError("built without numba")
"""
    subprocess.run([sys.executable, "-c", code], check=True)
