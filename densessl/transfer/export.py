"""From a training checkpoint to a file that MMDetection or torchvision opens.

    file ``--to mmdet``        {"state_dict": {"backbone.conv1.weight": …}, "meta": {"fingerprint": {…}, …}}
    file ``--to torchvision``  {"conv1.weight": …}

The first works as it is in three places of a stock MMDet config: ``densessl.LoadBackboneHook``, which checks and
reports; ``load_from = FILE``; and ``backbone.init_cfg = dict(type="Pretrained", checkpoint=FILE, prefix="backbone")``.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densessl.engine.checkpoint import load_weights, read_checkpoint, save_checkpoint
from densessl.transfer import fingerprint as fp
from densessl.transfer.fingerprint import Fingerprint
from densessl.version import __version__

FORMATS = ("mmdet", "torchvision")
BRANCHES = ("online", "target")


class ExportError(ValueError):
    """A checkpoint does not hold what was asked for, or the format cannot express it."""


def open_checkpoint(source: str | Path | Mapping[str, Any]) -> tuple[Mapping[str, Tensor], Mapping[str, Any]]:
    """All named tensors of a checkpoint, and its ``meta``, empty where it is not plain data."""
    if isinstance(source, Mapping):
        state, meta = source.get("state_dict", source), source.get("meta")
    else:
        state = load_weights(source)
        try:
            meta = read_checkpoint(source).get("meta")
        except (
            ValueError
        ):  # safetensors, or a trainer that leaves objects beside the weights: load_weights read past them
            meta = None
    return state, meta if isinstance(meta, Mapping) else {}


def read_backbone(
    source: str | Path | Mapping[str, Any], branch: str = "online"
) -> tuple[dict[str, Tensor], Fingerprint]:
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
    name = "the given state" if isinstance(source, Mapping) else str(source)
    state, meta = open_checkpoint(source)
    branches = [b for b in BRANCHES if any(key.startswith(f"{b}.backbone.") for key in state)]
    if branches and branch not in branches:
        raise ExportError(f"{name} has no {branch!r} backbone; its branches are {branches}")
    prefix = f"{branch}.backbone." if branches else "backbone."
    if any(key.startswith(prefix) for key in state):
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    elif not fp.is_resnet(state) and not any(key.startswith("blocks.") for key in state):
        raise ExportError(
            f"no backbone in {name}: expected tensors named '{branch}.backbone.*', 'backbone.*', or those of a bare "
            f"ResNet or ViT; found {sorted(state)[:5]}"
        )
    state = {key: value for key, value in state.items() if not key.startswith("fc.")}  # torchvision's classifier
    if "fingerprint" in meta:
        return state, Fingerprint.from_dict(meta["fingerprint"])
    ours = meta.get("densessl") or {}
    return state, fp.of_state(state, ours.get("backbone"), ours.get("normalize"))


def export_backbone(
    source: str | Path | Mapping[str, Any],
    out: str | Path,
    to: str = "mmdet",
    branch: str = "online",
    meta: Mapping[str, Any] | None = None,
) -> Fingerprint:
    """Write the backbone of a checkpoint to ``out``, atomically.

    Args:
        source: A checkpoint's path, or a dict like one. At the end of a run, for instance:
            ``dict(state_dict=model.state_dict(), meta=dict(densessl=…))``.
        out: The file to write; its folder is made. It opens with ``torch.load(weights_only=True)``.
        to: ``"mmdet"`` or ``"torchvision"`` (see the module's docstring).
        branch: ``"online"`` or ``"target"``.
        meta: More to keep in the file's ``meta``: plain strings, numbers, lists and dicts.
            Torchvision's format has none.

    Returns:
        The fingerprint, as written to the file.

    Raises:
        ExportError: No such branch; a tensor is not finite; or torchvision has no such network.
    """
    if to not in FORMATS:
        raise ExportError(f"to: found {to!r}, expected one of {FORMATS}")
    state, fingerprint = read_backbone(source, branch)
    diverged = [key for key, value in state.items() if value.is_floating_point() and not value.isfinite().all()]
    if diverged:
        raise ExportError(f"{len(diverged)} backbone tensors hold NaN or infinity, first {diverged[0]!r}")
    # Copies: a tensor that is a view would drag its whole storage into the file.
    state = {key: value.detach().cpu().clone() for key, value in state.items()}
    if to == "torchvision":
        _check_torchvision(state, fingerprint)
        save_checkpoint(out, state)
    else:
        header = {**(meta or {}), "densessl_version": __version__, "branch": branch}
        named = {f"backbone.{key}": value for key, value in state.items()}
        save_checkpoint(out, {"state_dict": named, "meta": {**header, "fingerprint": fingerprint.to_dict()}})
    return fingerprint


def _check_torchvision(state: Mapping[str, Tensor], fingerprint: Fingerprint) -> None:
    """Raise unless torchvision's ResNet of that depth takes every tensor, lacks only ``fc``, and computes the same."""
    import torchvision

    if fingerprint.depth is None:
        raise ExportError(f"torchvision has no such network as this one: {fingerprint.to_dict()}")
    with torch.device("meta"):
        model = getattr(torchvision.models, f"resnet{fingerprint.depth}")()
    wanted = {key: value.shape for key, value in model.state_dict().items() if not key.startswith("fc.")}
    wrong = sorted(
        key for key in wanted.keys() | state.keys() if wanted.get(key) != getattr(state.get(key), "shape", 0)
    )
    differences, _ = fp.compare(fp.of_model(model), fingerprint)
    if wrong or differences:
        said = "; ".join(f"{d.field}: found {d.expected}, torchvision has {d.found}" for d in differences)
        names = f"{len(wrong)} tensors differ in name or shape: {wrong[:5]}" if wrong else ""
        raise ExportError(f"torchvision's resnet{fingerprint.depth} is another network: " + (said or names))
