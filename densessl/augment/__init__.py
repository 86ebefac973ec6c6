"""Photometric operations that run batched where the tensors are, on random numbers drawn in the data workers."""

from densessl.augment.ops import ColorJitter, GaussianBlur, Grayscale, Solarize
from densessl.augment.photometric import Photometric, PhotometricOp, normalize

__all__ = ["ColorJitter", "GaussianBlur", "Grayscale", "Photometric", "PhotometricOp", "Solarize", "normalize"]
