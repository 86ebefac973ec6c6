"""A store is checked as a whole."""

import json

import numpy as np
import pytest
from PIL import Image

from densessl.regions import Proposals, RegionStore, StoreError, write_store
from densessl.regions.check import check
from densessl.regions.draw import FOUND, MISSED, Shown, draw_regions
from densessl.regions.recall import Recall

SIZE = 90, 60
NAMES = [f"val/{number}.png" for number in range(9)]


@pytest.fixture
def made(tmp_path):
    """A store, the folder of its images, and their annotations by path."""
    rng = np.random.default_rng(0)
    found, truth = {}, {}
    (tmp_path / "data/val").mkdir(parents=True)
    for name in NAMES:
        pixels = rng.integers(0, 256, (SIZE[1], SIZE[0], 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / name)
        low = rng.integers(0, 40, (200, 2))
        found[name] = np.concatenate([low, low + rng.integers(3, 20, (200, 2))], 1)
        truth[name] = found[name][rng.integers(0, 200, 4)] + rng.integers(0, 3, (4, 4))
    images = [(name, SIZE, [Proposals.plain(found[name])]) for name in NAMES]
    write_store(tmp_path / "store", images, dict(unreadable={"val/z.png": "cut short"}))
    return tmp_path, found, truth


def write_coco(place, truth, size=SIZE):
    images, annotations = [], []
    for number, (name, boxes) in enumerate(truth.items()):
        images.append(dict(id=number, file_name=name, width=size[0], height=size[1]))
        for x0, y0, x1, y1 in np.asarray(boxes).tolist():
            one = dict(image_id=number, bbox=[x0, y0, x1 - x0, y1 - y0], area=1100, iscrowd=0, category_id=3)
            annotations += [one, dict(one, iscrowd=1)]
    place.write_text(json.dumps(dict(images=images, annotations=annotations)))
    return place


def test_recall_is_that_of_the_images_that_both_have(made):
    tmp_path, found, truth = made
    known = {f"coco/{name}": truth[name] for name in NAMES[2:]} | {"coco/val/other.png": [[0, 0, 9, 9]]}
    report = check(tmp_path / "store", coco=write_coco(tmp_path / "instances.json", known))
    expected = Recall((10, 50, 100, 1000))
    for name in NAMES[2:]:
        expected.add(found[name], truth[name], np.full(4, 1100))
    expected = expected.table()
    assert report.annotated == (7, 8) and report.resized == 0
    assert report.recall.at == expected.at and report.recall.objects == expected.objects
    assert report.recall.objects == dict(all=28, small=0, medium=28, large=0)
    for size in ("all", "medium"):
        assert np.array_equal(report.recall.abo[size], expected.abo[size])
        assert np.array_equal(report.recall.ar[size], expected.ar[size])
    text = str(report)
    assert "all checksums agree" in text and "7 of 8 annotated images" in text and "val/z.png: cut short" in text
    assert max(map(len, text.splitlines()[1:])) <= 100  # the first line has the path


def test_recall_at_a_thousand_only_where_there_are_more_than_a_hundred(made):
    tmp_path, found, truth = made
    write_store(tmp_path / "few", [(name, SIZE, [Proposals.plain(found[name][:100])]) for name in NAMES], {})
    report = check(tmp_path / "few", coco=write_coco(tmp_path / "instances.json", truth))
    assert report.recall.at == (10, 50, 100)


def test_annotations_of_other_images_are_refused(made):
    tmp_path, _, truth = made
    other = write_coco(tmp_path / "other.json", {"test/1.png": [[0, 0, 9, 9]]})
    with pytest.raises(ValueError, match=r"none of the 1 image of .*'test/1\.png', is among the 9 of .*'val/0\.png'"):
        check(tmp_path / "store", coco=other)
    report = check(tmp_path / "store", coco=write_coco(tmp_path / "small.json", truth, size=(45, 30)))
    assert report.resized == 9 and report.recall.objects["all"] == 0
    assert "9 of them have another size" in str(report)


def test_a_damaged_store_is_refused(made):
    tmp_path, _, _ = made
    place = tmp_path / "store" / "boxes.bin"
    content = bytearray(place.read_bytes())
    content[1000] ^= 1
    place.write_bytes(content)
    with pytest.raises(StoreError, match=r"boxes\.bin is damaged"):
        check(tmp_path / "store")


def test_the_picture_shows_objects_and_boxes(made):
    tmp_path, _, truth = made
    (tmp_path / "data" / NAMES[0]).write_bytes(b"no image")
    coco = write_coco(tmp_path / "instances.json", truth)
    report = check(tmp_path / "store", coco=coco, data=tmp_path / "data", picture=tmp_path / "with.png")
    plain = check(tmp_path / "store", data=tmp_path / "data/val")
    assert plain.picture == tmp_path / "store" / "check.png" and plain.recall is None
    RegionStore(tmp_path / "store").verify()
    with Image.open(report.picture) as wide, Image.open(plain.picture) as narrow:
        assert wide.width > narrow.width > 600
    with pytest.raises(ValueError, match="needs data"):
        check(tmp_path / "store", picture=tmp_path / "with.png")
    (tmp_path / "else").mkdir()
    Image.new("RGB", SIZE).save(tmp_path / "else/a.png")
    with pytest.raises(ValueError, match=r"no image of .*else"):
        check(tmp_path / "store", data=tmp_path / "else")


def test_boxes_are_drawn_where_they_are():
    """Of a 560 x 280 black image, which is not scaled, by the colour along lines through the outlines."""
    found = Proposals(np.array([[40, 50, 240, 150], [0, 0, 20, 20.0]]), np.array([1, 8]))
    truth = np.array([[40, 50, 260, 150], [400, 100, 500, 200.0]])
    pixels = np.zeros((280, 560, 3), np.uint8)
    picture = np.asarray(draw_regions([Shown("black.png", pixels, found, truth)]), int)

    def columns(left, row, colour):
        line = picture[10 + row, left : left + 560]
        return np.flatnonzero((abs(line - colour) < 40).all(1))

    left, right = 10, 10 + 560 + 10
    yellow = columns(left, 100, picture[10 + 100, left + 41])
    assert yellow.min() in (40, 41) and yellow.max() in (238, 239) and 2 <= len(yellow) <= 6
    assert picture[10 + 10, left + 1].argmax() != picture[10 + 100, left + 41].argmax()  # levels differ in colour
    green, red = columns(right, 100, FOUND), columns(right, 150, MISSED)
    assert green.max() in (258, 259) and green.min() in (40, 41)
    assert red.min() in (400, 401) and red.max() in (498, 499)
    assert len(columns(right, 150, FOUND)) == 0 or columns(right, 150, FOUND).max() < 260
