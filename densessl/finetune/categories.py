"""Data sets in COCO's format with chosen classes, or with one class. Imports mmdet, so configs import this module:

``custom_imports = dict(imports=[…, "densessl.finetune.categories"])``.
"""

from collections.abc import Sequence
from typing import Any

from mmdet.datasets import CocoDataset
from mmdet.datasets.api_wrappers import COCO

from densessl.errors import SettingError
from densessl.registry import DATASETS


class _Named(COCO):
    """Returns category ids in the order of the given names. MMDetection's own class returns them in the file's order,
    although labels are read as indices of the names, and ignores names that the file lacks."""

    def get_cat_ids(self, cat_names: Sequence[str] = (), sup_names: Any = (), cat_ids: Any = ()) -> list[int]:
        ids = {category["name"]: category["id"] for category in self.dataset["categories"]}
        missing = [name for name in cat_names if name not in ids]
        if missing:
            raise SettingError(f"metainfo.classes: the file has no categories {missing}; it has {','.join(ids)}")
        return [ids[name] for name in cat_names]


class _All(COCO):
    """Returns the ids of all categories, whatever the given names."""

    def get_cat_ids(self, cat_names: Any = (), sup_names: Any = (), cat_ids: Any = ()) -> list[int]:
        return [category["id"] for category in self.dataset["categories"]]


@DATASETS.register_module()
class NamedCocoDataset(CocoDataset):
    """COCO's format, with the classes of ``metainfo.classes`` in that order; objects of other categories are ignored.

    Raises:
        SettingError: the annotation file lacks one of the classes; the message lists its categories.
    """

    COCOAPI = _Named


@DATASETS.register_module()
class OneClassCocoDataset(CocoDataset):
    """COCO's format, with the objects of all categories as one class, named in ``metainfo.classes``.

    ``CocoMetric`` without ``ann_file`` takes the ground truth from the samples' ``instances``, so no file is rewritten.

    Raises:
        SettingError: ``metainfo.classes`` does not have exactly one name.
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
