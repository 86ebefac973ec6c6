"""Overlaps and recall, against loops and against pycocotools."""

import numpy as np
import pytest

from densessl.regions.recall import SIZES, THRESHOLDS, Recall, best_overlaps, pairwise_iou


def draw_image(rng, boxes, objects, side=300):
    """Random boxes, many of them close to an object, and some objects close to another."""
    low = rng.random((objects, 2)) * side * 0.8
    truth = np.concatenate([low, low + 5 + rng.random((objects, 2)) * side * 0.6], axis=1)
    if objects > 2:
        truth[1] = truth[0] + rng.normal(size=4) * 4
    low = rng.random((boxes, 2)) * side * 0.8
    found = np.concatenate([low, low + 5 + rng.random((boxes, 2)) * side * 0.6], axis=1)
    if objects and boxes:
        near = rng.integers(objects, size=boxes)
        sides = np.tile(truth[near, 2:] - truth[near, :2], 2)
        close = truth[near] + rng.normal(size=(boxes, 4)) * 0.12 * sides
        found = np.where(rng.random((boxes, 1)) < 0.6, close, found)
    return np.concatenate([np.minimum(found[:, :2], found[:, 2:]), np.maximum(found[:, :2], found[:, 2:])], 1), truth


def iou(first, second):
    width = min(first[2], second[2]) - max(first[0], second[0])
    height = min(first[3], second[3]) - max(first[1], second[1])
    if width <= 0 or height <= 0:
        return 0.0
    areas = [(x1 - x0) * (y1 - y0) for x0, y0, x1, y1 in (first, second)]
    return width * height / (sum(areas) - width * height)


@pytest.mark.parametrize(("boxes", "objects"), [(60, 7), (3, 1), (0, 4), (9, 0)])
def test_best_overlaps_are_those_of_loops(boxes, objects):
    found, truth = draw_image(np.random.default_rng(boxes), boxes, objects)
    at = (20, 1, 40, 1000)
    expected = [[max([iou(box, one) for box in found[:k]], default=0.0) for one in truth] for k in at]
    actual = best_overlaps(found, truth, at)
    assert actual.shape == (4, objects)
    np.testing.assert_allclose(actual, np.reshape(expected, (4, objects)), rtol=1e-12)


def test_empty_boxes_overlap_nothing():
    assert pairwise_iou(np.array([[3, 3, 3, 3], [5, 5, 2, 2]]), np.array([[3, 3, 3, 3], [0, 0, 9, 9]])).max() == 0


def test_average_best_overlap_is_a_mean_over_objects_by_size():
    rng = np.random.default_rng(1)
    recall, images = Recall(at=(5, 30)), [draw_image(rng, 40, objects) for objects in (0, 1, 6, 9)]
    for boxes, truth in images:
        recall.add(boxes, truth)
    table = recall.table()
    assert table.images == 4 and table.boxes == 40 and table.objects["all"] == 16
    for size, (low, high) in SIZES.items():
        best = {5: [], 30: []}
        for boxes, truth in images:
            for one in truth:
                if low <= (one[2] - one[0]) * (one[3] - one[1]) <= high:
                    for k, values in best.items():
                        values.append(max(iou(box, one) for box in boxes[:k]))
        assert table.objects[size] == len(best[5])
        if best[5]:
            np.testing.assert_allclose(table.abo[size], [np.mean(values) for values in best.values()], rtol=1e-12)
        else:
            assert np.isnan(table.abo[size]).all() and np.isnan(table.ar[size]).all()


def coco_recall(images, areas, at):
    """{size: (len(at),)} average recall of COCOeval."""
    coco_module = pytest.importorskip("pycocotools.coco")
    from pycocotools.cocoeval import COCOeval

    truth, results = dict(images=[], categories=[{"id": 1}], annotations=[]), []
    for number, ((boxes, objects), sizes) in enumerate(zip(images, areas), start=1):
        truth["images"].append(dict(id=number))
        for (x0, y0, x1, y1), area in zip(objects, sizes):
            known = dict(image_id=number, category_id=1, bbox=[x0, y0, x1 - x0, y1 - y0], area=area, iscrowd=0)
            truth["annotations"].append(dict(known, id=len(truth["annotations"]) + 1))
        for rank, (x0, y0, x1, y1) in enumerate(boxes):
            results.append(dict(image_id=number, category_id=1, bbox=[x0, y0, x1 - x0, y1 - y0], score=1 / (1 + rank)))
    reference = coco_module.COCO()
    reference.dataset = truth
    reference.createIndex()
    evaluation = COCOeval(reference, reference.loadRes(results), "bbox")
    evaluation.params.useCats = 0
    evaluation.params.maxDets = list(at)
    evaluation.evaluate()
    evaluation.accumulate()
    recall = evaluation.eval["recall"][:, 0]  # (thresholds, areas, numbers of boxes)
    return dict(zip(evaluation.params.areaRngLbl, recall.mean(0)))


def test_average_recall_is_that_of_cocoeval():
    rng = np.random.default_rng(3)
    at = (1, 10, 50, 100)
    images = [draw_image(rng, boxes, objects) for boxes, objects in zip((120, 30, 0, 80, 60), (12, 9, 3, 25, 0))]
    twins = np.array([[0, 0, 10, 10], [4, 0, 14, 10.0]])  # a box between them may take either, the next only one
    images.append((np.array([[2, 0, 12, 10], [0, 0, 10, 10.0]]), twins))
    images.append((np.array([[0, 0, 64, 64.0]] * 3), np.array([[0, 0, 64, 64.0], [0, 0, 32, 32], [0, 0, 64, 64]])))
    areas = [np.prod(truth[:, 2:] - truth[:, :2], axis=1) * rng.choice([0.2, 1.0], len(truth)) for _, truth in images]
    areas[-1][:] = 32**2, 96**2, 32**2  # the limits of the sizes
    recall = Recall(at[::-1])
    for (boxes, truth), sizes in zip(images, areas):
        recall.add(boxes, truth, sizes)
    table, expected = recall.table(), coco_recall(images, areas, at)
    for size in SIZES:
        assert table.objects[size] > 3
        np.testing.assert_allclose(table.ar[size], expected[size][::-1], rtol=1e-12)
    # One box does not find two objects, although both overlap it well.
    many = np.mean([(best_overlaps(boxes, truth, [100]) >= t).sum() for t in THRESHOLDS for boxes, truth in images])
    assert table.ar["all"][0] < many * len(images) / table.objects["all"]


def test_table_reads_in_columns():
    recall = Recall(at=(1, 2))
    recall.add(np.array([[0, 0, 10, 10], [0, 0, 10, 20]]), np.array([[0, 0, 10, 20]]))
    lines = str(recall.table()).splitlines()
    assert lines[2].split() == ["all", "1", "0.500", "/", "0.100", "1.000", "/", "1.000"]
    assert lines[4].split() == ["medium", "0"]


def test_numbers_of_boxes_are_positive():
    with pytest.raises(ValueError, match=r"recall at .0, 10. boxes"):
        Recall(at=(0, 10))
