"""Read checkpoints: find backbone, neck and head in a file, and what is known about them."""

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from torch import Tensor, nn

from densessl.errors import CheckpointError, ExportError, FileMissing, SettingError, UnsafeCheckpointError
from densessl.weights import fingerprint as fp
from densessl.weights.fingerprint import Fingerprint
from densessl.weights.io.checkpoints import to_plain, wrapper_of
from densessl.weights.io.torch_files import load_content
from densessl.weights.layouts.tables import OURS
from densessl.weights.layouts.take import Taken, grouped, take
from densessl.weights.parts import PARTS, part_of_state
from densessl.weights.state import bare_model
from densessl.weights.vit_facts import REST

BRANCHES = ("online", "target")


class Opened(NamedTuple):
    """A checkpoint that has been read. Functions that take a path also take this, and do not read the file again.

    Attributes:
        state: Named tensors, as :func:`tensors_in` finds them, of the entry that holds the weights
            (:func:`densessl.weights.io.checkpoints.wrapper_of`), or of the whole file if there is no such entry.
        meta: The plain data in the file's ``meta``.
        name: Name of the file, for messages.
        rest: Tensors outside the state, such as the optimiser's.
    """

    state: Mapping[str, Tensor]
    meta: Mapping[str, Any]
    name: str
    rest: Mapping[str, Tensor] = {}


Source = str | Path | Mapping[str, Any] | Opened | nn.Module


def open_checkpoint(source: Source, drop_objects: bool = False) -> Opened:
    """Read a file once. A dict counts as the content of a file, and a model that is pretrained here as its checkpoint.

    Args:
        drop_objects: See :func:`densessl.weights.io.torch_files.load_content`.

    Raises:
        FileNotFoundError, UnsafeCheckpointError: As that function.
        CheckpointError: As that function, or the file holds no tensors.
        SettingError: It is a model that is not pretrained here, or none of these.
    """
    if isinstance(source, Opened):
        return source
    if isinstance(source, nn.Module):
        model = bare_model(source)
        kind = type(model).__name__
        if not hasattr(model, "describe"):
            raise SettingError(
                f"found a {kind} as the source of weights, expected a file, or a model pretrained here (TwoBranch, "
                "DetectorPretraining); of any other model, give its state_dict()"
            )
        return Opened(model.state_dict(), {"densessl": model.describe()}, f"the given {kind}")
    if not isinstance(source, str | os.PathLike | Mapping):
        raise SettingError(f"found {source!r:.80} as the source of weights, expected a file, its content or a model")
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
    """Return all tensors in nested dicts and lists, by their keys and indices joined by dots.

    A container that contains itself is visited only once.
    """
    found: dict[str, Tensor] = {}
    around: set[int] = set()  # ids of the containers around the current value
    left: list[tuple[str, Any, bool]] = [("", content, False)]  # a stack; True marks the end of a container
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
    """Return the ``meta`` that an export wrote into a safetensors file; None for files from elsewhere.

    Raises:
        CheckpointError: The metadata is damaged.
    """
    try:
        with safe_open(Path(path).expanduser(), "pt") as file:
            return json.loads((file.metadata() or {}).get("densessl", "null"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{path}: its metadata 'densessl' is no JSON: {error}") from error


def read_backbone(source: Source, branch: str | None = None) -> tuple[dict[str, Tensor], Fingerprint]:
    """Return the backbone in a file, with unprefixed names, and its fingerprint.

    Args:
        source: A path, or the content of a file: a checkpoint of densessl (``online.backbone.*`` …), a file written by
            :func:`export_backbone`, or a public checkpoint of a layout in :mod:`densessl.weights.layouts.tables`.
            Nothing in a file is executed.
        branch: ``"online"``, ``"target"``, or None for the one that the method's paper transfers (for densessl's
            checkpoints, the online one).

    Raises:
        ExportError: The file has no backbone, or not that branch; the message says what it has.
        FileNotFoundError, ValueError: As :func:`open_checkpoint`.
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
    found = fp.of_state(state, config, normalize)
    fp.check_numbers(found.to_dict())
    return state, found


def parts_in(source: Source, branch: str | None = None) -> dict[str, dict[str, Tensor]]:
    """Return the neck and head that a file has, by ``"neck"`` and ``"head"``, with unprefixed names. A head consists of
    its shared convolutions only.

    Args:
        source, branch: As for :func:`read_backbone`.
    """
    taken = by_our_names(source, branch)
    states = {part: part_of_state(taken.tensors, part, taken.branch) for part in PARTS if part != "backbone"}
    return {part: state for part, state in states.items() if state}


def by_our_names(source: Source, branch: str | None = None) -> Taken:
    """Return the tensors of a file by the names of densessl (``online.backbone.*`` …) or MMDetection.

    Arguments and errors are those of :func:`read_backbone`.
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
    # An export has known names, so it is not compared with public layouts, unless it was written with their names.
    if "fingerprint" in source.meta and "names" not in source.meta:
        if branch == "target":
            raise ExportError(f"{source.name} has no 'target' backbone; its branches are ['online']")
        bare = not any(key.startswith("backbone.") for key in source.state)
        tensors = {f"backbone.{key}": value for key, value in source.state.items()} if bare else source.state
        parts = tuple(f"{part}." for part in PARTS.values())
        dropped = grouped(tensors, [key for key in tensors if key.startswith(parts)])
        return Taken(OURS, "online", ("online",), tensors, dropped)
    if any(key.startswith("detector.backbone.") for key in source.state):
        raise ExportError(f"{source.name} holds a whole detector: export it with densessl export --to mmdet-detector")
    return take(source.state, source.name, branch)


def part_configs(meta: Any) -> Mapping[str, Any]:
    """Return the configs of a file's parts, from its ``meta``. Pass a config through
    :func:`densessl.weights.file_configs.checked` before building it.

    Raises:
        UnsafeCheckpointError: an entry is no config.
        CheckpointError: the statistics of the pixels are none.
    """
    configs = (meta.get("densessl") or meta.get("parts")) if isinstance(meta, Mapping) else None
    configs = configs if isinstance(configs, Mapping) else {}
    for part in PARTS:
        config = configs.get(part)
        kind = config.get("type") if isinstance(config, Mapping) else None
        if config is not None and not isinstance(kind, str | type):
            raise UnsafeCheckpointError(f"meta: {part}: found {config!r:.80}, expected a config with a 'type'")
    if not isinstance(configs.get("normalize"), Mapping | None):
        raise UnsafeCheckpointError(f"meta: normalize: found {configs['normalize']!r:.80}, expected mean and std")
    fp.check_pixels(configs.get("normalize") or {})
    return configs


NONE = "none"  # value of --init for random weights


def open_init(file: str) -> Opened:
    """Read the file of ``--init``.

    Raises:
        SettingError: The file is damaged, or holds no weights.
        FileMissing: There is no such file; the message names the nearest ones.
        UnsafeCheckpointError: Reading the file would execute code.
    """
    try:
        return open_checkpoint(file)
    except UnsafeCheckpointError:
        raise
    except FileMissing as error:
        raise FileMissing(f"--init: {error}. For random weights use --init none") from error
    except ValueError as error:
        raise SettingError(f"--init: {error}") from error
