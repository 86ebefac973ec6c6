"""The data sets to check: those of a place, or the train and validation sets of a config."""

import itertools
import os
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from mmengine.config import Config

from densessl.configs import is_pretraining
from densessl.data.decode import MEGAPIXELS
from densessl.data.path_table import PathTable
from densessl.data.sources import ImageList, list_images
from densessl.datacheck.labels import LabelReport, label_report
from densessl.errors import SettingError
from densessl.finetune.config.annotations import check_classes
from densessl.finetune.config.counts import count_train_set
from densessl.finetune.config.data_files import Leaf, check_data, leaves
from densessl.finetune.config.own_data import own_labels, read_own_data
from densessl.finetune.config.settle import (
    cleaned_of,
    file_of,
    format_of,
    images_of,
    needs_masks,
    require_masks,
    settle_labels,
    share_classes,
)
from densessl.finetune.labels.cleaning import Cleaned, clean
from densessl.finetune.labels.coco import read_coco
from densessl.finetune.labels.sizes import size_of
from densessl.finetune.labels.table import Labels
from densessl.run_settings import RunSettings
from densessl.runs import run_config

LOADERS = {"train": "train_dataloader", "val": "val_dataloader"}


@dataclass(frozen=True)
class ImageSet:
    """A data set to check.

    Attributes:
        name: "images", "train" or "val".
        listed: its images.
        kind: format of its labels, see :func:`densessl.finetune.config.settle.format_of`.
        cleaned: its labels as they are used; None without labels. Its images are those listed, in the same order.
        report: what the labels hold; None without labels.
        megapixels: size that an image may declare.
    """

    name: str
    listed: ImageList
    kind: str = "coco"
    cleaned: Cleaned | None = None
    report: LabelReport | None = None
    megapixels: float = MEGAPIXELS

    def stated_size(self, index: int) -> tuple[int, int] | None:
        """Width and height that the labels state for an image; None if they state none."""
        if self.cleaned is None:
            return None
        photo = self.cleaned.labels.photos[index]
        return (photo.width, photo.height) if photo.width and photo.height else None

    def boxes(self, index: int) -> list[tuple[str, tuple[float, ...]]]:
        """Class and corners, x0, y0, x1, y1 in pixels, of the objects of an image."""
        if self.cleaned is None:
            return []
        objects, names = self.cleaned.labels.objects, self.cleaned.labels.names
        places = (objects.photo == index).nonzero()[0]
        return [(names[objects.category[i]], tuple(objects.corners[i].tolist())) for i in places]


def of_places(places: Sequence[str], root: str | None = None, most: int | None = None) -> list[ImageSet]:
    """The images of folders, archives, lists or a COCO json, whose labels are checked as well.

    Args:
        root: folder that the paths of a list or json are relative to.
        most: number of images to check; None for all.

    Raises:
        DataNotFound, SettingError: see :func:`densessl.data.sources.list_images`.
    """
    listed = list_images(places[0] if len(places) == 1 else list(places), root, most)
    if len(places) == 1 and places[0].lower().endswith(".json"):
        labels = read_coco(Path(places[0]))
        if labels.names:
            cleaned = clean(labels, labels.names, lambda name: size_of(Path(listed.root, name)))
            return [ImageSet("images", listed, "coco", cleaned, label_report(labels, cleaned))]
    return [ImageSet("images", listed)]


def of_config(settings: RunSettings, most: int | None = None) -> list[ImageSet]:
    """The data sets that a config trains and is validated on, as its training would read them.

    Raises:
        DensesslError: training would refuse the settings or the data, too.
    """
    with tempfile.TemporaryDirectory(prefix="densessl-check-") as folder:
        settings = replace(settings, work_dir=folder)
        cfg = run_config(settings)
        if is_pretraining(cfg):
            return [_of_pretraining(cfg, most)]
        return list(_of_detector(cfg, settings, most))


def _of_pretraining(cfg: Config, most: int | None) -> ImageSet:
    entry = cfg.train_dataloader.dataset
    if not entry.get("source"):
        raise SettingError("train_dataloader.dataset.source: found none; --data-root PLACE says where the images are")
    listed = list_images(entry["source"], entry.get("root"), most)
    return ImageSet("train", listed, megapixels=entry.get("max_megapixels", MEGAPIXELS))


def _of_detector(cfg: Config, settings: RunSettings, most: int | None) -> Iterator[ImageSet]:
    converted = own_labels(cfg, settings)[1] if settings.voc_root or settings.yolo_root else {}
    read_own_data(cfg, settings)
    check_data(cfg)
    check_classes(cfg)
    share_classes(cfg)
    found = {
        part: [_labelled(leaf, cfg, loader, settings) for leaf in leaves(cfg, loader)]
        for part, loader in LOADERS.items()
    }
    settle_labels(cfg, settings.boxes_as_masks, Path(cfg.work_dir, "labels"))
    for part, group in found.items():
        counts = count_train_set(cfg, LOADERS[part]) if len(group) == 1 else None
        for number, (leaf, kind, labels, cleaned) in enumerate(group, 1):
            name = part if len(group) == 1 else f"{part} {number}"
            if kind is None:
                yield ImageSet(name, list_images(images_of(leaf), None, most))
                continue
            names = [file_of(photo.name, kind) for photo in cleaned.labels.photos]
            listed = ImageList(os.path.abspath(images_of(leaf)), PathTable(itertools.islice(names, most)))
            original, used = converted.get(part, (labels, cleaned))
            report = label_report(original, used, counts, "OneClassCocoDataset" in leaf.formats)
            yield ImageSet(name, listed, kind, cleaned, report)


def _labelled(
    leaf: Leaf, cfg: Config, loader: str, settings: RunSettings
) -> tuple[Leaf, str | None, Labels | None, Cleaned | None]:
    """A data set, and its labels before the config reads cleaned ones; None where another reader reads them."""
    kind = format_of(leaf)
    if kind is None:
        return leaf, None, None, None
    labels, cleaned = cleaned_of(leaf, kind, needs_masks(cfg, loader), settings.boxes_as_masks)
    require_masks(labels.source, cleaned, leaf.key)
    return leaf, kind, labels, cleaned
