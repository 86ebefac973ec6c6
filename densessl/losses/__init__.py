"""Objectives' maths: pure functions on paired tensors, at least in fp32 whatever the autocast."""

from densessl.losses.instance import cosine_regression
from densessl.losses.pixel import pixel_consistency, pixel_contrast, pixel_propagation
from densessl.losses.reduce import full_precision, global_count, unit, valid_mean

__all__ = [
    "cosine_regression",
    "full_precision",
    "global_count",
    "pixel_consistency",
    "pixel_contrast",
    "pixel_propagation",
    "unit",
    "valid_mean",
]
