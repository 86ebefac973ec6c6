"""Runs: the runner, its hooks, optimisers, schedules and checkpoints."""

from densessl.engine.checkpoint import load_weights, read_checkpoint, save_checkpoint
from densessl.engine.export_hook import ExportHook
from densessl.engine.init_hook import InitBackboneHook
from densessl.engine.lars import LARS, DenseOptimWrapperConstructor, split_parameters
from densessl.engine.lr_hook import LRHook, StepHook
from densessl.engine.precision import DenseOptimWrapper
from densessl.engine.progress import AsyncRuntimeInfoHook, ProgressHook
from densessl.engine.runner import DenseRunner
from densessl.engine.schedules import Horizon, build_schedule
from densessl.engine.vis_backends import JsonlVisBackend

__all__ = [
    "LARS",
    "AsyncRuntimeInfoHook",
    "DenseOptimWrapper",
    "DenseOptimWrapperConstructor",
    "DenseRunner",
    "ExportHook",
    "Horizon",
    "InitBackboneHook",
    "JsonlVisBackend",
    "LRHook",
    "ProgressHook",
    "StepHook",
    "build_schedule",
    "load_weights",
    "read_checkpoint",
    "save_checkpoint",
    "split_parameters",
]
