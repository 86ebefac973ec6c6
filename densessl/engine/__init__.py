"""Runs: the runner, its hooks, optimisers and logs."""

from densessl.engine.bad_images_hook import BadImagesHook
from densessl.engine.export_hook import ExportHook
from densessl.engine.init_hook import InitHook
from densessl.engine.lars import LARS, DenseOptimWrapperConstructor, split_parameters
from densessl.engine.lr_hook import LRHook, StepHook
from densessl.engine.precision import DenseOptimWrapper
from densessl.engine.progress import AsyncRuntimeInfoHook, ProgressHook
from densessl.engine.runner import DenseRunner
from densessl.engine.vis_backends import JsonlVisBackend

__all__ = [
    "LARS",
    "AsyncRuntimeInfoHook",
    "BadImagesHook",
    "DenseOptimWrapper",
    "DenseOptimWrapperConstructor",
    "DenseRunner",
    "ExportHook",
    "InitHook",
    "JsonlVisBackend",
    "LRHook",
    "ProgressHook",
    "StepHook",
    "split_parameters",
]
