"""Generators that are not the library's own selective search."""

import ctypes
import sys
from types import SimpleNamespace

import numpy as np
import pytest
import skimage.data
from PIL import Image
from selectivesearch import selective_search

from densessl.cli.regions import GENERATORS, generator_config
from densessl.data.rng import keyed_rng
from densessl.errors import MissingPackage
from densessl.regions.generators import Grid, OpenCVSelectiveSearch, RandomBoxes, SelectiveSearchPackage
from densessl.regions.store_format import pack
from densessl.registry import REGION_GENERATORS


def blank(width, height):
    return np.zeros((height, width, 3), np.uint8)


def rng():
    return keyed_rng(0, "test")


@pytest.fixture(scope="module")
def photo():
    return np.asarray(Image.fromarray(skimage.data.astronaut()).resize((90, 60)))


@pytest.mark.parametrize("size", [(100, 60), (1, 1), (7, 3000)])
@pytest.mark.parametrize("generator", [Grid(), RandomBoxes(), Grid(scales=(1, 0.3), aspects=(4, 0.2), overlap=0)])
def test_boxes_lie_in_the_image_and_can_be_stored(generator, size):
    found = generator(blank(*size), rng())
    assert len(found.boxes) == generator.count and (found.levels == 1).all()
    pack("", size, [found])


def test_a_grid_covers_the_image_at_every_scale_and_shape():
    grid = Grid(scales=(0.5, 0.2), aspects=(1.0, 2.0))
    boxes = grid(blank(200, 100), rng()).boxes
    sides = boxes[:, 2:] - boxes[:, :2]
    for scale in grid.scales:
        for aspect in grid.aspects:
            share = np.array([scale * aspect**0.5, scale / aspect**0.5])
            chosen = boxes[np.isclose(sides, share * (200, 100)).all(1)]
            for axis, length in enumerate((200, 100)):
                starts = np.unique(chosen[:, axis].round(6))
                assert starts[0] == 0 and np.isclose(starts[-1] + share[axis] * length, length)
                steps = np.diff(starts)
                assert (steps <= 0.5 * share[axis] * length + 1e-6).all() and np.allclose(steps, steps[0])
    assert grid.count == len(np.unique(boxes, axis=0)) == len(boxes)
    assert Grid(scales=(0.5,), aspects=(1.0,)).count == 9 and Grid(scales=(1.0,), aspects=(1.0,)).count == 1


def test_random_boxes_have_the_stated_areas_and_shapes():
    generator = RandomBoxes(count=4000, area=(0.04, 0.16), aspect=(0.5, 2))
    boxes = generator(blank(300, 200), rng()).boxes
    assert np.array_equal(boxes, generator(blank(300, 200), rng()).boxes)
    assert not np.array_equal(boxes, generator(blank(300, 200), keyed_rng(1, "test")).boxes)
    width, height = (boxes[:, 2:] - boxes[:, :2]).T
    root = np.sqrt(width * height / 60000)
    assert (root >= 0.2 - 1e-9).all() and (root <= 0.4 + 1e-9).all() and abs(root.mean() - 0.3) < 0.005
    logs = np.log2(width / height)
    assert (np.abs(logs) <= 1 + 1e-9).all() and abs(logs.mean()) < 0.04 and abs(logs.std() - 3**-0.5) < 0.02
    place = boxes[:, 0] / (300 - width)
    assert abs(place.mean() - 0.5) < 0.02 and place.min() < 0.01 and place.max() > 0.99


@pytest.mark.filterwarnings("ignore")
def test_the_package_is_used_as_it_is_and_its_levels_worked_out(photo):
    found = SelectiveSearchPackage(scale=60, min_size=20)(photo, rng())
    labels, regions = selective_search(photo, 60, 0.8, 20)
    labels = labels[..., 3]
    expected, levels, known = [], [], {}
    for region in regions:
        parts = frozenset(region["labels"])
        # The box of the pixels, and the level by trying all pairs of what was there before.
        rows, columns = np.nonzero(np.isin(labels, list(parts)))
        expected.append((columns.min(), rows.min(), columns.max() + 1, rows.max() + 1))
        pairs = [(a, b) for a in known for b in known if not a & b and a | b == parts]
        known[parts] = 1 + max((max(known[a], known[b]) for a, b in pairs), default=0)
        assert len(pairs) in (0, 2) and (len(parts) == 1) == (not pairs)
        levels.append(known[parts])
    first = {}
    for box, level in zip(expected, levels):
        first.setdefault(box, level)
    assert found.boxes.tolist() == [list(map(float, box)) for box in first]
    assert found.levels.tolist() == list(first.values()) and found.levels.max() > 4


@pytest.mark.filterwarnings("ignore")
def test_shrinking_gives_boxes_of_the_source(photo):
    large = np.asarray(Image.fromarray(photo).resize((270, 180)))
    found = SelectiveSearchPackage(scale=60, min_size=20, max_side=90)(large, rng())
    small = SelectiveSearchPackage(scale=60, min_size=20)(
        np.asarray(Image.fromarray(large).resize((90, 60), Image.Resampling.BILINEAR)), rng()
    )
    np.testing.assert_allclose(found.boxes, 3 * small.boxes)
    assert np.array_equal(found.levels, small.levels)
    pack("", (270, 180), [found])


class FakeSearch:
    """What OpenCV does, as far as it can be seen: boxes (x, y, w, h) with repetitions, shuffled by the C library."""

    def setBaseImage(self, image):
        assert image.flags.c_contiguous
        self.image = image

    def switchToSelectiveSearchFast(self):
        self.mode = "fast"

    def switchToSelectiveSearchQuality(self):
        self.mode = "quality"

    def process(self):
        height, width = self.image.shape[:2]
        assert self.mode == "fast" and self.image[0, 0].tolist() == [3, 2, 1]
        boxes = [(x, 0, width - x, height) for x in range(40)] + [(0, 0, width, height)]
        return np.array(sorted(boxes, key=lambda _: ctypes.CDLL(None).rand()), np.int32)


def test_opencv_gets_bgr_and_its_order_follows_from_the_random_numbers(monkeypatch):
    module = SimpleNamespace(
        __version__="4",
        setNumThreads=lambda _: None,
        resize=lambda image, size: np.broadcast_to(image[0, 0], (size[1], size[0], 3)).copy(),
        ximgproc=SimpleNamespace(segmentation=SimpleNamespace(createSelectiveSearchSegmentation=FakeSearch)),
    )
    monkeypatch.setitem(sys.modules, "cv2", module)
    image = np.broadcast_to(np.array([1, 2, 3], np.uint8), (50, 100, 3))
    generator = OpenCVSelectiveSearch()
    first, again, other = (generator(image, keyed_rng(seed, "test")).boxes for seed in (0, 0, 1))
    assert np.array_equal(first, again) and not np.array_equal(first, other)
    assert sorted(first.tolist()) == [[x, 0, 100, 50] for x in range(40)] == sorted(other.tolist())
    boxes = OpenCVSelectiveSearch(resize=(200, 200))(image, rng()).boxes
    assert sorted(boxes.tolist()) == [[x / 2, 0, 100, 50] for x in range(40)]


def test_a_missing_package_is_told(monkeypatch, photo):
    monkeypatch.setitem(sys.modules, "selectivesearch", None)
    with pytest.raises(MissingPackage, match=r"SelectiveSearchPackage needs .* pip install -e '\.\[regions\]'"):
        SelectiveSearchPackage()(photo, rng())
    monkeypatch.setitem(sys.modules, "cv2", SimpleNamespace(__version__="4.12.0"))
    with pytest.raises(ImportError, match=r"4\.12\.0 comes without.*opencv-contrib-python-headless, which replaces"):
        OpenCVSelectiveSearch()(photo, rng())
    monkeypatch.setitem(sys.modules, "cv2", None)
    with pytest.raises(ImportError, match="OpenCV is not installed"):
        OpenCVSelectiveSearch()(photo, rng())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Grid(scales=()), r"Grid\.scales is \(\)"),
        (lambda: Grid(scales=(1.2,)), r"Grid\.scales"),
        (lambda: Grid(aspects=(0,)), r"Grid\.aspects"),
        (lambda: Grid(overlap=1), r"Grid\.overlap is 1"),
        (lambda: RandomBoxes(count=0), r"RandomBoxes\.count is 0"),
        (lambda: RandomBoxes(area=(0.5, 0.1)), r"RandomBoxes\.area is \(0\.5, 0\.1\)"),
        (lambda: RandomBoxes(aspect=(0, 1)), r"RandomBoxes\.aspect"),
        (lambda: OpenCVSelectiveSearch(mode="slow"), r"OpenCVSelectiveSearch\.mode is 'slow'"),
        (lambda: OpenCVSelectiveSearch(resize=(9, 9), max_side=9), "resize and max_side"),
    ],
)
def test_wrong_arguments_are_named(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("name", GENERATORS)
def test_the_command_knows_every_generator(name):
    config = generator_config(name, {})
    assert REGION_GENERATORS.build(config) == REGION_GENERATORS.build(config)
