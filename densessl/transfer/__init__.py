"""The names of old: ``custom_imports=["densessl.transfer"]`` in configs already written goes on working. The house of
weights is :mod:`densessl.weights`, that of fine-tuning :mod:`densessl.finetune`."""

from densessl.errors import ExportError, LoadError
from densessl.finetune.layer_decay import LayerDecayConstructor
from densessl.finetune.load_hooks import LoadBackboneHook, LoadDetectorHook
from densessl.finetune.precise_bn import PreciseBNHook, set_precise_statistics
from densessl.finetune.res5_head import Res5Head
from densessl.finetune.vitdet import LN2d, SimpleFPN, ViTDet
from densessl.weights.detector.convert import convert_detector
from densessl.weights.detector.export import export_detector
from densessl.weights.detector.load import load_detector
from densessl.weights.detector.stock import build_detector
from densessl.weights.equality import feature_differences, part_differences
from densessl.weights.export import convert_backbone, export_backbone, how_to_open
from densessl.weights.fingerprint import Difference, Fingerprint
from densessl.weights.formats.to_timm import timm_arguments
from densessl.weights.load import load_backbone, load_parts
from densessl.weights.load_report import LoadReport
from densessl.weights.read import parts_in, read_backbone

__all__ = [
    "Difference",
    "ExportError",
    "Fingerprint",
    "LN2d",
    "LayerDecayConstructor",
    "LoadBackboneHook",
    "LoadDetectorHook",
    "LoadError",
    "LoadReport",
    "PreciseBNHook",
    "Res5Head",
    "SimpleFPN",
    "ViTDet",
    "build_detector",
    "convert_backbone",
    "convert_detector",
    "export_backbone",
    "export_detector",
    "feature_differences",
    "how_to_open",
    "load_backbone",
    "load_detector",
    "load_parts",
    "part_differences",
    "parts_in",
    "read_backbone",
    "set_precise_statistics",
    "timm_arguments",
]
