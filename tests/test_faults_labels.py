"""Faults of label files that users reported, from the settings of a run to what is trained on and measured."""

import json
from pathlib import Path

import pytest
import torch
from mmengine.registry import METRICS, DefaultScope

from densessl.errors import DensesslError, SettingError
from densessl.finetune.config.counts import count_train_set
from densessl.finetune.config.data_files import leaves
from densessl.finetune.config.prepare import read_data
from densessl.run_settings import RunSettings
from densessl.runs import run_config
from tests.finetune.labels.truth import built, perfect_ap
from tests.finetune.voc_coco_fixtures import write_coco, write_voc

pytestmark = pytest.mark.det
NAMES = ("fox", "owl", "hen")
RETINANET, MASK_RCNN = "transfer/coco/retinanet_r50_fpn_1x", "transfer/coco/mask-rcnn_r50_fpn_1x"
SMALL_COCO, SMALL_VOC = "transfer/coco/retinanet_r18_256_coco", "transfer/voc/retinanet_r18_256_voc"


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("CLASSES", ",".join(NAMES))
    return write_coco(tmp_path / "coco", NAMES, images=6)


def edit(root: Path, change, *sets: str) -> None:
    for name in sets or ("train2017", "val2017"):
        path = root / f"annotations/instances_{name}.json"
        content = json.loads(path.read_text())
        change(content)
        path.write_text(json.dumps(content))


def prepared(config: str, root: Path, **more):
    settings = RunSettings(
        config, data_root=str(root), init="none", work_dir=str(root / "run"), **{"classes": NAMES, **more}
    )
    cfg = run_config(settings)
    return cfg, read_data(cfg, settings)


def measured(cfg) -> list[float]:
    """AP of predictions equal to the built validation set, with the boxes that its evaluator knows."""
    cfg = cfg.copy()
    for entry in cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]:
        if entry["type"].endswith("CocoMetric"):
            entry["metric"] = "bbox"
            entry.pop("metric_items", None)
    return perfect_ap(cfg)


def text_ids(content):
    for each in content["annotations"]:
        each["image_id"] = str(each["image_id"])


FORMS = {
    "another order": lambda c: c["categories"].reverse(),
    "annotation ids from 0": lambda c: [a.update(id=a["id"] - 1) for a in c["annotations"]],
    "one annotation id": lambda c: [a.update(id=1) for a in c["annotations"]],
    "no area": lambda c: [a.pop("area") for a in c["annotations"]],
    "no iscrowd": lambda c: [a.pop("iscrowd") for a in c["annotations"]],
    "no size": lambda c: [(i.pop("width"), i.pop("height")) for i in c["images"]],
    "image ids as text": text_ids,
    "no bbox of one": lambda c: c["annotations"][0].update(bbox=[], segmentation=[]),
    "an ignored one": lambda c: c["annotations"][0].update(ignore=1),
    "a box of no extent": lambda c: c["annotations"][0].update(bbox=[5, 5, 0, 9]),
    "a box outside": lambda c: c["annotations"][0].update(bbox=[500, 5, 9, 9]),
    "an image without boxes": lambda c: c["annotations"].__delitem__(slice(0, 2)),
    "a category more": lambda c: c["categories"].insert(0, dict(id=77, name="newt")),
    "a category less": lambda c: (
        c["categories"].pop(1),
        c.update(annotations=[a for a in c["annotations"] if a["category_id"] != 6]),
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_perfect_predictions_have_an_ap_of_1(data, name):
    edit(data, FORMS[name], "val2017")
    cfg, lines = prepared(RETINANET, data)
    assert measured(cfg) == [1.0]
    trained, measured_on = (built(cfg, f"{part}_dataloader").metainfo["classes"] for part in ("train", "val"))
    assert tuple(trained) == tuple(measured_on) == NAMES
    fine = name in ("an image without boxes", "a category more")  # MMDetection reads them right
    assert any("instances_val2017.json" in line for line in lines) != fine


def test_a_good_file_is_used_as_it_is(data):
    cfg, lines = prepared(RETINANET, data)
    assert leaves(cfg, "train_dataloader")[0].cfg["ann_file"] == "annotations/instances_train2017.json"
    assert cfg.val_evaluator.ann_file == str(data / "annotations/instances_val2017.json")
    assert not list((data / "run").rglob("*.json")) and not any("instances" in line for line in lines)


@pytest.mark.parametrize("name", [name for name in FORMS if name not in ("a category less",)])
def test_counts_are_those_of_the_built_train_set(data, name):
    edit(data, FORMS[name], "train2017")
    cfg, lines = prepared(SMALL_COCO, data, steps=2)
    data_set = built(cfg, "train_dataloader")
    boxes = sum(
        not each["ignore_flag"] for i in range(len(data_set)) for each in data_set.get_data_info(i)["instances"]
    )
    (said,) = [line for line in lines if "boxes:" in line]
    assert f"train set: {boxes} boxes:" in said
    assert any(f"trains on {len(data_set)} of 6 images" in line for line in lines)


def test_images_without_boxes_are_trained_on_if_images_are_counted(data):
    edit(data, lambda c: c["annotations"].__delitem__(slice(0, 6)), "train2017")
    cfg, lines = prepared(SMALL_COCO, data, labels="6-images", steps=2)
    assert len(built(cfg, "train_dataloader")) == 6
    assert any("trains on 6 of 6 images; 3 of them without boxes" in line for line in lines)
    cfg, lines = prepared(SMALL_COCO, data, labels="100%", steps=2)
    assert len(built(cfg, "train_dataloader")) == 3
    assert any("trains on 3 of 6 images, left out: 3 without boxes" in line for line in lines)


def test_a_train_set_without_boxes_is_refused(data):
    edit(data, lambda c: c["annotations"].clear())
    with pytest.raises(
        SettingError, match="trains on 0 of 6 images, left out: 6 without boxes; no box of 'fox', 'owl'"
    ):
        prepared(SMALL_COCO, data, steps=2)


@pytest.mark.parametrize("change", [lambda c: c["annotations"].clear(), lambda c: c.pop("annotations")])
@pytest.mark.parametrize("config", [RETINANET, SMALL_COCO])
def test_a_validation_set_without_boxes_is_told_and_does_not_end_the_run(data, config, change):
    edit(data, change, "val2017")
    cfg, lines = prepared(config, data)
    assert any("instances_val2017.json has no object to detect, so validation has no AP" in line for line in lines)
    data_set, entry = built(cfg, "val_dataloader"), dict(cfg.val_evaluator, metric="bbox", metric_items=None)
    with DefaultScope.overwrite_default_scope("mmdet"):
        metric = METRICS.build(entry)
    metric.dataset_meta = data_set.metainfo
    for info in map(data_set.get_data_info, range(len(data_set))):
        found = dict(bboxes=torch.ones(1, 4), labels=torch.zeros(1, dtype=torch.int64), scores=torch.ones(1))
        metric.process({}, [dict(info, ori_shape=(60, 90), instances=[], pred_instances=found)])
    assert metric.evaluate(len(data_set))["coco/bbox_mAP"] == -1


@pytest.mark.parametrize("mask", [None, [], [[1, 2, 3]], {"counts": [1], "size": [1, 1]}])
def test_masks_that_lack_are_refused_or_made(data, mask):
    edit(data, lambda c: [a.update(segmentation=mask) for a in c["annotations"]])
    with pytest.raises(SettingError, match=r"12 of 12 objects have no usable mask .*--boxes-as-masks"):
        prepared(MASK_RCNN, data)
    assert not (data / "run").exists()
    cfg, _ = prepared(MASK_RCNN, data, boxes_as_masks=True)
    info = built(cfg, "train_dataloader").get_data_info(0)["instances"][0]
    x0, y0, x1, y1 = info["bbox"]
    assert info["mask"] == [[x0, y0, x1, y0, x1, y1, x0, y1]]
    assert measured(cfg) == [1.0]


@pytest.mark.parametrize("box", ["150 20 40 60", "nan 20 40 60", "1 2 1 60", "500 20 540 60"])
def test_a_broken_box_of_voc_never_reaches_the_model(tmp_path, monkeypatch, box):
    monkeypatch.setenv("CLASSES", "fox,owl")
    root = write_voc(tmp_path / "voc", images=4)
    file = root / "VOC2007/Annotations/2007_000001.xml"
    corners = "".join(f"<{tag}>{n}</{tag}>" for tag, n in zip(("xmin", "ymin", "xmax", "ymax"), box.split()))
    more = f"<object><name>fox</name><bndbox>{corners}</bndbox></object></annotation>"
    file.write_text(file.read_text().replace("</annotation>", more))
    cfg, lines = prepared(SMALL_VOC, root, classes=None, steps=2)
    data_set = built(cfg, "train_dataloader")
    boxes = [each["bbox"] for i in range(len(data_set)) for each in data_set.get_data_info(i)["instances"]]
    assert len(boxes) == (9 if box.startswith("150") else 8)
    assert all(0 <= x0 < x1 <= 90 and 0 <= y0 < y1 <= 60 for x0, y0, x1, y1 in boxes)
    assert any("trainval.txt: mended" in line or "trainval.txt: left out" in line for line in lines)
    assert measured(cfg) == [1.0, 1.0]
    assert count_train_set(cfg).boxes.total() == len(boxes)


def test_an_evaluator_of_other_images_is_refused(data):
    with pytest.raises(SettingError, match=r"val_evaluator.ann_file: .*train2017.json lists other images than"):
        prepared(
            RETINANET, data, options={"val_evaluator.ann_file": str(data / "annotations/instances_train2017.json")}
        )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda c: c["images"][1].update(file_name=c["images"][0]["file_name"]), "the file_name .* occurs 2 times"),
        (lambda c: c["images"][1].update(id=c["images"][0]["id"]), "the image id .* occurs 2 times"),
        (lambda c: c["categories"][1].update(name="fox"), "the category name 'fox' occurs 2 times"),
        (lambda c: [each.update(name="x" + each["name"]) for each in c["categories"]], "has no category named 'fox'"),
    ],
)
def test_keys_that_collide_are_refused(data, change, said):
    edit(data, change, "val2017")
    with pytest.raises(DensesslError, match=said):
        prepared(RETINANET, data)
