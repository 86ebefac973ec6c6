"""Every geometric operation against an image whose pixels are their own coordinates."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from densessl.data import placed as P
from densessl.geometry import affine

# Grey values per source pixel: each resampling rounds to whole grey values, which must not drown half a pixel.
SLOPE = 4
WIDTH, HEIGHT = 62, 50


def ramp(width=WIDTH, height=HEIGHT):
    """Red is SLOPE * x, green SLOPE * y, of pixel centres in edge coordinates less half; blue is 255 everywhere."""
    y, x = np.mgrid[:height, :width]
    image = np.stack([SLOPE * x, SLOPE * y, np.full_like(x, 255)], -1).astype(np.uint8)
    return P.Placed(image, affine.identity(), (width, height))


def largest_error(view: P.Placed, margin: int = 2) -> float:
    """Largest distance, per axis in source pixels, between what a view shows and what its map says it shows.

    Looked at are pixels at least ``margin`` from anything that is not source (blue below 255): there the resampling
    filters of a ramp return the ramp.
    """
    width, height = view.size
    y, x = np.mgrid[:height, :width]
    told = affine.apply(view.to_source, np.stack([x, y], -1) + 0.5) - 0.5
    valid = view.image[..., 2] == 255
    inside = (told >= margin) & (told <= np.array(view.source_size) - 1 - margin)
    for axis in (0, 1):
        for shift in range(-margin, margin + 1):
            valid &= np.roll(view.image[..., 2] == 255, shift, axis)
    # A filter's support reaches past the view's border into nothing; a crop's border is not the source's.
    border = np.zeros_like(valid)
    border[margin : height - margin, margin : width - margin] = True
    keep = valid & inside.all(-1) & border
    errors = np.abs(view.image[..., :2] / SLOPE - told)[keep]
    return float(errors.max()) if errors.size else 0.0


@st.composite
def pipelines(draw):
    """A list of (name, arguments) that keeps the image at a workable size."""
    names = st.sampled_from(["crop", "resize", "hflip", "vflip", "pad", "rotate", "warp"])
    return draw(st.lists(st.tuples(names, st.lists(st.floats(0, 1), min_size=4, max_size=4)), min_size=1, max_size=5))


def run(view: P.Placed, steps, backend: str) -> P.Placed:
    for name, (a, b, c, d) in steps:
        width, height = view.size
        if name == "crop":
            w, h = max(16, round(width * (0.5 + c / 2))), max(16, round(height * (0.5 + d / 2)))
            if w <= width and h <= height:
                view = P.crop(view, round(a * (width - w)), round(b * (height - h)), w, h)
        elif name == "resize":
            view = P.resize(view, (16 + round(a * 80), 16 + round(b * 80)), backend=backend)
        elif name == "hflip":
            view = P.hflip(view)
        elif name == "vflip":
            view = P.vflip(view)
        elif name == "pad":
            view = P.pad(view, round(9 * a), round(9 * b), round(9 * c), round(9 * d))
        elif name == "rotate":
            view = P.rotate(view, 360 * a)
        else:  # a mild shear about the centre
            linear = np.array([[1, 0.3 * (a - 0.5)], [0.3 * (b - 0.5), 1]])
            centre = np.array([width / 2, height / 2])
            view = P.warp(view, np.hstack([linear, (centre - linear @ centre)[:, None]]), (width, height), (0, 0, 0))
    return view


@settings(max_examples=150, deadline=None)
@given(pipelines(), st.sampled_from(["fast", "pil"]))
def test_random_pipelines_say_where_pixels_come_from(steps, backend):
    view = run(ramp(), steps, backend)
    resamplings = sum(name in ("resize", "rotate", "warp") for name, _ in steps)
    assert largest_error(view, margin=2 + 2 * resamplings) < 0.51


@pytest.mark.parametrize("backend", ["fast", "pil"])
@pytest.mark.parametrize("turn", [0, 30, 90, 200])
def test_a_recipe_is_exact_to_half_a_pixel(backend, turn):
    """Crop, resize, flips and a turn, as the recipes do them: one resampling, or two with the turn."""
    view = P.hflip(P.resize(P.crop(ramp(), 9, 6, 45, 36), (224, 224), backend=backend))
    assert largest_error(view, 4) < 0.51
    assert largest_error(P.rotate(view, turn), 6) < 0.51


def test_a_wrong_map_is_noticed():
    view = P.resize(P.crop(ramp(), 9, 6, 45, 36), (224, 224))
    shifted = view._replace(to_source=affine.compose(view.to_source, affine.crop(5, 0)))
    assert largest_error(shifted, 4) > 0.9
    assert largest_error(P.hflip(view)._replace(to_source=view.to_source), 4) > 20


@pytest.mark.parametrize("interpolation, most", [("bilinear", 1), ("bicubic", 2)])
def test_fast_resampling_stays_close_to_pillow(interpolation, most):
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (160, 230, 3), dtype=np.uint8)
    smooth = np.asarray(Image.fromarray(noise[:20, :30]).resize((230, 160), Image.Resampling.BICUBIC))
    for pixels in (noise, smooth):
        image = P.Placed(pixels, affine.identity(), (230, 160))
        for box, size in (((0, 0, 230, 160), (64, 64)), ((11, 7, 100, 130), (224, 224)), ((3, 5, 200, 150), (96, 80))):
            cut = P.crop(image, *box)
            fast, pil = (P.resize(cut, size, interpolation, backend).image.astype(int) for backend in ("fast", "pil"))
            assert np.abs(fast - pil).max() <= most
            assert np.abs(fast - pil).mean() < 0.03


def test_crop_outside_is_refused():
    with pytest.raises(ValueError, match=r"crop box \(55, 0, 20, 10\)"):
        P.crop(ramp(), 55, 0, 20, 10)
    with pytest.raises(ValueError, match="'cubic'"):
        P.resize(ramp(), (8, 8), backend="cubic")
