"""Photometric operations, which run in batches on the device; data workers draw their random numbers."""

from densessl.augment.ops import ColorJitter, GaussianBlur, Grayscale, Solarize
from densessl.augment.photometric import Photometric, PhotometricOp, normalize

__all__ = ["ColorJitter", "GaussianBlur", "Grayscale", "Photometric", "PhotometricOp", "Solarize", "normalize"]
