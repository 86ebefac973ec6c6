"""Batches do not depend on workers, ranks or where photometric ops run."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from densessl.data import KeySampler, UnlabelledImages, collate_views
from densessl.preprocessor import ViewPreprocessor

VIEWS = [
    dict(size=16, photometric=[dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)]),
    dict(size=12, repeat=2, photometric=[dict(type="GaussianBlur", p=0.5), dict(type="Solarize", p=0.5)]),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root, rng = tmp_path_factory.mktemp("photos"), np.random.default_rng(0)
    for number in range(11):
        size = tuple(rng.integers(20, 60, 2))
        Image.fromarray(rng.integers(0, 256, (*size, 3), dtype=np.uint8)).save(root / f"{number}.png")
    return root


def batches(folder, count, batch_size, workers=0, rank=0, world_size=1, **kwargs):
    dataset = UnlabelledImages(str(folder), VIEWS, **kwargs)
    sampler = KeySampler(dataset, seed=7)
    sampler.rank, sampler.world_size = rank, world_size
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        collate_fn=collate_views,
        drop_last=True,
        persistent_workers=workers > 0,
    )
    found, epoch = [], 0
    while len(found) < count:
        sampler.set_epoch(epoch)
        found.extend(loader)
        epoch += 1
    return found[:count]


def same(first, second):
    assert torch.equal(first.keys, second.keys)
    for a, b in zip(first.views, second.views):
        assert torch.equal(a, b)
    for a, b in zip(first.geometry, second.geometry):
        assert all(torch.equal(x, y) for x, y in zip(a, b))
    for a, b in zip(first.draws, second.draws):
        assert a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_the_first_200_batches_are_the_same_for_any_worker_count(folder):
    alone = batches(folder, 200, 3)
    for workers in (1, 4):
        for first, second in zip(alone, batches(folder, 200, 3, workers)):
            same(first, second)


def test_two_ranks_put_together_are_one_process(folder):
    alone = batches(folder, 200, 4)
    ranks = [batches(folder, 200, 2, rank=rank, world_size=2) for rank in (0, 1)]
    for whole, *parts in zip(alone, *ranks):
        for rank, part in enumerate(parts):
            assert torch.equal(whole.keys[rank::2], part.keys)
            assert all(torch.equal(a[rank::2], b) for a, b in zip(whole.views, part.views))
            assert all(torch.equal(a.matrix[rank::2], b.matrix) for a, b in zip(whole.geometry, part.geometry))
            assert all(
                torch.equal(a["photometric"][rank::2], b["photometric"]) for a, b in zip(whole.draws, part.draws)
            )


def test_every_epoch_shows_every_image_once_in_another_order(folder):
    dataset = UnlabelledImages(str(folder), VIEWS)
    sampler = KeySampler(dataset, seed=1)
    orders = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        keys = list(sampler)
        assert [key[0] for key in keys] == [epoch] * 11
        orders.append([key[1] for key in keys])
    assert all(sorted(order) == list(range(11)) for order in orders) and orders[0] != orders[1] != orders[2]


def test_photometric_in_the_worker_equals_photometric_on_the_device(folder):
    """Up to the worker's rounding to whole grey values."""
    preprocessor = ViewPreprocessor(VIEWS, mean=(0, 0, 0), std=(255, 255, 255))
    device = preprocessor(batches(folder, 1, 8)[0])
    worker = preprocessor(batches(folder, 1, 8, photometric_on="worker")[0])
    plain = batches(folder, 1, 8)[0].views
    for a, b, c in zip(device.views, worker.views, plain):
        assert (a - b).abs().max() <= 0.5 / 255 + 1e-6
        assert (a - c / 255).abs().max() > 0.1  # the ops did something


def test_views_are_channels_last_and_of_their_size(folder):
    batch = batches(folder, 1, 3)[0]
    assert [tuple(view.shape) for view in batch.views] == [(3, 3, 16, 16), (3, 3, 12, 12), (3, 3, 12, 12)]
    assert all(view.is_contiguous(memory_format=torch.channels_last) for view in batch.views)


def test_mismatched_views_are_named(folder):
    batch = batches(folder, 1, 2)[0]
    with pytest.raises(ValueError, match="gives 3 views"):
        ViewPreprocessor(VIEWS[:1])(batch)
    with pytest.raises(ValueError, match="view 0 comes with"):
        ViewPreprocessor([dict(size=16), *VIEWS[1:]])(batch)
