"""The settings of a run: checked before data is read, and explained.

The signatures and docstrings of registered classes are the schema; :mod:`densessl.constraints` has the words for ranges
and for configs in them.
"""

from densessl.settings.check import check_config, require

__all__ = ["check_config", "require"]
