"""Checks the settings of a run before data is read, and explains them.

The signatures and docstrings of registered classes are the schema. :mod:`densessl.constraints` has the annotations for
ranges and for nested configs.
"""

from densessl.settings.check import check_config, require
from densessl.settings.explain import explain
from densessl.settings.origins import origins_of

__all__ = ["check_config", "explain", "origins_of", "require"]
