"""Build stock detectors of MMDetection, unchanged or prepared for pretraining."""

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, DefaultScope
from torch import nn

from densessl.configs import is_pretraining, load_config
from densessl.errors import SettingError


def stock_model(detector: str | Mapping[str, Any]) -> dict[str, Any]:
    """Return the ``model`` of a config by name (``mmdet::detr/detr_r50_8xb2-150e_coco.py``, or a file), or a copy of a
    given one."""
    if isinstance(detector, Mapping):
        return copy.deepcopy(dict(detector))
    return _detector_config(detector).model.to_dict()


def _detector_config(name: str) -> Config:
    """A config by name. Raises SettingError: it has no model, or pretrains one."""
    cfg = load_config(name)
    if is_pretraining(cfg):
        raise SettingError(f"{name} pretrains; expected the config of a detector or segmentor")
    if not isinstance(cfg.get("model"), Mapping):
        raise SettingError(f"{name} has no `model`; expected the config of a detector or segmentor")
    return cfg


def pretraining_model(model: Mapping[str, Any], options: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return a detector's config prepared for pretraining: one class, and a frozen backbone without initial weights.

    Args:
        model: the ``model`` config of a DETR of MMDetection.
        options: further changes, by dotted name (``encoder.num_layers``).

    Raises:
        SettingError: the head has no ``num_classes``: it is no DETR.
    """
    model = copy.deepcopy(dict(model))
    if "num_classes" not in model.get("bbox_head", {}):
        raise SettingError(
            f"detector: {model.get('type')!r} has no bbox_head.num_classes, expected a DETR of MMDetection"
        )
    model["bbox_head"]["num_classes"] = 1
    model.pop("data_preprocessor", None)  # the batch arrives preprocessed
    backbone = model["backbone"]
    backbone.update(init_cfg=None)
    if "frozen_stages" in backbone or backbone["type"].endswith("ResNet"):
        backbone.update(frozen_stages=backbone.get("num_stages", 4), norm_eval=True)
    for key, value in (options or {}).items():
        *path, last = key.split(".")
        node = model
        for part in path:
            node = node[part]
        node[last] = value
    return model


def build(model: Mapping[str, Any]) -> nn.Module:
    """Build and initialise a detector. Nothing is downloaded unless an ``init_cfg`` in its config says so."""
    from mmdet.registry import MODELS  # of the det extra, which the rest of weights/ does not need

    with DefaultScope.overwrite_default_scope("mmdet"):
        detector = MODELS.build(dict(model))
        detector._dump_init_info = lambda: None  # otherwise MMEngine logs three lines per parameter
        detector.init_weights()
        del detector._dump_init_info
    return detector


def build_detector(config: str | Mapping[str, Any]) -> nn.Module:
    """Build the detector of an MMDet config (a file, ``mmdet::retinanet/retinanet_r50_fpn_1x_coco.py``, or its
    ``model``), or the segmentor of an mmseg config, recognised by its ``default_scope``.

    Weights are those of the layers' constructors: no ``init_cfg`` is followed and nothing is downloaded.
    """
    cfg = dict(model=dict(config)) if isinstance(config, Mapping) else _detector_config(config)
    with DefaultScope.overwrite_default_scope(cfg.get("default_scope", "mmdet")):
        return MODELS.build(cfg["model"])
