"""Reading checkpoints: what backbone, neck and head a file holds, under which names, and what is known about them."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import safe_open
from torch import Tensor

from densessl.engine.checkpoint import load_weights, read_checkpoint
from densessl.transfer import fingerprint as fp
from densessl.transfer.fingerprint import Fingerprint
from densessl.transfer.parts import PARTS, part_of_state
from densessl.transfer.report import ExportError
from densessl.transfer.vit import REST, is_vit

BRANCHES = ("online", "target")


class Opened(NamedTuple):
    """A checkpoint that has been read: all its named tensors, its ``meta`` (empty where it is not plain data), and what
    to call it. Whatever takes a path takes this too, and does not read again."""

    state: Mapping[str, Tensor]
    meta: Mapping[str, Any]
    name: str


Source = str | Path | Mapping[str, Any] | Opened


def open_checkpoint(source: Source) -> Opened:
    """Read a file once. A dict is taken for what reading a file gave."""
    if isinstance(source, Opened):
        return source
    name = str(source)
    if isinstance(source, Mapping):
        state, meta, name = source.get("state_dict", source), source.get("meta"), "the given state"
    else:
        state = load_weights(source)
        try:
            meta = safetensors_meta(source) if name.endswith(".safetensors") else read_checkpoint(source).get("meta")
        except ValueError:  # a trainer that leaves objects beside the weights: load_weights read past them
            meta = None
    return Opened(state, meta if isinstance(meta, Mapping) else {}, name)


def safetensors_meta(path: str | Path) -> Any:
    """What an export wrote beside the tensors; None in files of others.

    Raises:
        ValueError: It is damaged.
    """
    with safe_open(Path(path).expanduser(), "pt") as file:
        return json.loads((file.metadata() or {}).get("densessl", "null"))


def read_backbone(source: Source, branch: str = "online") -> tuple[dict[str, Tensor], Fingerprint]:
    """The backbone in a file, with unprefixed names, and what is known about it.

    Args:
        source: A path, or what reading it gave. Understood are checkpoints of densessl (``online.backbone.*`` …), files
            written by :func:`export_backbone`, detectors (``backbone.*``), and bare backbones (torchvision, timm).
            Nothing in a file is executed.
        branch: ``"online"`` or ``"target"``. Only checkpoints of densessl have branches.

    Raises:
        ExportError: No backbone is found; the message says which branches there are.
        FileNotFoundError, ValueError: as :func:`densessl.engine.checkpoint.load_weights`.
    """
    if branch not in BRANCHES:
        raise ExportError(f"branch: found {branch!r}, expected one of {BRANCHES}")
    state, meta, name = open_checkpoint(source)
    branches = [b for b in BRANCHES if any(key.startswith(f"{b}.backbone.") for key in state)]
    if branches and branch not in branches:
        raise ExportError(f"{name} has no {branch!r} backbone; its branches are {branches}")
    prefix = f"{branch}.backbone." if branches else "backbone."
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    elif any(key.startswith("detector.backbone.") for key in state):
        raise ExportError(f"{name} holds a whole detector: export it by tools/export.py --to mmdet-detector")
    elif not fp.is_resnet(state) and not is_vit(state):
        raise ExportError(
            f"no backbone in {name}: expected tensors named '{branch}.backbone.*', 'backbone.*', or those of a bare "
            f"ResNet or ViT; found {sorted(state)[:5]}"
        )
    state = {key: value for key, value in state.items() if not REST.fullmatch(key)}
    if "fingerprint" in meta:
        return state, Fingerprint.from_dict(meta["fingerprint"])
    configs = part_configs(meta)
    return state, fp.of_state(state, configs.get("backbone"), configs.get("normalize"))


def parts_in(source: Source, branch: str = "online") -> dict[str, dict[str, Tensor]]:
    """The neck and the head in a file, by ``"neck"`` and ``"head"``, with unprefixed names: those it has, and of a head
    the shared convolutions.

    Args:
        source, branch: as of :func:`read_backbone`.
    """
    state = open_checkpoint(source).state
    found = {part: part_of_state(state, part, branch) for part in PARTS if part != "backbone"}
    return {part: tensors for part, tensors in found.items() if tensors}


def part_configs(meta: Mapping[str, Any]) -> Mapping[str, Any]:
    """What the parts of a file were built from, as its ``meta`` tells."""
    return meta.get("densessl") or meta.get("parts") or {}
