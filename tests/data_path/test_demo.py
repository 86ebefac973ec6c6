"""The pictures of ``--demo`` are drawn, with what every installation has."""

import sys

import numpy as np
import pytest
from PIL import Image

from densessl.data.demo import COUNT, SIZE, draw_scene, write_demo_photos
from densessl.data.rng import keyed_rng
from densessl.insight.stereo import motorcycle
from densessl.regions import FastSelectiveSearch


def test_pictures_are_drawn_without_scikit_image_and_once(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    files = sorted(write_demo_photos(tmp_path / "new" / "pictures").iterdir())
    assert len(files) == COUNT and {Image.open(file).size for file in files} == {SIZE}
    small = [np.asarray(Image.open(file).resize((8, 6)), np.float64) for file in files]
    apart = [np.abs(a - b).mean() for i, a in enumerate(small) for b in small[:i]]
    assert min(apart) > 10, "two of them look alike"
    files[0].write_bytes(b"a user's")
    assert write_demo_photos(tmp_path / "new" / "pictures") and files[0].read_bytes() == b"a user's"


def test_a_picture_is_a_function_of_its_random_numbers():
    one, again, other = (draw_scene(keyed_rng(0, "demo", number)) for number in (3, 3, 4))
    assert np.array_equal(one, again) and not np.array_equal(one, other)


@pytest.mark.parametrize("number", range(4))
def test_there_is_something_to_see(number):
    """Regions of many sizes, edges, and not much that is over- or underexposed."""
    picture = draw_scene(keyed_rng(0, "demo", number))
    sides = FastSelectiveSearch(scales=(150.0,))(picture, keyed_rng(0, "unused")).boxes
    assert len(sides) > 100 and np.ptp(sides[:, 2] - sides[:, 0]) > 100
    assert np.isin(picture, (0, 255)).mean() < 0.2


def test_the_stereo_pair_says_what_it_needs(monkeypatch):
    monkeypatch.setitem(sys.modules, "skimage", None)
    with pytest.raises(ImportError, match=r"the stereo pair needs the package 'skimage'.*'\.\[look\]'"):
        motorcycle()
