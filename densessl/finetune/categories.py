"""Data sets in COCO's format whose classes are those asked for, or one. Imports mmdet: configs name this module.

``custom_imports = dict(imports=[…, "densessl.finetune.categories"])``.
"""

from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

from densessl.errors import SettingError
from densessl.registry import DATASETS


class _Named(COCO):
    """Ids of categories in the order of the names asked for. MMDetection's own come in the file's order, though the
    labels made of them are read as indices of the names, and names that the file lacks are passed over."""

    def get_cat_ids(self, cat_names: Sequence[str] = (), sup_names: Any = (), cat_ids: Any = ()) -> list[int]:
        ids = {category["name"]: category["id"] for category in self.dataset["categories"]}
        missing = [name for name in cat_names if name not in ids]
        if missing:
            raise SettingError(f"metainfo.classes: the file has no categories {missing}; all it has: {','.join(ids)}")
        return [ids[name] for name in cat_names]


class _All(COCO):
    """Ids of all categories, whatever is asked for."""

    def get_cat_ids(self, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()) -> list[int]:
        return [category["id"] for category in self.dataset["categories"]]


@DATASETS.register_module()
class NamedCocoDataset(CocoDataset):
    """COCO's format, with the classes of ``metainfo.classes`` in that order; objects of other categories are not used.

    Raises:
        ValueError: the annotation file lacks a category of that name; the message has those that it has.
    """

    COCOAPI = _Named


@DATASETS.register_module()
class OneClassCocoDataset(CocoDataset):
    """COCO's format, with the objects of all categories as one class, whose name is the one of ``metainfo.classes``.

    ``CocoMetric`` without ``ann_file`` takes the truth from the samples' ``instances``, so no file is rewritten.

    Raises:
        ValueError: ``metainfo.classes`` has not exactly one name.
    """

    COCOAPI = _All

    def load_data_list(self) -> list[dict]:
        if len(self.metainfo["classes"]) != 1:
            raise SettingError(f"OneClassCocoDataset: metainfo.classes={self.metainfo['classes']}, expected one name")
        images = super().load_data_list()
        for image in images:
            for instance in image["instances"]:
                instance["bbox_label"] = 0
        return images
