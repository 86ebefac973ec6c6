"""Settle the labels of a config: what its data sets and evaluators read is what the annotation files mean.

Every annotation file is read and cleaned by one rule (:mod:`densessl.finetune.labels.cleaning`). If MMDetection's own
reader and evaluator make the same of the original file, the config keeps it. Otherwise the cleaned labels are written
to the work folder and the config reads these. Categories are matched by name with the classes of the train set.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import METRICS

from densessl.errors import SettingError
from densessl.finetune.config.annotations import classes_of, put
from densessl.finetune.config.data_files import LOADERS, REMOTE, Leaf, class_of, leaves
from densessl.finetune.labels import cleaning
from densessl.finetune.labels.cleaning import Cleaned, clean
from densessl.finetune.labels.coco import read_coco
from densessl.finetune.labels.sizes import size_of
from densessl.finetune.labels.table import Labels, refuse_twice
from densessl.finetune.labels.voc import listed, read_voc
from densessl.finetune.labels.writing import coco_bytes, voc_files
from densessl.wording import count, listed_names

# What MMDetection's reader and COCO's evaluation do anyway; what the reader alone does; and what is left as it is in
# benchmarks, whose published numbers were measured so.
BY_ITSELF = {cleaning.UNKNOWN, cleaning.OTHER, cleaning.NOT_LISTED}
BY_THE_READER = {cleaning.OUTSIDE, cleaning.FLAT, cleaning.SMALL}
IN_BENCHMARKS = {cleaning.SMALL, cleaning.CLIPPED, cleaning.COPIES, cleaning.MASKS}


class Settled(NamedTuple):
    """The labels of a data set, and what the config is to read instead of the original.

    Attributes:
        leaf: the data set.
        cleaned: its labels.
        files: content by path of the cleaned files; empty if the original is right.
        settings: entries of the data set that name them.
        lines: lines for the log.
    """

    leaf: Leaf
    cleaned: Cleaned
    files: dict[Path, bytes]
    settings: dict[str, str]
    lines: list[str]

    @property
    def source(self) -> Path:
        return self.leaf.path(self.leaf.cfg["ann_file"])


def settle_labels(cfg: Config, boxes_as_masks: bool, folder: Path) -> list[str]:
    """Read and clean the labels of all data sets and evaluators of ``cfg``, in place.

    Args:
        boxes_as_masks: objects without a mask get their box as mask, where masks are needed.
        folder: receives cleaned files, written after all files have been read.

    Returns:
        Lines for the log.

    Raises:
        SettingError: an annotation file cannot be used; the message says why.
        FileMissing: an image is missing whose size is needed.
    """
    lines = share_classes(cfg)
    known: dict[tuple, Settled] = {}
    settled: dict[str, list[Settled]] = {}
    for loader in LOADERS:
        if loader == "test_dataloader" and not cfg.get("val_dataloader"):
            continue
        for number, leaf in enumerate(leaves(cfg, loader)):
            if (kind := format_of(leaf)) is None:
                continue
            masks = needs_masks(cfg, loader)
            file, trains = leaf.path(leaf.cfg["ann_file"]), loader == "train_dataloader"
            key = (kind, file, images_of(leaf), tuple(classes_of(leaf)), masks, trains)
            if key not in known:
                stem = f"{loader.partition('_')[0]}{number or ''}_{Path(leaf.cfg['ann_file']).stem}"
                known[key] = _settle(leaf, kind, loader, masks, boxes_as_masks, folder / stem)
                lines += known[key].lines
            settled.setdefault(loader, []).append(known[key]._replace(leaf=leaf))
    files = {path: content for one in known.values() for path, content in one.files.items()}
    for loader, evaluator in (("val_dataloader", "val_evaluator"), ("test_dataloader", "test_evaluator")):
        said, more = _settle_evaluator(cfg, evaluator, settled.get(loader, []), boxes_as_masks, folder)
        lines, files = [*lines, *said], files | more
    for path, content in files.items():
        put(path, content)
    for each in (each for group in settled.values() for each in group):
        each.leaf.cfg.update(each.settings)
    return lines


def format_of(leaf: Leaf) -> str | None:
    """Return ``"coco"`` or ``"voc"`` if a data set's local annotations are read by MMDetection's reader of that format;
    None for other readers, such as that of LVIS."""
    if leaf.kind is None or not leaf.cfg.get("ann_file"):
        return None
    path = str(leaf.path(leaf.cfg["ann_file"]))
    if REMOTE.match(path) or (leaf.cfg.get("backend_args") or {}).get("backend", "local") != "local":
        return None
    reader = getattr(getattr(leaf.kind, "load_data_list", None), "__qualname__", "")
    parser = getattr(getattr(leaf.kind, "parse_data_info", None), "__qualname__", "")
    readers = {
        "coco": ("CocoDataset.load_data_list", "OneClassCocoDataset.load_data_list"),
        "voc": ("XMLDataset.load_data_list",),
    }
    parsers = {"coco": "CocoDataset.parse_data_info", "voc": "XMLDataset.parse_data_info"}
    return next((kind for kind in readers if reader in readers[kind] and parser == parsers[kind]), None)


def share_classes(cfg: Config) -> list[str]:
    """Give the data sets for validation and test the classes of the train set, in its order."""
    trained = [tuple(classes_of(leaf)) for leaf in leaves(cfg, "train_dataloader") if format_of(leaf)]
    if len(set(trained)) != 1 or not trained[0]:
        return []
    refuse_twice(Path("train_dataloader.dataset"), "the class", trained[0])
    lines = []
    for loader in LOADERS[1:]:
        for leaf in leaves(cfg, loader):
            if format_of(leaf) and tuple(classes_of(leaf)) != trained[0]:
                leaf.cfg["metainfo"] = {**(leaf.cfg.get("metainfo") or {}), "classes": trained[0]}
                lines.append(f"{leaf.key} gets the classes of the train set, in its order")
    return lines


def needs_masks(cfg: Config, loader: str) -> bool:
    """Whether the pipelines of a loader's data sets load masks, or its evaluator measures them."""

    def loads(node: Any) -> bool:
        if isinstance(node, Mapping):
            return bool(node.get("with_mask")) or any(map(loads, node.values()))
        return isinstance(node, Sequence) and not isinstance(node, str) and any(map(loads, node))

    metrics = [
        each.get("metric")
        for _, each in evaluators(cfg.get(loader.replace("dataloader", "evaluator")), "")
        if "CocoMetric" in _formats(each, METRICS)
    ]
    return loads(cfg[loader].get("dataset")) or any("segm" in (metric or ()) for metric in metrics)


def evaluators(node: Any, key: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the evaluators of an entry of a config, which is one or a list of them, with their keys."""
    if isinstance(node, Mapping):
        yield key, node
    else:
        yield from ((f"{key}.{number}", each) for number, each in enumerate(node or []))


def _formats(entry: Mapping[str, Any], registry: Any) -> set[str]:
    kind = class_of(entry.get("type"), "mmdet", registry)
    return {base.__name__ for base in kind.__mro__} if kind else set()


def images_of(leaf: Leaf) -> Path:
    """Return the folder of a data set's images."""
    prefix = leaf.default("data_prefix", {}) or {}
    if "XMLDataset" in leaf.formats:
        return leaf.path(prefix.get("sub_data_root", ""), leaf.default("img_subdir"))
    return leaf.path(prefix.get("img") or prefix.get("img_path") or "")


def read(leaf: Leaf, kind: str) -> Labels:
    """Read the annotations of a data set.

    Raises:
        SettingError, FileMissing: see :func:`densessl.finetune.labels.coco.read_coco` and
            :func:`densessl.finetune.labels.voc.read_voc`.
    """
    path = leaf.path(leaf.cfg["ann_file"])
    if kind == "coco":
        return read_coco(path)
    folder = leaf.path((leaf.cfg.get("data_prefix") or {}).get("sub_data_root", ""), leaf.default("ann_subdir"))
    return read_voc(path, listed(path), lambda name: folder / f"{name}.xml")


def cleaned_of(leaf: Leaf, kind: str, masks: bool, boxes_as_masks: bool) -> tuple[Labels, Cleaned]:
    """Read the labels of a data set and clean them.

    Args:
        kind: of :func:`format_of`.
        masks: objects need masks.
        boxes_as_masks: objects without a mask get their box as mask.

    Returns:
        The labels as in the file, and as they are used.

    Raises:
        SettingError, FileMissing: see :func:`read` and :func:`densessl.finetune.labels.cleaning.clean`.
    """
    labels, images = read(leaf, kind), images_of(leaf)
    cleaned = clean(
        labels,
        classes_of(leaf),
        lambda name: size_of(images / file_of(name, kind)),
        one_class="OneClassCocoDataset" in leaf.formats,
        masks=masks,
        boxes_as_masks=boxes_as_masks,
        keep_broken_masks=_is_benchmark(leaf),
    )
    return labels, cleaned


def file_of(name: str, kind: str) -> str:
    """Return the file of an image, relative to the folder of images, by its name in the labels."""
    return f"{name}.jpg" if kind == "voc" else name


def _is_benchmark(leaf: Leaf) -> bool:
    """Whether the classes are those of the data set's type."""
    return not (leaf.cfg.get("metainfo") or {}).get("classes")


def _settle(leaf: Leaf, kind: str, loader: str, masks: bool, boxes_as_masks: bool, target: Path) -> Settled:
    """Read and clean the labels of one data set.

    Args:
        target: path of a cleaned file, without suffix.
    """
    path = leaf.path(leaf.cfg["ann_file"])
    if masks and kind == "voc":
        raise SettingError(
            f"{path}: Pascal VOC's format has no masks, and {leaf.key} loads masks; --voc-root DIR --boxes-as-masks "
            "trains on the boxes as masks"
        )
    classes, one_class, benchmark = classes_of(leaf), "OneClassCocoDataset" in leaf.formats, _is_benchmark(leaf)
    labels, cleaned = cleaned_of(leaf, kind, masks, boxes_as_masks)
    require_masks(path, cleaned, leaf.key)
    if masks:
        require_polygons(path, cleaned, leaf)
    lacking = [] if one_class or kind == "voc" else [name for name in classes if name not in labels.names]
    if lacking and len(lacking) == len(classes):
        raise SettingError(
            f"{path} has no category named {listed_names(lacking)}; it has {listed_names(labels.names)}, and "
            f"{leaf.key} reads by name"
        )
    order = kind == "voc" or one_class or [name for name in labels.names if name in classes] == list(classes)
    if _is_right(cleaned, loader == "train_dataloader", benchmark, kind) and order:
        files, settings = {}, {}
    elif kind == "coco":
        settings = dict(ann_file=str(target.with_name(f"{target.name}.json")))
        files = {Path(settings["ann_file"]): coco_bytes(cleaned.labels)}
    else:
        settings = dict(ann_subdir=str(target))
        files = {target / f"{name}.xml": content for name, content in voc_files(cleaned.labels)}
    lines = describe(path, cleaned, labels, classes, lacking, order, settings)
    if loader == "val_dataloader" and cleaned.labels.objects.ignore.all():  # also of none
        lines.append(f"{path} has no object to detect, so validation has no AP")
    return Settled(leaf, cleaned, files, settings, lines)


def require_polygons(source: Path, cleaned: Cleaned, leaf: Leaf) -> None:
    """Raise SettingError if a pipeline keeps polygons (``poly2mask=False``) and objects have masks of runs (RLE), which
    MMDetection would then leave out without a word."""
    keeps = [
        number
        for number, step in enumerate(leaf.cfg.get("pipeline") or [])
        if step.get("with_mask") and step.get("poly2mask") is False
    ]
    objects = cleaned.labels.objects
    runs = sum(isinstance(mask, Mapping) and not ignored for mask, ignored in zip(objects.masks, objects.ignore))
    if keeps and runs:
        raise SettingError(
            f"{source}: {count(runs, 'object')} of {len(objects.photo)} have a mask of runs (RLE), which "
            f"{leaf.key}.pipeline.{keeps[0]} leaves out (poly2mask=False); set its poly2mask=True"
        )


def require_masks(source: Path, cleaned: Cleaned, user: str) -> None:
    """Raise SettingError if objects have no mask, though ``user``, a key of the config, needs masks."""
    if cleaned.without_masks:
        number, of = cleaned.without_masks, len(cleaned.labels.objects.photo)
        raise SettingError(
            f"{source}: {number} of {of} objects have no usable mask (first in {cleaned.first[cleaning.RECTANGLES]}), "
            f"and {user} needs masks; --boxes-as-masks makes masks from the boxes"
        )


def _is_right(cleaned: Cleaned, train: bool, benchmark: bool, kind: str) -> bool:
    """Whether MMDetection's reader, and COCO's evaluation, make of the original what cleaning made of it."""
    allowed = BY_ITSELF - ({cleaning.UNKNOWN} if kind == "voc" else set())
    allowed |= BY_THE_READER if train and kind == "coco" else set()
    allowed |= IN_BENCHMARKS if benchmark else set()
    return not (cleaned.mended.keys() | cleaned.left_out.keys()) - allowed


def describe(
    path: Path,
    cleaned: Cleaned,
    labels: Labels,
    classes: Sequence[str],
    lacking: Sequence[str],
    order: bool,
    settings: Mapping[str, str],
) -> list[str]:
    """What was done to a file, in one line; no line if nothing was."""
    said = []
    for verb, counts in (("mended", cleaned.mended), ("left out", cleaned.left_out)):
        if counts:
            said.append(
                f"{verb}: " + ", ".join(f"{n} {reason}{_where(cleaned, reason)}" for reason, n in counts.items())
            )
    others = [name for name in labels.names if name not in classes]
    if cleaned.left_out[cleaning.OTHER]:
        said.append(f"other categories are {listed_names(others)}")
    if lacking:
        said.append(f"no category is named {listed_names(lacking)}")
    elif not order:
        said.append(f"its categories, in another order, are matched by name with the classes {listed_names(classes)}")
    if settings:
        said.append(f"cleaned labels are in {next(iter(settings.values()))}")
    return [f"{path}: {'; '.join(said)}"] if said else []


def _where(cleaned: Cleaned, reason: str) -> str:
    return f" (first: {cleaned.first[reason]})" if reason in cleaned.first else ""


def _settle_evaluator(
    cfg: Config, key: str, settled: Sequence[Settled], boxes_as_masks: bool, folder: Path
) -> tuple[list[str], dict[Path, bytes]]:
    """Make the evaluators that read an annotation file read cleaned labels: those of the data set that they evaluate,
    if it is the same file.

    Returns:
        Lines for the log, and the content by path of further cleaned files.

    Raises:
        SettingError: the file has other images than the data set.
    """
    coco = [each for each in settled if format_of(each.leaf) == "coco"]
    lines, files = [], {}
    for where, evaluator in evaluators(cfg.get(key), key):
        file = evaluator.get("ann_file")
        if not file or REMOTE.match(file) or "CocoMetric" not in _formats(evaluator, METRICS) or len(coco) != 1:
            continue
        (one,) = coco
        if Path(file).resolve() != one.source.resolve():
            leaf = one.leaf._replace(key=where, cfg={**one.leaf.cfg, "ann_file": os.path.abspath(file)})
            masks = "segm" in (evaluator.get("metric") or ())
            stem = where.replace(".", "_")
            other = _settle(leaf, "coco", key, masks, boxes_as_masks, folder / f"{stem}_{Path(file).stem}")
            own = {(photo.id, photo.name) for photo in one.cleaned.labels.photos}
            if own != {(photo.id, photo.name) for photo in other.cleaned.labels.photos}:
                raise SettingError(
                    f"{where}.ann_file: {file} lists other images than {one.source}, which {one.leaf.key} reads; "
                    "expected the same ones"
                )
            lines, files, one = [*lines, *other.lines], {**files, **other.files}, other
        if "ann_file" in one.settings:
            evaluator["ann_file"] = one.settings["ann_file"]
    return lines, files
