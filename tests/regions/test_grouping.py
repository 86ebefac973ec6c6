"""The grouping against a slow one that starts each merge from pixels and sorts all pairs anew."""

import itertools

import numpy as np
import pytest

from densessl.regions import grouping
from densessl.regions.felzenszwalb import felzenszwalb


def draw_labels(seed, shape=(12, 16), cells=14):
    """Cells of random points: connected regions of random shapes."""
    rng = np.random.default_rng(seed)
    points = rng.random((cells, 2)) * shape
    grid = np.stack(np.mgrid[: shape[0], : shape[1]], -1)
    labels = ((grid[:, :, None] - points) ** 2).sum(-1).argmin(-1)
    return np.unique(labels, return_inverse=True)[1].reshape(shape).astype(np.int32)


def draw_planes(seed, shape=(12, 16), depth=3):
    return (np.random.default_rng(100 + seed).random((depth, *shape)) * 255).astype(np.float32)


def described(labels, planes):
    """Arguments of ``group`` but for the weights."""
    colour, texture = grouping.colour_codes(planes), grouping.texture_codes(planes)
    return (
        *grouping.outline(labels),
        grouping.describe(labels, colour, 25 * len(planes)),
        grouping.describe(labels, texture, 80 * len(planes)),
    )


def touch(a, b):
    """Whether two masks have pixels that share an edge."""
    return any(
        (first[1:] & second[:-1]).any() or (first[:, 1:] & second[:, :-1]).any() for first, second in ((a, b), (b, a))
    )


def slopes(plane):
    """(8, h, w): of a plane towards eight directions, 0 where it falls."""
    padded = np.pad(plane.astype(float), 1, mode="edge")
    across, down = padded[1:-1, 2:] - padded[1:-1, :-2], padded[2:, 1:-1] - padded[:-2, 1:-1]
    turns = np.arange(8) * np.pi / 4
    return np.maximum([np.cos(turn) * across + np.sin(turn) * down for turn in turns], 0)


def histograms(mask, planes):
    """Normalised colour and texture histograms of a mask."""
    colour = [np.histogram(plane[mask], 25, (0, 256))[0] for plane in planes.astype(float)]
    texture = [np.histogram(slope[mask], 10, (0, slope.max()))[0] for plane in planes for slope in slopes(plane)]
    return np.concatenate(colour) / mask.sum() / len(colour), np.concatenate(texture) / mask.sum() / len(texture)


def box_of(mask):
    y, x = np.nonzero(mask)
    return np.array([x.min(), y.min(), x.max() + 1, y.max() + 1])


def slow_similarity(a, b, planes, weights):
    shares = [np.minimum(*pair).sum() for pair in zip(histograms(a, planes), histograms(b, planes))]
    both = a | b
    x0, y0, x1, y1 = box_of(both)
    hole = (x1 - x0) * (y1 - y0) - both.sum()
    return np.dot(weights, [*shares, 1 - both.mean(), 1 - hole / both.size])


def slow_group(labels, planes, weights):
    """Parts of the merges, in order, and masks of all regions. What differs by rounding only is equal."""
    masks = [labels == label for label in range(labels.max() + 1)]
    left, parts, pairs = set(range(len(masks))), [], {}
    while len(left) > 1:
        for pair in itertools.combinations(sorted(left), 2):
            if pair not in pairs and touch(masks[pair[0]], masks[pair[1]]):
                pairs[pair] = slow_similarity(masks[pair[0]], masks[pair[1]], planes, weights)
        _, (i, j) = min((-round(value, 9), pair) for pair, value in pairs.items() if left.issuperset(pair))
        left = left - {i, j} | {len(masks)}
        parts.append((i, j))
        masks.append(masks[i] | masks[j])
    return np.array(parts), masks


@pytest.mark.parametrize("weights", [(1, 1, 1, 1), (0, 1, 1, 1), (1, 0, 0, 0.5), (0, 0, 1, 0.3), (0, 0, 0, 1)])
@pytest.mark.parametrize("depth", [1, 3])
def test_merges_in_the_order_of_a_slow_grouping(weights, depth):
    for seed in range(3):
        labels, planes = draw_labels(seed), draw_planes(seed, depth=depth)
        boxes, levels, parts = grouping.group(*described(labels, planes), np.array(weights, float))
        expected, masks = slow_group(labels, planes, weights)
        np.testing.assert_array_equal(parts, expected)
        np.testing.assert_array_equal(boxes, [box_of(mask) for mask in masks])
        height = [1] * (labels.max() + 1)
        for i, j in expected:
            height.append(1 + max(height[i], height[j]))
        np.testing.assert_array_equal(levels, height)


def test_segments_are_described_as_loops_do():
    labels, planes = draw_labels(7), draw_planes(7)
    sizes, boxes, pairs, colour, texture = described(labels, planes)
    count = labels.max() + 1
    masks = [labels == label for label in range(count)]
    np.testing.assert_array_equal(sizes, [mask.sum() for mask in masks])
    np.testing.assert_array_equal(boxes, [box_of(mask) for mask in masks])
    assert sorted(map(tuple, pairs)) == [
        (i, j) for i, j in itertools.combinations(range(count), 2) if touch(masks[i], masks[j])
    ]
    for label, mask in enumerate(masks):
        for counts, expected, depth in zip((colour, texture), histograms(mask, planes), (3, 24)):
            np.testing.assert_allclose(counts[label], expected * mask.sum() * depth, atol=1e-6)


def test_segments_in_several_pieces_and_corners_that_touch():
    labels = np.array([[0, 1, 0], [2, 0, 1]], np.int32)
    sizes, boxes, pairs = grouping.outline(labels)
    assert sizes.tolist() == [3, 2, 1]
    assert boxes.tolist() == [[0, 0, 3, 2], [1, 0, 3, 2], [0, 1, 1, 2]]
    assert sorted(map(tuple, pairs)) == [(0, 1), (0, 2)]  # 1 and 2 share no edge


def test_equal_pairs_go_by_their_indices():
    labels = np.array([[0, 1, 2, 3]], np.int32)
    planes = np.full((3, 1, 4), 9, np.float32)
    *_, parts = grouping.group(*described(labels, planes), np.array([1.0, 1, 0, 0]))
    assert parts.tolist() == [[0, 1], [2, 3], [4, 5]]
    *_, parts = grouping.group(*described(labels, planes), np.array([0.0, 0, 0, 1]))
    assert parts.tolist() == [[0, 1], [2, 3], [4, 5]]


def test_many_segments_with_many_neighbours():
    """A comb: one segment touches all others, and lists of neighbours outgrow what they start with."""
    labels = np.zeros((3, 401), np.int32)
    labels[0, 1::2] = np.arange(1, 201)
    labels[2, 1::2] = np.arange(201, 401)
    boxes, levels, parts = grouping.group(*described(labels, draw_planes(0, labels.shape)), np.ones(4))
    assert len(boxes) == 801 and len(set(parts.ravel())) == 800
    for new, (i, j) in enumerate(parts, 401):
        assert levels[new] == max(levels[i], levels[j]) + 1
        np.testing.assert_array_equal(boxes[new, :2], np.minimum(boxes[i, :2], boxes[j, :2]))
        np.testing.assert_array_equal(boxes[new, 2:], np.maximum(boxes[i, 2:], boxes[j, 2:]))
    assert boxes[-1].tolist() == [0, 0, 401, 3]


def test_grouping_leaves_its_arguments_alone_and_repeats():
    planes = draw_planes(3, (40, 50))
    given = described(felzenszwalb(planes, 200, 0.8, 5), planes)
    kept = [array.copy() for array in given]
    first, second = (grouping.group(*given, np.ones(4)) for _ in range(2))
    for before, after in zip(kept, given):
        np.testing.assert_array_equal(before, after)
    for one, other in zip(first, second):
        np.testing.assert_array_equal(one, other)


def test_near_boxes_come_last():
    boxes = np.array([[0, 0, 10, 10], [0, 0, 10, 9], [20, 0, 30, 10], [0, 0, 10, 8], [0, 0, 10, 7], [25, 0, 35, 10]])
    assert grouping.novel_first(boxes, 0.8).tolist() == [0, 2, 3, 5, 1, 4]  # .9 and .875 are near, .8 is not
    assert grouping.novel_first(boxes, 1.0).tolist() == [0, 1, 2, 3, 4, 5]
    assert grouping.novel_first(boxes[:0], 0.8).tolist() == []
