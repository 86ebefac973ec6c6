"""Export weights from a checkpoint to a file for MMDetection or another library.

    ``--to mmdet``        {"state_dict": {"backbone.conv1.weight": …, "neck.lateral_convs.0.conv.weight": …,
                          "bbox_head.cls_convs.0.conv.weight": …}, "meta": {"fingerprint": {…}, "parts": {…}, …}}
    ``--to torchvision``  {"conv1.weight": …}; this format and the following hold the backbone only
    ``--to timm``         {"patch_embed.proj.weight": …} or {"conv1.weight": …}
    ``--to detectron2``   a pickle of numpy arrays, {"model": {"stem.conv1.weight": …}, …, "meta": {…}}
    ``--to safetensors``  {"conv1.weight": …}, with the ``meta`` of the first format as text in the file's metadata
    ``--to onnx``         a graph

A stock MMDet config can load the first format in three ways: with ``densessl.LoadBackboneHook``, which checks and
reports; with ``load_from = FILE``; and with ``backbone.init_cfg = dict(type="Pretrained", checkpoint=FILE,
prefix="backbone")``. It holds neck and head if the pretraining had them. A ViT's file also has the tensors without
prefix under ``"model"``, where MMDetection's ``projects/ViTDet`` looks for them; they share storage and take no extra
space.
"""

import json
from collections import Counter
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from densessl.errors import ExportError
from densessl.files import require_other_file, written_whole
from densessl.version import __version__
from densessl.weights.fingerprint import Fingerprint
from densessl.weights.formats.to_detectron2 import check_detectron2, detectron2_settings, write_detectron2
from densessl.weights.formats.to_onnx import onnx_signature, write_onnx
from densessl.weights.formats.to_timm import timm_arguments
from densessl.weights.formats.to_torchvision import check_torchvision
from densessl.weights.io.checkpoints import save_checkpoint
from densessl.weights.layouts.take import grouped
from densessl.weights.parts import PARTS, part_of_state
from densessl.weights.read import Source, by_our_names, open_checkpoint, part_configs, parts_in, read_backbone
from densessl.wording import count

FORMATS = ("mmdet", "torchvision", "timm", "detectron2", "safetensors", "onnx")
# Readers of these formats rely on the suffix.
SUFFIXES = {"detectron2": ".pkl", "safetensors": ".safetensors", "onnx": ".onnx"}


def export_backbone(
    source: Source,
    out: str | Path,
    to: str = "mmdet",
    branch: str | None = None,
    meta: Mapping[str, Any] | None = None,
    parts: Collection[str] | None = None,
    size: int | None = None,
) -> Fingerprint:
    """Write the backbone of a checkpoint to ``out``, atomically, with the neck and head that were trained with it.

    Args:
        source: Path of a checkpoint, a dict with its content, or the pretrained model (:class:`densessl.TwoBranch`).
        out: File to write; its folder is created. ``torch.load`` opens it with ``weights_only=True``, if it is of a
            format for ``torch.load``.
        to: One of ``FORMATS`` (see the module's docstring).
        branch: ``"online"``, ``"target"``, or None for the one that the method's paper transfers.
        meta: Further plain data (strings, numbers, lists, dicts) for the file's ``meta``; files for torchvision and
            timm have none.
        parts: Parts to write, of ``"backbone"``, ``"neck"``, ``"head"``; the backbone is always written. By default all
            parts in the checkpoint. Formats other than ``"mmdet"`` hold the backbone only.
        size: Side of the images of a ViT's ONNX graph; see :func:`densessl.weights.formats.to_onnx.write_onnx`.

    Returns:
        The fingerprint of the backbone.

    Raises:
        ExportError: The checkpoint has no such branch or part, a tensor is not finite, or the format cannot express the
            network. Nothing was written.
        SettingError: ``out`` is the checkpoint itself. Nothing was written.
    """
    if to not in FORMATS:
        raise ExportError(f"to: found {to!r}, expected one of {FORMATS}")
    require_suffix(out, to)
    if isinstance(source, str | Path):
        require_other_file(out, source)
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
        raise ExportError(f"NaN or infinity in {count(len(diverged), 'tensor')}, first {diverged[0]!r}")
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
            check_library(bare, fingerprint, to)
            save_checkpoint(out, bare)
        case "detectron2":
            write_detectron2(out, bare, fingerprint, header)
        case "safetensors":
            with written_whole(out) as temporary:
                save_file(bare, temporary, {"format": "pt", "densessl": json.dumps(header)})
        case "onnx":
            write_onnx(out, bare, fingerprint, header, size)
    return fingerprint


def require_suffix(out: str | Path, to: str, what: str = "out") -> None:
    """Raise an ExportError if files of the format have another suffix than ``out``."""
    if Path(out).suffix != SUFFIXES.get(to, Path(out).suffix):
        raise ExportError(f"{what}: found {Path(out).name!r}, expected a name that ends in {SUFFIXES[to]!r} for {to}")


def require_network(source: Source, to: str, branch: str | None = None) -> None:
    """Raise an ExportError if the library that the format is for has no network such as the backbone of ``source``."""
    if to in ("torchvision", "timm"):
        check_library(*read_backbone(source, branch), to)
    if to == "detectron2":
        check_detectron2(*read_backbone(source, branch))


def check_library(state: Mapping[str, torch.Tensor], fingerprint: Fingerprint, to: str) -> None:
    """Raise an ExportError if torchvision or timm has no such network."""
    if to == "timm":
        timm_arguments(state, fingerprint)
    if to == "torchvision" or fingerprint.arch == "resnet":  # timm's ResNets are torchvision's
        check_torchvision(state, fingerprint, to)


def how_to_open(out: str | Path, to: str, source: Source, branch: str | None = None) -> str:
    """Return how to open an exported file, as lines of text; empty if the file needs no explanation.

    Args:
        out, to, source, branch: As for :func:`export_backbone`, which wrote the file.
    """
    state, fingerprint = read_backbone(source, branch)
    match to:
        case "torchvision":
            return f"for torchvision.models.{check_torchvision(state, fingerprint)}(), which also has an fc"
        case "timm":
            name, arguments = timm_arguments(state, fingerprint)
            call = ", ".join([f'"{name}"', *(f"{key}={value!r}" for key, value in arguments.items())])
            return f"for timm.create_model({call}), load_state_dict with strict=True"
        case "detectron2":
            return f"detectron2's config must have\n{detectron2_settings(out, state, fingerprint)}"
        case "onnx":
            return onnx_signature(out)
    return ""


def convert_backbone(
    source: Source, out: str | Path, to: str = "mmdet", branch: str | None = None, size: int | None = None
) -> list[str]:
    """Export the backbone of a public checkpoint, with the facts that its layout implies.

    Args:
        source: A file of one of the layouts in :mod:`densessl.weights.layouts.tables`, or of densessl.
        out, to, branch, size: As for :func:`densessl.weights.export.export_backbone`.

    Returns:
        Lines to print: the layout, what was taken, what was left out, and the fingerprint.

    Raises:
        ExportError, ValueError, FileNotFoundError: As that function.
    """
    source = open_checkpoint(source)
    taken = by_our_names(source, branch)
    fingerprint = export_backbone(source, out, to, taken.branch, dict(converted_from=taken.layout.name), size=size)
    counts = Counter({part: len(part_of_state(taken.tensors, part, taken.branch)) for part in PARTS})
    default = "" if branch or len(taken.branches) < 2 else f", by default, of {list(taken.branches)}"
    return [
        f"{source.name}: layout of {taken.layout.name}",
        f"taken: {_counts(counts)} of the {taken.branch} branch{default}",
        f"left out: {_counts(taken.dropped + grouped(source.rest)) or 'nothing'}",
        f"{out}: {fingerprint}",
    ]


def _counts(counter: Counter) -> str:
    return ", ".join(f"{name} ({count})" for name, count in counter.most_common() if count)
