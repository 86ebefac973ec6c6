"""Count what a train set holds as MMDetection builds it: after its reader and filter, which drop boxes and images."""

import contextlib
import copy
import io
from collections import Counter
from dataclasses import dataclass, field

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope

from densessl.errors import SettingError
from densessl.finetune.config.annotations import classes_of
from densessl.finetune.config.data_files import Leaf, leaves
from densessl.finetune.config.settle import format_of
from densessl.wording import count, listed_names


@dataclass
class Counts:
    """Counts of a train set.

    Attributes:
        listed: images in the annotation file.
        trained: images that are trained on.
        empty: those of them without a box to train on.
        dropped_empty, dropped_small: images left out because they have no box, or are smaller than ``min_size``.
        ignored: boxes that are neither object nor background: crowds and objects marked difficult.
        boxes: boxes to train on, by class.
    """

    listed: int = 0
    trained: int = 0
    empty: int = 0
    dropped_empty: int = 0
    dropped_small: int = 0
    ignored: int = 0
    boxes: Counter[str] = field(default_factory=Counter)


def count_train_set(cfg: Config, loader: str = "train_dataloader") -> Counts | None:
    """Build the train sets of a config, or the data sets of another loader, without their pipelines, and count. None if
    a reader is not MMDetection's of COCO's or Pascal VOC's format."""
    counts = Counts()
    found = leaves(cfg, loader)
    if not found or not all(map(format_of, found)):
        return None
    for leaf in found:
        _count(leaf, cfg.get("default_scope") or "mmdet", counts)
    return counts


def _count(leaf: Leaf, scope: str, counts: Counts) -> None:
    entry = copy.deepcopy(dict(leaf.cfg)) | dict(pipeline=[], lazy_init=True, serialize_data=False)
    with DefaultScope.overwrite_default_scope(scope), contextlib.redirect_stdout(io.StringIO()):  # pycocotools prints
        data_set = DATASETS.build(entry)
        listed = data_set.load_data_list()
        data_set.data_list = listed
        kept = data_set.data_list = data_set.filter_data()
        if leaf.cfg.get("indices") is not None:
            kept = data_set._get_unserialized_subset(leaf.cfg["indices"])
    classes = classes_of(leaf)
    least = (leaf.cfg.get("filter_cfg") or {}).get("min_size", 0)
    chosen = {id(image) for image in kept}
    counts.boxes.update(dict.fromkeys(classes, 0))
    counts.listed += len(listed)
    counts.trained += len(kept)
    for image in listed:
        if id(image) not in chosen:
            small = min(image["width"], image["height"]) < least
            counts.dropped_small += small
            counts.dropped_empty += not small
            continue
        objects = [each for each in image["instances"] if not each["ignore_flag"]]
        counts.ignored += len(image["instances"]) - len(objects)
        counts.empty += not objects
        counts.boxes.update(classes[each["bbox_label"]] for each in objects)


def lines_of(counts: Counts, title: str = "train set") -> list[str]:
    """Return the counts as lines for the log.

    Args:
        title: begins the lines.

    Raises:
        SettingError: there is nothing to train on.
    """
    left_out = [
        f"{number} {reason}"
        for number, reason in (
            (counts.dropped_empty, "without boxes"),
            (counts.dropped_small, "smaller than filter_cfg.min_size"),
        )
        if number
    ]
    said = f"{title}: trains on {counts.trained:,} of {count(counts.listed, 'image')}"
    if left_out:
        said += f", left out: {', '.join(left_out)}"
    if not counts.trained or not counts.boxes.total():
        raise SettingError(f"{said}; no box of {listed_names(list(counts.boxes))} is left to train on")
    if counts.empty:
        said += f"; {counts.empty} of them without boxes, which count as background"
    boxes = ", ".join(f"{name} {number}" for name, number in counts.boxes.items() if number)
    lines = [f"{title}: {count(counts.boxes.total(), 'box', 'boxes')}: {boxes}"]
    if counts.ignored:
        lines[0] += f"; {counts.ignored} more are ignored (crowds, difficult)"
    none = [name for name, number in counts.boxes.items() if not number]
    return [*lines, said, *([f"{title}: classes without any box: {', '.join(none)}"] if none else [])]
