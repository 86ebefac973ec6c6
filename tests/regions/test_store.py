"""The store of regions: what comes back, and what is refused."""

import json
import pickle
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from densessl.data.dataset import UnlabelledImages
from densessl.regions import Proposals, RegionStore, StoreError, store, store_format, write_store
from densessl.regions.store_format import BOXES, INDEX, MANIFEST, PATHS, pack, unpack

sides = st.integers(1, 32767)


def whole_boxes(rng, size, count):
    """Boxes of whole pixels, with levels."""
    low = rng.integers(0, size, (count, 2))
    high = rng.integers(low + 1, np.array(size) + 1)
    return Proposals(np.concatenate([low, high], 1).astype(float), rng.integers(1, 400, count))


def images(count=200, draws=2, seed=0):
    rng = np.random.default_rng(seed)
    for number in range(count):
        size = tuple(rng.integers(1, 3000, 2).tolist())
        found = [whole_boxes(rng, size, rng.integers(0, 9)) for _ in range(draws)]
        yield f"n{number % 5}/image{number // 5}.jpg", size, found


def same(a, b):
    return np.array_equal(a.boxes, b.boxes) and np.array_equal(a.levels, b.levels)


@pytest.fixture
def kept(tmp_path):
    write_store(tmp_path / "store", images(), {"seed": 0})
    return tmp_path / "store"


def test_all_comes_back_in_order_with_one_basename_in_many_folders(kept):
    expected = list(images())
    read = RegionStore(kept)
    assert len(read) == len(expected) == 200 and read.draws == 2 and read.manifest["about"] == {"seed": 0}
    for (path, size, draws), (path2, size2, draws2) in zip(expected, read, strict=True):
        assert (path, size) == (path2, size2) and all(map(same, draws, draws2)) and len(draws2) == 2
    for path, size, draws in np.random.default_rng(1).permutation(np.array(expected, object)):
        for draw in range(2):
            found, found_size = read.lookup(path, draw)
            assert same(found, draws[draw]) and found_size == size and path in read
    assert read.manifest["boxes"] == sum(len(draw.boxes) for _, _, draws in expected for draw in draws)


@settings(max_examples=60, deadline=None)
@given(width=sides, height=sides)
def test_every_whole_coordinate_is_exact(width, height):
    x, y = np.arange(width + 1.0), np.arange(height + 1.0)
    for boxes in (
        np.stack([0 * x[1:], 0 * x[1:], x[1:], 0 * x[1:] + 1], 1),
        np.stack([x[:-1], 0 * x[1:], 0 * x[1:] + width, 0 * x[1:] + height], 1),
        np.stack([0 * y[1:], y[:-1], 0 * y[1:] + 1, y[1:]], 1),
    ):
        packed = pack("", (width, height), [Proposals.plain(boxes)])
        assert packed.exact and np.array_equal(unpack(packed.rows, packed.size, packed.exact).boxes, boxes)


@settings(max_examples=100, deadline=None)
@given(width=sides, height=sides, seed=st.integers(0, 2**32))
def test_other_coordinates_are_within_half_a_quantum(width, height, seed):
    rng = np.random.default_rng(seed)
    size = np.array([width, height] * 2)
    low, high = np.sort(rng.random((2, 50, 2)), axis=0)
    boxes = np.concatenate([low, high], 1)
    boxes = boxes[(boxes[:, 2:] - boxes[:, :2]).min(1) > 1 / 65535] * size
    packed = pack("", (width, height), [Proposals.plain(boxes)])
    found = unpack(packed.rows, packed.size, packed.exact)
    np.testing.assert_array_less(np.abs(found.boxes - boxes) / size, 0.5000001 / 65535)
    again = pack("", (width, height), [found])
    assert np.array_equal(again.rows, packed.rows)


def test_a_box_thinner_than_a_quantum_keeps_an_area():
    thin = np.array([[1, 1, 1 + 1e-7, 2], [0, 0, 1e-7, 1], [9.9999999, 0, 10, 1]])
    packed = pack("", (10, 10), [Proposals.plain(thin)])
    found = unpack(packed.rows, packed.size, packed.exact).boxes
    assert (found[:, 2:] > found[:, :2]).all() and (found >= 0).all() and (found <= 10).all()
    np.testing.assert_allclose(found, thin, rtol=0, atol=1.5 * 10 / 65535)


def test_whole_coordinates_of_images_too_large_for_them_are_not_rounded():
    boxes = whole_boxes(np.random.default_rng(0), (150000, 40000), 100).boxes
    packed = pack("", (150000, 40000), [Proposals.plain(boxes)])
    found = unpack(packed.rows, packed.size, packed.exact).boxes
    assert not packed.exact and (np.abs(found - boxes) <= 0.5000001 * np.array([150000, 40000] * 2) / 65535).all()


def test_equal_input_makes_equal_bytes(kept, tmp_path):
    manifest = write_store(tmp_path / "again", images(), {"seed": 0})
    assert sorted(path.name for path in kept.iterdir()) == sorted([BOXES, INDEX, PATHS, MANIFEST])
    for name in (BOXES, INDEX, PATHS, MANIFEST):
        assert (kept / name).read_bytes() == (tmp_path / "again" / name).read_bytes()
    assert json.loads((kept / MANIFEST).read_bytes()) == manifest
    assert (kept / BOXES).stat().st_size == 32 + 10 * manifest["boxes"]


def test_paths_that_are_not_utf8_survive(tmp_path):
    names = ["caf\udce9.jpg", "café.jpg", "cafe.jpg", " .jpg", "line\nbreak.jpg"]
    boxes = [Proposals.plain([[0, 0, 1, number + 1]]) for number in range(len(names))]
    write_store(
        tmp_path / "s", [(name, (9, 9), [found]) for name, found in zip(names, boxes)], {"unreadable": names[:1]}
    )
    read = RegionStore(tmp_path / "s")
    assert list(read.paths()) == names and read.manifest["about"]["unreadable"] == names[:1]
    assert all(same(read.lookup(name)[0], found) for name, found in zip(names, boxes))


@pytest.mark.parametrize("hashes", [[5], [2**64 - 1], [2**64 - 1, 2**64 - 2, 1]])
def test_images_that_share_a_hash_are_told_apart(tmp_path, monkeypatch, hashes):
    def colliding(path):
        return hashes[len(path) % len(hashes)]

    monkeypatch.setattr(store_format, "path_hash", colliding)
    monkeypatch.setattr(store, "path_hash", colliding)
    expected = list(images(30))
    write_store(tmp_path / "s", expected, {})
    read = RegionStore(tmp_path / "s")
    assert all(same(read.lookup(path, 1)[0], draws[1]) for path, _, draws in expected)
    assert "n0/image99.jpg" not in read
    with pytest.raises(ValueError, match=r"'n0/image0\.jpg' comes twice"):
        write_store(tmp_path / "t", [*expected, expected[0]], {})


def test_it_pickles_as_its_path(kept):
    read = RegionStore(kept, select=[dict(type="TopK", k=3)], uniforms=dict(jitter=2), prefix="n1/")
    pickled = pickle.dumps(read)
    assert len(pickled) < 2000
    again = pickle.loads(pickled)
    assert same(again.lookup("n1/image0.jpg")[0], read.lookup("n1/image0.jpg")[0])
    assert (again.select, again.uniforms, again.prefix) == (read.select, read.uniforms, "n1/")


def test_a_data_set_gets_the_draws_in_turns(tmp_path):
    (tmp_path / "data" / "a").mkdir(parents=True)
    Image.new("RGB", (40, 30)).save(tmp_path / "data" / "a" / "x.png")
    draws = [Proposals.plain([[number, 0, 40, 30]]) for number in range(3)]
    write_store(tmp_path / "regions", [("a/x.png", (40, 30), draws)], {})
    config = dict(type="RegionStore", path=str(tmp_path / "regions"), uniforms=dict(jitter=2))
    data = UnlabelledImages(str(tmp_path / "data"), [dict(size=16)], regions=config)
    assert [data[epoch, 0].regions.boxes[0, 0] for epoch in range(5)] == [0, 1, 2, 0, 1]
    assert data[0, 0].regions.draws["jitter"].shape == (1, 2)
    for folder, extra in (("data/a", dict(prefix="a/")), (".", dict(strip="data/"))):
        moved = tmp_path / folder
        data = UnlabelledImages(str(moved), [dict(size=16)], regions=config | extra)
        assert data[1, 0].regions.boxes[0, 0] == 1


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ("data/n2/image7.jpg", r"no regions of 'data/n2/image7\.jpg'; it has 'n2/image7\.jpg'.*regions\.strip='data/'"),
        ("image7.jpg", r"no regions of 'image7\.jpg'; it has 'n0/image7\.jpg'.*regions\.prefix='n0/'"),
        ("n9/image7.jpg", r"nearest of its 200 images is 'n0/image7\.jpg'"),
        ("n3/imagee12.jpg", r"nearest of its 200 images is 'n3/image12\.jpg'"),
    ],
)
def test_a_missing_image_is_told_with_one_like_it(kept, asked, message):
    with pytest.raises(StoreError, match=message):
        RegionStore(kept).lookup(asked)


def test_an_image_of_another_size_is_refused(kept):
    read = RegionStore(kept)
    width, height = read.lookup("n0/image0.jpg")[1]
    image = SimpleNamespace(path="/data/n0/image0.jpg", source_size=(height + 1, width))
    with pytest.raises(
        StoreError, match=rf"of {width} x {height} pixels, /data/n0/image0.jpg has {height + 1} x {width}"
    ):
        read.propose("n0/image0.jpg", image, None, 0)
    with pytest.raises(IndexError, match="draw 2 of 2"):
        read.lookup("n0/image0.jpg", 2)


def edited(**changes):
    def edit(path):
        manifest = json.loads((path / MANIFEST).read_bytes()) | changes
        (path / MANIFEST).write_text(json.dumps(manifest))

    return edit


def cut(name):
    return lambda path: (path / name).write_bytes((path / name).read_bytes()[:-1])


def version_one(path):
    data = (path / BOXES).read_bytes()
    (path / BOXES).write_bytes(data[:28] + b"\1" + data[29:])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (shutil.rmtree, "no store of regions: .*store does not exist. Make one"),
        (lambda path: (path / MANIFEST).unlink(), "has no manifest.json"),
        (lambda path: ((path / MANIFEST).unlink(), (path / "journal.bin").touch()), "is not finished. Run the same"),
        (lambda path: (path / MANIFEST).write_text("{"), "manifest.json is not JSON"),
        (edited(format="coco"), "not that of a store"),
        (edited(version=3), "says version 3, this densessl reads 1 to 2"),
        (edited(files={}), "boxes.bin has .* bytes, the manifest says None"),
        (cut(BOXES), r"boxes.bin has \d+ bytes, the manifest says \d+: cut short"),
        (cut(INDEX), r"index.bin has \d+ bytes"),
        (cut(PATHS), r"paths.bin has \d+ bytes"),
        (version_one, "boxes.bin does not begin as densessl regions of version 2"),
        (lambda path: (path / INDEX).unlink(), "index.bin is missing"),
    ],
)
def test_what_is_no_whole_store_is_refused(kept, damage, message):
    damage(kept)
    with pytest.raises(StoreError, match=message):
        RegionStore(kept)


@pytest.mark.parametrize("name", [BOXES, INDEX, PATHS])
def test_a_flipped_bit_is_found_by_verify(kept, name):
    RegionStore(kept).verify()
    data = bytearray((kept / name).read_bytes())
    data[len(data) // 2] ^= 1
    (kept / name).write_bytes(data)
    with pytest.raises(StoreError, match=f"{name} is damaged"):
        RegionStore(kept).verify()


def test_a_writer_that_fails_leaves_no_store_and_no_rubbish(tmp_path):
    def failing():
        yield from images(10)
        raise KeyError("no more")

    with pytest.raises(KeyError):
        write_store(tmp_path / "s", failing(), {})
    assert not list((tmp_path / "s").iterdir())
    write_store(tmp_path / "s", images(10), {})
    with pytest.raises(StoreError, match="is a store of regions already"):
        write_store(tmp_path / "s", images(10), {})


@pytest.mark.parametrize(
    ("size", "draws", "message"),
    [
        ((10, 0), [[[0, 0, 1, 1]]], "size"),
        ((10, 10), [], "no draw"),
        ((10, 10), [[[0, 0, 11, 1]]], r"box \[0.0, 0.0, 11.0, 1.0\] .* leaves the image of 10 x 10"),
        ((10, 10), [[[3, 0, 3, 1]]], "is empty"),
        ((10, 10), [[[0, 0, np.nan, 1]]], "not finite"),
        ((10, 10), [[[0, 0, 1, 1]]] * 2, "x.jpg has 2 draws of regions, the images before it 1"),
    ],
)
def test_what_cannot_be_stored_is_named(tmp_path, size, draws, message):
    first = ("a.jpg", (5, 5), [Proposals.plain([])])
    with pytest.raises(ValueError, match=message):
        write_store(tmp_path / "s", [first, ("x.jpg", size, [Proposals.plain(boxes) for boxes in draws])], {})


def test_levels_beyond_sixteen_bits_and_no_image_are_refused(tmp_path):
    with pytest.raises(ValueError, match="levels from 70000 to 70000"):
        pack("x", (10, 10), [Proposals(np.array([[0, 0, 1, 1.0]]), np.array([70000]))])
    with pytest.raises(ValueError, match="zero byte"):
        write_store(tmp_path / "s", [("a\0b", (9, 9), [Proposals.plain([])])], {})
    with pytest.raises(ValueError, match="no image"):
        write_store(tmp_path / "s", [], {})
