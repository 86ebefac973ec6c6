"""UP-DETR's random patches; its golden case has their exact numbers."""

import numpy as np
import pytest

from densessl.regions.generators import RandomPatches


def test_random_patches_are_uniform():
    image = np.empty((40, 60, 3), np.uint8)
    boxes = np.concatenate([RandomPatches()(image, np.random.default_rng(seed)).boxes for seed in range(2000)])
    assert len(boxes) == 20000 and np.array_equal(boxes, boxes.round())
    sides = boxes[:, 2:] - boxes[:, :2]
    for axis, side in enumerate((60, 40)):
        counts = np.bincount(sides[:, axis].astype(int))
        assert not counts[:8].any() and len(counts) == side - 7
        np.testing.assert_allclose(counts[8:], 20000 / (side - 15), rtol=0.2)
        slack = side - sides[:, axis] - 1  # the last place is never taken
        assert (boxes[:, axis] >= 0).all() and (boxes[:, axis] <= slack).all()
        share = (boxes[:, axis] / slack)[slack > 20]
        np.testing.assert_allclose(np.histogram(share, 4, (0, 1.0001))[0] / len(share), 0.25, atol=0.03)
    assert abs(np.corrcoef(sides.T)[0, 1]) < 0.03


@pytest.mark.parametrize(("size", "count"), [((16, 60), 0), ((60, 16), 0), ((17, 17), 10)])
def test_small_images_have_no_random_patches(size, count):
    found = RandomPatches()(np.empty((*size, 3), np.uint8), np.random.default_rng(0))
    assert len(found.boxes) == len(found.levels) == count
