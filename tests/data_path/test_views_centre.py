"""Crops inside the central square, and crops drawn by their side."""

import numpy as np
import pytest
from scipy import stats

from densessl.data.rng import keyed_rng
from densessl.data.views import ViewSpec, draw_crop

SQUARE = ViewSpec(scale=(0.5, 1.0), ratio=(1.0, 1.0), within="centre", sampling="side")


def draws(spec, size, count=2000):
    return np.array([draw_crop(keyed_rng(0, "crop", 0, i), size, spec)[:4] for i in range(count)])


@pytest.mark.parametrize(
    "size, square", [((500, 375), (62, 0, 375)), ((60, 401), (0, 170, 60)), ((80, 80), (0, 0, 80))]
)
def test_crops_stay_inside_the_central_square_and_reach_its_borders(size, square):
    left, top, w, h = draws(ViewSpec(scale=(0.2, 1.0), within="centre"), size).T
    x, y, side = square
    assert (left >= x).all() and (top >= y).all() and (left + w <= x + side).all() and (top + h <= y + side).all()
    assert left.min() == x and top.min() == y and (left + w).max() == x + side and (top + h).max() == y + side


@pytest.mark.parametrize("size", [(500, 375), (375, 500)])
def test_the_side_is_uniform(size):
    left, top, w, h = draws(SQUARE, size).T
    assert (w == h).all()
    assert stats.kstest(w, stats.uniform(0.5 * 375, 0.5 * 375).cdf).pvalue > 1e-3
    # Where there is room the offset is uniform as well; half a pixel is for counting in whole ones.
    for offset, extent in zip((left, top), size):
        room = 375 - w
        share = ((offset - (extent - 375) // 2 + 0.5) / (room + 1))[room > 50]
        assert stats.kstest(share, stats.uniform(0, 1).cdf).pvalue > 1e-3


def test_the_share_of_the_area_is_that_of_the_side_squared():
    """The same random numbers, read either way."""
    by_side = draws(ViewSpec(scale=(0.36, 0.36), sampling="side"), (400, 400), 20)
    by_area = draws(ViewSpec(scale=(0.36**2, 0.36**2)), (400, 400), 20)
    assert (by_side == by_area).all()


@pytest.mark.parametrize("size, box", [((500, 375), (62, 0, 375, 375)), ((7, 90), (0, 41, 7, 7))])
def test_the_whole_square_is_always_the_same_box(size, box):
    spec = ViewSpec(scale=(1.0, 1.0), ratio=(1.0, 1.0), within="centre", hflip=0)
    assert {tuple(row) for row in draws(spec, size, 50).tolist()} == {box}


def test_unknown_options_are_named():
    with pytest.raises(ValueError, match="views: within 'center' is unknown; did you mean centre"):
        ViewSpec(within="center")
    with pytest.raises(ValueError, match="views: sampling 'edge' is unknown; known: area, side"):
        ViewSpec(sampling="edge")
