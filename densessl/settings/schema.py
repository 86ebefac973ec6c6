"""The schema of a dict in a config, from the signature and docstring of what is built from it."""

import inspect
import re
import sys
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import MISSING, dataclass, field
from functools import cache
from inspect import Parameter
from typing import Any, NamedTuple, TypedDict, get_type_hints

from densessl.constraints import Config
from densessl.settings.docstrings import meanings_of, summary_of
from densessl.settings.lookup import MANY
from densessl.signatures import named_arguments
from densessl.wording import nearest

REQUIRED = Parameter.empty
UNSET = object()  # default of a key that may be left out and has none
QUOTED = re.compile(r"""['"](\w+)['"]""")


class Argument(NamedTuple):
    """An argument.

    Attributes:
        annotation: its annotation.
        default: its default; ``REQUIRED`` if it must be given, ``UNSET`` if it may be left out and has no default.
        meaning: the first sentence about it in the docstring.
        is_ours: whether its annotation is exact, as in this library but not in every other.
    """

    annotation: Any
    default: Any
    meaning: str
    is_ours: bool


@dataclass(frozen=True)
class Schema:
    """What a dict may hold.

    Attributes:
        title: the class whose arguments these are, for messages; empty where there is none.
        arguments: arguments by name.
        takes_any: whether further keys are accepted.
        summary: a sentence about the class.
        is_ours: whether the signature is complete and exact.
        kinds: the classes or functions that may be built.
        moved: keys that do not belong here, each with the reason.
    """

    title: str
    arguments: Mapping[str, Argument]
    takes_any: bool = False
    summary: str = ""
    is_ours: bool = True
    kinds: tuple[Callable[..., Any], ...] = ()
    moved: Mapping[str, str] = field(default_factory=dict)

    def unknown(self, key: str, value: Any = None) -> str:
        """The rest of a line about a key that is not among the arguments."""
        if key in self.moved:
            return f"leave it out: {self.moved[key]}"
        for kind in self.kinds:
            if key in getattr(kind, "RENAMED", {}):
                return f"is no longer taken; write {kind.RENAMED[key].format(value)}"
        near = " or ".join(nearest(key, self.arguments))
        hint = f"; did you mean {near}?" if near else ""
        if near and len(self.arguments) > MANY:
            return f"unknown{hint}"
        valid = f"valid for {self.title}" if self.title else "valid"
        names = ", ".join(sorted(name for name in self.arguments if not name.startswith("_")))
        return f"unknown{hint} ({valid}: {names or 'none'})"


class LayerKeys(TypedDict, total=False):
    """Keys that builders of MMEngine and mmcv take from the config of any layer or initialisation."""

    requires_grad: bool
    inplace: bool
    fallback_on_stride: bool
    override: Any
    layer: Any
    _scope_: str


LAYER_KEYS = frozenset(LayerKeys.__annotations__)


@cache
def schema_of_dict(structure: type) -> Schema:
    """The schema of a TypedDict, whose docstring has the meanings of its keys."""
    required, meanings = structure.__required_keys__, meanings_of(structure)
    arguments = {
        name: Argument(hint, REQUIRED if name in required else UNSET, meanings.get(name, ""), True)
        for name, hint in get_type_hints(structure, include_extras=True).items()
    }
    return Schema("", arguments, summary=summary_of(structure))


def schema_of(kind: Callable[..., Any], config: Config) -> Schema:
    """The schema of a class or function.

    Args:
        config: the marker of the dict, with the keys that the builder adds or takes itself.
    """
    ours, meanings = is_ours(kind), meanings_of(kind)
    named, takes_any = named_arguments(kind) if ours else all_arguments(kind)
    arguments = {
        name: Argument(parameter.annotation, _default(kind, parameter), meanings.get(name, ""), ours)
        for name, parameter in named.items()
        if name not in config.given and name not in config.moved
    }
    refined = schema_of_dict(config.refine).arguments if config.refine and not ours else {}
    for name in refined.keys() & arguments.keys():
        loose, exact = arguments[name], refined[name]
        arguments[name] = Argument(exact.annotation, loose.default, exact.meaning or loose.meaning, True)
    added = schema_of_dict(config.also).arguments if config.also else {}
    arguments |= {name: each for name, each in added.items() if name not in arguments}
    title = getattr(kind, "__name__", str(kind)).lstrip("_")  # a schedule's type is its function's name without "_"
    return Schema(
        title, arguments, takes_any and kind not in config.closed, summary_of(kind), ours, (kind,), config.moved
    )


def _default(kind: Callable[..., Any], parameter: Parameter) -> Any:
    """The default of an argument; for a dataclass field with a factory, a new object from it."""
    field_of = getattr(kind, "__dataclass_fields__", {}).get(parameter.name)
    if field_of is not None and field_of.default_factory is not MISSING:
        return field_of.default_factory()
    return parameter.default


def schema_of_any(kinds: Iterable[Callable[..., Any]]) -> Schema:
    """The schema of a dict from which one of several classes of the same name is built.

    Their annotations are not reliable. Nor is a missing argument a mistake, since the builder may pass it.
    """
    schemas = [schema_of(kind, Config(kind)) for kind in kinds]
    arguments = {name: each for schema in reversed(schemas) for name, each in schema.arguments.items()}
    takes_any = any(schema.takes_any for schema in schemas)
    every = tuple(kind for schema in schemas for kind in schema.kinds)
    return Schema(schemas[0].title, arguments, takes_any, schemas[0].summary, is_ours=False, kinds=every)


@cache
def all_arguments(kind: Callable[..., Any]) -> tuple[dict[str, Parameter], bool]:
    """The arguments of another library's class, in the form of :func:`densessl.signatures.named_arguments`.

    If the class passes ``**kwargs`` on, the arguments of all its bases are included, since no signature tells which
    base's ``__init__`` is called. If the class or a base only absorbs ``**kwargs``, further arguments are accepted.
    """
    named, takes_any = named_arguments(kind)
    bases = kind.__mro__ if inspect.isclass(kind) else ()
    calls = [vars(base)["__init__"] for base in bases if "__init__" in vars(base) and base is not object]
    rests = [_name_of_rest(call) for call in calls]
    if calls and rests[0]:
        for base in bases[1:]:
            named = {**named_arguments(base)[0], **named}
        takes_any |= any(rest is not None and not _hands_on(call, rest) for call, rest in zip(calls, rests))
    return named, takes_any


def _name_of_rest(call: Callable[..., Any]) -> str | None:
    """The name of a function's ``**kwargs``; None if it has none."""
    try:
        parameters = inspect.signature(call).parameters.values()
    except (TypeError, ValueError):
        return None
    return next((each.name for each in parameters if each.kind is each.VAR_KEYWORD), None)


def _hands_on(call: Callable[..., Any], rest: str) -> bool:
    """Whether the source of a function uses its ``**kwargs`` in a call."""
    try:
        return inspect.getsource(call).count(f"**{rest}") > 1
    except (OSError, TypeError):
        return False


@cache
def quoted_words(kind: Callable[..., Any]) -> frozenset[str]:
    """The words in quotes in the modules of a class and its bases, or of a function. Among them are the keys that the
    class reads from the configs of its parts before it builds the parts."""
    names = {str(getattr(each, "__module__", "")) for each in getattr(kind, "__mro__", (kind,))}
    words: set[str] = set()
    for name in names:
        if name in sys.modules and name.partition(".")[0] not in ("builtins", "torch", "abc"):
            with suppress(OSError, TypeError):
                words.update(QUOTED.findall(inspect.getsource(sys.modules[name])))
    return frozenset(words)


def is_ours(kind: Callable[..., Any]) -> bool:
    """Whether a function, or the constructor of a class, belongs to this library, whose annotations are exact."""
    if inspect.isclass(kind):
        kind = next((base for base in kind.__mro__ if "__init__" in vars(base) and base is not object), kind)
    return str(getattr(kind, "__module__", "")).partition(".")[0] == "densessl"
