"""densessl: self-supervised pretraining of detection backbones and detectors."""

from densessl import compat  # installs the stand-in for mmcv's compiled operators; imports nothing heavy
from densessl.version import __version__

__all__ = ["__version__", "compat"]
