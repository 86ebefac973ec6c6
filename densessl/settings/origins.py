"""Finds where each entry of a config comes from: the file and line that assign it."""

import ast
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from densessl.configs import config_path, stock_config


def origins_of(config: str | Path) -> dict[str, str]:
    """The file and line of each entry of a Python config, by key path. A file overrides its ``_base_`` files.

    Entries of dicts and lists that are written out have lines of their own. A computed value has the line of its
    assignment, which also holds for everything inside it: look up a key path with :func:`origin_of`.

    Args:
        config: path of a file, name of a shipped config, or name of a stock config (``mmdet::…``).

    Returns:
        ``{"model.online.backbone.depth": "configs/x.py:12", …}``. Stock configs have their names, other files paths
        relative to the working directory if they lie below it. Empty for other config languages (json, yaml).

    Raises:
        FileMissing, MissingPackage: there is no such config.
    """
    name = config_path(config)
    return _of_file(stock_config(name) if "::" in name else Path(name), name.partition("::")[0] if "::" in name else "")


def origin_of(path: str, origins: Mapping[str, str]) -> str | None:
    """The origin of a key path: its own, or that of the nearest enclosing entry; None if neither is known.

    Args:
        origins: origins by key path. ``*`` in a path stands for any entry, and such paths take precedence.
    """
    patterns = [key for key in origins if "*" in key]
    while path:
        for key in [*(key for key in patterns if _matches(path, key)), path]:
            if key in origins:
                return origins[key]
        path = path.rpartition(".")[0]
    return None


def overridden(origins: Mapping[str, str], paths: Iterable[str], origin: str) -> dict[str, str]:
    """Origins after the command line or a rule changed some entries.

    Args:
        paths: key paths of the changed entries; ``*`` stands for any entry.
        origin: origin of their new values.
    """
    changed = dict(origins)
    for path in paths:
        depth = path.count(".") + 1
        changed = {key: at for key, at in changed.items() if not _matches(".".join(key.split(".")[:depth]), path)}
        changed[path] = origin
    return changed


def _matches(path: str, pattern: str) -> bool:
    names, wanted = path.split("."), pattern.split(".")
    return len(names) == len(wanted) and all(want in ("*", name) for name, want in zip(names, wanted))


def _of_file(file: Path, package: str) -> dict[str, str]:
    if file.suffix != ".py":
        return {}
    tree = ast.parse(file.read_text(encoding="utf-8"))
    origins: dict[str, str] = {}
    for base, of_package in _bases(tree, file, package):
        origins |= _of_file(base, of_package)
    shown = _shown(file, package)
    for statement in tree.body:
        for path, value in _assigned(statement):
            if path != "_base_":
                _assign(origins, path, value, f"{shown}:{statement.lineno}", shown)
    return origins


def _bases(tree: ast.Module, file: Path, package: str) -> Iterator[tuple[Path, str]]:
    """Yield the files that a config is based on, each with the package that ships it."""
    for statement in tree.body:
        if isinstance(statement, ast.Assign) and any(_name(target) == "_base_" for target in statement.targets):
            stated = statement.value.elts if isinstance(statement.value, ast.List | ast.Tuple) else [statement.value]
            for base in stated:
                if not isinstance(base, ast.Constant) or not isinstance(base.value, str):
                    continue
                if "::" in base.value:
                    yield stock_config(base.value), base.value.partition("::")[0]
                else:
                    yield (file.parent / base.value).resolve(), package


def _assigned(statement: ast.stmt) -> Iterator[tuple[str, ast.expr]]:
    """Yield the key paths that a statement assigns, by ``=`` or by ``entry.update(key=value)``, each with its value."""
    if isinstance(statement, ast.Assign):
        for target in statement.targets:
            path = _name(target)
            if path:
                yield path, statement.value
    elif isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Call):
        function = statement.value.func
        if isinstance(function, ast.Attribute) and function.attr == "update" and _name(function.value):
            for keyword in statement.value.keywords:
                if keyword.arg:
                    yield f"{_name(function.value)}.{keyword.arg}", keyword.value


def _name(target: ast.expr) -> str:
    """The key path of ``a``, ``a["b"]``, ``a[0]``; empty for anything else."""
    if isinstance(target, ast.Name):
        return target.id
    if isinstance(target, ast.Subscript) and isinstance(target.slice, ast.Constant):
        holder = _name(target.value)
        return f"{holder}.{target.slice.value}" if holder else ""
    return ""


def _assign(origins: dict[str, str], path: str, value: ast.expr, line: str, file: str) -> None:
    """Record an assignment. A dict is merged into the existing entry; any other value replaces it."""
    entries = _entries(value)
    if not isinstance(value, ast.Call | ast.Dict) or entries is None or "_delete_" in entries:
        for key in [key for key in origins if key.startswith(f"{path}.")]:
            del origins[key]
    origins[path] = line
    for name, entry in (entries or {}).items():
        if name != "_delete_":
            _assign(origins, f"{path}.{name}", entry, f"{file}:{entry.lineno}", file)


def _entries(value: ast.expr) -> dict[str, ast.expr] | None:
    """The entries of a ``dict(…)``, a ``{…}``, a list or a tuple; None for a computed value."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name) and value.func.id == "dict":
        return {keyword.arg: keyword.value for keyword in value.keywords if keyword.arg}
    if isinstance(value, ast.Dict):
        pairs = zip(value.keys, value.values)
        return {str(key.value): entry for key, entry in pairs if isinstance(key, ast.Constant)}
    if isinstance(value, ast.List | ast.Tuple):
        return {str(number): entry for number, entry in enumerate(value.elts)}
    return None


def _shown(file: Path, package: str) -> str:
    if package:
        return f"{package}::{file.as_posix().rpartition('/.mim/configs/')[2]}"
    try:
        return file.resolve().relative_to(Path.cwd()).as_posix()
    except ValueError:
        return file.as_posix()
