"""From a training checkpoint to a file that MMDetection or another library opens.

    ``--to mmdet``        {"state_dict": {"backbone.conv1.weight": …, "neck.lateral_convs.0.conv.weight": …,
                          "bbox_head.cls_convs.0.conv.weight": …}, "meta": {"fingerprint": {…}, "parts": {…}, …}}
    ``--to torchvision``  {"conv1.weight": …}: this and all that follow have the backbone only
    ``--to timm``         {"patch_embed.proj.weight": …} or {"conv1.weight": …}
    ``--to detectron2``   a pickle of numpy arrays, {"model": {"stem.conv1.weight": …}, …, "meta": {…}}
    ``--to safetensors``  {"conv1.weight": …}, and the first one's ``meta`` as text in the file's metadata
    ``--to onnx``         a graph

The first works as it is in three places of a stock MMDet config: ``densessl.LoadBackboneHook``, which checks and
reports; ``load_from = FILE``; and ``backbone.init_cfg = dict(type="Pretrained", checkpoint=FILE, prefix="backbone")``.
Neck and head are in it where the pretraining had them. That of a ViT has its tensors a second time, without prefix and
without taking more room, under ``"model"``, where MMDetection's ``projects/ViTDet`` looks for them.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from densessl.errors import ExportError
from densessl.files import written_whole
from densessl.version import __version__
from densessl.weights.fingerprint import Fingerprint
from densessl.weights.formats.to_detectron2 import detectron2_settings, write_detectron2
from densessl.weights.formats.to_onnx import onnx_signature, write_onnx
from densessl.weights.formats.to_timm import timm_arguments
from densessl.weights.formats.to_torchvision import check_torchvision
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.layouts.take import grouped
from densessl.weights.parts import PARTS, part_of_state
from densessl.weights.read import Source, by_our_names, open_checkpoint, part_configs, parts_in, read_backbone

FORMATS = ("mmdet", "torchvision", "timm", "detectron2", "safetensors", "onnx")
SUFFIXES = {"detectron2": ".pkl", "safetensors": ".safetensors"}  # whatever reads these goes by it


def export_backbone(
    source: Source,
    out: str | Path,
    to: str = "mmdet",
    branch: str | None = None,
    meta: Mapping[str, Any] | None = None,
    parts: Collection[str] | None = None,
    size: int | None = None,
) -> Fingerprint:
    """Write the backbone of a checkpoint to ``out``, atomically, and with it the neck and the head it was trained with.

    Args:
        source: A checkpoint's path, or a dict like one. At the end of a run, for instance:
            ``dict(state_dict=model.state_dict(), meta=dict(densessl=…))``.
        out: The file to write; its folder is made. What is for ``torch.load`` opens with ``weights_only=True``.
        to: One of ``FORMATS`` (see the module's docstring).
        branch: ``"online"``, ``"target"``, or None for the one that the method's paper transfers.
        meta: More to keep in the file's ``meta``: plain strings, numbers, lists and dicts.
            torchvision's and timm's have none.
        parts: Of ``"backbone"``, ``"neck"``, ``"head"``, those to write; the backbone always is. By default all that
            the checkpoint has. The other formats have the backbone only, whatever there is.
        size: Of a ViT's ONNX graph, see :func:`densessl.weights.formats.to_onnx.write_onnx`.

    Returns:
        The fingerprint of the backbone.

    Raises:
        ExportError: No such branch or part; a tensor is not finite; or the format has no such network. Nothing is
            written then.
    """
    if to not in FORMATS:
        raise ExportError(f"to: found {to!r}, expected one of {FORMATS}")
    if Path(out).suffix != SUFFIXES.get(to, Path(out).suffix):
        raise ExportError(f"out: found {Path(out).name!r}, expected a name that ends in {SUFFIXES[to]!r} for {to}")
    if size is not None and to != "onnx":
        raise ExportError(f"size: found {size} for {to}, expected none: only graphs for onnx have one")
    source = open_checkpoint(source)
    branch = by_our_names(source, branch).branch
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
    named = {key: value.detach().cpu().clone(memory_format=torch.contiguous_format) for key, value in named.items()}
    bare = {key.removeprefix("backbone."): value for key, value in named.items() if key.startswith("backbone.")}
    configs = part_configs(source.meta)
    header = {
        **(meta or {}),
        "densessl_version": __version__,
        "torch_version": str(torch.__version__),
        "branch": branch,
        "fingerprint": fingerprint.to_dict(),
        "parts": {part: configs.get(part) for part in states},
    }
    match to:
        case "mmdet":
            again = {"model": bare} if fingerprint.arch == "vit" else {}
            save_checkpoint(out, {"state_dict": named, **again, "meta": header})
        case "torchvision" | "timm":
            if to == "timm":
                timm_arguments(bare, fingerprint)
            if to == "torchvision" or fingerprint.arch == "resnet":  # timm's ResNets are torchvision's
                check_torchvision(bare, fingerprint)
            save_checkpoint(out, bare)
        case "detectron2":
            write_detectron2(out, bare, fingerprint, header)
        case "safetensors":
            with written_whole(out) as temporary:
                save_file(bare, temporary, {"format": "pt", "densessl": json.dumps(header)})
        case "onnx":
            write_onnx(out, bare, fingerprint, header, size)
    return fingerprint


def how_to_open(out: str | Path, to: str, source: Source, branch: str | None = None) -> str:
    """What the user of an exported file has to know of it that the file does not say itself, in lines; it can be empty.

    Args:
        out, to, source, branch: As of :func:`export_backbone`, which has written the file.
    """
    state, fingerprint = read_backbone(source, branch)
    match to:
        case "torchvision":
            return f"for torchvision.models.{check_torchvision(state, fingerprint)}(), which has an fc besides"
        case "timm":
            name, arguments = timm_arguments(state, fingerprint)
            told = ", ".join([f'"{name}"', *(f"{key}={value!r}" for key, value in arguments.items())])
            return f"for timm.create_model({told}), load_state_dict with strict=True"
        case "detectron2":
            return f"detectron2's config has to say\n{detectron2_settings(out, state, fingerprint)}"
        case "onnx":
            return onnx_signature(out)
    return ""


def convert_backbone(
    source: Source, out: str | Path, to: str = "mmdet", branch: str | None = None, size: int | None = None
) -> list[str]:
    """Write the backbone of a public checkpoint, with what its layout tells about it, as an export.

    Args:
        source: A file of one of the :mod:`densessl.weights.layouts.tables`, or of densessl.
        out, to, branch, size: As of :func:`densessl.weights.export.export_backbone`.

    Returns:
        Lines for its user: the layout, what was taken, what was left out, and the fingerprint.

    Raises:
        ExportError, ValueError, FileNotFoundError: as of that function.
    """
    source = open_checkpoint(source)
    found = by_our_names(source, branch)
    fingerprint = export_backbone(source, out, to, found.branch, dict(converted_from=found.layout.name), size=size)
    taken = Counter({part: len(part_of_state(found.tensors, part, found.branch)) for part in PARTS})
    said = "" if branch or len(found.branches) < 2 else f", by default, of {list(found.branches)}"
    return [
        f"{source.name}: layout of {found.layout.name}",
        f"taken: {_counts(taken)} of the {found.branch} branch{said}",
        f"left out: {_counts(found.dropped + grouped(source.rest)) or 'nothing'}",
        f"{out}: {fingerprint}",
    ]


def _counts(counter: Counter) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counter.most_common() if count)
