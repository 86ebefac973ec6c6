"""Data sets with known objects, written in any valid form of a format, and the AP of predictions equal to the truth."""

import copy
import json
from pathlib import Path
from typing import Any, NamedTuple

import torch
from hypothesis import strategies as st
from mmengine.config import Config
from mmengine.registry import DATASETS, METRICS, DefaultScope
from PIL import Image

from densessl.finetune.config.data_files import leaves

SIZE = (160, 120)
NAMES = ("fox", "owl", "hen")


class Thing(NamedTuple):
    """An object: its category, its box as x, y, width, height, and whether it is a crowd or difficult."""

    name: str
    box: tuple[float, float, float, float]
    ignore: bool

    @property
    def corners(self) -> tuple[float, float, float, float]:
        x, y, width, height = self.box
        return x, y, x + width, y + height


# File names and their objects.
Truth = dict[str, list[Thing]]


@st.composite
def truths(draw, names=NAMES, extra=("newt",), whole=False) -> Truth:
    """Up to four images with up to four objects each, at least one of which counts. Images may share a stem."""
    photos = draw(st.lists(st.sampled_from(["a/1", "b/1", "2", "03", "photo 4"]), min_size=1, max_size=4, unique=True))
    step = 1 if whole else 0.25
    numbers = st.integers(0, int(60 / step)).map(lambda number: number * step)
    sides = st.integers(int(2 / step), int(60 / step)).map(lambda number: number * step)
    things = st.builds(
        Thing,
        st.sampled_from([*names, *extra]),
        st.tuples(numbers, numbers, sides, sides),
        st.sampled_from([0, 0, 0, 1]),
    )
    kept = {photo: draw(st.lists(things, max_size=4, unique_by=lambda each: each[:2])) for photo in photos}
    kept[photos[0]].append(Thing(names[0], (70.0, 5.0, 20.0, 30.0), False))
    return {f"{photo}.jpg": each for photo, each in kept.items()}


@st.composite
def cocos(draw, truth: Truth) -> dict[str, Any]:
    """The truth as one of the many jsons that mean it."""
    categories = draw(st.permutations([*NAMES, "newt"]))
    first, gap = draw(st.integers(0, 3)), draw(st.integers(1, 3))
    as_text = draw(st.booleans())
    numbers = {name: first + gap * i for i, name in enumerate(categories)}
    kind = draw(st.sampled_from(["number", "text", "named", "mixed"]))
    ids = {name: (f"id-{i}" if kind == "text" else i * gap + first) for i, name in enumerate(truth)}
    photos = [dict(id=ids[name], file_name=name, width=SIZE[0], height=SIZE[1]) for name in truth]
    start, step = draw(st.integers(0, 2)), draw(st.integers(0, 2))  # 0: all ids are the same
    annotations = []
    for name, things in truth.items():
        owner = {"named": name, "mixed": str(ids[name])}.get(kind, ids[name])
        for thing in things:
            number = numbers[thing.name]
            entry = dict(id=start + step * len(annotations), image_id=owner, bbox=list(thing.box), iscrowd=thing.ignore)
            entry["category_id"] = str(number) if as_text else number
            entry["iscrowd"] = int(thing.ignore)
            entry["area"] = thing.box[2] * thing.box[3]
            annotations.append(entry)
    absent = draw(st.sets(st.sampled_from(["area", "iscrowd"])))
    for entry in annotations:
        for key in absent:
            if not (key == "iscrowd" and entry["iscrowd"]):
                entry.pop(key)
    if draw(st.booleans()):
        annotations.reverse()
    return dict(images=photos, annotations=annotations, categories=[dict(id=n, name=k) for k, n in numbers.items()])


def write_json(path: Path, content: dict[str, Any]) -> Path:
    path.write_text(json.dumps(content))
    return path


def write_photos(folder: Path, truth: Truth) -> None:
    for name in truth:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", SIZE).save(folder / name)


def config(train: dict, val: dict, evaluator: Any) -> Config:
    return Config(
        dict(
            default_scope="mmdet",
            train_dataloader=dict(batch_size=1, dataset=train),
            val_dataloader=dict(dataset=val),
            val_evaluator=evaluator,
        )
    )


def coco_set(file: Path, classes=NAMES, **more) -> dict[str, Any]:
    prefix = dict(img=str(file.parent) + "/")
    return dict(
        type="CocoDataset", ann_file=str(file), data_prefix=prefix, metainfo=dict(classes=classes), pipeline=[], **more
    )


def built(cfg: Config, loader: str) -> Any:
    """The data set of a loader, without wrappers and pipeline."""
    (leaf,) = leaves(cfg, loader)
    with DefaultScope.overwrite_default_scope("mmdet"):
        entry = {**copy.deepcopy(leaf.cfg), "pipeline": [], "serialize_data": False}  # serialising is slow
        return DATASETS.build(entry)


def seen(data_set: Any, root: Path) -> dict[str, list[tuple]]:
    """Objects by image as the model sees them, with the names of the data set's classes."""
    classes = data_set.metainfo["classes"]
    images = [data_set.get_data_info(i) for i in range(len(data_set))]
    return {
        str(Path(image["img_path"]).relative_to(root)): sorted(
            (classes[each["bbox_label"]], tuple(round(n, 2) for n in each["bbox"]), bool(each["ignore_flag"]))
            for each in image["instances"]
        )
        for image in images
    }


def expected(truth: Truth, classes=NAMES) -> dict[str, list[tuple]]:
    return {
        name: sorted(
            (
                each.name,
                (each.box[0], each.box[1], each.box[0] + each.box[2], each.box[1] + each.box[3]),
                bool(each.ignore),
            )
            for each in things
            if each.name in classes
        )
        for name, things in truth.items()
    }


def perfect_ap(cfg: Config, truth: dict[str, list[tuple]] | None = None, root: Path | None = None) -> list[float]:
    """AP of each evaluator of the config for predictions equal to the truth: of the objects as files mean them, or as
    the built data set has them."""
    data_set = built(cfg, "val_dataloader")
    classes = list(data_set.metainfo["classes"])
    scores = []
    for entry in cfg.val_evaluator if isinstance(cfg.val_evaluator, list) else [cfg.val_evaluator]:
        with DefaultScope.overwrite_default_scope("mmdet"):
            metric = METRICS.build(dict(entry))
        metric.dataset_meta = data_set.metainfo
        for index in range(len(data_set)):
            metric.process({}, [_sample(data_set.get_data_info(index), classes, truth, root)])
        result = metric.evaluate(len(data_set))
        scores.append(next(value for key, value in result.items() if key.endswith("mAP")))
    return scores


def _sample(info: dict, classes: list[str], truth: dict | None, root: Path | None) -> dict[str, Any]:
    groups = [[], []]
    for each in info["instances"]:
        groups[each["ignore_flag"]].append((each["bbox_label"], each["bbox"]))
    objects = groups[0]
    if truth is not None:
        things = truth[str(Path(info["img_path"]).relative_to(root))]
        objects = [(classes.index(name), box) for name, box, ignore in things if not ignore]
    return dict(
        img_id=info["img_id"],
        ori_shape=(info["height"], info["width"]),
        instances=info["instances"],
        pred_instances={**_tensors(objects), "scores": torch.ones(len(objects))},
        gt_instances=_tensors(groups[0]),
        ignored_instances=_tensors(groups[1]),
    )


def _tensors(objects: list[tuple]) -> dict[str, torch.Tensor]:
    boxes = torch.tensor([box for _, box in objects], dtype=torch.float64).reshape(-1, 4)
    return dict(bboxes=boxes, labels=torch.tensor([label for label, _ in objects], dtype=torch.int64))
