"""Objectives: one file a method. See :mod:`densessl.objectives.base` for the interface."""

from densessl.objectives.base import BranchMaps, DerivedView, Forward, Objective, Step
from densessl.objectives.pixpro import InstanceCosine, PixContrast, PixPro

__all__ = ["BranchMaps", "DerivedView", "Forward", "InstanceCosine", "Objective", "PixContrast", "PixPro", "Step"]
