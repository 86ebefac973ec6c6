"""What a setting may be, written where it is taken: ``temperature: Positive = 0.2`` in the signature of its class.

Python ignores these annotations. :mod:`densessl.settings` reads them, to check configs before anything is built and to
explain a run, so that no second list of keys or ranges has to be kept.
"""

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any

AUTO = "auto"  # what a run works out by itself before anything is built


@dataclass(frozen=True)
class Range:
    """Numbers from ``low`` to ``high``; neither NaN nor infinite.

    Attributes:
        above: whether ``low`` itself is excluded.
        auto: whether the word "auto" is allowed as well.
        also: further values that stand for something, such as -1 for "never".
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
        if self.high < math.inf:
            text = f"{'above ' if self.above else ''}{self.low:g} to {self.high:g}" if self.low > -math.inf else ""
            text = text or f"at most {self.high:g}"
        elif self.low > -math.inf:
            text = f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        else:
            text = "finite"
        return " or ".join([text, *(f"{value:g}" for value in self.also), *(["'auto'"] if self.auto else [])])


@dataclass(frozen=True)
class Ascending:
    """Numbers of a list, none less than the one before it."""


@dataclass(frozen=True, eq=False)  # a table cannot be hashed, and unions of types are
class Config:
    """A dict that something is built from: ``dict(type=…, **arguments)``, or the arguments alone.

    Attributes:
        of: what is built: a class of a registry, by ``type``; one of a table of classes or functions, by ``type``; or
            one class or function, without ``type``.
        default: the ``type`` of a config that names none; without it, ``type`` is required.
        given: arguments that the builder passes itself, and a config cannot.
        filled: arguments that the builder passes where a config leaves them out.
        refine: a TypedDict with annotations for arguments of classes that are not ours, which have none so precise.
        also: a TypedDict of further keys, which the builder takes before the class sees the rest.
        values: range of what a schedule may return (:mod:`densessl.schedules`).
        closed: classes that say they take any argument, and do not.
        moved: keys that stand elsewhere, and where.
        trial: build it in a check, for what its constructor refuses: it costs nothing and reads no file.
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
    """A setting whose form depends on its value.

    Attributes:
        on: from the value, and the scope of the run's registries, to the annotation that it has to fit.
    """

    on: Callable[[Mapping, str], Any]


@dataclass(frozen=True, eq=False)
class Name:
    """A word that names a class of a registry.

    Attributes:
        of: the registry.
    """

    of: Any


@dataclass(frozen=True)
class OfSchedule:
    """Marks what a schedule returns at some step: it has the range of the setting that the schedule is for."""


Value = Annotated[float, OfSchedule()]
Share = Annotated[float, Range(0, 1)]  # probabilities, momenta, shares of an area
Positive = Annotated[float, Range(0, above=True)]
NonNegative = Annotated[float, Range(0)]
Count = Annotated[int, Range(1)]
Whole = Annotated[int, Range(0)]
AutoCount = Annotated[int, Range(1, auto=True)]
