"""Annotations for the values that a setting may have, such as ``temperature: Positive = 0.2`` in a signature.

Python ignores these annotations. :mod:`densessl.settings` reads them to check configs before anything is built and to
explain a run, so that no second list of keys or ranges is needed.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

AUTO = "auto"  # for settings that a run computes itself before anything is built


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; neither NaN nor infinite.

    Attributes:
        above: whether ``low`` itself is excluded.
        auto: whether the word "auto" is allowed as well.
        also: further values with a meaning of their own, such as -1 for "never".
    """

    low: float = -math.inf
    high: float = math.inf
    above: bool = False
    auto: bool = False
    also: tuple[float, ...] = ()

    def __contains__(self, number: float) -> bool:
        if number in self.also:
            return True
        if not math.isfinite(number) or (self.above and number == self.low):
            return False
        return self.low <= number <= self.high

    def __str__(self) -> str:
        low, high = _number(self.low), _number(self.high)
        if self.high < math.inf:
            text = f"{'above ' * self.above}{low} to {high}" if self.low > -math.inf else f"at most {high}"
        elif self.low > -math.inf:
            text = f"above {low}" if self.above else f"at least {low}"
        else:
            text = "finite"
        return " or ".join([text, *(_number(value) for value in self.also), *(["'auto'"] if self.auto else [])])


def _number(value: float) -> str:
    """A number as text; large whole ones with all their digits."""
    return f"{value:,.0f}" if 1e6 <= abs(value) < math.inf and value == int(value) else f"{value:g}"


@dataclass(frozen=True)
class Ascending:
    """Marks a list whose numbers never decrease."""


@dataclass(frozen=True, eq=False)  # hashed by identity: typing hashes markers, and a table has no hash
class Config:
    """Marks a dict from which something is built: ``dict(type=…, **arguments)``, or the arguments alone.

    Attributes:
        of: what is built: a class of a registry, or an entry of a table of classes or functions, chosen by ``type``; or
            one class or function, without ``type``.
        default: the ``type`` of a config that has none; without a default, ``type`` is required.
        given: arguments that the builder passes itself, and that a config may not have.
        filled: arguments that the builder passes if the config leaves them out.
        refine: TypedDict with exact annotations for arguments of other libraries' classes.
        also: TypedDict of further keys, which the builder takes itself.
        values: range of what a schedule may return (:mod:`densessl.schedules`).
        closed: classes that accept any argument by their signature, but not in fact.
        moved: keys that do not belong here, each with the reason.
        trial: whether a check builds the object, to find what its constructor rejects; for classes that are cheap to
            build and read no file.
    """

    of: Any
    default: str | None = None
    given: tuple[str, ...] = ()
    filled: tuple[str, ...] = ()
    refine: type | None = None
    also: type | None = None
    values: Range | None = None
    closed: tuple[type, ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)
    trial: bool = False


@dataclass(frozen=True)
class Depends:
    """Marks a setting whose annotation depends on its value.

    Attributes:
        on: function of the value and of the run's ``default_scope``, which returns the annotation for the value.
    """

    on: Callable[[Mapping, str], Any]


@dataclass(frozen=True, eq=False)
class Name:
    """Marks a word that names a class of a registry.

    Attributes:
        of: the registry.
    """

    of: Any


@dataclass(frozen=True)
class OfSchedule:
    """Marks a value that a schedule returns. Its range is that of the setting that the schedule is for."""


Value = Annotated[float, OfSchedule()]
Share = Annotated[float, Range(0, 1)]  # probabilities, momenta, shares of an area
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
AutoCount = Annotated[int, Range(1, auto=True)]
