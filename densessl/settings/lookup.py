"""Finds the class or function that the ``type`` of a config names, as MMEngine's registries would.

MMEngine's own look-up writes to the log and imports any name with a dot. This one reports what is missing.
"""

import importlib
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import mmengine.registry as mmengine
from mmengine.registry import Registry

from densessl.extras import missing
from densessl.registry import SCOPE
from densessl.wording import MANY, nearest, suggestion

PACKAGE = Path(__file__).parents[1]


class UnknownType(ValueError):
    """No class has this name. The message completes a line that begins with a key path.

    Attributes:
        key: the key of the config that names the class.
    """

    key = "type"


def find(of: Registry | Mapping[str, Any], name: Any, scope: str) -> Callable[..., Any]:
    """The class or function of a registry, or of a table, by its name.

    Args:
        of: a registry of densessl; a registry of MMEngine, whose child of the run's scope is searched first; or a
            table of classes and functions by name.
        name: name with or without the scope of a package (``mmdet.SwinTransformer``), or the class itself.
        scope: the run's ``default_scope``.

    Raises:
        UnknownType: there is none; the message has the nearest names.
    """
    if callable(name):
        return name
    names = names_of(of, scope) if isinstance(of, Registry) else of
    if not isinstance(name, str):
        found = "missing" if name is None else f"found {name!r}"
        known = f": {', '.join(sorted(names))}" if len(names) <= MANY else ""
        raise UnknownType(f"{found}, expected the name of a class{known}")
    kind = _registered(of, name, scope) if isinstance(of, Registry) else of.get(name)
    if kind is None:
        if isinstance(of, Registry) and name.startswith(f"{SCOPE}."):
            names = {f"{SCOPE}.{each}" for each in of.children[SCOPE].module_dict} if SCOPE in of.children else names
        raise UnknownType(f"{name!r} is unknown; {_not_imported(name) or suggestion(name, names)}")
    return kind


def find_anywhere(name: Any, scope: str) -> list[Callable[..., Any]]:
    """The classes and functions of this name in all of MMEngine's registries. Which of them is meant depends on the
    argument that the config is for, and other libraries do not annotate that argument.

    Raises:
        UnknownType: there is none; the message has the nearest names.
    """
    if callable(name):
        return [name]
    if not isinstance(name, str):
        raise UnknownType(f"found {name!r}, expected the name of a class")
    kinds = dict.fromkeys(_registered(root, name, scope) for root in roots())
    kinds.pop(None, None)
    if not kinds:
        if _not_imported(name):
            raise UnknownType(f"{name!r} is unknown; {_not_imported(name)}")
        near = nearest(name.rpartition(".")[2], {each for root in roots() for each in names_of(root, scope)})
        raise UnknownType(f"{name!r} is unknown" + (f"; did you mean {' or '.join(near)}?" if near else ""))
    return list(kinds)


def _not_imported(name: str) -> str | None:
    """What to import for a class of densessl that was not, or how it is called with its scope; None for other names."""
    name = name.removeprefix(f"{SCOPE}.")
    defined = re.compile(rf"^@[A-Z_]+\.register_module\(.*\n(?:@.*\n)*(?:class|def) {re.escape(name)}\b", re.MULTILINE)
    for path in sorted(PACKAGE.rglob("*.py")):
        if "shipped" not in path.parts and defined.search(path.read_text(encoding="utf-8")):
            module = ".".join(("densessl", *path.relative_to(PACKAGE).with_suffix("").parts))
            if module in sys.modules:
                return f"did you mean {SCOPE}.{name}?"
            return f"for {SCOPE}.{name} add {module!r} to custom_imports.imports"
    return None


def is_operator(name: str) -> bool:
    """Whether mmcv has an operator of this name (``nms``, ``RoIAlign``), which its layers look up themselves."""
    ops = sys.modules.get("mmcv.ops")
    return ops is not None and hasattr(ops, name)


@cache
def roots() -> tuple[Registry, ...]:
    """MMEngine's registries, the parents of the registries of all packages."""
    return tuple(each for each in vars(mmengine).values() if isinstance(each, Registry))


def names_of(of: Registry, scope: str) -> set[str]:
    """The names that a registry finds without a scope."""
    return {name for registry in _lineage(_of_scope(of, scope)) for name in registry.module_dict}


def load_scope(scope: str) -> str | None:
    """Import the registries of a package. Returns None, or the rest of a line that says why that failed."""
    if scope in ("mmengine", SCOPE):
        return None
    try:
        if find_spec(scope) is None:
            return str(missing(scope, repr(scope)))
        importlib.import_module(f"{scope}.registry")
    except (ImportError, ValueError) as error:
        return f"package {scope!r} has no registry that can be imported ({error})"
    return None


def _registered(of: Registry, name: str, scope: str) -> Callable[..., Any] | None:
    first, dot, rest = name.partition(".")
    if not dot:
        return _in_lineage(_of_scope(of, scope), name)
    if first == "timm":
        return _timm_model(rest)
    root = _root(of)
    if first != SCOPE and first not in root.children and first != root.scope and find_spec(first) is not None:
        load_scope(first)
    if first == of.scope:
        return _in_lineage(of, rest)
    if first == root.scope:
        return _in_lineage(root, rest) or _imported(name)
    if first in root.children:
        return _in_lineage(root.children[first], rest) or _imported(name)
    if find_spec(first) is None:
        raise UnknownType(str(missing(first, repr(name))))
    return _imported(name)


def _imported(name: str) -> Callable[..., Any] | None:
    """The class or function at an import path such as ``torch.optim.Adam``; None if there is none."""
    module, _, attribute = name.rpartition(".")
    try:
        found = getattr(importlib.import_module(module), attribute, None)
    except ImportError:
        return None
    return found if callable(found) else None


def _timm_model(name: str) -> Callable[..., Any] | None:
    if find_spec("timm") is None:
        raise UnknownType(str(missing("timm", repr(f"timm.{name}"))))
    import timm  # of the det extra

    if timm.is_model(name):
        return timm.create_model
    near = suggestion(f"timm.{name}", [f"timm.{each}" for each in timm.list_models()])
    raise UnknownType(f"'timm.{name}' is unknown; {near}")


def _root(of: Registry) -> Registry:
    return of if of.parent is None else _root(of.parent)


def _of_scope(of: Registry, scope: str) -> Registry:
    return of.children.get(scope, of) if of.parent is None else of


def _lineage(of: Registry) -> Iterator[Registry]:
    registry: Registry | None = of
    while registry is not None:
        registry.import_from_location()
        yield registry
        registry = registry.parent


def _in_lineage(of: Registry, name: str) -> Callable[..., Any] | None:
    return next((each.module_dict[name] for each in _lineage(of) if name in each.module_dict), None)
