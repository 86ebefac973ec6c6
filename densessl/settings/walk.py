"""Walks over a config, guided by what is built from it, and collects all settings and all problems."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar, get_args, is_typeddict

from mmengine.registry import Registry

from densessl.constraints import Config, Depends, Name, Range
from densessl.errors import DensesslError
from densessl.settings import lookup
from densessl.settings.annotations import (
    alternatives,
    depends,
    entries_of,
    expected,
    fits,
    is_dict,
    is_list,
    marker,
)
from densessl.settings.schema import (
    LAYER_KEYS,
    REQUIRED,
    UNSET,
    Argument,
    Schema,
    quoted_words,
    schema_of,
    schema_of_any,
    schema_of_dict,
)
from densessl.wording import nearest, suggestion

T = TypeVar("T")
OWN_PATH = re.compile(r"^(objectives\.\w+|views)(: |(?=\.))\.?")  # with which constructors begin their messages
WRAPPERS = ("Albu",)  # name beginnings of classes with parts from another library, Albumentations
ALMOST = 0.85  # a name at least this similar to another is a misspelling of it
OUTSIDE = Argument(Any, None, "", False)  # for values in a dict that no annotation describes


class Setting(NamedTuple):
    """A setting of a run.

    Attributes:
        path: key path: ``model.objectives.0.temperature``.
        value: plain value.
        argument: the argument that it is for.
        is_default: whether the config leaves it out.
    """

    path: str
    value: Any
    argument: Argument
    is_default: bool = False


@dataclass
class Walk:
    """The settings and problems found so far.

    Attributes:
        scope: the run's ``default_scope``, whose classes need no prefix.
        settings: settings in the order of the config.
        problems: one line for each problem.
    """

    scope: str
    settings: list[Setting] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    _around: list[tuple[Callable[..., Any], ...]] = field(default_factory=list)  # classes whose configs the walk is in

    def problem(self, path: str, text: str) -> None:
        """Record a problem, unless it is already recorded."""
        line = f"{path}: {text}"
        if line not in self.problems:
            self.problems.append(line)

    def has_problem(self, path: str) -> bool:
        """Whether there is a problem at a key path or below it."""
        return any(line.startswith((f"{path}.", f"{path}:")) for line in self.problems)

    def visit(self, path: str, value: Any, argument: Argument, values: Range | None = None) -> None:
        """Walk over a value and everything in it.

        Args:
            path: key path of the value.
            argument: the argument that it is for.
            values: range for the marker :class:`densessl.constraints.OfSchedule`.
        """
        if isinstance(value, Mapping):
            self._visit_dict(path, value, argument, values)
        elif isinstance(value, list | tuple) and holds_dicts(value) and self._takes_list(argument):
            lists = [kind for kind, _ in alternatives(argument.annotation) if is_list(kind)]
            inner = entries_of(lists[0], len(value)) if lists else [Any] * len(value)
            for number, (entry, annotation) in enumerate(zip(value, inner)):
                self.visit(f"{path}.{number}", entry, argument._replace(annotation=annotation), values)
        else:
            self._check(path, value, argument, values)
            self.settings.append(Setting(path, value, argument))

    def _check(self, path: str, value: Any, argument: Argument, values: Range | None) -> None:
        """Check a value that contains no dicts."""
        fitting = fits if argument.is_ours else may_fit
        if not fitting(value, argument.annotation, values):
            return self.problem(path, f"found {shown(value)}, expected {expected(argument.annotation, values)}")
        for _, markers in alternatives(argument.annotation):
            name = marker(markers, Name)
            if name is not None and isinstance(value, str):
                try:
                    lookup.find(name.of, value, self.scope)
                except lookup.UnknownType as error:
                    return self.problem(path, str(error))
        return None

    def _takes_list(self, argument: Argument) -> bool:
        kinds = [kind for kind, _ in alternatives(argument.annotation)]
        return not argument.is_ours or any(kind is Any or is_list(kind) for kind in kinds)

    def _visit_dict(self, path: str, value: Mapping, argument: Argument, values: Range | None) -> None:
        options = alternatives(argument.annotation)
        for kind, markers in options:
            rule, config = depends(markers), marker(markers, Config)
            if rule is not None:
                return self._visit_dependent(path, value, argument, rule, values)
            if config is not None:
                return self._build(path, value, config, argument, values)
            if is_typeddict(kind):
                return self.fill(path, value, schema_of_dict(kind))
        if not argument.is_ours or any(kind is Any for kind, _ in options):
            return self._guess(path, value, argument)
        for kind, _ in options:
            if is_dict(kind):
                return self._visit_entries(path, value, argument, get_args(kind)[1] if get_args(kind) else Any)
        return self.problem(path, f"found {shown(value)}, expected {expected(argument.annotation, values)}")

    def _visit_dependent(
        self, path: str, value: Mapping, argument: Argument, rule: Depends, values: Range | None
    ) -> None:
        try:
            annotation = rule.on(value, self.scope)
        except lookup.UnknownType as error:
            return self.problem(f"{path}.{error.key}", str(error))
        return self.visit(path, value, argument._replace(annotation=annotation), values)

    def _visit_entries(self, path: str, value: Mapping, argument: Argument, inner: Any) -> None:
        """Walk over a dict with arbitrary names and entries of one kind. If an entry lacks a required ``type``, its
        name is misspelt: it was meant to change an existing entry."""
        configs = [marker(markers, Config) for _, markers in alternatives(inner)]
        typed = any(each and each.default is None and isinstance(each.of, Registry | Mapping) for each in configs)
        whole = [key for key, entry in value.items() if not isinstance(entry, Mapping) or "type" in entry]
        for key, entry in value.items():
            if typed and key not in whole:
                self.problem(f"{path}.{key}", f"unknown; {suggestion(key, whole)}")
            else:
                self.visit(f"{path}.{key}", entry, argument._replace(annotation=inner))

    def _build(self, path: str, value: Mapping, config: Config, argument: Argument, values: Range | None) -> None:
        """Walk over a dict from which a known class or function is built."""
        kind = config.of
        if isinstance(kind, Registry | Mapping):
            try:
                name = value.get("type", config.default)
                kind = lookup.find(config.of, name, value.get("_scope_", self.scope))
            except lookup.UnknownType as error:
                return self.problem(f"{path}.type", str(error))
        schema = schema_of(kind, config)
        self._note_type(path, value, schema, argument)
        before = len(self.problems)
        self.fill(path, value, schema, config.filled, config.values or values)
        if config.trial and schema.is_ours and len(self.problems) == before:
            extra = config.also.__annotations__ if config.also else ()
            arguments = {key: entry for key, entry in value.items() if key not in ("type", "_scope_", *extra)}
            self.attempt(path, lambda: kind(**arguments))
        return None

    def _note_type(self, path: str, value: Mapping, schema: Schema, argument: Argument) -> None:
        if "type" in value:
            meaning = schema.summary or argument.meaning
            self.settings.append(Setting(f"{path}.type", value["type"], Argument(str, UNSET, meaning, True)))

    def attempt(self, path: str, build: Callable[[], T]) -> T | None:
        """Build something, and report what its constructor rejects. Returns None in that case."""
        try:
            return build()
        except (DensesslError, ValueError, TypeError) as error:
            self.problem(path, OWN_PATH.sub("", str(error)))
            return None

    def fill(
        self, path: str, value: Mapping, schema: Schema, filled: Sequence[str] = (), values: Range | None = None
    ) -> None:
        """Walk over the entries of a dict with a known schema.

        Args:
            filled: required arguments that the dict may leave out, since the builder passes them.
        """
        prefix = f"{path}." if path else ""
        self._around.append(schema.kinds)
        for key, entry in value.items():
            if key in schema.arguments:
                self.visit(f"{prefix}{key}", entry, schema.arguments[key], values)
            elif key not in ("type", "_scope_"):
                if self._is_mistake(key, schema):
                    self.problem(f"{prefix}{key}", schema.unknown(key, entry))
                self.visit(f"{prefix}{key}", entry, OUTSIDE)
        self._around.pop()
        for key, argument in schema.arguments.items():
            if key in value or argument.default is UNSET:
                continue
            if argument.default is not REQUIRED:
                self.settings.append(Setting(f"{prefix}{key}", argument.default, argument, is_default=True))
            elif schema.is_ours and key not in filled:
                self.problem(f"{prefix}{key}", f"missing, expected {expected(argument.annotation) or argument.meaning}")

    def _is_mistake(self, key: str, schema: Schema) -> bool:
        """Whether a key that is no argument is a mistake.

        A word that another library's class, or a class around it, has in quotes may be a key that the class reads
        itself. If a class accepts any argument, only a key that is almost a named argument is a mistake.
        """
        if schema.is_ours:
            return not schema.takes_any
        if key in LAYER_KEYS or self._is_quoted(key):
            return False
        return not schema.takes_any or bool(nearest(key, schema.arguments, 1, ALMOST))

    def _is_quoted(self, word: str) -> bool:
        """Whether one of the classes whose configs the walk is in has a word in quotes."""
        return any(word in quoted_words(kind) for kinds in self._around for kind in kinds)

    def _guess(self, path: str, value: Mapping, argument: Argument) -> None:
        """Walk over a dict without annotation. If it has a ``type``, the classes of that name give its schema."""
        name = value.get("type")
        if name is not None:
            try:
                kinds = lookup.find_anywhere(name, value.get("_scope_", self.scope))
            except lookup.UnknownType as error:
                if not self._is_elsewhere(name):
                    self.problem(f"{path}.type", str(error))
            else:
                schema = schema_of_any(kinds)
                self._note_type(path, value, schema, argument)
                return self.fill(path, value, schema)
        for key, entry in value.items():
            self.visit(f"{path}.{key}", entry, OUTSIDE._replace(meaning=argument.meaning))
        return None

    def _is_elsewhere(self, name: Any) -> bool:
        """Whether a name may mean something that is not registered: an operator of mmcv, a word that a class around has
        in quotes, or a part of a wrapper of another library's classes."""
        if not isinstance(name, str):
            return False
        wrapped = any(kind.__name__.startswith(WRAPPERS) for kinds in self._around for kind in kinds)
        return wrapped or lookup.is_operator(name) or self._is_quoted(name)


def holds_dicts(value: Any) -> bool:
    """Whether a value is a dict, or a list that contains one at any depth."""
    return isinstance(value, Mapping) or (isinstance(value, list | tuple) and any(map(holds_dicts, value)))


def may_fit(value: Any, annotation: Any, values: Range | None = None) -> bool:
    """Whether a value may be valid where the annotation is not reliable: anything but NaN, and words for numbers."""
    if isinstance(value, float) and math.isnan(value):
        return False
    kinds = [kind for kind, _ in alternatives(annotation)]
    if not isinstance(value, str) or not kinds or any(kind not in (int, float, bool, str) for kind in kinds):
        return True
    return str in kinds


def shown(value: Any) -> str:
    """A value for a message, shortened."""
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}…"
