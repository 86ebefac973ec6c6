"""Two images with one key, in every format of regions and of data sets: an error, never the last one's boxes."""

import json
import pickle
import zipfile

import numpy as np
import pytest
from PIL import Image

from densessl.errors import SettingError
from densessl.regions import RegionStore
from densessl.regions.check import check
from densessl.regions.importing import import_regions
from tests.regions.test_importing import written

SIZE = (40, 30)
ONE, TWO = [[1.0, 2, 10, 20]], [[5.0, 5, 9, 9]]


@pytest.fixture
def photos(tmp_path):
    for path in ("indoor/1.png", "outdoor/1.png", "outdoor/2.png"):
        (tmp_path / "photos" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(tmp_path / "photos" / path)
    return tmp_path / "photos"


def image(number, name, size=SIZE):
    return dict(id=number, file_name=name, width=size[0], height=size[1])


def annotation(number, box=(1, 1, 5, 5)):
    return dict(image_id=number, bbox=list(box), category_id=1)


def coco(tmp_path, images, annotations=(), name="images.json"):
    return written(tmp_path / name, dict(images=images, annotations=list(annotations)))


def detectron2(tmp_path, ids):
    boxes = [np.array(ONE), np.array(TWO)]
    return written(tmp_path / "p.pkl", dict(ids=ids, boxes=boxes, objectness_logits=[np.ones(1)] * 2, bbox_mode=0))


def refused(source, tmp_path, said, **options):
    with pytest.raises(SettingError, match=said):
        import_regions(source, tmp_path / "store", **options)
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_one_stem_in_two_folders(tmp_path, photos):
    said = r"photos has 2 images with the id 1: 'indoor/1.png' and 'outdoor/1.png'. Give the COCO json"
    refused(detectron2(tmp_path, [1, 2]), tmp_path, said, data=photos)
    refused(written(tmp_path / "r.json", [dict(annotation(1), score=1.0)]), tmp_path, said, data=photos)
    listed = tmp_path / "list.txt"
    listed.write_text("photos/indoor/1.png\nphotos/outdoor/1.png\nphotos/outdoor/2.png\n")
    refused(detectron2(tmp_path, ["1", "2"]), tmp_path, "list.txt has 2 images with the id '1'", data=listed)


def test_a_stem_that_no_box_asks_for_may_be_double(tmp_path, photos):
    source = written(tmp_path / "r.json", [dict(annotation(2), score=1.0)])
    import_regions(source, tmp_path / "store", data=photos)
    assert list(RegionStore(tmp_path / "store").paths()) == ["outdoor/2.png"]


@pytest.mark.parametrize("ids", [(3, 3), (3, "3")])
def test_one_id_of_two_images_in_a_json(tmp_path, photos, ids):
    images = [image(ids[0], "indoor/1.png"), image(ids[1], "outdoor/1.png")]
    said = "has 2 images with the id 3: 'indoor/1.png' and 'outdoor/1.png'"
    refused(coco(tmp_path, images, [annotation(3)]), tmp_path, said)
    data = coco(tmp_path, images, name="data.json")
    refused(written(tmp_path / "r.json", [dict(annotation(3), score=1.0)]), tmp_path, said, data=data)
    refused(detectron2(tmp_path, [3, 4]), tmp_path, said, data=data)


def test_one_file_with_two_ids_or_sizes_in_a_json(tmp_path):
    images = [image(1, "a.png"), image(2, "a.png")]
    refused(coco(tmp_path, images), tmp_path, "has the image 'a.png' twice, with id 1 and 2")
    images = [image(1, "a.png"), image(1, "a.png", (50, 30))]
    refused(coco(tmp_path, images), tmp_path, "has the image 'a.png' twice, with width 40 and 50")
    report = import_regions(
        coco(tmp_path, [image(1, "a.png")] * 2, [annotation(1)]), tmp_path / "store"
    )  # twice the same entry says nothing else
    assert (report.images, report.boxes) == (1, 1)


def test_one_id_twice_in_proposals(tmp_path, photos):
    data = coco(tmp_path, [image(1, "indoor/1.png"), image(2, "outdoor/1.png")], name="data.json")
    refused(detectron2(tmp_path, [2, 2]), tmp_path, r"p.pkl has the image id '2' twice", data=data)
    refused(detectron2(tmp_path, [2, "2"]), tmp_path, r"p.pkl has the image id '2' twice", data=data)


def test_one_name_twice_in_npz(tmp_path):
    packed = dict(boxes=np.array(ONE + TWO), offsets=np.array([0, 1, 2]), sizes=np.array([SIZE] * 2))
    np.savez(tmp_path / "r.npz", paths=np.array(["a.png", "a.png"]), **packed)
    refused(tmp_path / "r.npz", tmp_path, "r.npz has regions of 'a.png' twice")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize("second", ["a.png.npy", "a.png"])
def test_one_array_twice_in_npz(tmp_path, photos, second):
    with zipfile.ZipFile(tmp_path / "r.npz", "w") as archive:
        for name, boxes in (("a.png.npy", ONE), (second, TWO)):
            with archive.open(name, "w") as file:
                np.save(file, np.array(boxes))
    refused(tmp_path / "r.npz", tmp_path, "r.npz has the array 'a.png' twice", data=photos)


def test_one_image_twice_in_an_ordered_list(tmp_path, photos):
    listed = tmp_path / "list.txt"
    listed.write_text("photos/indoor/1.png\nphotos/indoor/1.png\n")
    source = written(tmp_path / "p.pkl", [np.array(ONE), np.array(TWO)])
    refused(source, tmp_path, "list.txt lists the image 'photos/indoor/1.png' twice", data=listed)


def test_an_image_listed_twice_is_matched_by_name(tmp_path, photos):
    listed = tmp_path / "list.txt"
    listed.write_text("photos/indoor/1.png\nphotos/indoor/1.png\nphotos/outdoor/1.png\n")
    source = written(tmp_path / "p.pkl", {"indoor/1.png": np.array(ONE)})
    report = import_regions(source, tmp_path / "store", data=listed)
    assert report.without == 1 and not report.unmatched
    assert RegionStore(tmp_path / "store").lookup("photos/indoor/1.png")[0].boxes.tolist() == ONE


def test_names_that_fit_two_images_are_left_out_and_told(tmp_path, photos):
    source = written(tmp_path / "p.pkl", {"1.png": np.array(ONE), "outdoor/2.png": np.array(TWO)})
    report = import_regions(source, tmp_path / "store", data=photos)
    assert report.unmatched == ["1.png"] and list(RegionStore(tmp_path / "store").paths()) == ["outdoor/2.png"]


def test_recall_is_not_measured_against_either(tmp_path, photos):
    import_regions(written(tmp_path / "p.pkl", {"outdoor/2.png": np.array(TWO)}), tmp_path / "store", data=photos)
    truth = tmp_path / "truth.json"
    truth.write_text(
        json.dumps(dict(images=[image(1, "outdoor/2.png"), image(1, "b.png")], annotations=[annotation(1)]))
    )
    with pytest.raises(SettingError, match=r"truth.json has 2 images with the id 1"):
        check(tmp_path / "store", coco=truth)


def test_a_pickle_keeps_equal_names_apart_by_folder(tmp_path, photos):
    content = {"indoor/1.png": np.array(ONE), "outdoor/1.png": np.array(TWO)}
    (tmp_path / "p.pkl").write_bytes(pickle.dumps(content))
    import_regions(tmp_path / "p.pkl", tmp_path / "store", data=photos)
    store = RegionStore(tmp_path / "store")
    assert {path: store.lookup(path)[0].boxes.tolist() for path in store.paths()} == {
        "indoor/1.png": ONE,
        "outdoor/1.png": TWO,
    }
