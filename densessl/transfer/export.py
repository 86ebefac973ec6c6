"""From a training checkpoint to a file that MMDetection, torchvision or timm opens.

    file ``--to mmdet``        {"state_dict": {"backbone.conv1.weight": …, "neck.lateral_convs.0.conv.weight": …,
                               "bbox_head.cls_convs.0.conv.weight": …}, "meta": {"fingerprint": {…}, "parts": {…}, …}}
    file ``--to torchvision``  {"conv1.weight": …}, which has the backbone only
    file ``--to timm``         {"patch_embed.proj.weight": …} or {"conv1.weight": …}, likewise

The first works as it is in three places of a stock MMDet config: ``densessl.LoadBackboneHook``, which checks and
reports; ``load_from = FILE``; and ``backbone.init_cfg = dict(type="Pretrained", checkpoint=FILE, prefix="backbone")``.
Neck and head are in it where the pretraining had them. That of a ViT has its tensors a second time, without prefix and
without taking more room, under ``"model"``, where MMDetection's ``projects/ViTDet`` looks for them.
"""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densessl.engine.checkpoint import save_checkpoint
from densessl.transfer import fingerprint as fp
from densessl.transfer.fingerprint import Fingerprint
from densessl.transfer.parts import PARTS
from densessl.transfer.read import Source, open_checkpoint, part_configs, parts_in, read_backbone
from densessl.transfer.report import ExportError
from densessl.transfer.to_timm import timm_arguments
from densessl.version import __version__

FORMATS = ("mmdet", "torchvision", "timm")


def export_backbone(
    source: Source,
    out: str | Path,
    to: str = "mmdet",
    branch: str = "online",
    meta: Mapping[str, Any] | None = None,
    parts: Collection[str] | None = None,
) -> Fingerprint:
    """Write the backbone of a checkpoint to ``out``, atomically, and with it the neck and the head it was trained with.

    Args:
        source: A checkpoint's path, or a dict like one. At the end of a run, for instance:
            ``dict(state_dict=model.state_dict(), meta=dict(densessl=…))``.
        out: The file to write; its folder is made. It opens with ``torch.load(weights_only=True)``.
        to: ``"mmdet"``, ``"torchvision"`` or ``"timm"`` (see the module's docstring).
        branch: ``"online"`` or ``"target"``.
        meta: More to keep in the file's ``meta``: plain strings, numbers, lists and dicts.
            The other formats have none.
        parts: Of ``"backbone"``, ``"neck"``, ``"head"``, those to write; the backbone always is. By default all that
            the checkpoint has. The other formats have the backbone only, whatever there is.

    Returns:
        The fingerprint of the backbone, as written to the file.

    Raises:
        ExportError: No such branch or part; a tensor is not finite; or torchvision or timm has no such network.
    """
    if to not in FORMATS:
        raise ExportError(f"to: found {to!r}, expected one of {FORMATS}")
    source = open_checkpoint(source)
    backbone, fingerprint = read_backbone(source, branch)
    states = {"backbone": backbone, **(parts_in(source, branch) if to == "mmdet" else {})}
    if to == "mmdet" and parts is not None:
        if not states.keys() >= set(parts):
            raise ExportError(f"parts: found {list(parts)}, {source.name} has {list(states)}")
        states = {part: state for part, state in states.items() if part in ("backbone", *parts)}
    named = {f"{PARTS[part]}.{key}": value for part, state in states.items() for key, value in state.items()}
    diverged = [key for key, value in named.items() if value.is_floating_point() and not value.isfinite().all()]
    if diverged:
        raise ExportError(f"{len(diverged)} tensors hold NaN or infinity, first {diverged[0]!r}")
    # Copies: a tensor that is a view would drag its whole storage into the file.
    named = {key: value.detach().cpu().clone() for key, value in named.items()}
    bare = {key.removeprefix("backbone."): value for key, value in named.items() if key.startswith("backbone.")}
    if to == "mmdet":
        configs = part_configs(source.meta)
        header = {
            **(meta or {}),
            "densessl_version": __version__,
            "branch": branch,
            "fingerprint": fingerprint.to_dict(),
            "parts": {part: configs.get(part) for part in states},
        }
        again = {"model": bare} if fingerprint.arch == "vit" else {}
        save_checkpoint(out, {"state_dict": named, **again, "meta": header})
    else:
        if to == "timm":
            timm_arguments(bare, fingerprint)
        if to == "torchvision" or fingerprint.arch == "resnet":  # timm's ResNets are torchvision's
            _check_torchvision(bare, fingerprint)
        save_checkpoint(out, bare)
    return fingerprint


def _check_torchvision(state: Mapping[str, Tensor], fingerprint: Fingerprint) -> None:
    """Raise unless torchvision's ResNet of that depth takes every tensor, lacks only ``fc``, and computes the same."""
    import torchvision

    if fingerprint.arch != "resnet" or fingerprint.depth is None:
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
