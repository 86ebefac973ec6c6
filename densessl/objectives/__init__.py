"""Objectives, one module for each method. This package imports all of its modules, which registers their classes;
:mod:`densessl.objectives.base` has the interface."""

import pkgutil
from importlib import import_module

from densessl.objectives.base import BranchMaps, DerivedView, Forward, Objective
from densessl.schedules import Step

__all__ = ["BranchMaps", "DerivedView", "Forward", "Objective", "Step"]

for _module in pkgutil.iter_modules(__path__):
    import_module(f"{__name__}.{_module.name}")
