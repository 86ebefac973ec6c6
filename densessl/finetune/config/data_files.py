"""The files that a config's data sets name: find them, and report all missing ones at once."""

import inspect
import itertools
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from mmengine.config import Config
from mmengine.registry import DATASETS, DefaultScope, Registry

from densessl.data.sources import DataNotFound
from densessl.wording import nearest

LOADERS = ("train_dataloader", "val_dataloader", "test_dataloader")
EVALUATORS = ("val_evaluator", "test_evaluator")
EVALUATOR_FILES = ("ann_file", "seg_prefix")
REMOTE = re.compile(r"[a-zA-Z0-9]{2,}:")  # s3://, petrel:, http://; a single letter is a drive
LOOKED_UP = 8  # images of a list that are looked for
CHUNK = 1 << 20  # bytes of an annotation file to read at once


class Leaf(NamedTuple):
    """A data set that reads files, inside any wrappers.

    Attributes:
        key: Its place in the config: ``"train_dataloader.dataset.datasets.0"``.
        cfg: Its entry; changing it changes the config.
        kind: Its class; None if no registry has one of that name.
    """

    key: str
    cfg: dict[str, Any]
    kind: type | None

    @property
    def formats(self) -> set[str]:
        """Names of its class and of the base classes."""
        return {base.__name__ for base in self.kind.__mro__} if self.kind else set()

    def path(self, *parts: str) -> Path:
        """Join a path as MMEngine does: absolute parts override ``data_root``."""
        return Path(os.path.join(self.cfg.get("data_root") or "", *parts))

    def default(self, argument: str, fallback: Any = None) -> Any:
        """Return an argument's value, or the signature's default if the config has none."""
        return self.cfg[argument] if argument in self.cfg else default_of(self.kind, argument, fallback)


class Wanted(NamedTuple):
    """A file or folder that a config names, and what is wrong with it; "" if nothing is."""

    path: Path
    key: str
    wrong: str
    folder: bool = True


def leaves(cfg: Config, loader: str) -> list[Leaf]:
    """Return the data sets that a loader reads, in order; empty if the config has no such loader."""
    node = (cfg.get(loader) or {}).get("dataset")

    def walk(node: Mapping[str, Any], key: str) -> Iterator[Leaf]:
        if "datasets" in node:
            for number, each in enumerate(node["datasets"]):
                yield from walk(each, f"{key}.datasets.{number}")
        elif isinstance(node.get("dataset"), Mapping):
            yield from walk(node["dataset"], f"{key}.dataset")
        else:
            yield Leaf(key, node, class_of(node.get("type"), cfg.get("default_scope")))

    return list(walk(node, f"{loader}.dataset")) if node else []


def class_of(name: Any, scope: str | None, root: Registry = DATASETS) -> type | None:
    """Return the class that a config's ``type`` names in a scope; None if there is none."""
    if not isinstance(name, str):
        return name
    with DefaultScope.overwrite_default_scope(scope or "mmengine"), root.switch_scope_and_registry(None) as registry:
        return registry.get(name)


def default_of(kind: type | None, argument: str, fallback: Any = None) -> Any:
    """Return the default of an argument in the signature of a class or its base classes."""
    for base in kind.__mro__ if kind else ():
        parameter = inspect.signature(base.__init__).parameters.get(argument)
        if parameter is not None and parameter.default is not inspect.Parameter.empty:
            return parameter.default
    return fallback


def set_data_root(cfg: Config, root: str) -> None:
    """Replace every ``data_root`` of a config by ``root``, in place, also as the beginning of other paths in data sets
    and evaluators."""
    roots = {leaf.cfg.get("data_root") for loader in LOADERS for leaf in leaves(cfg, loader)}
    olds = sorted({old for old in (cfg.get("data_root"), *roots) if old}, key=len, reverse=True)

    def replace(node: Any) -> None:
        for key, value in node.items() if isinstance(node, Mapping) else enumerate(node):
            if key == "data_root" and isinstance(value, str):
                node[key] = os.path.join(root, "")
            elif isinstance(value, str):
                old = next((old for old in olds if (value + "/").startswith(old.rstrip("/") + "/")), None)
                if old is not None and isinstance(node, Mapping):
                    node[key] = os.path.join(root, value[len(old) :].lstrip("/"))
            elif isinstance(value, Mapping | list):
                replace(value)

    replace({key: cfg[key] for key in (*LOADERS, *EVALUATORS) if cfg.get(key)})
    if isinstance(cfg.get("data_root"), str):
        cfg.data_root = os.path.join(root, "")


def check_data(cfg: Config) -> None:
    """Check all files and folders that the data sets and evaluators of a config name.

    Files and folders must exist, folders of images and labels must not be empty, and the first image of each list must
    exist. Remote files are not checked, nor is the test set of a config without validation.

    Raises:
        DataNotFound: files are missing; the message lists them all, with the expected layout.
    """
    wanted = _by_path(_wanted(cfg))
    wrong = [each for each in wanted if each.wrong]
    if not wrong:
        return
    roots = [leaf.cfg.get("data_root") for loader in LOADERS for leaf in leaves(cfg, loader)]
    roots = list(dict.fromkeys(os.path.abspath(root) for root in roots if root))
    lines = [f"{len(wrong)} of the {len(wanted)} files and folders that the config names are missing or wrong:"]
    lines += [f"  {each.path}: {each.wrong} ({each.key})" for each in wrong]
    lines += ["Expected:", *_tree(wanted, roots)]
    elsewhere = _elsewhere(wrong, roots[0]) if len(roots) == 1 else None
    if elsewhere:
        lines.append(f"All of it is in {elsewhere}: did you mean --data-root {elsewhere}?")
    else:
        lines.append("Say where the data is with --data-root DIR, which replaces the config's data_root.")
    raise DataNotFound("\n".join(lines))


def _by_path(wanted: Iterable[Wanted]) -> list[Wanted]:
    """Merge entries of the same path: each path once, with all the keys that name it and the first problem."""
    merged: dict[Path, Wanted] = {}
    for each in wanted:
        old = merged.get(each.path, each)
        keys = dict.fromkeys([*old.key.split(", "), each.key])
        merged[each.path] = old._replace(key=", ".join(keys), wrong=old.wrong or each.wrong)
    return list(merged.values())


def _wanted(cfg: Config) -> Iterator[Wanted]:
    evaluates = bool(cfg.get("val_dataloader"))
    for loader in LOADERS if evaluates else LOADERS[:1]:
        for leaf in leaves(cfg, loader):
            backend = (leaf.cfg.get("backend_args") or {}).get("backend", "local")
            if backend == "local" and not REMOTE.match(str(leaf.cfg.get("data_root") or "")):
                yield from _of_leaf(leaf)
    for evaluator in EVALUATORS if evaluates else ():
        node = cfg.get(evaluator) or []
        for number, each in enumerate([node] if isinstance(node, Mapping) else node):
            for key in EVALUATOR_FILES:
                if each.get(key) and not REMOTE.match(each[key]):
                    where = f"{evaluator}.{key}" if isinstance(node, Mapping) else f"{evaluator}.{number}.{key}"
                    yield _place(Path(each[key]), where, folder=key != "ann_file")


def _of_leaf(leaf: Leaf) -> Iterator[Wanted]:
    prefixes = {key: value for key, value in leaf.default("data_prefix", {}).items() if isinstance(value, str)}
    listed = leaf.path(leaf.cfg["ann_file"]) if leaf.cfg.get("ann_file") else None
    if listed is not None:
        yield _place(listed, f"{leaf.key}.ann_file", folder=listed.is_dir() or not listed.suffix)
    if "XMLDataset" in leaf.formats:
        root = prefixes.get("sub_data_root", "")
        folders = {part: (root, leaf.default(part)) for part in ("img_subdir", "ann_subdir")}
        suffixes = dict(img_subdir=".jpg", ann_subdir=".xml")
    else:
        folders = {f"data_prefix.{key}": (value,) for key, value in prefixes.items()}
        suffixes = {}
        if "BaseSegDataset" in leaf.formats:
            ends = dict(img_path="img_suffix", seg_map_path="seg_map_suffix")
            suffixes = {f"data_prefix.{key}": leaf.default(end) for key, end in ends.items() if key in prefixes}
    names = _first_names(listed, leaf)
    places = {key: _place(leaf.path(*parts), f"{leaf.key}.{key}", suffixes.get(key)) for key, parts in folders.items()}
    yield from places.values()
    # In COCO's format, a file name is an image's; in the panoptic format it may be a map's.
    alike = {
        key: [place.path / (name + suffixes.get(key, "")) for name in names]
        for key, place in places.items()
        if not place.wrong
    }
    lacking = {key: [path for path in paths if not path.is_file()] for key, paths in alike.items()}
    # A few missing images are bad images, for which a run has a budget; most of them, and the folder is the wrong one.
    absent = {key: paths[0] for key, paths in lacking.items() if len(paths) > len(names) / 2}
    if suffixes or len(absent) == len(alike):
        for key, path in list(absent.items())[: None if suffixes else 1]:
            yield Wanted(path, f"{leaf.key}.{key}", f"missing, though {listed.name} lists it", folder=False)


def _place(path: Path, key: str, suffix: str | None = None, folder: bool = True) -> Wanted:
    """Check a file, or a folder, which must hold a file, with the given suffix if there is one."""
    if not path.exists():
        near = nearest(path.name, os.listdir(path.parent), 1) if path.parent.is_dir() else []
        return Wanted(path, key, f"missing; there is {near[0]}" if near else "missing", folder)
    if path.is_dir() != folder:
        return Wanted(path, key, "a file, expected a folder" if folder else "a folder, expected a file", folder)
    if not folder:
        return Wanted(path, key, "", folder)
    files = (name for _, _, names in os.walk(path, followlinks=True) for name in names)
    if not any(name.endswith(suffix or "") for name in files):
        return Wanted(path, key, f"holds no *{suffix}" if suffix else "empty")
    return Wanted(path, key, "")


def _first_names(listed: Path | None, leaf: Leaf) -> list[str]:
    """Return the first images that an annotation file lists, at most eight; none if its format is unknown."""
    if listed is None or not listed.is_file():
        return []
    if listed.suffix == ".txt" and leaf.formats & {"XMLDataset", "BaseSegDataset"}:
        with open(listed, encoding="utf-8", errors="surrogateescape") as lines:
            return list(itertools.islice((line.strip() for line in lines if line.strip()), LOOKED_UP))
    if listed.suffix == ".json" and "CocoDataset" in leaf.formats:
        return _first_matches(listed, re.compile(rb'"file_name"\s*:\s*("(?:[^"\\]|\\.)*")'))
    return []


def _first_matches(path: Path, pattern: re.Pattern[bytes]) -> list[str]:
    """Return the JSON strings of the first matches in a file, without parsing the file, which may be very large."""
    before = b""
    with open(path, "rb") as file:
        while chunk := file.read(CHUNK):
            matches = [json.loads(match[1]) for match in itertools.islice(pattern.finditer(before + chunk), LOOKED_UP)]
            if matches:
                return matches
            before = chunk[-4096:]
    return []


def _tree(wanted: Iterable[Wanted], roots: list[str]) -> list[str]:
    """Return the layout as an indented tree for each root, folders with a slash, with a note at each problem."""
    lines, rest = [], {os.path.abspath(each.path): each for each in wanted}
    for root in [*roots, "/"]:
        inside = {path: each for path, each in rest.items() if Path(path).is_relative_to(root) and path != root}
        rest = {path: each for path, each in rest.items() if path not in inside}
        if inside:
            lines.append(f"  {os.path.join(root, '')}{'' if os.path.isdir(root) else '   <- missing'}")
        shown: set[tuple[str, ...]] = set()
        for path, each in sorted(inside.items()):
            parts = Path(path).relative_to(root).parts
            for depth in range(1, len(parts) + 1):
                if parts[:depth] not in shown:
                    shown.add(parts[:depth])
                    last = depth == len(parts)
                    note = f"   <- {each.wrong}" if last and each.wrong else ""
                    lines.append("    " + "  " * depth + parts[depth - 1] + "/" * (not last or each.folder) + note)
    return lines


def _elsewhere(wrong: Iterable[Wanted], root: str) -> str | None:
    """Return the parent or a subfolder of ``root`` that has everything that is missing; None if there is none."""
    inside = [Path(os.path.abspath(each.path)) for each in wrong]
    if not all(path.is_relative_to(root) for path in inside):
        return None
    names = [path.relative_to(root) for path in inside]
    below = sorted(entry.path for entry in os.scandir(root) if entry.is_dir()) if os.path.isdir(root) else []
    candidates = itertools.chain([os.path.dirname(root)], below)
    return next((each for each in candidates if all(Path(each, name).exists() for name in names)), None)
