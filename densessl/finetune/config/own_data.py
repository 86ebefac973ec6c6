"""Train any detector's config on other data than its own: files in COCO's, Pascal VOC's or YOLO's format."""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS

from densessl.errors import FileMissing, SettingError
from densessl.finetune.config.annotations import put
from densessl.finetune.config.data_files import LOADERS, class_of, leaves
from densessl.finetune.config.settle import describe, evaluators, needs_masks, require_masks
from densessl.finetune.labels.cleaning import Cleaned, clean
from densessl.finetune.labels.coco import category_names
from densessl.finetune.labels.sizes import size_of
from densessl.finetune.labels.table import Labels
from densessl.finetune.labels.voc_root import find_parts, read_parts
from densessl.finetune.labels.writing import coco_bytes
from densessl.finetune.labels.yolo import open_yolo, read_yolo
from densessl.run_settings import OWN_DATA, RunSettings
from densessl.wording import suggestion

KEPT = ("pipeline", "filter_cfg", "return_classes", "caption_prompt")  # entries of a data set that other data keep
OTHER_HEADS = ("rpn_head", "semantic_head")  # their classes are not those of the objects
CLASSES = "CLASSES"  # environment variable that some configs read


def gives_data(settings: RunSettings) -> bool:
    """Whether the settings name data instead of the config's."""
    return any(getattr(settings, name) is not None for name in OWN_DATA)


def set_own_data(cfg: Config, settings: RunSettings) -> None:
    """Make the data sets of a detector's config those that the settings name, and its evaluators COCO's, in place.

    Classes that are not given are found by :func:`read_own_data`.

    Raises:
        SettingError: settings do not fit each other or the config.
    """
    if not gives_data(settings):
        if settings.classes:
            _require_detector(cfg, settings)
            _set_classes(cfg, settings.classes)
        return
    _check(cfg, settings)
    _require_detector(cfg, settings)
    classes = settings.classes or _classes_of_environment(cfg)
    for loader in LOADERS:
        if cfg.get(loader):
            part = "train" if loader == LOADERS[0] else "val"
            file, images = _place(settings, part, Path(cfg.work_dir, "labels"))
            cfg[loader]["dataset"] = _replaced(cfg[loader]["dataset"], part, file, images)
    for key, loader in (("val_evaluator", "val_dataloader"), ("test_evaluator", "test_dataloader")):
        if cfg.get(key) and cfg.get(loader):
            cfg[key] = _evaluator(cfg, key, loader, leaves(cfg, loader)[0].cfg["ann_file"])
    if classes:
        _set_classes(cfg, classes)


def read_own_data(cfg: Config, settings: RunSettings) -> list[str]:
    """Convert data in Pascal VOC's or YOLO's layout to COCO's format, in the work folder, and set the classes.

    Returns:
        Lines for the log.

    Raises:
        SettingError, FileMissing: the data cannot be read, or lacks a class that the settings name.
    """
    if not gives_data(settings):
        return []
    chosen = settings.classes or _classes_of_environment(cfg)
    if settings.train_json is not None:
        for name in ("train_json", "val_json"):
            if not Path(getattr(settings, name)).is_file():
                raise FileMissing(f"--{name.replace('_', '-')}: there is no file {getattr(settings, name)}")
        names = category_names(Path(settings.train_json))
        _set_classes(cfg, _chosen(chosen, names, settings.train_json))
        return []
    classes, sets = own_labels(cfg, settings)
    _set_classes(cfg, classes)
    lines, files = [], {}
    for part, (labels, cleaned) in sets.items():
        require_masks(labels.source, cleaned, f"{part}_dataloader")
        file, _ = _place(settings, part, Path(cfg.work_dir, "labels"))
        files[file] = coco_bytes(cleaned.labels)
        lines += describe(labels.source, cleaned, labels, classes, [], True, {})
        lines.append(f"{labels.source}: its labels for {part}, in COCO's format, are in {file}")
    for file, content in files.items():
        put(file, content)
    return lines


def own_labels(cfg: Config, settings: RunSettings) -> tuple[tuple[str, ...], dict[str, tuple[Labels, Cleaned]]]:
    """Read and clean data in Pascal VOC's or YOLO's layout.

    Returns:
        The classes; and by part, "train" and "val", the labels as in the files and as they are used.

    Raises:
        SettingError, FileMissing: as :func:`read_own_data`.
    """
    root = Path(settings.voc_root or settings.yolo_root).absolute()
    sets: dict[str, Labels] = {}
    if settings.voc_root is not None:
        sets = {part: read_parts(root, lists) for part, lists in find_parts(root).items()}
        names = sorted(sets["train"].names)
    else:
        data = open_yolo(root)
        sets = {part: read_yolo(data, part) for part in ("train", "val")}
        names = data.names
    classes = _chosen(settings.classes or _classes_of_environment(cfg), names, str(root))
    parts = {}
    for part, labels in sets.items():
        if cfg.get(loader := f"{part}_dataloader"):
            cleaned = clean(
                labels,
                classes,
                lambda name: size_of(root / name),
                masks=needs_masks(cfg, loader),
                boxes_as_masks=settings.boxes_as_masks,
            )
            parts[part] = labels, cleaned
    return classes, parts


def _check(cfg: Config, settings: RunSettings) -> None:
    """Raise SettingError if settings of data do not fit each other."""
    kinds = [name for name in ("train_json", "voc_root", "yolo_root") if getattr(settings, name) is not None]
    given = [_option(name) for name in OWN_DATA if getattr(settings, name) is not None]
    if len(kinds) != 1:
        raise SettingError(
            f"found {', '.join(given)}; expected --train-json and --val-json, or --voc-root, or --yolo-root"
        )
    if settings.data_root is not None:
        raise SettingError(f"--data-root is for the config's own data; found {given[0]} with it, expected one of them")
    if kinds == ["train_json"]:
        if settings.val_json is None:
            raise SettingError("--train-json needs --val-json FILE, to measure the detector on")
    elif len(given) > 1:
        raise SettingError(f"found {', '.join(given)}; {_option(kinds[0])} needs none of the others")
    if settings.val_images is not None and settings.images is None:
        raise SettingError("--val-images needs --images DIR, the folder of the images of --train-json")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _require_detector(cfg: Config, settings: RunSettings) -> None:
    """Raise SettingError if a config is not of an MMDetection detector with boxes."""
    found = leaves(cfg, "train_dataloader")
    boxes = all("BaseDetDataset" in leaf.formats for leaf in found)
    if not found or not boxes or not any(True for _ in _heads(cfg.model, ())):
        name = next(filter(lambda name: getattr(settings, name), (*OWN_DATA, "classes")))
        raise SettingError(f"{_option(name)} is for configs of MMDetection's detectors; {settings.config} is none")


def _classes_of_environment(cfg: Config) -> tuple[str, ...] | None:
    """Return the classes of the environment variable, if the config reads it."""
    if CLASSES not in (getattr(cfg, "env_variables", None) or {}) or not os.environ.get(CLASSES):
        return None
    return tuple(name.strip() for name in os.environ[CLASSES].split(","))


def _chosen(chosen: Sequence[str] | None, names: Sequence[str], source: str) -> tuple[str, ...]:
    if not names:
        raise SettingError(f"{source} has no categories")
    for name in chosen or ():
        if name not in names:
            raise SettingError(f"--classes: {source} has no category {name!r}; {suggestion(name, names)}")
    return tuple(chosen or names)


def _place(settings: RunSettings, part: str, folder: Path) -> tuple[Path, Path]:
    """Return the annotation file of a part, in COCO's format, and the folder of its images."""
    if settings.train_json is None:
        return (folder / f"own_{part}.json").absolute(), Path(settings.voc_root or settings.yolo_root).absolute()
    file = Path(settings.train_json if part == "train" else settings.val_json).absolute()
    images = (settings.val_images if part == "val" else None) or settings.images
    return file, Path(images).absolute() if images else file.parent


def _replaced(node: Mapping[str, Any], part: str, file: Path, images: Path) -> dict[str, Any]:
    """Return the entry of a data set with other data; wrappers stay, except a concatenation, which becomes one."""
    if "datasets" in node:
        return _replaced(node["datasets"][0], part, file, images)
    if isinstance(node.get("dataset"), Mapping):
        return {**node, "dataset": _replaced(node["dataset"], part, file, images)}
    kept = {key: node[key] for key in KEPT if key in node}
    if part == "train":
        kept.setdefault("filter_cfg", dict(filter_empty_gt=True, min_size=32))
    return dict(
        type="mmdet.CocoDataset",
        data_root="",
        ann_file=str(file),
        data_prefix=dict(img=os.path.join(images, "")),
        test_mode=part != "train",
        **kept,
    )


def _evaluator(cfg: Config, key: str, loader: str, file: str) -> Any:
    """Return an evaluator of the data: the config's own ones of COCO's metric, with VOC's beside it, or a new one."""
    entries = [each for _, each in evaluators(cfg[key], key)]
    kinds = [class_of(each.get("type"), "mmdet", METRICS) for each in entries]
    names = [{base.__name__ for base in kind.__mro__} if kind else set() for kind in kinds]
    if not any("CocoMetric" in each for each in names):
        metric = ["bbox", "segm"] if needs_masks(cfg, loader) else "bbox"
        return dict(type="mmdet.CocoMetric", ann_file=file, metric=metric)
    kept = []
    for entry, bases in zip(entries, names):
        if "CocoMetric" in bases:
            with_file = dict(ann_file=file) if entry.get("ann_file") else {}
            kept.append({**entry, **with_file, **(dict(format_only=False) if entry.get("format_only") else {})})
        elif "VOCMetric" in bases:
            kept.append(entry)
    return kept if len(kept) > 1 else kept[0]


def _set_classes(cfg: Config, classes: Sequence[str]) -> None:
    """Give all data sets the classes, and all heads their number, in place."""
    for loader in LOADERS:
        for leaf in leaves(cfg, loader):
            leaf.cfg["metainfo"] = {**(leaf.cfg.get("metainfo") or {}), "classes": tuple(classes)}
            leaf.cfg["metainfo"].pop("palette", None)
    for node, key in list(_heads(cfg.model, ())):
        before, node[key] = node[key], len(classes)
        if key == "num_things_classes":
            before += node.get("num_stuff_classes", 0)
        loss = node.get("loss_cls")
        weights = loss.get("class_weight") if isinstance(loss, Mapping) else None
        if isinstance(weights, Sequence) and len(weights) == before + 1:  # a weight for each class and for background
            loss["class_weight"] = [weights[0]] * len(classes) + [weights[-1]]


def _heads(node: Any, path: tuple[str, ...]) -> Iterator[tuple[dict[str, Any], str]]:
    """Yield the dicts in a model's heads that say a number of classes, with the name of that entry."""
    if isinstance(node, Mapping):
        for key, value in list(node.items()):
            if key in ("num_classes", "num_things_classes") and isinstance(value, int) and "head" in " ".join(path):
                yield node, key
            elif key not in OTHER_HEADS:
                yield from _heads(value, (*path, key))
    elif isinstance(node, list | tuple):
        for each in node:
            yield from _heads(each, path)
