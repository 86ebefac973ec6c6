"""What messages share: nearest names and durations."""

import difflib
import math
from collections.abc import Iterable
from datetime import timedelta
from typing import Any


def choose(key: str, name: Any, names: Iterable[str]) -> Any:
    """``name``, if it is one of ``names``; else a ValueError that says so of ``key`` and offers the nearest."""
    if name in names:
        return name
    raise ValueError(f"{key} {name!r} is unknown; {suggestion(name, names)}")


def suggestion(name: Any, names: Iterable[str]) -> str:
    """The end of an error message: the names nearest to ``name``, or all names when none is near."""
    names = sorted(names)
    near = nearest(name, names)
    return f"did you mean {near}?" if near else f"known: {', '.join(names)}"


def nearest(name: Any, names: Iterable[str]) -> str:
    """The up to three names nearest to ``name``, empty when none is near."""
    return " or ".join(difflib.get_close_matches(str(name), sorted(names), n=3))


def duration(seconds: float) -> str:
    """``1 day, 2:03:04``; ``--`` where it is not known (NaN, infinite or negative)."""
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) and seconds >= 0 else "--"
