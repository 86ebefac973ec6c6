"""Regions on their way from the source of a data set into the views of a batch."""

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.data.batch import collate_views
from densessl.data.dataset import UnlabelledImages
from densessl.data.rng import keyed_rng
from densessl.data.views import ViewSpec, choose_try, draw_crop, draw_crop_of_regions, kept_in_crop
from densessl.regions import Proposals, RegionSource
from densessl.registry import REGIONS

SIZES = {"a.png": (60, 40), "b.png": (50, 70), "c.png": (64, 64)}
BOXES = {
    "a.png": [[0, 0, 60, 40], [10, 5, 30, 20]],
    "b.png": [],
    "c.png": [[1, 2, 3, 4], [20, 20, 50, 60], [0, 0, 9, 9]],
}
VIEW = dict(size=(32, 24), scale=(0.3, 0.9), hflip=0.5, vflip=0.5)


@REGIONS.register_module()
class KnownRegions(RegionSource):
    """The boxes above."""

    def propose(self, path, image, rng, epoch):
        return Proposals.plain(BOXES[path])


@pytest.fixture
def folder(tmp_path):
    for name, (width, height) in SIZES.items():
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        Image.fromarray(np.stack([4 * x, 3 * y, 0 * x], -1).astype(np.uint8)).save(tmp_path / name)
    return tmp_path


def data_set(folder, **regions):
    views = [dict(VIEW, repeat=2)]
    return UnlabelledImages(str(folder), views, regions=dict(type="KnownRegions", **regions), resample="pil")


def test_boxes_are_packed_in_the_order_of_the_images(folder):
    data = data_set(folder, uniforms=dict(jitter=3))
    regions = collate_views([data[0, index] for index in (2, 1, 0)]).regions
    assert regions.owner.tolist() == [0, 0, 0, 2, 2]
    assert regions.source.tolist() == BOXES["c.png"] + BOXES["a.png"]
    assert regions.draws["jitter"].shape == (5, 3) and len(regions.draws["jitter"].unique()) == 15
    assert [box.shape for box in regions.boxes] == [(5, 4)] * 2 and [kept.shape for kept in regions.kept] == [(5,)] * 2
    chosen = regions.index(torch.tensor([False, True, False, True, False]))
    assert chosen.source.tolist() == [BOXES["c.png"][1], BOXES["a.png"][0]]
    assert torch.equal(chosen.draws["jitter"], regions.draws["jitter"][[1, 3]])


def test_boxes_enclose_the_pixels_they_enclosed(folder):
    """The images are ramps: red is four times the source's x, green three times its y."""
    data = data_set(folder)
    seen = 0
    for epoch in range(20):
        batch = collate_views([data[epoch, index] for index in range(3)])
        for view, boxes, kept in zip(batch.views, batch.regions.boxes, batch.regions.kept):
            for image, box, share, source in zip(view[batch.regions.owner], boxes, kept, batch.regions.source):
                if share < 1 or (box[2:] - box[:2]).min() < 6:
                    continue
                seen += 1
                x0, y0, x1, y1 = (box + torch.tensor([2, 2, -2, -2])).round().int().tolist()
                inside = image[:, y0:y1, x0:x1].double()
                assert source[0] <= inside[0].min() / 4 + 0.5 and inside[0].max() / 4 + 0.5 <= source[2]
                assert source[1] <= inside[1].min() / 3 + 0.5 and inside[1].max() / 3 + 0.5 <= source[3]
    assert seen > 10


def test_a_batch_without_any_region_is_empty_and_moves(folder):
    batch = collate_views([data_set(folder)[0, 1]]).to("cpu")
    assert batch.regions.source.shape == (0, 4) and batch.regions.boxes[1].shape == (0, 4)
    assert batch.regions.owner.dtype == torch.int64


def test_selections_are_drawn_anew_in_every_epoch_and_draws_with_them(folder):
    data = data_set(folder, select=[dict(type="TopK", k=2, ranking="random")], uniforms=dict(jitter=1))
    first, again, later = (data[epoch, 2].regions for epoch in (0, 0, 1))
    assert np.array_equal(first.boxes, again.boxes) and np.array_equal(first.draws["jitter"], again.draws["jitter"])
    assert not np.array_equal(first.draws["jitter"], later.draws["jitter"])
    orders = {data[epoch, 2].regions.boxes.tobytes() for epoch in range(60)}
    assert len(orders) == 6


def test_a_crop_keeps_the_regions_its_view_asks_for():
    boxes = np.array([[0, 0, 20, 20], [70, 50, 100, 80.0]])
    spec = ViewSpec(scale=(0.1, 0.4), regions=dict(kept=0.6, at_least=1, tries=10))
    shown = 0
    for index in range(200):
        crop = draw_crop_of_regions(keyed_rng(0, "crop", 0, index), (100, 80), spec, boxes)
        x, y = np.meshgrid(np.arange(crop.left, crop.left + crop.width), np.arange(crop.top, crop.top + crop.height))
        inside = [((x >= x0) & (x < x1) & (y >= y0) & (y < y1)).sum() for x0, y0, x1, y1 in boxes]
        np.testing.assert_allclose(kept_in_crop(boxes, crop), np.array(inside) / [400, 900])
        shown += (kept_in_crop(boxes, crop) > 0.6).any()
    first = [draw_crop(keyed_rng(0, "crop", 0, index), (100, 80), spec) for index in range(200)]
    once = sum((kept_in_crop(boxes, crop) > 0.6).any() for crop in first)
    assert shown > once + 40


@pytest.mark.parametrize(
    ("counts", "regions", "at_least", "expected"),
    [
        ([], 3, 1, None),
        ([1], 3, 1, 0),
        ([0], 3, 1, None),
        ([0, 2], 3, 1, 1),
        ([1], 1, 2, 0),  # no more than there are can be asked for
        ([0], 0, 1, 0),
        ([1, 0, 1], 3, 2, 2),  # the tries are over: the latest of the best
        ([1, 1, 0], 3, 2, 1),
    ],
)
def test_which_try_is_taken(counts, regions, at_least, expected):
    assert choose_try(counts, regions, at_least, tries=3) == expected


def test_errors_name_the_key(folder):
    with pytest.raises(ValueError, match=r"views\.regions.*dataset\.regions"):
        UnlabelledImages(str(folder), [dict(VIEW, regions=dict(kept=0.6, at_least=1, tries=10))])
    with pytest.raises(ValueError, match=r"regions has keys .'kept'., expected kept, at_least and tries"):
        ViewSpec(regions=dict(kept=0.6))
