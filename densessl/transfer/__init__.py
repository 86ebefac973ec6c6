"""From a pretrained branch to a detector: export, fingerprint, load with a report, and what a ViT needs to become one.
Imports no mmdet and no mmcv."""

from densessl.transfer.c4 import Res5Head
from densessl.transfer.convert import convert_backbone, convert_detector
from densessl.transfer.detector import LoadDetectorHook, load_detector
from densessl.transfer.detector_files import export_detector
from densessl.transfer.export import export_backbone, how_to_open
from densessl.transfer.fingerprint import Difference, Fingerprint
from densessl.transfer.layer_decay import LayerDecayConstructor
from densessl.transfer.load import LoadBackboneHook, build_detector, load_backbone, load_parts
from densessl.transfer.precise_bn import PreciseBNHook, set_precise_statistics
from densessl.transfer.proof import feature_differences, part_differences
from densessl.transfer.read import parts_in, read_backbone
from densessl.transfer.report import ExportError, LoadError, LoadReport
from densessl.transfer.to_timm import timm_arguments
from densessl.transfer.vitdet import LN2d, SimpleFPN, ViTDet

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
