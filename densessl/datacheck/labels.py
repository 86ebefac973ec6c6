"""What the labels of a data set hold by class, and what training leaves out."""

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from densessl.finetune.config.counts import Counts
from densessl.finetune.labels.cleaning import Cleaned
from densessl.finetune.labels.table import Labels


@dataclass(frozen=True)
class ClassCount:
    """Objects of a class.

    Attributes:
        labelled: in the file.
        used: that are trained on, or that validation looks for.
        ignored: neither object nor background: crowds and objects marked difficult.
    """

    name: str
    labelled: int
    used: int
    ignored: int

    @property
    def dropped(self) -> int:
        return self.labelled - self.used - self.ignored


@dataclass
class LabelReport:
    """The labels of a data set.

    Attributes:
        source: file or folder that was read.
        images: that the file lists; without_boxes: those of them without an object to detect.
        classes: counts by class.
        left_out, mended: objects by reason, see :mod:`densessl.finetune.labels.cleaning`.
        first: first image with each reason.
        dropped_images: images that training leaves out, by reason.
        other_sizes: images whose size is not the one that the labels state; other_sizes_first: the first of them.
    """

    source: str
    images: int
    without_boxes: int
    classes: list[ClassCount]
    left_out: Counter[str]
    mended: Counter[str]
    first: dict[str, str]
    dropped_images: dict[str, int] = field(default_factory=dict)
    other_sizes: int = 0
    other_sizes_first: str = ""

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        classes = [asdict(each) | dict(dropped=each.dropped) for each in self.classes]
        return asdict(self) | dict(classes=classes, left_out=dict(self.left_out), mended=dict(self.mended))


def label_report(
    labels: Labels, cleaned: Cleaned, counts: Counts | None = None, one_class: bool = False
) -> LabelReport:
    """Return what the labels of a data set hold.

    Args:
        labels: as in the file.
        cleaned: as they are used.
        counts: of the data set as MMDetection builds it, which may drop more.
        one_class: all categories count as the only class.
    """
    kept, classes = cleaned.labels.objects, cleaned.labels.names
    if one_class:
        labelled = {classes[0]: len(labels.objects.category)}
    else:
        known = labels.objects.category[labels.objects.category >= 0]
        labelled = dict(zip(labels.names, np.bincount(known, minlength=len(labels.names)).tolist()))
    ignored = np.bincount(kept.category[kept.ignore], minlength=len(classes)).tolist()
    used = np.bincount(kept.category[~kept.ignore], minlength=len(classes)).tolist()
    if counts is not None:
        used = [counts.boxes[name] for name in classes]
    rows = [ClassCount(name, labelled.get(name, 0), u, i) for name, u, i in zip(classes, used, ignored)]
    rows += [ClassCount(name, n, 0, 0) for name, n in labelled.items() if name not in classes and n]
    photos = len(cleaned.labels.photos)
    dropped = {}
    if counts is not None:
        reasons = {"without boxes": counts.dropped_empty, "smaller than filter_cfg.min_size": counts.dropped_small}
        dropped = {reason: number for reason, number in reasons.items() if number}
    return LabelReport(
        source=str(labels.source),
        images=photos,
        without_boxes=photos - len(np.unique(kept.photo[~kept.ignore])),
        classes=rows,
        left_out=cleaned.left_out,
        mended=cleaned.mended,
        first=dict(cleaned.first),
        dropped_images=dropped,
    )
