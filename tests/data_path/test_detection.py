"""Whole images with regions: what a region shows in the view, as a patch, and in the numbers that go with it."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch.utils.data import DataLoader

from densessl.augment.photometric import IMAGENET_MEAN, IMAGENET_STD
from densessl.data import KeySampler, RegionImages, collate_views
from densessl.data.decode import EncodedImage
from densessl.data.detection import cut_patches
from densessl.data.placed import Placed
from densessl.errors import SettingError
from densessl.geometry import affine
from densessl.preprocessor import RegionPreprocessor
from densessl.regions import Proposals, RegionSource, StoreError, write_store
from densessl.registry import REGIONS

SIZES = {"a.png": (120, 90), "b.png": (80, 120), "c.png": (100, 100), "d.png": (60, 60)}
BOXES = {
    "a.png": [[0, 0, 120, 90], [10.5, 5, 61.5, 30], [70, 40, 119.5, 88], [3, 60, 30, 85], [60, 2, 80, 22]],
    "b.png": [[5, 5, 40, 100], [41, 0, 79, 33], [20, 77, 60, 120]],
    "c.png": [[10, 10, 30, 30]],
    "d.png": [],
}
VIEW = dict(short=(60, 72, 90), longest=130, crop_short=(80, 100), crop_sides=(40, 70))
STILL = dict(VIEW, hflip=0.0, crop=0.0)
PHOTOMETRIC = [
    dict(type="ColorJitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.1, p=0.8),
    dict(type="Grayscale", p=0.2),
]


@REGIONS.register_module()
class NamedBoxes(RegionSource):
    """The boxes above, numbered by their levels."""

    def propose(self, path, image, rng, epoch):
        boxes = np.array(BOXES[path], np.float64).reshape(-1, 4)
        return Proposals(boxes, np.arange(len(boxes)) + 1)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Images are ramps: red is twice the source's x, green twice its y."""
    root = tmp_path_factory.mktemp("ramps")
    for name, (width, height) in SIZES.items():
        x, y = np.meshgrid(np.arange(width), np.arange(height))
        Image.fromarray(np.stack([2 * x, 2 * y, 0 * x], -1).astype(np.uint8)).save(root / name)
    return root


def data_set(folder, view=VIEW, regions=None, **options):
    regions = regions or dict(type="NamedBoxes")
    return RegionImages(str(folder), regions, view, **dict(dict(patch=16, at_least=0), **options))


def places(colours):
    """Source coordinates of pixels with these colours (..., 3)."""
    return np.asarray(colours)[..., :2] / 2 + 0.5


@pytest.mark.parametrize("resample", ["fast", "pil"])
def test_a_box_in_the_view_holds_what_it_held(folder, resample):
    """Each pixel of the view tells where it comes from, so which pixels a box should hold: two source pixels off its
    edges, where colours are rounded, none is on the wrong side. Boxes that are left out are nowhere in the view."""
    data, partly, gone = data_set(folder, resample=resample), 0, 0
    for epoch in range(40):
        for index in range(2):
            batch = collate_views([data[epoch, index]])
            image = batch.views[0][0].permute(1, 2, 0).numpy()
            place, regions = places(image), batch.regions
            centres = np.stack(np.meshgrid(np.arange(image.shape[1]), np.arange(image.shape[0])), -1) + 0.5
            gone += len(BOXES[["a.png", "b.png"][index]]) - len(regions.source)
            partly += (regions.kept[0] < 1).sum().item()
            for number, source in enumerate(BOXES[["a.png", "b.png"][index]]):
                depth = np.minimum(place - source[:2], source[2:] - place).min(-1)
                row = (regions.levels == number + 1).nonzero().flatten().tolist()
                assert row or (depth < 2).all()
                for box in regions.boxes[0][row].numpy():
                    inside = ((centres > box[:2]) & (centres < box[2:])).all(-1)
                    assert inside[depth > 2].all() and not inside[depth < -2].any()
                    assert (box[:2] >= 0).all() and (box[2:] <= image.shape[1::-1]).all()
    assert partly > 30 and gone > 20


def test_a_patch_shows_all_of_its_region_upright_and_uncut(folder):
    """Also where the view is mirrored or shows a part."""
    for epoch in range(10):
        regions = data_set(folder, patch=32)[epoch, 0].regions
        for patch, (x0, y0, x1, y1) in zip(regions.patches, np.rint(regions.boxes)):
            steps = (np.arange(32) + 0.5) / 32
            x, y = np.meshgrid(x0 + steps * (x1 - x0), y0 + steps * (y1 - y0))
            error = np.abs(places(patch) - np.stack([x, y], -1))
            assert error[3:-3, 3:-3].max() < 0.6  # a ramp bends where it is cut


@pytest.mark.parametrize(("resample", "tolerance"), [("pil", 0), ("fast", 1)])
def test_patches_are_pillows(resample, tolerance):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)
    corners = np.round(rng.uniform(0, [[45, 35]], (30, 2)) * 2) / 2  # halves, that are rounded to even
    boxes = np.concatenate([corners, corners + np.round(rng.uniform(3, [[45, 35]], (30, 2)) * 2) / 2], 1)
    assert (np.floor(boxes) % 2 == 0)[boxes % 1 == 0.5].any() and (np.floor(boxes) % 2 == 1)[boxes % 1 == 0.5].any()
    image = Image.fromarray(pixels)
    wanted = [np.asarray(image.crop(tuple(box)).resize((24, 24), Image.Resampling.BILINEAR)) for box in boxes]
    found = cut_patches(Placed(pixels, affine.identity(), (90, 70)), boxes, 24, resample)
    assert found.shape == (30, 24, 24, 3) and found.dtype == np.uint8
    assert np.abs(found.astype(int) - np.stack(wanted)).max() <= tolerance


def test_slivers_have_a_patch():
    image = np.zeros((20, 30, 3), np.uint8)
    image[:, 10], image[:, -1], image[7] = 40, 80, 120
    boxes = np.array([[10.2, 8, 10.4, 20], [29.7, 8, 30, 20], [0, 6.6, 30, 7.4], [29.9, 19.9, 30, 30]]).clip(
        max=[30, 20, 30, 20]
    )
    patches = cut_patches(Placed(image, affine.identity(), (30, 20)), boxes, 4)
    assert [set(patch.flatten().tolist()) for patch in patches] == [{40}, {80}, {120}, {80}]


def test_numbers_of_a_patch_do_not_depend_on_which_regions_are_left(folder):
    cut = [data_set(folder, photometric=PHOTOMETRIC)[epoch, 0].regions for epoch in range(30)]
    still = [data_set(folder, STILL, photometric=PHOTOMETRIC)[epoch, 0].regions for epoch in range(30)]
    assert min(len(regions.boxes) for regions in cut) < 4
    for some, every in zip(cut, still):
        assert len(every.boxes) == 5 and len(np.unique(every.draws["photometric"], axis=0)) == 5
        assert np.array_equal(some.draws["photometric"], every.draws["photometric"][some.levels - 1])
        assert np.array_equal(some.patches, every.patches[some.levels - 1])
    assert not np.array_equal(still[0].draws["photometric"], still[1].draws["photometric"])


def same(first, second):
    """Whether two of anything that batches are made of are equal."""
    if isinstance(first, torch.Tensor):
        return torch.equal(first, second)
    if isinstance(first, dict):
        return first.keys() == second.keys() and all(same(first[name], second[name]) for name in first)
    if isinstance(first, (tuple, list)):
        return len(first) == len(second) and all(map(same, first, second))
    return first is second is None


def batches(folder, workers, seed=0):
    data = data_set(folder, photometric=PHOTOMETRIC, at_least=2)
    sampler = KeySampler(data, seed=seed)
    loader = DataLoader(data, 2, sampler=sampler, num_workers=workers, collate_fn=collate_views)
    found = []
    for epoch in range(3):
        sampler.set_epoch(epoch)
        found.extend(loader)
    return found


def test_batches_do_not_depend_on_workers_or_other_generators(folder):
    alone = batches(folder, 0)
    np.random.seed(5)
    torch.manual_seed(5)
    assert same(alone, batches(folder, 2))
    assert not same(alone, batches(folder, 0, seed=1))


def test_images_without_regions_enough_are_replaced_and_counted(folder):
    data = data_set(folder, STILL, at_least=2)
    samples = {(epoch, index): data[epoch, index] for epoch in range(20) for index in range(4)}
    others = set()
    for (epoch, index), sample in samples.items():
        replaced = sample.draws[0]["replaced"].item()
        assert sample.key[0] == epoch and replaced == (index > 1) == (sample.key[1] != index)
        assert sample.key[1] in (0, 1) and len(sample.regions.boxes) >= 2
        others.add((index, sample.key[1]))
        again = data[epoch, index]
        assert again.key == sample.key and np.array_equal(again.views[0], sample.views[0])
    assert others == {(0, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)}
    batch = collate_views([samples[0, index] for index in range(4)])
    assert batch.draws[0]["replaced"].tolist() == [[0], [0], [1], [1]]


def test_regions_are_counted_after_the_crop_too(folder):
    data = data_set(folder, at_least=3)
    found = [data[epoch, 1] for epoch in range(60)]
    assert all(len(sample.regions.boxes) >= 3 for sample in found)
    assert 0 < sum(sample.key[1] == 0 for sample in found) < 60  # image 1 has three, of which a crop loses some


def test_sides_in_the_view_decide(folder):
    for least in (0.0, 20.0, 30.0):
        regions = collate_views([data_set(folder, dict(STILL, short=(45,)), min_side=least)[0, 0]]).regions
        sides = (regions.boxes[0][:, 2:] - regions.boxes[0][:, :2]).amin(1)
        wanted = [min(box[2] - box[0], box[3] - box[1]) / 2 for box in BOXES["a.png"]]  # half as large in the view
        assert sides.tolist() == [side for side in wanted if side > least]


def test_a_region_that_ends_where_the_view_begins_is_outside():
    view = torch.tensor([[[1.1, 0, 30.3], [0, 1.1, 0]]], dtype=torch.float64).numpy()[0]
    geometry = (view, (40, 40), (100, 100))
    data = RegionImages.__new__(RegionImages)
    data.min_side = 0.0
    edges = np.array([[0, 0, 30.3, 40], [0, 0, 30.3 + 1e-12, 40], [0, 0, 30.4, 40], [20, 20, 40, 20]])
    assert data._inside(geometry, edges).tolist() == [2]


def test_images_without_any_region_may_be_let_in(folder):
    data = data_set(folder, photometric=PHOTOMETRIC)
    for rows, owner in (((3,), []), ((2, 3, 0), [0] + [2] * 5)):
        batch = collate_views([data_set(folder, STILL, photometric=PHOTOMETRIC)[0, row] for row in rows])
        assert batch.regions.owner.tolist() == owner
        assert batch.regions.patches.shape == (len(owner), 3, 16, 16) and batch.regions.patches.dtype == torch.uint8
        assert batch.regions.draws["photometric"].shape[0] == len(owner)
        ready = RegionPreprocessor(PHOTOMETRIC)(batch)
        assert ready.regions.patches.shape == batch.regions.patches.shape
    some = ready.regions.index(torch.tensor([True, False, False, False, True, False]))
    assert torch.equal(some.patches, ready.regions.patches[[0, 4]]) and some.levels.tolist() == [1, 4]
    assert same(tuple(batch.to("cpu").regions), tuple(batch.regions))
    assert batch.to("meta").regions.patches.device.type == "meta"
    assert data_set(folder, patch=None)[0, 0].regions.patches is None and len(data) == 4


def test_padding_is_zero_and_all_else_normalised(folder):
    batch = collate_views([data_set(folder, dict(STILL, short=(60,)))[0, row] for row in (0, 1)])
    ready = RegionPreprocessor()(batch)
    assert batch.views[0].shape[2:] == (90, 80)
    mean, std = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_STD))
    for image, raw, (width, height) in zip(ready.views[0], batch.views[0], ((80, 60), (60, 90))):
        torch.testing.assert_close(image[:, :height, :width], (raw[:, :height, :width] - mean) / std)
        assert not image[:, height:].any() and not image[:, :, width:].any()
    torch.testing.assert_close(ready.regions.patches, (batch.regions.patches - mean) / std)


def test_the_preprocessor_names_the_setting_that_differs(folder):
    batch = collate_views([data_set(folder, photometric=PHOTOMETRIC)[0, 0]])
    with pytest.raises(ValueError, match=r"data_preprocessor\.photometric needs 0: .*dataset\.photometric"):
        RegionPreprocessor()(batch)


def test_errors_name_the_key(folder):
    with pytest.raises(SettingError, match=r"view has unknown keys \['shorter'\]"):
        data_set(folder, dict(shorter=3))
    for wrong in (dict(patch=0), dict(at_least=-1), dict(tries=0)):
        name, value = next(iter(wrong.items()))
        with pytest.raises(ValueError, match=rf"dataset\.{name} is {value}, expected at least"):
            data_set(folder, **wrong)
    with pytest.raises(ValueError, match=r"none of 3 images drawn for .*a\.png has 9 regions \(dataset\.at_least\)"):
        data_set(folder, at_least=9, tries=3)[0, 0]


def store(place, names):
    """A store of a hundred boxes of many levels for each."""
    rng = np.random.default_rng(0)
    low = rng.integers(0, 30, (100, 2))
    boxes = np.concatenate([low, low + rng.integers(5, 30, (100, 2))], 1).astype(np.float64)
    found = Proposals(boxes, np.repeat(np.arange(1, 11), 10))
    write_store(place, ((name, SIZES[name], [found]) for name in names), about={})
    return found


def test_rankings_are_drawn_anew_from_stored_levels(folder, tmp_path):
    stored = store(tmp_path / "store", SIZES)
    top = dict(type="TopK", k=10, ranking="uijlings")
    data = data_set(folder, STILL, dict(type="RegionStore", path=str(tmp_path / "store"), select=[top]))
    epochs = [data[epoch, 0].regions for epoch in range(200)]
    assert len({regions.boxes.tobytes() for regions in epochs}) == 200
    assert np.array_equal(data[7, 0].regions.boxes, epochs[7].boxes)
    known = {tuple(box): level for box, level in zip(stored.boxes.tolist(), stored.levels.tolist())}
    assert all(known[tuple(box)] == level for box, level in zip(epochs[0].boxes.tolist(), epochs[0].levels.tolist()))
    # Of 100 regions, the ten with the least level times uniform number: a region of level l is below t in t / l of the
    # cases, and 10 = sum of those shares = 10 t (1 + 1/2 + … + 1/10), so the l-th ten give 1 / l / 2.929 of the chosen.
    levels = np.concatenate([regions.levels for regions in epochs])
    shares = np.bincount(levels, minlength=11)[1:] / len(levels)
    wanted = 1 / np.arange(1, 11)
    np.testing.assert_allclose(shares, wanted / wanted.sum(), atol=0.03)


def test_images_that_a_store_lacks_are_told(folder, tmp_path):
    store(tmp_path / "store", ["a.png", "b.png"])
    data = data_set(folder, regions=dict(type="RegionStore", path=str(tmp_path / "store")))
    with pytest.raises(StoreError, match=r"has no regions of 'c\.png'"):
        data[0, 2]


def test_grey_and_cmyk_files_are_read(tmp_path):
    rng = np.random.default_rng(0)
    for mode in ("L", "CMYK"):
        pixels = rng.integers(0, 256, (60, 90) + ((4,) if mode == "CMYK" else ()), dtype=np.uint8)
        Image.fromarray(pixels, mode=mode).save(tmp_path / f"{mode}.jpg")
    data = data_set(tmp_path, regions=dict(type="GeneratedRegions", generator=dict(type="RandomPatches")), at_least=2)
    for index in range(2):
        sample = data[0, index]
        assert sample.views[0].shape[2] == 3 and sample.regions.patches.shape[1:] == (16, 16, 3)


def test_a_file_is_decoded_once(folder, monkeypatch):
    calls, decode = [], EncodedImage._decode
    monkeypatch.setattr(EncodedImage, "_decode", lambda self, scale: calls.append(scale) or decode(self, scale))
    data_set(folder, regions=dict(type="GeneratedRegions", generator=dict(type="RandomPatches")))[0, 0]
    assert calls == [1]
