"""Apply ``--set KEY=VALUE`` to a config."""

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.config import Config, ConfigDict

from densessl.configs import is_pretraining
from densessl.errors import SettingError
from densessl.wording import suggestion

EVERY = "*"

# Former entries of custom_hooks in pretraining configs, and where they are now; the first match counts.
MOVED = {
    "schedule.base": "the learning rate is optim_wrapper.optimizer.lr",
    "schedule.value": "the learning rate is optim_wrapper.optimizer.lr",
    "schedule": "the learning rate's schedule is default_hooks.lr.schedule",
    "reference_batch": "the learning rate's reference batch is default_hooks.lr.reference_batch",
    "rule": "the learning rate's rule is default_hooks.lr.rule",
    "": "the hooks of a pretraining stand by name in default_hooks: init, step, lr, export",
}


def apply_options(cfg: Config, options: Mapping[str, Any]) -> None:
    """Override entries of ``cfg``, in place and in order, as ``cfg.merge_from_dict`` does.

    A key is a path of names and, in lists and tuples, of indices from 0; ``*`` stands for every entry:
    ``views.*.size``. A dict is merged into the existing dict, or replaces it with ``_delete_=True`` in it. Any other
    value replaces the existing one. A name that a dict lacks is added to it.

    Raises:
        SettingError: a key names an index that a list lacks, an entry of a value that is neither list nor dict, or
            ``*`` of an empty list or dict. The message has one line for each such key, and ``cfg`` is unchanged.
    """
    tree: Any = {key: cfg[key] for key in cfg}
    problems = []
    for key, value in options.items():
        try:
            tree = _with(tree, key.split("."), 0, value)
        except SettingError as error:
            problems.append(f"{key}: {error}{_moved(key) if is_pretraining(cfg) else ''}")
    if problems:
        raise SettingError("\n".join(problems))
    for key, entry in tree.items():
        if key not in cfg or entry is not cfg[key]:
            cfg[key] = ConfigDict({key: entry})[key]  # plain dicts within become ConfigDicts


def _with(tree: Any, path: list[str], depth: int, value: Any) -> Any:
    """Return a copy of ``tree``, which is at ``path[:depth]`` in the config, with ``value`` merged in at ``path``."""
    if depth == len(path):
        return _merged(tree, value, path)
    places = _places(tree, path, depth)

    def below(place: str | int, entry: Any) -> Any:
        return _with(entry, [*path[:depth], str(place), *path[depth + 1 :]], depth + 1, value)

    if isinstance(tree, dict):
        return {**tree, **{key: below(key, tree.get(key, {})) for key in places}}
    return type(tree)(below(index, entry) if index in places else entry for index, entry in enumerate(tree))


def _places(tree: Any, path: list[str], depth: int) -> Iterable[str | int]:
    """Return the keys of the dict ``tree``, or the indices of the list, that ``path[depth]`` stands for."""
    key, here = path[depth], ".".join(path[:depth]) or "the config"
    if not isinstance(tree, dict | list | tuple):
        raise SettingError(f"{here} is {tree!r} and has no entries")
    if key == EVERY:
        if not tree:
            raise SettingError(f"{here} has 0 entries")
        return list(tree) if isinstance(tree, dict) else range(len(tree))
    if isinstance(tree, dict):
        if key not in tree and depth + 1 < len(path) and _counts(path[depth + 1]):
            _refuse_missing_list(path[: depth + 1], tree)
        return [key]
    return [_index(tree, key, here)]


def _counts(key: str) -> bool:
    return key == EVERY or key.isdecimal()


def _refuse_missing_list(path: list[str], tree: dict) -> None:
    if path == ["custom_hooks"]:  # a config without the key has no such entries
        raise SettingError("custom_hooks has 0 entries")
    raise SettingError(f"there is no {'.'.join(path)}; {suggestion(path[-1], tree)}")


def _index(entries: list | tuple, key: str, here: str) -> int:
    count = len(entries)
    if key.isdecimal() and int(key) < count:
        return int(key)
    known = {0: "", 1: ": expected 0"}.get(count, f": expected 0 to {count - 1}, or {EVERY} for all")
    raise SettingError(f"{here} has {count} {'entry' if count == 1 else 'entries'}{known}")


def _merged(tree: Any, value: Any, path: list[str]) -> Any:
    """Return ``value`` merged into ``tree``, which is at ``path``: a dict is merged into a dict, and by index into a
    list; any other value replaces it."""
    if not isinstance(value, Mapping):
        return value
    value = dict(value)
    if value.pop("_delete_", False) or not isinstance(tree, dict | list | tuple):
        tree = {}
    if isinstance(tree, dict):
        return {**tree, **{key: _merged(tree.get(key), entry, [*path, str(key)]) for key, entry in value.items()}}
    changed = {_index(tree, str(key), ".".join(path)): (str(key), entry) for key, entry in value.items()}
    return type(tree)(
        _merged(entry, changed[index][1], [*path, changed[index][0]]) if index in changed else entry
        for index, entry in enumerate(tree)
    )


def _moved(key: str) -> str:
    hooks, _, rest = key.partition(".")
    if hooks != "custom_hooks":
        return ""
    setting = rest.partition(".")[2]
    return "; " + next(home for name, home in MOVED.items() if f"{setting}.".startswith(f"{name}.") or not name)
