"""Random numbers a view carries for an objective are a function of epoch, image, view and name."""

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.utils.data import DataLoader

from densessl.data import KeySampler, UnlabelledImages, collate_views
from densessl.data.views import expand_views

PLAIN = [dict(size=8), dict(size=8, repeat=2)]
VIEWS = [dict(PLAIN[0], uniforms=dict(mask=6)), dict(PLAIN[1], uniforms=dict(mask=6, order=3))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(4):
        Image.fromarray(np.full((20, 20, 3), number, np.uint8)).save(root / f"{number}.png")
    return str(root)


def numbers(dataset, epoch, index):
    """All uniforms of a sample, by (view, name)."""
    draws = dataset[epoch, index].draws
    return {(view, name): row[name] for view, row in enumerate(draws) for name in row if name != "photometric"}


def test_the_batch_carries_them_by_view_and_name(folder):
    dataset = UnlabelledImages(folder, VIEWS)
    batch = collate_views([dataset[0, index] for index in range(3)])
    found = [{name: tuple(row.shape) for name, row in draws.items() if name != "photometric"} for draws in batch.draws]
    assert found == [dict(mask=(3, 6)), *[dict(mask=(3, 6), order=(3, 3))] * 2]
    for index in range(3):
        for (view, name), row in numbers(dataset, 0, index).items():
            assert np.array_equal(batch.draws[view][name][index], row)


def test_every_epoch_image_view_and_name_has_numbers_of_its_own(folder):
    dataset = UnlabelledImages(folder, VIEWS)
    keys = [(epoch, index) for epoch in range(40) for index in range(4)]
    rows = [row for key in keys for row in numbers(dataset, *key).values()]
    assert len({row[0] for row in rows}) == len(rows) == 40 * 4 * 5
    everything = np.concatenate(rows)
    assert everything.min() >= 0 and everything.max() < 1 and stats.kstest(everything, "uniform").pvalue > 1e-3
    again, other = UnlabelledImages(folder, VIEWS), UnlabelledImages(folder, VIEWS, seed=1)
    assert all(np.array_equal(row, numbers(again, 3, 2)[key]) for key, row in numbers(dataset, 3, 2).items())
    assert all(not np.array_equal(row, numbers(other, 3, 2)[key]) for key, row in numbers(dataset, 3, 2).items())


def test_they_touch_no_other_draw_and_stay_when_ops_run_in_the_workers(folder):
    """Not even when they are named like one: crops and pixels are those of a data set without them."""
    named = [dict(PLAIN[0], uniforms=dict(crop=4)), PLAIN[1]]
    plain, other = (UnlabelledImages(folder, views)[2, 1] for views in (PLAIN, named))
    assert all(np.array_equal(a, b) for a, b in zip(plain.views, other.views))
    crop = UnlabelledImages(folder, [dict(size=8, uniforms=dict(crop=4)), dict(size=8, uniforms=dict(mask=4))])[2, 1]
    assert not np.array_equal(crop.draws[0]["crop"], crop.draws[1]["mask"])
    worker = UnlabelledImages(folder, VIEWS, photometric_on="worker")
    device = numbers(UnlabelledImages(folder, VIEWS), 2, 1)
    assert "photometric" not in worker[2, 1].draws[0]
    assert device.keys() == numbers(worker, 2, 1).keys()
    assert all(np.array_equal(row, device[key]) for key, row in numbers(worker, 2, 1).items())


def test_the_count_of_workers_does_not_matter(folder):
    def batches(workers):
        dataset = UnlabelledImages(folder, VIEWS)
        sampler = KeySampler(dataset, seed=5)
        return list(DataLoader(dataset, 2, sampler=sampler, num_workers=workers, collate_fn=collate_views))

    for first, second in zip(batches(0), batches(2), strict=True):
        assert torch.equal(first.keys, second.keys)
        for a, b in zip(first.draws, second.draws):
            assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_name_of_the_photometric_draws_is_refused():
    with pytest.raises(ValueError, match=r"views\[1\].uniforms has 'photometric'"):
        expand_views([dict(size=8), dict(size=8, uniforms=dict(photometric=2))])
