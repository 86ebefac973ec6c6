"""densessl: self-supervised pretraining of detection backbones and detectors.

    import densessl
    run = densessl.pretrain("photos/", method="pixpro", backbone="resnet18", out="runs/a")
    densessl.load_backbone(detector, run.weights)

Importing the package imports neither torch nor mmdet: its names are looked up when they are first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from densessl import compat  # installs the stand-in for mmcv's compiled operators; imports nothing heavy
from densessl.version import __version__

# The Python interface: public names by module. docs/python.md shows how to use them.
_NAMES = {
    "api": ("Pretrained", "compare", "pretrain"),
    "data": ("Batch",),
    "errors": ("DensesslError",),
    "geometry": ("ViewGeometry",),
    "horizon": ("Horizon",),
    "methods": ("list_methods",),
    "model": ("TwoBranch",),
    "objectives": ("Objective",),
    "on_maps": ("ObjectiveOnMaps",),
    "run_settings": ("RunSettings",),
    "runs": ("build_run",),
    "weights.build": ("backbone_from",),
    "weights.detector.export": ("export_detector",),
    "weights.detector.load": ("load_detector",),
    "weights.export": ("convert_backbone", "export_backbone"),
    "weights.load": ("load_backbone",),
    "weights.read": ("read_backbone",),
}
# Registered classes whose modules import mmdet, so that registries do not import them by themselves. MMEngine looks up
# `type="densessl.NamedCocoDataset"` here, and a stock config works without `custom_imports`.
_TYPES = {
    "NamedCocoDataset": "finetune.categories",
    "OneClassCocoDataset": "finetune.categories",
    **dict.fromkeys(
        ("DETReg", "DINO33", "DetectorPretraining", "PairDETR", "PairDETRHead", "UPDETR"),
        "detectors",
    ),
}
_MODULES = {name: module for module, names in _NAMES.items() for name in names}
__all__ = [
    "Batch",
    "DensesslError",
    "Horizon",
    "Objective",
    "ObjectiveOnMaps",
    "Pretrained",
    "RunSettings",
    "TwoBranch",
    "ViewGeometry",
    "__version__",
    "backbone_from",
    "build_run",
    "compare",
    "compat",
    "convert_backbone",
    "export_backbone",
    "export_detector",
    "list_methods",
    "load_backbone",
    "load_detector",
    "pretrain",
    "read_backbone",
]

if TYPE_CHECKING:
    from densessl.api import Pretrained, compare, pretrain
    from densessl.data import Batch
    from densessl.errors import DensesslError
    from densessl.geometry import ViewGeometry
    from densessl.horizon import Horizon
    from densessl.methods import list_methods
    from densessl.model import TwoBranch
    from densessl.objectives import Objective
    from densessl.on_maps import ObjectiveOnMaps
    from densessl.run_settings import RunSettings
    from densessl.runs import build_run
    from densessl.weights.build import backbone_from
    from densessl.weights.detector.export import export_detector
    from densessl.weights.detector.load import load_detector
    from densessl.weights.export import convert_backbone, export_backbone
    from densessl.weights.load import load_backbone
    from densessl.weights.read import read_backbone


def __getattr__(name: str) -> Any:
    module = _MODULES.get(name) or _TYPES.get(name)
    if module is None:
        raise AttributeError(f"module 'densessl' has no attribute {name!r}")
    value = getattr(import_module(f"densessl.{module}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
