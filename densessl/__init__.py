"""densessl: self-supervised pretraining of detection backbones and detectors."""

from densessl.version import __version__

__all__ = ["__version__"]
