"""Masks hide what they are asked to, where they are asked to, and are a function of epoch, image and view."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage, stats
from torch.utils.data import DataLoader

from densessl.data import KeySampler, UnlabelledImages, collate_views
from densessl.data.masks import add_block, build_mask, draw_blocks, draw_random
from densessl.data.rng import keyed_rng
from densessl.data.views import expand_views

BLOCKS = dict(type="blocks", patch_size=16, hidden=118)
RANDOM = dict(type="random", patch_size=16, hidden=147)
DRAWS = (draw_blocks, draw_random)
SMALL = dict(type="blocks", patch_size=8, hidden=10, min_block=4)
VIEWS = [dict(size=(48, 32), mask=SMALL), dict(size=(48, 32), mask=SMALL), dict(size=32)]


def streams(count):
    return (keyed_rng(0, "mask", 0, index, 0) for index in range(count))


@pytest.mark.parametrize("config", [BLOCKS, RANDOM, dict(BLOCKS, hidden=195), dict(BLOCKS, hidden=1, min_block=1)])
@pytest.mark.parametrize("size", [(224, 224), (112, 448)])
def test_what_is_left_has_the_count_and_ascends(config, size):
    draw = build_mask(config, size)
    for rng in streams(50):
        keep = draw(rng)
        assert keep.dtype == np.int64 and keep.shape == (196 - config["hidden"],)
        assert (np.diff(keep) > 0).all() and keep[0] >= 0 and keep[-1] < 196


def test_cells_are_counted_row_by_row():
    """A view 160 wide and 48 high has 3 rows of 10 patches."""
    draw = build_mask(
        dict(type="blocks", patch_size=16, hidden=12, min_block=4, max_block=6, min_aspect=0.5), (160, 48)
    )
    for ours, own in zip(streams(50), streams(50)):
        mask = draw_blocks(own, (3, 10), 12, min_block=4, max_block=6, min_aspect=0.5)
        assert draw(ours).tolist() == [10 * row + column for row, column in np.argwhere(~mask)]


def test_a_block_is_a_rectangle_of_the_drawn_size_and_shape():
    """On a grid that no block fills, so that every try fits."""
    shapes, corners = [], []
    for rng in streams(3000):
        mask = np.zeros((100, 120), bool)
        added = add_block(rng, mask, 200, 600, 0.3)
        (rows, columns) = ndimage.find_objects(mask.astype(np.int64))[0]
        assert mask[rows, columns].all() and mask.sum() == added
        shapes.append((rows.stop - rows.start, columns.stop - columns.start))
        corners.append((rows.start / (100 - shapes[-1][0]), columns.start / (120 - shapes[-1][1])))
    height, width = np.array(shapes, float).T
    area, aspect = height * width, np.log(height / width)
    # Rounding to whole cells moves either by a few per cent.
    assert area.min() > 180 and area.max() <= 600 and abs(aspect).max() < np.log(1 / 0.3) + 0.1
    assert stats.kstest(area, stats.uniform(200, 400).cdf).statistic < 0.04
    assert stats.kstest(aspect / np.log(1 / 0.3), stats.uniform(-1, 2).cdf).statistic < 0.04
    for place in np.array(corners).T:
        assert stats.kstest(place, "uniform").statistic < 0.04


def test_a_block_never_adds_more_than_is_left_to_hide():
    for rng in streams(200):
        mask = draw_random(rng, (14, 14), 90)
        before = mask.copy()
        added = add_block(rng, mask, 16, 20, 0.3)
        assert added <= 20 and mask.sum() == 90 + added and mask[before].all()


def test_without_single_cells_the_count_may_be_less_but_never_more():
    """Blocks alone rarely reach what is nearly everything, since none spans the grid."""
    sums = [draw_blocks(rng, (14, 14), 190, exactly=False).sum() for rng in streams(50)]
    assert max(sums) <= 190 and min(sums) < 190
    assert {draw_blocks(rng, (14, 14), 190).sum() for rng in streams(50)} == {190}


def test_blocks_leave_fewer_borders_than_random_cells():
    def border(mask):
        return (mask[1:] != mask[:-1]).sum() + (mask[:, 1:] != mask[:, :-1]).sum()

    blocks, cells = (np.mean([border(draw(rng, (14, 14), 118)) for rng in streams(100)]) for draw in DRAWS)
    assert blocks < 0.5 * cells


@pytest.mark.parametrize("draw", DRAWS)
def test_no_side_is_preferred(draw):
    """Random cells are hidden equally often; blocks fall short of the border, but the same on all sides."""
    count = 4000
    hidden = np.stack([draw(rng, (14, 14), 118) for rng in streams(count)]).astype(float)
    for turned in (hidden[:, ::-1], hidden[:, :, ::-1], hidden.transpose(0, 2, 1)):
        difference = hidden - turned
        score = difference.mean(0) / np.maximum(difference.std(0), 1e-3) * np.sqrt(count)
        assert abs(score).max() < 5
    share = hidden.mean(0)
    if draw is draw_random:
        assert abs(share - 118 / 196).max() < 5 * np.sqrt(0.25 / count)
    else:
        assert share[[0, 0, -1, -1], [0, -1, 0, -1]].max() < 0.15 and share[6:8, 6:8].min() > 0.9


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(4):
        Image.fromarray(np.full((40, 60, 3), number, np.uint8)).save(root / f"{number}.png")
    return str(root)


def test_every_epoch_image_and_view_has_a_mask_of_its_own(folder):
    views = [dict(size=32, repeat=2, mask=dict(type="random", patch_size=4, hidden=32))]
    dataset = UnlabelledImages(folder, views)
    keys = [(epoch, index) for epoch in range(10) for index in range(4)]
    keeps = [dataset[key].draws[view]["keep"] for key in keys for view in (0, 1)]
    assert len({keep.tobytes() for keep in keeps}) == len(keeps) == 80
    again, other = UnlabelledImages(folder, views), UnlabelledImages(folder, views, seed=1)
    assert np.array_equal(dataset[3, 2].draws[1]["keep"], again[3, 2].draws[1]["keep"])
    assert not np.array_equal(dataset[3, 2].draws[1]["keep"], other[3, 2].draws[1]["keep"])


def test_they_touch_no_other_draw_and_stay_when_ops_run_in_the_workers(folder):
    gray = [dict(type="Grayscale", p=0.5)]
    masked = [dict(view, photometric=gray, uniforms=dict(mask=2)) for view in VIEWS]
    plain = [{key: value for key, value in view.items() if key != "mask"} for view in masked]
    first, second = (UnlabelledImages(folder, views)[2, 1] for views in (masked, plain))
    assert all(np.array_equal(a, b) for a, b in zip(first.views, second.views))
    for with_mask, without in zip(first.draws, second.draws):
        assert all(np.array_equal(with_mask[name], without[name]) for name in without)
    assert ["keep" in row for row in first.draws] == [True, True, False]
    worker = UnlabelledImages(folder, masked, photometric_on="worker")[2, 1]
    assert np.array_equal(first.draws[0]["keep"], worker.draws[0]["keep"])


def test_they_are_stacked_and_the_count_of_workers_does_not_matter(folder):
    def batches(workers):
        dataset = UnlabelledImages(folder, VIEWS)
        sampler = KeySampler(dataset, seed=5)
        return list(DataLoader(dataset, 2, sampler=sampler, num_workers=workers, collate_fn=collate_views))

    for first, second in zip(batches(0), batches(2), strict=True):
        for view in (0, 1):
            keep = first.draws[view]["keep"]
            assert keep.dtype == torch.int64 and keep.shape == (2, 14)
            assert torch.equal(keep, second.draws[view]["keep"])
        assert "keep" not in first.draws[2]


@pytest.mark.parametrize(
    "mask, message",
    [
        (dict(BLOCKS, type="block"), "mask.type 'block' is unknown; did you mean blocks"),
        (dict(type="blocks", hidden=118), r"mask has keys \['hidden'\], expected patch_size and hidden"),
        (dict(RANDOM, min_block=16), r"mask has keys \['hidden', 'min_block', 'patch_size'\]"),
        (dict(BLOCKS, patch_size=15), r"mask.patch_size is 15, expected a divisor of the view's 224x112 pixels"),
        (dict(BLOCKS, hidden=98), r"mask.hidden is 98, expected a number from 1 to 97 of 14x7 cells"),
        (dict(RANDOM, hidden=0), r"mask.hidden is 0, expected a number from 1 to 97"),
        (dict(RANDOM, hidden=0.75), r"mask.hidden is 0.75, expected a number from 1 to 97"),
        (dict(BLOCKS, hidden=12), r"mask.min_block is 16, expected a number from 1 to 12"),
        (dict(BLOCKS, hidden=60, max_block=15), r"mask.max_block is 15, expected a number from 16 to 60"),
        (dict(BLOCKS, hidden=60, min_aspect=3), r"mask.min_aspect is 3, expected more than 0, at most 1"),
    ],
)
def test_what_cannot_be_is_told_by_key(mask, message):
    with pytest.raises(ValueError, match=f"views: {message}"):
        expand_views([dict(size=(224, 112), mask=mask)])


def test_the_name_of_the_masks_draws_is_refused():
    with pytest.raises(ValueError, match=r"views\[0\].uniforms has 'keep', the name of the mask's cells"):
        expand_views([dict(size=8, uniforms=dict(keep=2))])
