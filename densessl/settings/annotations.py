"""Reads the annotations of arguments: which values of a config they allow, and how to say so in words."""

import inspect
import math
import types
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Integral, Real
from pathlib import Path
from typing import Annotated, Any, Literal, NotRequired, Required, TypeVar, Union, get_args, get_origin, is_typeddict

from densessl.constraints import AUTO, Ascending, Config, Depends, OfSchedule, Range

LISTS = (list, tuple, set, Sequence, Collection, Iterable)
DICTS = (dict, Mapping)
NAMES = {int: "a whole number", float: "a number", str: "a word", bool: "True or False", type(None): "None"}


def alternatives(annotation: Any) -> list[tuple[Any, tuple]]:
    """The types that an annotation allows, each with its markers (``Range``, ``Config`` …)."""
    origin = get_origin(annotation)
    if origin is Annotated:
        inner, *markers = get_args(annotation)
        return [(kind, (*of_kind, *markers)) for kind, of_kind in alternatives(inner)]
    if origin in (Union, types.UnionType):
        return [each for inner in get_args(annotation) for each in alternatives(inner)]
    if origin in (Required, NotRequired):
        return alternatives(get_args(annotation)[0])
    if annotation in (inspect.Parameter.empty, Any) or isinstance(annotation, TypeVar | str):
        return [(Any, ())]
    return [(type(None) if annotation is None else annotation, ())]


def marker(markers: Iterable[Any], kind: type) -> Any:
    """The first marker of a kind; None if there is none."""
    return next((each for each in markers if isinstance(each, kind)), None)


def origin_of(kind: Any) -> Any:
    """The type without its parameters, such as ``Sequence`` for ``Sequence[int]``."""
    return get_origin(kind) or kind


def is_list(kind: Any) -> bool:
    return origin_of(kind) in LISTS


def is_dict(kind: Any) -> bool:
    return is_typeddict(kind) or origin_of(kind) in DICTS


def entries_of(kind: Any, length: int) -> list[Any]:
    """Annotations of the entries of a list of a given length; for a tuple of fixed length, one for each of its own
    entries."""
    arguments = get_args(kind)
    if not arguments:
        return [Any] * length
    if origin_of(kind) is tuple and arguments[-1] is not Ellipsis:
        return list(arguments)
    return [arguments[0]] * length


def fits(value: Any, annotation: Any, values: Range | None = None) -> bool:
    """Whether an annotation allows a plain value.

    Lists and tuples are interchangeable. Dicts from which something is built are not inspected, and values that no
    config can hold (a module, a function) are allowed.

    Args:
        values: range for the marker :class:`densessl.constraints.OfSchedule`.
    """
    return any(_fits(value, kind, markers, values) for kind, markers in alternatives(annotation))


def _fits(value: Any, kind: Any, markers: tuple, values: Range | None) -> bool:
    bounds = values if marker(markers, OfSchedule) else marker(markers, Range)
    if bounds is not None and bounds.auto and value == AUTO:
        return True
    if not _has_type(value, kind, values):
        return False
    if bounds is not None and value not in bounds:
        return False
    return not (marker(markers, Ascending) and list(value) != sorted(value))


def _has_type(value: Any, kind: Any, values: Range | None) -> bool:
    if kind is Any:
        return True
    if kind is type(None):
        return value is None
    if get_origin(kind) is Literal:
        return any(value == name and type(value) is type(name) for name in get_args(kind))
    if kind is bool:
        return isinstance(value, bool)
    if kind is int:
        return isinstance(value, Integral) and not isinstance(value, bool)
    if kind is float:
        return isinstance(value, Real) and not isinstance(value, bool) and not math.isnan(value)
    if kind is str:
        return isinstance(value, str)
    if kind is Path:
        return isinstance(value, str | Path)
    if is_list(kind):
        if not isinstance(value, list | tuple | set):
            return False
        entries = entries_of(kind, len(value))
        return len(entries) == len(value) and all(map(lambda entry, inner: fits(entry, inner, values), value, entries))
    if is_dict(kind):
        return isinstance(value, Mapping)
    if kind in (Callable, type) or origin_of(kind) in (Callable, type):
        return callable(value) or isinstance(value, str)
    if isinstance(kind, type):  # a module or data set: an instance, or a value that cannot be judged here
        return isinstance(value, kind) or not isinstance(value, str | Real | list | tuple | Mapping | type(None))
    return True


def expected(annotation: Any, values: Range | None = None) -> str:
    """What an annotation allows, in words, such as "a number (0 to 1) or None"."""
    words = dict.fromkeys(_words(kind, markers, values) for kind, markers in alternatives(annotation))
    return " or ".join(word for word in words if word)


def _words(kind: Any, markers: tuple, values: Range | None) -> str:
    bounds = values if marker(markers, OfSchedule) else marker(markers, Range)
    limits = f" ({bounds})" if bounds else ""
    if marker(markers, Ascending):
        limits += " in ascending order"
    if kind in NAMES:
        return NAMES[kind] + limits
    if kind is Path:
        return "a path"
    if get_origin(kind) is Literal:
        return " or ".join(map(repr, get_args(kind)))
    if is_dict(kind):
        kinds = marker(markers, Config) and not is_typeddict(kind) and "a dict(type=…)"
        return kinds if kinds and not callable(marker(markers, Config).of) else "a dict"
    if is_list(kind):
        inner = get_args(kind)
        if not inner or inner[0] is Any:
            return f"a list{limits}"
        if origin_of(kind) is tuple and Ellipsis not in inner:
            parts = [expected(each, values) for each in inner]
            each = parts[0] if len(set(parts)) == 1 else "; ".join(parts)
            return f"a list of {len(parts)}, each {each}{limits}" if len(set(parts)) == 1 else f"a list of: {each}"
        return f"a list, each entry {expected(inner[0], values)}{limits}"
    return "" if kind is Any or isinstance(kind, type) else str(kind)


def depends(markers: tuple) -> Depends | None:
    return marker(markers, Depends)
