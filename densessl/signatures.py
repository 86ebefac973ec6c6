"""What arguments a class takes, as its signature tells: the schema of every config, so that none is written twice."""

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from densessl.errors import SettingError

# Its signature says that it takes anything; it takes nothing.
MODULE = ("torch.nn.modules.module", "Module.__init__")


def arguments_of(kind: Callable[..., Any]) -> dict[str, inspect.Parameter] | None:
    """The named arguments of a class or function, with their annotations evaluated where they can be; None where it
    takes any.

    A class that hands ``**kwargs`` on has those of its bases too, as far as these tell.
    """
    named, takes_any = named_arguments(kind)
    return None if takes_any else named


def named_arguments(kind: Callable[..., Any]) -> tuple[dict[str, inspect.Parameter], bool]:
    """The arguments of :func:`arguments_of` that have names, and whether any others are taken as well."""
    calls = [kind]
    if inspect.isclass(kind):
        calls = [base.__init__ for base in kind.__mro__ if "__init__" in vars(base)]
    method = inspect.isclass(kind)
    named: dict[str, inspect.Parameter] = {}
    for number, call in enumerate(calls):
        if call is object.__init__ or (call.__module__, call.__qualname__) == MODULE:
            return named, bool(number)
        try:
            parameters = list(_signature(call).parameters.values())
        except (TypeError, ValueError):  # written in C
            return named, True
        for parameter in parameters[method:]:
            if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY):
                named.setdefault(parameter.name, parameter)
        if not any(parameter.kind is parameter.VAR_KEYWORD for parameter in parameters):
            return named, False
    return named, True


def refuse_renamed(kind: type, given: Mapping[str, Any]) -> None:
    """Answer arguments of earlier versions with what says the same now.

    Args:
        kind: has ``RENAMED``: what to write now, by old name; ``{}`` in it stands for the value.
        given: arguments by name.

    Raises:
        SettingError: some of them have other names now.
    """
    answers = [
        f"{kind.__name__} takes no {name!r} any more: {kind.RENAMED[name].format(value)}"
        for name, value in given.items()
        if name in kind.RENAMED
    ]
    if answers:
        raise SettingError("\n".join(answers))


def _signature(call: Callable[..., Any]) -> inspect.Signature:
    try:
        return inspect.signature(call, eval_str=True)
    except (NameError, AttributeError, SyntaxError):  # an annotation that only type checkers can resolve
        return inspect.signature(call)
