"""The crop sampler against torchvision's, and what a view spec accepts."""

import numpy as np
import pytest
import torch
from scipy import stats
from torchvision.transforms import RandomResizedCrop

from densessl.data.placed import Placed
from densessl.data.rng import keyed_rng
from densessl.data.views import CropDraw, ViewSpec, cut_view, decode_denominator, draw_crop, expand_views
from densessl.errors import SettingError
from densessl.geometry import affine


@pytest.mark.parametrize("size", [(500, 375), (60, 400), (33, 31)])
@pytest.mark.parametrize("scale", [(0.08, 1.0), (0.05, 0.25)])
def test_crops_are_distributed_like_torchvisions(size, scale):
    spec, count = ViewSpec(scale=scale), 3000
    ours = np.array([draw_crop(keyed_rng(0, "crop", 0, i), size, spec)[:4] for i in range(count)])
    torch.manual_seed(0)
    image = torch.empty(3, size[1], size[0])
    theirs = np.array([RandomResizedCrop.get_params(image, scale, (3 / 4, 4 / 3)) for _ in range(count)])[
        :, [1, 0, 3, 2]
    ]
    for column in range(4):
        assert stats.ks_2samp(ours[:, column], theirs[:, column]).pvalue > 1e-3
    left, top, w, h = ours.T
    assert (left >= 0).all() and (top >= 0).all() and (left + w <= size[0]).all() and (top + h <= size[1]).all()


@pytest.mark.parametrize(
    "size, box", [((10, 100), (0, 43, 10, 13)), ((100, 10), (43, 0, 13, 10)), ((1, 1), (0, 0, 1, 1))]
)
def test_the_fallback_is_central(size, box):
    """No drawn box of nearly the whole area fits these sources."""
    assert draw_crop(keyed_rng(0, "crop", 0, 0), size, ViewSpec(scale=(0.99, 1.0), hflip=0)) == (*box, False, False, 0)


def test_flips_come_at_their_rate():
    draws = [draw_crop(keyed_rng(3, "crop", 0, i), (50, 50), ViewSpec(hflip=0.5, vflip=0.1)) for i in range(4000)]
    for rate, flips in ((0.5, [d.hflip for d in draws]), (0.1, [d.vflip for d in draws])):
        assert stats.binomtest(sum(flips), len(flips), rate).pvalue > 1e-3


def test_keyed_streams_differ_in_every_part_of_the_key():
    keys = [
        (0, "crop", 1, 2, 3),
        (1, "crop", 1, 2, 3),
        (0, "mask", 1, 2, 3),
        (0, "crop", 2, 2, 3),
        (0, "crop", 1, 3, 3),
    ]
    rows = [keyed_rng(*key).random(4).tolist() for key in [*keys, (0, "crop", 1, 2, 4)]]
    assert len({tuple(row) for row in rows}) == 6 and rows[0] == keyed_rng(*keys[0]).random(4).tolist()


def test_reduced_decoding_never_enlarges():
    spec = ViewSpec(size=(100, 50))
    for width, height, expected in ((800, 400, 8), (799, 400, 4), (150, 120, 1), (90, 500, 1), (400, 110, 2)):
        assert decode_denominator([CropDraw(0, 0, width, height, False, False, 0)], [spec]) == expected
    crops = {side: CropDraw(0, 0, side, side, False, False, 0) for side in (800, 400, 100)}
    square = ViewSpec(size=100)
    for order in ((800, 400), (400, 800)):
        assert decode_denominator([crops[side] for side in order], [square] * 2) == 4
    # Each crop counts by its own view's size.
    assert decode_denominator([crops[800], crops[100]], [ViewSpec(size=100), ViewSpec(size=12)]) == 8


def test_a_view_of_a_reduced_image_tells_its_own_box():
    """Half-size pixels hold the source coordinates of their centres; the cut view must say the same."""
    y, x = np.mgrid[:50, :100]
    half = np.stack([2 * x + 0.5, 2 * y + 0.5, x], -1).round().astype(np.uint8)
    image = Placed(half, affine.scaled_decode(2), (200, 100))
    view = cut_view(image, CropDraw(31, 15, 101, 70, True, False, 0.0), ViewSpec(size=24))
    centres = np.stack(np.meshgrid(np.arange(24), np.arange(24)), -1) + 0.5
    told = affine.apply(view.to_source, centres) - 0.5
    assert np.abs(view.image[3:-3, 3:-3, :2] - told[3:-3, 3:-3]).max() < 1.02


def test_unknown_view_keys_are_named_and_repeats_written_out():
    with pytest.raises(SettingError, match=r"views\[1\] has unknown keys \['scales'\]"):
        expand_views([dict(size=8), dict(scales=(0, 1))])
    assert [spec.size for spec in expand_views([dict(size=8, repeat=2), dict(size=4)])] == [8, 8, 4]
