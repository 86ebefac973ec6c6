"""The settings of a run: checked before data is read, and explained.

The signatures and docstrings of registered classes are the schema; :mod:`densessl.constraints` has the words for ranges
and for configs in them.
"""

from densessl.settings.check import check_config, require
from densessl.settings.explain import explain
from densessl.settings.origins import origins_of

__all__ = ["check_config", "explain", "origins_of", "require"]
