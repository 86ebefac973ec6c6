"""Reading checkpoints: what backbone, neck and head a file holds, under which names, and what is known about them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from torch import Tensor

from densessl.errors import CheckpointError, ExportError, FileMissing, SettingError, UnsafeCheckpointError
from densessl.weights import fingerprint as fp
from densessl.weights.fingerprint import Fingerprint
from densessl.weights.io.checkpoints import to_plain, wrapper_of
from densessl.weights.io.torch_files import load_content
from densessl.weights.layouts.tables import OURS
from densessl.weights.layouts.take import Taken, grouped, take
from densessl.weights.parts import PARTS, part_of_state
from densessl.weights.vit_facts import REST
from densessl.wording import nearest

BRANCHES = ("online", "target")


class Opened(NamedTuple):
    """A checkpoint that has been read.

    Whatever takes a path takes this too, and does not read again.

    Attributes:
        state: Its named tensors, as :func:`tensors_in` finds them: of the entry that holds its weights
            (:func:`densessl.weights.io.checkpoints.wrapper_of`), else of all.
        meta: As far as it is plain data.
        name: What to call it.
        rest: Tensors beside the state: the optimiser's, for instance.
    """

    state: Mapping[str, Tensor]
    meta: Mapping[str, Any]
    name: str
    rest: Mapping[str, Tensor] = {}


Source = str | Path | Mapping[str, Any] | Opened


def open_checkpoint(source: Source, drop_objects: bool = False) -> Opened:
    """Read a file once. A dict is taken for what reading a file gave.

    Args:
        drop_objects: See :func:`densessl.weights.io.torch_files.load_content`.

    Raises:
        FileNotFoundError, UnsafeCheckpointError, CheckpointError: as of that function, or no tensor is in it.
    """
    if isinstance(source, Opened):
        return source
    if isinstance(source, Mapping):
        name, content, meta = "the given state", source, source.get("meta")
    else:
        name, content = str(source), load_content(source, drop_objects)
        meta = content.get("meta") if isinstance(content, Mapping) else None
        meta = safetensors_meta(source) if name.endswith(".safetensors") else _plain_meta(meta)
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{name}: expected named tensors, found {type(content).__name__}")
    inner = wrapper_of(content)
    state = tensors_in(content if inner is None else content[inner])
    if not state:
        raise CheckpointError(f"{name}: expected named tensors, found {list(content)}")
    rest = {} if inner is None else tensors_in({key: value for key, value in content.items() if key != inner})
    return Opened(state, meta if isinstance(meta, Mapping) else {}, name, rest)


def _plain_meta(meta: Any) -> Any:
    """The plain data in a file's metadata; None where it contains itself."""
    try:
        return to_plain({"meta": meta}, drop=True).get("meta")
    except RecursionError:
        return None


def tensors_in(content: Any) -> dict[str, Tensor]:
    """All tensors in dicts and lists, at any depth, by their keys and indices with dots between.

    What contains itself is not gone through again inside itself.
    """
    found: dict[str, Tensor] = {}
    around: set[int] = set()  # the ids of what is being gone through
    left: list[tuple[str, Any, bool]] = [("", content, False)]  # the last is the next; whether it is done
    while left:
        name, value, done = left.pop()
        if done:
            around.remove(id(value))
        elif isinstance(value, Tensor):
            found[name] = value
        elif isinstance(value, Mapping | list | tuple) and id(value) not in around:
            around.add(id(value))
            left.append((name, value, True))
            entries = list(value.items() if isinstance(value, Mapping) else enumerate(value))
            left += [(f"{name}.{key}" if name else str(key), entry, False) for key, entry in reversed(entries)]
    return found


def safetensors_meta(path: str | Path) -> Any:
    """What an export wrote beside the tensors; None in files of others.

    Raises:
        ValueError: It is damaged.
    """
    with safe_open(Path(path).expanduser(), "pt") as file:
        return json.loads((file.metadata() or {}).get("densessl", "null"))


def read_backbone(source: Source, branch: str | None = None) -> tuple[dict[str, Tensor], Fingerprint]:
    """The backbone in a file, with unprefixed names, and what is known about it.

    Args:
        source: A path, or what reading it gave. Understood are checkpoints of densessl (``online.backbone.*`` …), files
            written by :func:`export_backbone`, and public checkpoints of the :mod:`densessl.weights.layouts.tables`.
            Nothing in a file is executed.
        branch: ``"online"``, ``"target"``, or None for the one that the method's paper transfers: of densessl's
            checkpoints the online one.

    Raises:
        ExportError: No backbone is found, or not that branch; the message says what there is.
        FileNotFoundError, ValueError: as of :func:`open_checkpoint`.
    """
    source = open_checkpoint(source)
    taken = by_our_names(source, branch)
    state = part_of_state(taken.tensors, "backbone", taken.branch)
    state = {key: value for key, value in state.items() if not REST.fullmatch(key)}
    if "fingerprint" in source.meta:
        return state, Fingerprint.from_dict(source.meta["fingerprint"])
    configs = part_configs(source.meta)
    facts = taken.layout.facts
    config, normalize = configs.get("backbone") or facts.config(state), configs.get("normalize") or facts.pixels
    return state, fp.of_state(state, config, normalize)


def parts_in(source: Source, branch: str | None = None) -> dict[str, dict[str, Tensor]]:
    """The neck and the head in a file, by ``"neck"`` and ``"head"``, with unprefixed names: those it has, and of a head
    the shared convolutions.

    Args:
        source, branch: as of :func:`read_backbone`.
    """
    taken = by_our_names(source, branch)
    found = {part: part_of_state(taken.tensors, part, taken.branch) for part in PARTS if part != "backbone"}
    return {part: state for part, state in found.items() if state}


def by_our_names(source: Source, branch: str | None = None) -> Taken:
    """The tensors of a file by the names that densessl (``online.backbone.*`` …) or MMDetection give them.

    Args, raises: as of :func:`read_backbone`.
    """
    source = open_checkpoint(source)
    if branch not in (None, *BRANCHES):
        raise ExportError(f"branch: found {branch!r}, expected one of {BRANCHES}")
    branches = [b for b in BRANCHES if any(key.startswith(f"{b}.backbone.") for key in source.state)]
    if branches:
        branch = branch or "online"
        if branch not in branches:
            raise ExportError(f"{source.name} has no {branch!r} backbone; its branches are {branches}")
        parts = tuple(f"{branch}.{part}." for part in PARTS)
        dropped = grouped(source.state, [key for key in source.state if key.startswith(parts)])
        return Taken(OURS, branch, tuple(branches), source.state, dropped)
    # An export, whose names are known: it is not compared with public layouts, unless its names are theirs.
    if "fingerprint" in source.meta and "names" not in source.meta:
        if branch == "target":
            raise ExportError(f"{source.name} has no 'target' backbone; its branches are ['online']")
        bare = not any(key.startswith("backbone.") for key in source.state)
        tensors = {f"backbone.{key}": value for key, value in source.state.items()} if bare else source.state
        parts = tuple(f"{part}." for part in PARTS.values())
        dropped = grouped(tensors, [key for key in tensors if key.startswith(parts)])
        return Taken(OURS, "online", ("online",), tensors, dropped)
    if any(key.startswith("detector.backbone.") for key in source.state):
        raise ExportError(f"{source.name} holds a whole detector: export it by tools/export.py --to mmdet-detector")
    return take(source.state, source.name, branch)


def part_configs(meta: Any) -> Mapping[str, Any]:
    """What the parts of a file were built from, as its ``meta`` tells. To build one, have it
    :func:`densessl.weights.file_configs.checked` first.

    Raises:
        UnsafeCheckpointError: something else stands there.
    """
    told = (meta.get("densessl") or meta.get("parts")) if isinstance(meta, Mapping) else None
    told = told if isinstance(told, Mapping) else {}
    for part in PARTS:
        config = told.get(part)
        kind = config.get("type") if isinstance(config, Mapping) else None
        if config is not None and not isinstance(kind, str | type):
            raise UnsafeCheckpointError(f"meta: {part}: found {config!r:.80}, expected a config with a 'type'")
    if not isinstance(told.get("normalize"), Mapping | None):
        raise UnsafeCheckpointError(f"meta: normalize: found {told['normalize']!r:.80}, expected mean and std")
    return told


NONE = "none"  # of --init: random numbers


def open_init(file: str) -> Opened:
    """Read the file of ``--init``.

    Raises:
        SettingError: It is damaged, or holds no weights.
        FileMissing: There is none; the message has the nearest names.
        UnsafeCheckpointError: It would have to execute code to be read.
    """
    path = Path(file).expanduser()
    try:
        return open_checkpoint(file)
    except UnsafeCheckpointError:
        raise
    except FileMissing as error:
        names = [each.name for each in path.parent.iterdir() if each.is_file()] if path.parent.is_dir() else []
        near = nearest(path.name, names)
        beside = f"; near it are {near}" if near else ""
        raise FileMissing(f"--init: {error}{beside}. Random numbers are --init none") from error
    except ValueError as error:
        raise SettingError(f"--init: {error}") from error
