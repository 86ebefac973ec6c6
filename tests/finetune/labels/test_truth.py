"""Predictions equal to the truth have AP 1, and labels map back to the names in the file, on every valid file."""

import math
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from densessl.finetune.config.settle import settle_labels
from densessl.finetune.labels.cleaning import clean
from densessl.finetune.labels.voc import CORNERS
from densessl.finetune.labels.writing import coco_bytes
from densessl.finetune.labels.yolo import open_yolo, read_yolo
from tests.finetune.labels.truth import (
    NAMES,
    SIZE,
    Truth,
    built,
    coco_set,
    cocos,
    config,
    expected,
    perfect_ap,
    seen,
    truths,
    write_json,
    write_photos,
)

pytestmark = pytest.mark.det
quiet = dict(deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
COCO = dict(type="CocoMetric", metric="bbox")
VOC = dict(type="VOCMetric", eval_mode="area")  # starts processes, so few examples have it


@settings(max_examples=120, **quiet)
@given(
    data=st.data(),
    truth=truths(),
    with_file=st.booleans(),
    with_voc=st.sampled_from([0, 0, 0, 1]),
    classes=st.permutations(NAMES),
)
def test_coco(data, truth, with_file, with_voc, classes):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        train, val = (write_json(root / f"{part}.json", data.draw(cocos(truth))) for part in ("train", "val"))
        evaluators = [{**COCO, **(dict(ann_file=str(val)) if with_file else {})}, *[VOC] * with_voc]
        cfg = config(coco_set(train, classes), coco_set(val, classes, test_mode=True), evaluators)
        settle_labels(cfg, False, root / "labels")
        for loader in ("train_dataloader", "val_dataloader"):
            assert seen(built(cfg, loader), root) == expected(truth)
        assert perfect_ap(cfg, expected(truth), root) == [1.0] * len(evaluators)


@settings(max_examples=30, **quiet)
@given(truth=truths(whole=True), sized=st.booleans(), shift=st.sampled_from([0, 0.5]))
def test_voc(truth, sized, shift):
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_voc(root, truth, sized, shift)
        entry = dict(type="XMLDataset", data_root=folder, ann_file="ImageSets/Main/all.txt", pipeline=[])
        entry |= dict(metainfo=dict(classes=NAMES), data_prefix=dict(sub_data_root=""))
        cfg = config(entry, dict(entry, test_mode=True), [COCO, VOC])
        settle_labels(cfg, False, root / "labels")
        images = root / "JPEGImages"
        assert seen(built(cfg, "train_dataloader"), images) == expected(truth)
        assert perfect_ap(cfg, expected(truth), images) == [1.0, 1.0]


@settings(max_examples=60, **quiet)
@given(truth=truths(extra=()), polygons=st.booleans())
def test_yolo(truth, polygons):
    truth = {name: [each._replace(ignore=False) for each in things] for name, things in truth.items()}
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        write_yolo(root, truth, polygons)
        labels = read_yolo(open_yolo(root), "val")
        file = root / "val.json"
        file.write_bytes(coco_bytes(clean(labels, NAMES, lambda name: SIZE, masks=polygons).labels))
        cfg = config(coco_set(file), coco_set(file, test_mode=True), COCO)
        assert settle_labels(cfg, False, root / "labels") == [] and cfg.val_dataloader.dataset.ann_file == str(file)
        objects = seen(built(cfg, "val_dataloader"), root / "images/val")
        assert objects == expected(truth)
        assert perfect_ap(cfg, expected(truth), root / "images/val") == [1.0]


def write_voc(root: Path, truth: Truth, sized: bool, shift: float) -> None:
    """``shift``: a part of a pixel that MMDetection's reader cuts off."""
    if not sized:
        write_photos(root / "JPEGImages", truth)
    for name, things in truth.items():
        text = "".join(
            f"<object><name>{each.name}</name>{'<difficult>1</difficult>' if each.ignore else ''}<bndbox>"
            + "".join(f"<{tag}>{n + 1 + shift}</{tag}>" for tag, n in zip(CORNERS, each.corners))
            + "</bndbox></object>"
            for each in things
        )
        size = f"<size><width>{SIZE[0]}</width><height>{SIZE[1]}</height></size>" if sized else ""
        file = (root / "Annotations" / name).with_suffix(".xml")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"<annotation>{size}{text}</annotation>")
    (root / "ImageSets/Main").mkdir(parents=True)
    (root / "ImageSets/Main/all.txt").write_text("".join(f"{name.removesuffix('.jpg')}\n" for name in truth))


def write_yolo(root: Path, truth: Truth, polygons: bool) -> None:
    write_photos(root / "images/val", truth)
    for name, things in truth.items():
        lines = []
        for each in things:
            x, y, w, h = (n / SIZE[i % 2] for i, n in enumerate(each.box))
            numbers = [x, y, x + w, y, x + w, y + h, x, y + h] if polygons else [x + w / 2, y + h / 2, w, h]
            lines.append(" ".join(map(repr, [NAMES.index(each.name), *numbers])) + "\n")
        file = (root / "labels/val" / name).with_suffix(".txt")
        file.parent.mkdir(parents=True, exist_ok=True)
        if lines or not math.isqrt(len(name)) % 2:  # an image without objects has an empty file, or none
            file.write_text("".join(lines))
    (root / "classes.txt").write_text("\n".join(NAMES))
