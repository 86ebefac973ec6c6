"""Draws of a sample are a function of seed, epoch, image, view and purpose, and differ in each of these."""

import itertools

import numpy as np
import pytest
from PIL import Image

from densessl.data import UnlabelledImages
from densessl.regions import Proposals, RegionSource
from densessl.registry import REGIONS

VIEWS = 3
JITTER = dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.2, hue=0.1, p=0.8)
KEYS = list(itertools.product(range(3), range(2)))  # epoch, index


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos")
    for number in range(2):
        Image.fromarray(np.full((60, 80, 3), number, np.uint8)).save(root / f"{number}.png")
    return str(root)


@REGIONS.register_module(force=True)
class Everything(RegionSource):
    """The whole image as its only region."""

    def propose(self, path, image, rng, epoch):
        return Proposals.plain([[0, 0, *image.source_size]])


def drawn(folder, what: str, seed: int = 0) -> list[tuple]:
    """What was drawn for each view of each key: its crop, its photometric numbers, or the cells its mask leaves."""
    view = dict(size=32, repeat=VIEWS, photometric=[JITTER], mask=dict(type="random", patch_size=4, hidden=32))
    options = dict(regions=dict(type="Everything")) if what == "crop of regions" else {}
    if options:
        view["regions"] = dict(kept=0.0, at_least=1, tries=2)
    dataset = UnlabelledImages(folder, [view], seed=seed, **options)
    samples = [dataset[key] for key in KEYS]
    if what.startswith("crop"):
        return [tuple(matrix.ravel()) for sample in samples for matrix, _, _ in sample.geometry]
    return [tuple(row[what]) for sample in samples for row in sample.draws]


@pytest.mark.parametrize("what", ["crop", "crop of regions", "photometric", "keep"])
def test_every_view_of_every_image_in_every_epoch_has_draws_of_its_own(folder, what):
    rows = drawn(folder, what)
    assert len(set(rows)) == len(rows) == len(KEYS) * VIEWS
    assert drawn(folder, what) == rows
    assert not set(drawn(folder, what, seed=1)) & set(rows)
