"""Sizes, crops and flips of whole images."""

import numpy as np
import pytest
from torchvision.transforms.functional import _compute_resized_output_size

from densessl.data.placed import Placed
from densessl.data.rng import keyed_rng
from densessl.data.whole import Crop, Flip, Resize, WholeSpec, by_short_side, cut_whole, draw_whole
from densessl.errors import SettingError
from densessl.geometry import affine

SPEC = WholeSpec(short=(60, 70), longest=100, crop_short=(90, 110), crop_sides=(80, 120))


def test_the_short_side_is_what_torchvision_makes_it():
    rng = np.random.default_rng(0)
    for width, height, short in rng.integers(20, 900, (500, 3)).tolist():
        expected = _compute_resized_output_size((height, width), [short])
        assert by_short_side((width, height), short, None) == tuple(expected[::-1])


@pytest.mark.parametrize(
    ("size", "short", "expected"),
    [
        ((640, 480), 480, (600, 450)),
        ((480, 640), 480, (450, 600)),
        ((640, 480), 320, (426, 320)),  # 426.7 is cut off
        ((150, 96), 480, (600, 384)),
        ((500, 375), 375, (500, 375)),
        ((700, 300), 320, (599, 257)),  # 257.14 is rounded, and what follows from it cut off
        ((4000, 3), 320, (1333, 1)),  # 600 wide it would have no row at all
    ],
)
def test_the_long_side_has_a_limit(size, short, expected):
    assert by_short_side(size, short, 600) == expected


def test_crops_are_uniform_in_what_they_may_be():
    seen, flips, crops = [], 0, 0
    for index in range(3000):
        steps = draw_whole(keyed_rng(0, "whole", 0, index), (200, 100), SPEC)
        flips += isinstance(steps[0], Flip)
        *_, last = steps = [step for step in steps if not isinstance(step, Flip)]
        cut = steps[1] if len(steps) == 3 else None
        if cut is None:
            assert last in (Resize(100, 50),)  # both short sides are too long for the limit
            continue
        crops += 1
        width, height = steps[0]
        assert (width, height) in ((180, 90), (220, 110))
        assert isinstance(cut, Crop) and 80 <= cut.width <= 120 and 80 <= cut.height <= height
        assert 0 <= cut.left <= width - cut.width and 0 <= cut.top <= height - cut.height
        assert last == Resize(*by_short_side((cut.width, cut.height), min(last), 100))
        if height == 110:
            seen.append((cut.width, cut.height, cut.left / (width - cut.width), cut.top, cut.height))
    assert abs(flips - 1500) < 110 and abs(crops - 1500) < 110  # four standard deviations
    widths, heights, left, top, _ = np.array(seen).T
    for values, low, high in ((widths, 80, 120), (heights, 80, 110), (left, 0, 1)):
        assert values.min() == low and values.max() == high
        assert abs(values.mean() - (low + high) / 2) < 4 * (high - low) / np.sqrt(12 * len(values))
    assert top.min() == 0 and top.max() > 20


@pytest.mark.parametrize("size", [(7, 5), (3, 90), (90, 3), (1, 1)])
def test_images_smaller_than_a_crop_are_taken_whole_along_that_side(size):
    spec = WholeSpec(short=(60,), longest=100, crop=1.0, crop_short=(20,), crop_sides=(40, 50))
    for index in range(20):
        _, cut, _ = draw_whole(keyed_rng(0, "whole", 0, index), size, WholeSpec(**vars(spec) | dict(hflip=0.0)))
        width, height = by_short_side(size, 20, None)
        assert cut.width == width if width < 40 else 40 <= cut.width <= min(50, width)
        assert cut.height == height if height < 40 else 40 <= cut.height <= min(50, height)


@pytest.mark.parametrize("backend", ["fast", "pil"])
def test_pixels_come_from_where_the_map_says(backend):
    x, y = np.meshgrid(np.arange(120), np.arange(90))
    ramp = np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8)
    for index in range(30):
        steps = draw_whole(keyed_rng(1, "whole", 0, index), (120, 90), SPEC)
        view = cut_whole(Placed(ramp, affine.identity(), (120, 90)), steps, backend=backend)
        assert view.size == (steps[-1].width, steps[-1].height)
        centres = np.stack(np.meshgrid(np.arange(view.size[0]), np.arange(view.size[1])), -1) + 0.5
        wanted = 2 * (affine.apply(view.to_source, centres) - 0.5)
        inner = np.abs(view.image[4:-4, 4:-4, :2] - wanted[4:-4, 4:-4])  # a ramp bends where the image ends
        assert inner.max() < 1.5, steps


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (dict(short=()), r"view\.short is \(\), expected pixels"),
        (dict(short=480), r"view\.short is 480, expected pixels, a list"),
        (dict(crop_short=[0]), r"view\.crop_short"),
        (dict(crop_sides=(600, 384)), r"view\.crop_sides is \(600, 384\), expected \(least, most\)"),
        (dict(hflip=2), r"view\.hflip is 2, expected a probability"),
    ],
)
def test_what_cannot_be_is_told(wrong, message):
    with pytest.raises(ValueError, match=message):
        WholeSpec(**wrong)


def test_unknown_keys_are_told():
    with pytest.raises(SettingError, match=r"view has unknown keys \['shortest'\]; known are .*'short'"):
        WholeSpec.parse(dict(shortest=480))
