"""Regions made elsewhere, in files as their makers write them."""

import json
import os
import pickle

import numpy as np
import pytest
import torch
from PIL import Image

from densessl.regions import RegionStore, StoreError
from densessl.regions.importing import import_regions
from densessl.regions.match import match_paths
from densessl.weights.io.array_pickles import RefusedPickle, load_arrays

SIZES = {"train/a.png": (60, 40), "train/b.png": (50, 70), "more/b.png": (30, 30)}
BOXES = {  # whole numbers, which a store gives back exactly; best first
    "train/a.png": [[10, 5, 30, 20], [0, 0, 60, 40], [1, 2, 3, 4]],
    "train/b.png": [[20, 20, 50, 60]],
    "more/b.png": [],
}
SCORES = {"train/a.png": [0.9, 0.5, 0.1], "train/b.png": [0.3], "more/b.png": []}


def boxes_of(path, dtype=np.float32):
    return np.array(BOXES[path], dtype).reshape(-1, 4)


def check(store, expected=BOXES):
    """The store has exactly these images and boxes."""
    store = RegionStore(store)
    assert {path: (size, draws[0].boxes.tolist()) for path, size, draws in store} == {
        path: (SIZES[path], boxes) for path, boxes in expected.items()
    }


@pytest.fixture
def folder(tmp_path):
    for path, size in SIZES.items():
        place = tmp_path / "data" / path
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", size).save(place)
    return tmp_path / "data"


def coco(sized=True):
    images = [dict(id=7 * number, file_name=path) for number, path in enumerate(SIZES)]
    for image in images:
        if sized:
            image["width"], image["height"] = SIZES[image["file_name"]]
    annotations = [
        dict(image_id=image["id"], bbox=[x0, y0, x1 - x0, y1 - y0], category_id=1, iscrowd=0)
        for image in images
        for x0, y0, x1, y1 in BOXES[image["file_name"]]
    ]
    annotations.append(dict(image_id=0, bbox=[0, 0, 9, 9], category_id=1, iscrowd=1))
    return dict(images=images, annotations=annotations)


def written(place, content):
    if place.suffix == ".json":
        place.write_text(json.dumps(content))
    else:
        with open(place, "wb") as file:
            pickle.dump(content, file)
    return place


def test_coco_annotations_come_in_their_order_without_crowds(tmp_path):
    report = import_regions(written(tmp_path / "instances.json", coco()), tmp_path / "store")
    check(tmp_path / "store")
    assert (report.images, report.boxes, report.clipped, report.dropped) == (3, 4, 0, 0)
    assert RegionStore(tmp_path / "store").lookup("train/a.png")[0].levels.tolist() == [1, 1, 1]


def test_sizes_that_the_json_lacks_are_those_of_the_files(tmp_path, folder):
    source = written(tmp_path / "instances.json", coco(sized=False))
    import_regions(source, tmp_path / "store", data=folder)
    check(tmp_path / "store")
    beside = written(folder / "instances.json", coco(sized=False))
    import_regions(beside, tmp_path / "beside")
    check(tmp_path / "beside")
    (folder / "train/a.png").write_bytes(b"no image")
    report = import_regions(source, tmp_path / "fewer", data=folder)
    check(tmp_path / "fewer", {path: BOXES[path] for path in ("train/b.png", "more/b.png")})
    assert list(report.unreadable) == ["train/a.png"] and "1 are unreadable: train/a.png (none of JPEG" in str(report)
    assert RegionStore(tmp_path / "fewer").manifest["about"]["unreadable"] == report.unreadable


def test_coco_results_come_by_score(tmp_path):
    data = written(tmp_path / "images.json", coco())
    results = [
        dict(image_id=7 * number, category_id=1, bbox=[x0, y0, x1 - x0, y1 - y0], score=score)
        for number, path in enumerate(SIZES)
        for (x0, y0, x1, y1), score in zip(BOXES[path], SCORES[path])
    ]
    source = written(tmp_path / "results.json", results[::-1])
    report = import_regions(source, tmp_path / "store", data=data)
    check(tmp_path / "store", {path: boxes for path, boxes in BOXES.items() if boxes})
    assert report.without == 1
    with pytest.raises(ValueError, match=r"results\.json is a list of results: give --data"):
        import_regions(source, tmp_path / "other")
    with pytest.raises(ValueError, match=r"images\.json has no image with the id 99"):
        import_regions(written(source, [dict(results[0], image_id=99)]), tmp_path / "other", data=data)


def test_boxes_are_clipped_dropped_and_cut_after_they_are_ordered(tmp_path):
    boxes = [[-5, 3, 20, 99], [70, 3, 90, 20], [7, 7, 7, 9], [np.nan, 0, 9, 9], [4, 4, 8, 8], [1, 1, 2, 2]]
    scores = [0.5, 1, 1, 1, 0.7, 0.1]
    np.savez(tmp_path / "boxes.npz", **{"train/a.png": np.column_stack([boxes, scores])})
    data = written(tmp_path / "images.json", coco())
    report = import_regions(tmp_path / "boxes.npz", tmp_path / "store", data=data, top=2)
    check(tmp_path / "store", {"train/a.png": [[4, 4, 8, 8], [0, 3, 20, 40]]})
    assert (report.boxes, report.clipped, report.dropped, report.beyond, report.without) == (2, 1, 3, 1, 2)
    assert "1 clipped" in str(report) and "3 empty" in str(report) and "2 images of the data have no" in str(report)


def packed(**changes):
    counts = [len(boxes) for boxes in BOXES.values()]
    arrays = dict(
        paths=np.array(list(BOXES)),
        boxes=np.concatenate([boxes_of(path) for path in BOXES]),
        offsets=np.cumsum([0, *counts]),
        sizes=np.array(list(SIZES.values())),
        levels=np.array([3, 1, 2, 4]),
    )
    return {name: array for name, array in (arrays | changes).items() if array is not None}


def test_packed_npz(tmp_path, folder):
    np.savez(tmp_path / "boxes.npz", **packed())
    import_regions(tmp_path / "boxes.npz", tmp_path / "store")
    check(tmp_path / "store")
    assert RegionStore(tmp_path / "store").lookup("train/a.png")[0].levels.tolist() == [3, 1, 2]
    np.savez(tmp_path / "boxes.npz", **packed(scores=np.array([1, 2, 3, 4]), sizes=None))
    import_regions(tmp_path / "boxes.npz", tmp_path / "scored", data=folder)
    check(tmp_path / "scored", BOXES | {"train/a.png": BOXES["train/a.png"][::-1]})
    assert RegionStore(tmp_path / "scored").lookup("train/a.png")[0].levels.tolist() == [2, 1, 3]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(offsets=np.array([0, 3, 4, 5])), "offsets have to rise from 0 to 4"),
        (dict(offsets=np.array([0, 4, 3, 4])), "offsets have to rise from 0 to 4"),
        (dict(levels=np.array([1])), "1 levels, expected 4"),
        (dict(size=np.array([1])), r"has arrays \['size'\]"),
        (dict(sizes=None), "does not say the sizes of its images: give --data"),
        (dict(paths=np.array([{}, 1, 2], dtype=object)), "Object arrays cannot be loaded"),
    ],
)
def test_wrong_npz_is_refused(tmp_path, changes, message):
    np.savez(tmp_path / "boxes.npz", **packed(**changes))
    with pytest.raises(ValueError, match=message):
        import_regions(tmp_path / "boxes.npz", tmp_path / "store")
    assert not (tmp_path / "store" / "manifest.json").exists()


def test_proposals_of_mmdetection_3(tmp_path, folder):
    """As DumpProposals makes them: by the last two parts of the path."""
    pytest.importorskip("mmdet")
    from mmdet.evaluation.metrics import DumpProposals
    from mmengine.structures import InstanceData

    metric = DumpProposals(output_dir=str(tmp_path), proposals_file="proposals.pkl")
    samples = []
    for path in SIZES:
        order = np.random.default_rng(0).permutation(len(BOXES[path]))
        found = InstanceData(
            bboxes=torch.from_numpy(boxes_of(path)[order]),
            scores=torch.tensor(SCORES[path], dtype=torch.float32)[order],
        )
        samples.append(dict(img_path=str(folder / path), pred_instances=found))
    metric.process({}, samples)
    metric.compute_metrics(metric.results)
    import_regions(tmp_path / "proposals.pkl", tmp_path / "store", data=folder)
    check(tmp_path / "store")
    import_regions(tmp_path / "proposals.pkl", tmp_path / "below", data=folder / "train")
    assert sorted(RegionStore(tmp_path / "below").paths()) == ["a.png", "b.png"]


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_what_a_pickle_may_hold(tmp_path, protocol):
    structures = pytest.importorskip("mmengine.structures")
    held = structures.InstanceData(metainfo=dict(img_shape=(3, 4)), bboxes=torch.rand(5, 4)[1:4], labels=np.arange(3))
    arrays = dict(
        fortran=np.arange(6.0).reshape(2, 3).T,
        big_endian=np.arange(4, dtype=">i4"),
        words=np.array(["one", "three"]),
        ragged=np.array([np.zeros((1, 5)), np.ones((2, 5), np.float32), None], dtype=object),
        empty=np.zeros((0, 5), np.float32),
    )
    with open(tmp_path / "all.pkl", "wb") as file:
        pickle.dump([held, arrays, np.float32(0.25), b"\0\xff", {1, 2}], file, protocol)
    loaded, again, number, text, numbers = load_arrays(tmp_path / "all.pkl")
    assert torch.equal(loaded.bboxes, held.bboxes) and np.array_equal(loaded.labels, [0, 1, 2])
    assert (number, text, numbers) == (0.25, b"\0\xff", {1, 2})
    for name, array in arrays.items():
        if name == "ragged":
            assert [None if one is None else one.tolist() for one in again[name]] == [
                [[0.0] * 5],
                [[1.0] * 5] * 2,
                None,
            ]
        else:
            assert np.array_equal(again[name], array) and again[name].dtype.newbyteorder(
                "="
            ) == array.dtype.newbyteorder("=")


def test_proposals_of_mmdetection_2_are_in_the_order_of_the_images(tmp_path, folder):
    arrays = [np.column_stack([boxes_of(path), np.array(SCORES[path], np.float32)]) for path in SIZES]
    source = written(tmp_path / "proposals.pkl", arrays)
    data = written(tmp_path / "images.json", coco())
    import_regions(source, tmp_path / "store", data=data)
    check(tmp_path / "store")
    with pytest.raises(ValueError, match=r"proposals of 2 images, .*json has 3"):
        import_regions(written(tmp_path / "short.pkl", arrays[:2]), tmp_path / "short", data=data)
    with pytest.raises(ValueError, match="a list of proposals: give --data"):
        import_regions(source, tmp_path / "short")


@pytest.mark.parametrize("xywh", [False, True])
def test_proposals_of_detectron2(tmp_path, xywh):
    order = [2, 0, 1]
    paths = [list(SIZES)[number] for number in order]
    content = dict(
        ids=[7 * number for number in order],
        boxes=[boxes_of(path)[::-1].copy() for path in paths],
        objectness_logits=[np.array(SCORES[path][::-1], np.float32) for path in paths],
        bbox_mode=int(xywh),
    )
    if xywh:
        for boxes in content["boxes"]:
            boxes[:, 2:] -= boxes[:, :2]
    source = written(tmp_path / "proposals.pkl", content)
    import_regions(source, tmp_path / "store", data=written(tmp_path / "images.json", coco()))
    check(tmp_path / "store")


def test_detectron2_ids_may_be_the_names_of_the_files(tmp_path, folder):
    (folder / "more/b.png").unlink()
    content = dict(indexes=["b", "a"], boxes=[boxes_of(f"train/{name}.png") for name in "ba"])
    import_regions(written(tmp_path / "voc.pkl", content), tmp_path / "store", data=folder)
    check(tmp_path / "store", {path: BOXES[path] for path in ("train/b.png", "train/a.png")})


class Made:
    """Pickles as ``function(*args)``, then given ``state``."""

    def __init__(self, function, *args, state=None):
        self.made = function, args, state

    def __reduce__(self):
        return self.made


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_no_code_of_a_pickle_is_run(tmp_path, folder, protocol):
    bait = tmp_path / "bait"
    calls = [
        Made(os.system, f"touch {bait}"),
        Made(eval, f"open({str(bait)!r}, 'w')"),
        Made(open, str(bait), "w"),
        Made(getattr, np.ones(3), "tofile"),
    ]
    for call in calls:
        with open(tmp_path / "bad.pkl", "wb") as file:
            pickle.dump({"train/a.png": call}, file, protocol)
        with pytest.raises(RefusedPickle, match=r"bad\.pkl: names \S+, which could run code"):
            import_regions(tmp_path / "bad.pkl", tmp_path / "store", data=folder)
        assert not bait.exists()
    pickle.loads(pickle.dumps(calls[0]))
    assert bait.exists(), "the bait does not work, so this test shows nothing"


def test_code_inside_a_tensor_and_other_types_are_refused(tmp_path):
    bait = tmp_path / "bait"
    inner = pickle.dumps(Made(os.system, f"touch {bait}"), protocol=2)
    storage = Made(torch.storage._load_from_bytes, inner)
    with pytest.raises(RefusedPickle, match="it is damaged, cut short, or of another kind"):
        load_arrays(written(tmp_path / "bad.pkl", storage))
    assert not bait.exists()
    # A type of objects that says it has none: numpy would take the eight bytes for a pointer, here to nothing.
    forged = Made(np.dtype, "O8", False, True, state=(3, "|", None, None, None, -1, -1, 0))
    array = Made(np.zeros(0).__reduce__()[0], np.ndarray, (0,), b"b", state=(1, (1,), forged, False, bytes(8)))
    with pytest.raises(RefusedPickle, match="it is damaged, cut short, or of another kind"):
        load_arrays(written(tmp_path / "bad.pkl", array))
    assert pickle.loads(pickle.dumps(array)).tolist() == [None]
    (tmp_path / "bad.pkl").write_bytes(pickle.dumps(np.zeros(1, "V8")))
    with pytest.raises(RefusedPickle, match="array of type 'V8'"):
        load_arrays(tmp_path / "bad.pkl")
    (tmp_path / "bad.pkl").write_bytes(b"no pickle")
    with pytest.raises(RefusedPickle, match="it is damaged, cut short, or of another kind"):
        load_arrays(tmp_path / "bad.pkl")


def test_errors(tmp_path, folder):
    source = written(tmp_path / "proposals.pkl", {"other/z.png": boxes_of("train/a.png")})
    with pytest.raises(ValueError, match=r"no name in .* means an image of .*'other/z.png', the data has 'more/b.png'"):
        import_regions(source, tmp_path / "store", data=folder)
    with pytest.raises(ValueError, match=r"expected \.json, \.npz, \.pkl, \.pickle; or say which"):
        import_regions(written(tmp_path / "boxes.mat", {}), tmp_path / "store")
    with pytest.raises(ValueError, match="format is 'voc', expected one of"):
        import_regions(source, tmp_path / "store", format="voc")
    with pytest.raises(ValueError, match=r"not in COCO format: expected a list under 'images'"):
        import_regions(written(tmp_path / "a.json", {}), tmp_path / "store")
    with pytest.raises(ValueError, match=r"annotations\[0\] has no 'bbox'"):
        import_regions(
            written(tmp_path / "a.json", dict(images=[], annotations=[dict(image_id=1)])), tmp_path / "store"
        )
    with pytest.raises(ValueError, match=r"shape \(2, 3\)"):
        import_regions(written(source, {"train/a.png": np.zeros((2, 3))}), tmp_path / "store", data=folder)
    good = written(source, {"train/a.png": boxes_of("train/a.png"), "nowhere.png": boxes_of("train/a.png")})
    report = import_regions(good, tmp_path / "store", data=folder)
    assert report.unmatched == ["nowhere.png"] and "1 mean no one image of the data: nowhere.png" in str(report)
    with pytest.raises(StoreError, match="is a store of regions already"):
        import_regions(good, tmp_path / "store", data=folder)


def test_a_path_that_comes_twice_is_one_path():
    assert match_paths(["a.png"], ["x/a.png", "x/a.png"]) == {"a.png": "x/a.png"}


def test_names_mean_paths_that_end_alike():
    paths = ["a/1.jpg", "b/1.jpg", "c/d/2.jpg", "3.jpg", "x3.jpg"]
    names = ["b/1.jpg", "1.jpg", "d/2.jpg", "root/3.jpg", "e/2.jpg", "4.jpg"]
    assert match_paths(names, paths) == {"b/1.jpg": "b/1.jpg", "d/2.jpg": "c/d/2.jpg", "root/3.jpg": "3.jpg"}
    # Two names that mean one path are not told apart, unless one of them fits better.
    assert match_paths(["train/1.jpg", "val/1.jpg"], ["1.jpg"]) == {}
    assert match_paths(["train/1.jpg", "1.jpg"], ["1.jpg"]) == {"1.jpg": "1.jpg"}
    assert match_paths(["train/1.jpg", "val/1.jpg"], ["1.jpg"], "/data/val") == {"val/1.jpg": "1.jpg"}
    assert match_paths(["1.jpg"], ["1.jpg", "a/1.jpg"]) == {"1.jpg": "1.jpg"}
