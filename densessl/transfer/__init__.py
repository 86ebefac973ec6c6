"""From a pretrained branch to a detector: export, fingerprint, load with a report. Imports no mmdet and no mmcv."""

from densessl.transfer.export import ExportError, export_backbone, read_backbone
from densessl.transfer.fingerprint import Difference, Fingerprint
from densessl.transfer.load import LoadBackboneHook, build_detector, feature_differences, load_backbone
from densessl.transfer.report import LoadError, LoadReport

__all__ = [
    "Difference",
    "ExportError",
    "Fingerprint",
    "LoadBackboneHook",
    "LoadError",
    "LoadReport",
    "build_detector",
    "export_backbone",
    "feature_differences",
    "load_backbone",
    "read_backbone",
]
