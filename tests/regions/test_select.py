"""Selections, against loops and distributions."""

import random

import numpy as np
import pytest

from densessl.regions import Proposals
from densessl.regions.select import PRESETS, AspectRange, MinSide, Thin, TopK
from densessl.registry import REGION_SELECTIONS

SIZE = 200, 150
EMPTY = Proposals.plain(np.zeros((0, 4)))


def draw_proposals(count, seed=0, highest=6):
    """Boxes with whole coordinates, many alike; levels from 1."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 60, (count, 2))
    high = low + rng.integers(1, 90, (count, 2))
    return Proposals(np.concatenate([low, high], 1).astype(np.float64), rng.integers(1, highest + 1, count))


def numbered(levels):
    """One box for each level, whose x0 is its number."""
    x = np.arange(len(levels), dtype=np.float64)
    return Proposals(np.stack([x, 0 * x, x + 1, 0 * x + 1], 1), np.array(levels))


def order(found):
    return found.boxes[:, 0].astype(int).tolist()


def iou(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    shared = max(width, 0) * max(height, 0)
    return shared / (sum((x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second)) - shared)


def test_uijlings_puts_a_higher_level_first_as_often_as_it_should():
    """u1 < L u2 of two uniform numbers with a chance of 1 - 1 / 2L."""
    trials = 20000
    for level in (1, 2, 5):
        rng = np.random.default_rng(level)
        found = numbered([1, level])
        early = sum(order(TopK(k=1, ranking="uijlings")(found, SIZE, rng)) == [0] for _ in range(trials))
        chance = 1 - 1 / (2 * level)
        assert abs(early / trials - chance) < 4 * (chance * (1 - chance) / trials) ** 0.5


def test_uijlings_ranks_are_distributed_as_in_a_simulation():
    levels, trials, k = [1, 1, 2, 3, 3, 7, 12, 30], 6000, 3
    rng, other = np.random.default_rng(0), random.Random(1)
    found = numbered(levels)
    ours, theirs = np.zeros((2, len(levels), len(levels)))
    top = np.zeros(len(levels))
    for _ in range(trials):
        ranks = order(TopK(ranking="uijlings")(found, SIZE, rng))
        ours[range(len(levels)), ranks] += 1
        keys = [other.random() * level for level in levels]
        theirs[range(len(levels)), sorted(range(len(levels)), key=keys.__getitem__)] += 1
        top[order(TopK(k=k, ranking="uijlings")(found, SIZE, rng))] += 1
    spread = np.sqrt((ours + theirs) / 2 + 1)
    assert (abs(ours - theirs) < 4 * 2**0.5 * spread).all()
    assert (abs(top - theirs[:k].sum(0)) < 4 * 2**0.5 * np.sqrt(theirs[:k].sum(0) + 1)).all()
    assert ours[0, 0] > 5 * ours[0, 5]  # so the comparison would see a ranking without levels


def test_random_orders_are_equally_frequent():
    rng = np.random.default_rng(0)
    counts = {}
    for _ in range(6000):
        ranks = tuple(order(TopK(k=2, ranking="random")(numbered([1, 9, 40]), SIZE, rng)))
        counts[ranks] = counts.get(ranks, 0) + 1
    assert len(counts) == 6 and max(abs(count - 1000) for count in counts.values()) < 4 * 29


@pytest.mark.parametrize("ranking", ["order", "random", "uijlings"])
def test_top_k_keeps_boxes_with_their_levels(ranking):
    found = draw_proposals(40)
    rows = sorted(map(tuple, np.column_stack(found)))
    for k in (1, 39, 40, 41, None):
        chosen = TopK(k=k, ranking=ranking)(found, SIZE, np.random.default_rng(1))
        assert len(chosen.boxes) == len(chosen.levels) == min(k or 40, 40)
        kept = list(map(tuple, np.column_stack(chosen)))
        if ranking == "order":
            assert kept == list(map(tuple, np.column_stack(found)))[:k]
        else:
            assert kept != list(map(tuple, np.column_stack(found)))[:k]
            remaining = rows.copy()
            for row in kept:
                remaining.remove(row)
            assert len(remaining) == 40 - len(kept)


def test_aspect_and_size_are_those_of_loops():
    found = draw_proposals(400)
    rows = [(*box, level) for box, level in zip(found.boxes.tolist(), found.levels.tolist())]
    rows += [(0, 0, 30, 10, 1), (0, 0, 10, 30, 2), (0, 0, 31, 10, 3), (0, 0, 29, 10, 4), (0, 0, 20, 20, 5)]
    found = Proposals(np.array(rows)[:, :4].astype(float), np.array(rows)[:, 4].astype(int))
    aspect = [row for row in rows if 1 / 3 < (row[2] - row[0]) / (row[3] - row[1]) < 3]
    size = [row for row in rows if ((row[2] - row[0]) * (row[3] - row[1])) ** 0.5 > 20]
    for selection, expected in ((AspectRange(), aspect), (MinSide(), size)):
        chosen = selection(found, SIZE, None)
        assert np.array_equal(np.column_stack(chosen), expected)
        assert 20 < len(expected) < len(rows) - 20
    wide = AspectRange(low=1.0, high=2.0)(found, SIZE, None)
    sides = wide.boxes[:, 2:] - wide.boxes[:, :2]
    assert (sides[:, 0] > sides[:, 1]).all() and (sides[:, 0] < 2 * sides[:, 1]).all()


@pytest.mark.parametrize("limit", [0.2, 0.4, 0.5])
def test_thinning_is_greedy_by_the_scores_and_in_their_order(limit):
    found = draw_proposals(150, seed=int(10 * limit))
    scores = np.random.default_rng(5).random(150)
    kept = []
    for number in sorted(range(150), key=lambda number: -scores[number]):
        if all(iou(found.boxes[number], found.boxes[other]) <= limit for other in kept):
            kept.append(number)
    chosen = Thin(iou=limit)(found, SIZE, np.random.default_rng(5))
    assert 5 < len(kept) < 145
    assert np.array_equal(chosen.boxes, found.boxes[kept]) and np.array_equal(chosen.levels, found.levels[kept])


def test_thinning_keeps_an_overlap_of_exactly_the_limit():
    half = Proposals.plain([[0, 0, 20, 10], [0, 0, 10, 10]])
    assert len(Thin(iou=0.5)(half, SIZE, np.random.default_rng(0)).boxes) == 2
    assert len(Thin(iou=0.49)(half, SIZE, np.random.default_rng(0)).boxes) == 1


def test_any_of_boxes_that_are_alike_may_stay():
    alike = Proposals(np.array([[0, 0, 20, 10.0]] * 3), np.array([1, 2, 3]))
    rng = np.random.default_rng(0)
    stayed = [Thin()(alike, SIZE, rng).levels.tolist() for _ in range(300)]
    assert all(len(levels) == 1 for levels in stayed)
    assert min(stayed.count([level]) for level in (1, 2, 3)) > 60


@pytest.mark.parametrize("preset", PRESETS)
def test_presets(preset):
    found, empty = draw_proposals(500), EMPTY
    rng = np.random.default_rng(0)
    for step in PRESETS[preset]:
        selection = REGION_SELECTIONS.build(dict(step))
        found, empty = selection(found, SIZE, rng), selection(empty, SIZE, rng)
        assert empty.boxes.shape == (0, 4) and empty.levels.shape == (0,)
        assert empty.boxes.dtype == np.float64 and empty.levels.dtype == np.int64
    assert 10 < len(found.boxes) <= {"none": 500, "ccop": 50}.get(preset, 30)
    if preset == "ccop":
        overlaps = [iou(one, other) for i, one in enumerate(found.boxes) for other in found.boxes[:i]]
        sides = found.boxes[:, 2:] - found.boxes[:, :2]
        assert (
            max(overlaps) <= 0.5 and sides.prod(1).min() > 400 and (abs(np.log(sides[:, 0] / sides[:, 1])) < 1.1).all()
        )


def test_every_selection_takes_an_image_without_regions():
    steps = [AspectRange(), MinSide(), Thin(), *(TopK(3, ranking) for ranking in ("order", "random", "uijlings"))]
    for step in steps:
        chosen = step(EMPTY, SIZE, np.random.default_rng(0))
        assert chosen.boxes.shape == (0, 4) and chosen.levels.shape == (0,)


def test_arguments_are_checked():
    with pytest.raises(ValueError, match="ranking is 'best', expected one of"):
        TopK(ranking="best")
    with pytest.raises(ValueError, match="k is 0, expected a positive number"):
        TopK(k=0)
