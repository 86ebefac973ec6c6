"""From a pretrained branch to a detector: export, fingerprint, load with a report. Imports no mmdet and no mmcv."""

from densessl.transfer.export import ExportError, export_backbone, parts_in, read_backbone
from densessl.transfer.fingerprint import Difference, Fingerprint
from densessl.transfer.load import LoadBackboneHook, build_detector, load_backbone, load_parts
from densessl.transfer.proof import feature_differences, part_differences
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
    "load_parts",
    "part_differences",
    "parts_in",
    "read_backbone",
]
