"""Images that changed under the same name since a store was made of them are noticed, wherever the store is used."""

import json
import os
import re
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from densessl.cli.regions import main
from densessl.data.dataset import UnlabelledImages
from densessl.files import sha256
from densessl.preflight import check_regions
from densessl.regions import RegionStore, StoreError
from densessl.regions.build import build
from densessl.regions.file_digest import END_BYTES, UNKNOWN, digest_of_file
from densessl.regions.importing import import_regions
from densessl.regions.store_format import BOXES, HEADER_BYTES, INDEX, MANIFEST, entry_type, header
from tests.regions.slow_boxes import LOG, write_images
from tests.regions.test_build import GENERATOR, content, numbers
from tests.regions.test_importing import written

CHANGED = "n1/2.png"


@pytest.fixture
def photos(tmp_path):
    return write_images(tmp_path / "photos", 9)


def change(photos):
    """Another pixel, in an image of the same size and a file of the same date."""
    before = (photos / CHANGED).stat()
    with Image.open(photos / CHANGED) as image:
        other = image.copy()
    other.putpixel((1, 1), (1, 2, 3))
    other.save(photos / CHANGED)
    os.utime(photos / CHANGED, ns=(before.st_atime_ns, before.st_mtime_ns))


def to_version_1(store):
    """Rewrite a store as the first version of the format has it, without digests."""
    manifest = json.loads((store / MANIFEST).read_bytes())
    table = np.frombuffer((store / INDEX).read_bytes(), entry_type(manifest["draws"]), offset=HEADER_BYTES)
    old = np.zeros(len(table), entry_type(manifest["draws"], 1))
    for name in old.dtype.names:
        old[name] = table[name]
    (store / INDEX).write_bytes(header(1) + old.tobytes())
    (store / BOXES).write_bytes(header(1) + (store / BOXES).read_bytes()[HEADER_BYTES:])
    for name in (INDEX, BOXES):
        manifest["files"][name] = {"bytes": (store / name).stat().st_size, "sha256": sha256(store / name)}
    (store / MANIFEST).write_text(json.dumps(manifest | dict(version=1)))


def train_on(photos, store, **options):
    regions = dict(type="RegionStore", path=str(store), **options)
    dataset = UnlabelledImages(str(photos), [dict(size=8)], regions=regions)
    check_regions(Config(dataset=dict(source=str(photos), regions=regions)), dataset.images)
    return [len(dataset[0, index].regions.boxes) for index in range(len(dataset))]


class Config(dict):
    regions = property(lambda self: self["dataset"]["regions"])
    source = property(lambda self: self["dataset"]["source"])

    def get(self, name):
        return self["dataset"].get(name)


def test_training_refuses_an_image_that_changed(tmp_path, photos):
    store = tmp_path / "store"
    build(photos, store, GENERATOR)
    counts = train_on(photos, store)
    change(photos)
    said = rf"store: .*photos/{CHANGED} has changed since its regions were made.*regions.allow_changed=True"
    with pytest.raises(StoreError, match=said):
        train_on(photos, store)
    dataset = UnlabelledImages(str(photos), [dict(size=8)], regions=dict(type="RegionStore", path=str(store)))
    assert len(dataset[0, 0].regions.boxes) == counts[0]
    with pytest.raises(StoreError, match=said):
        dataset[0, list(dataset.images.paths).index(CHANGED)]
    assert train_on(photos, store, allow_changed=True) == counts


def test_check_names_the_images_that_changed(tmp_path, photos, capsys):
    store = tmp_path / "store"
    build(photos, store, GENERATOR)
    words = ["check", str(store), "--data", str(photos)]
    assert main(words) == 0
    assert "9 files compared, all as they were when their regions were made" in capsys.readouterr().out
    change(photos)
    assert main(words) == 2
    said = capsys.readouterr()
    assert f"images: 1 of 9 have changed since their regions were made: {CHANGED}" in said.out
    assert re.search(rf"1 image of .*photos changed since .*such as '{CHANGED}'", said.err)


def test_a_finished_store_of_other_images_is_not_taken_for_theirs(tmp_path, photos):
    store = tmp_path / "store"
    build(photos, store, GENERATOR)
    before = content(store)
    build(photos, store, GENERATOR)
    change(photos)
    with pytest.raises(StoreError, match=rf"1 of the 9 images .* have changed in .*such as '{CHANGED}'. Remove "):
        build(photos, store, GENERATOR)
    assert content(store) == before


def test_an_interrupted_build_does_changed_images_again(tmp_path, photos, monkeypatch, capsys):
    store = tmp_path / "store"
    monkeypatch.setattr("densessl.regions.build._finish", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        build(photos, store, GENERATOR)
    monkeypatch.undo()
    change(photos)
    monkeypatch.setenv(LOG, str(tmp_path / "log"))
    build(photos, store, GENERATOR)
    assert f"1 image changed since the last build, such as '{CHANGED}': done again" in capsys.readouterr().out
    assert len((tmp_path / "log").read_text().splitlines()) == 1 and len(numbers(tmp_path / "log")) == 1
    build(photos, tmp_path / "anew", GENERATOR)
    assert content(store) == content(tmp_path / "anew")


def test_imported_regions_remember_the_images_too(tmp_path, photos):
    boxes = {path: np.array([[0.0, 0, 5, 5]]) for path in ("n0/0.png", CHANGED)}
    import_regions(written(tmp_path / "p.pkl", boxes), tmp_path / "store", data=photos)
    store = RegionStore(tmp_path / "store")
    assert store.digest(CHANGED) == digest_of_file(photos / CHANGED) != 0
    change(photos)
    with pytest.raises(StoreError, match="has changed since"):
        store.require(CHANGED, str(photos))
    images = [
        dict(id=1, file_name="n0/0.png", width=20, height=10),
        dict(id=2, file_name="gone.png", width=9, height=9),
    ]
    alone = written(tmp_path / "alone.json", dict(images=images, annotations=[]))
    import_regions(alone, tmp_path / "other", data=alone)
    assert RegionStore(tmp_path / "other").digest("gone.png") == 0


def test_stores_of_the_first_version_are_read(tmp_path, photos, capsys):
    store, new = tmp_path / "store", tmp_path / "new"
    build(photos, store, GENERATOR, draws=2)
    shutil.copytree(store, new)
    to_version_1(store)
    old = RegionStore(store)
    old.verify()
    for (path, size, draws), (path_2, size_2, draws_2) in zip(old, RegionStore(new), strict=True):
        assert (path, size) == (path_2, size_2) and old.digest(path) == 0
        assert all(np.array_equal(a.boxes, b.boxes) for a, b in zip(draws, draws_2, strict=True))
    change(photos)
    train_on(photos, store)
    assert main(["check", str(store), "--data", str(photos)]) == 0
    assert "the store does not say of which files it was made" in capsys.readouterr().out


@pytest.mark.parametrize("length", [0, 1, END_BYTES, END_BYTES + 1, 2 * END_BYTES, 3 * END_BYTES])
def test_the_digest_of_a_file(tmp_path, length):
    content = np.random.default_rng(0).integers(0, 256, length, np.uint8).tobytes()
    place = tmp_path / "file"
    place.write_bytes(content)
    digest = digest_of_file(place)
    assert 0 < digest < 2**64
    others = [content + b"\0", content[:-1] + bytes([content[-1] ^ 1]) if content else b"x"]
    for other in [*others, bytes([content[0] ^ 1]) + content[1:] if content else b"y"]:
        place.write_bytes(other)
        assert digest_of_file(place) != digest
    place.write_bytes(content)
    assert digest_of_file(place) == digest
    assert digest_of_file(tmp_path / "none") == 0


def test_a_file_in_an_archive_has_the_digest_of_the_file(tmp_path):
    for size in (10, END_BYTES + 5, 3 * END_BYTES):
        (tmp_path / "a.jpg").write_bytes(np.random.default_rng(size).bytes(size))
        with zipfile.ZipFile(tmp_path / "photos.zip", "w") as file:
            file.write(tmp_path / "a.jpg", "sub/a.jpg")
        inside = digest_of_file(tmp_path / "photos.zip" / "sub" / "a.jpg")
        assert inside == digest_of_file(tmp_path / "a.jpg") != UNKNOWN
    assert digest_of_file(tmp_path / "photos.zip" / "b.jpg") == UNKNOWN
