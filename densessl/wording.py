"""What messages share: nearest names, counts and durations."""

import difflib
import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

from densessl.errors import SettingError

MANY = 30  # names that no message lists


def choose(key: str, name: Any, names: Iterable[str]) -> Any:
    """``name``, where it is one of ``names``.

    Raises:
        SettingError: it is not; the message names ``key`` and the nearest of ``names``.
    """
    if name in names:
        return name
    raise SettingError(f"{key} {name!r} is unknown; {suggestion(name, names)}")


def at_least(key: str, number: float, least: float) -> None:
    """Nothing, if a number is at least another one. Raises SettingError, which names ``key``."""
    if not number >= least:
        raise SettingError(f"{key}: found {number}, expected at least {least}")


def nearest(name: Any, names: Iterable[str], count: int = 3, cutoff: float = 0.6) -> list[str]:
    """The names most like ``name``, best first.

    Args:
        count: how many at most.
        cutoff: least similarity, 0 to 1; with 0 there always is one, unless ``names`` is empty.
    """
    return difflib.get_close_matches(str(name), list(names), n=count, cutoff=cutoff)


def suggestion(name: Any, names: Iterable[str]) -> str:
    """The end of an error message: the names nearest to ``name``; when none is near, all names, or their number."""
    names = sorted(names)
    near = nearest(name, names)
    if near:
        return f"did you mean {' or '.join(near)}?"
    return f"known: {', '.join(names)}" if len(names) <= MANY else f"none of the {len(names)} known names is near it"


def near_it(path: str | Path) -> str:
    """The end of an error message about a missing file: ``; near it are a.pth, b.pth``, of the files in its folder
    with names like it. Empty if there is none."""
    path = Path(path)
    names = [each.name for each in path.parent.iterdir() if each.is_file()] if path.parent.is_dir() else []
    near = nearest(path.name, names)
    return f"; near it {'is' if len(near) == 1 else 'are'} {', '.join(near)}" if near else ""


def count(number: float, noun: str, many: str | None = None) -> str:
    """``1 step``, ``2 steps``, ``10,000 images``, ``1.5 steps``.

    Args:
        noun: of one.
        many: the noun of several, where it does not only end in another "s".
    """
    shown = f"{number:,.6g}" if isinstance(number, float) else f"{number:,}"
    return f"{shown} {noun if number == 1 else many or f'{noun}s'}"


def listed_names(names: Sequence[Any], most: int = 5) -> str:
    """The first names in quotation marks, and how many more there are."""
    more = len(names) - most
    return ", ".join(map(repr, names[:most])) + (f" and {more} more" if more > 0 else "")


def duration(seconds: float) -> str:
    """``1 day, 2:03:04``; ``--`` where it is not known (NaN, infinite or negative)."""
    return str(timedelta(seconds=round(seconds))) if math.isfinite(seconds) and seconds >= 0 else "--"
