"""Train on images without objects, where the detector can."""

from mmengine.config import Config
from mmengine.registry import MODELS

from densessl.finetune.config.data_files import class_of, leaves

# Detectors of MMDetection in which a batch without any object leaves layers without a gradient, which stops distributed
# training. The families of the shipped protocols and a dozen others were found to make a whole step.
CANNOT = ("SOLO", "SOLOv2", "YOLOF")
KNOWN = ("mmdet.", "densessl.")  # packages whose detectors were tried


def keep_empty_images(cfg: Config) -> str | None:
    """Make the train sets keep images without objects, in place, if the detector can train on them.

    Returns:
        A line for the log; None if the config keeps such images anyway.
    """
    sets = [leaf.cfg for leaf in leaves(cfg, "train_dataloader")]
    filters = [entry for entry in sets if (entry.get("filter_cfg") or {}).get("filter_empty_gt")]
    if not filters:
        return None
    kind = class_of(cfg.model.get("type"), cfg.get("default_scope"), MODELS)
    name = kind.__name__ if kind else cfg.model.get("type")
    if kind is None or name in CANNOT or not kind.__module__.startswith(KNOWN):
        return f"images without objects stay left out, because {name} does not train on them safely"
    for entry in filters:
        entry["filter_cfg"] = {**entry["filter_cfg"], "filter_empty_gt": False}
    return "images without objects are trained on as background"
