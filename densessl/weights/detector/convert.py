"""Convert official DETR checkpoints to whole detectors of MMDetection, by the tables of
:mod:`densessl.weights.detector.official_names`."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densessl.errors import ExportError
from densessl.weights import fingerprint as fp
from densessl.weights.detector.export import entry_at, write_detector
from densessl.weights.detector.load import CLASS_TENSORS, QUERIES
from densessl.weights.detector.official_names import FAMILIES, PRE_NORM, family_of, renamed
from densessl.weights.detector.stock import stock_model
from densessl.weights.load_report import LoadReport
from densessl.weights.read import Source, open_checkpoint

# COCO's category ids are 1 to 90 without these ten; MMDetection numbers the remaining eighty from 0, in order.
COCO_IDS = [number for number in range(1, 91) if number not in {12, 26, 29, 30, 45, 66, 68, 69, 71, 83}]
# Normalisation that all these codes use.
PIXELS = dict(mean=[0.485, 0.456, 0.406], std=[0.229, 0.224, 0.225], channel_order="RGB")


def convert_detector(
    source: Source,
    out: str | Path,
    family: str = "auto",
    coco_classes: bool = False,
    options: Mapping[str, Any] | None = None,
) -> LoadReport:
    """Write ``OUT.pth`` and ``OUT.py`` from an official checkpoint, after checking that MMDetection's detector loads
    every tensor.

    The numbers of queries and layers, the width of the feed-forward networks and the depth of the ResNet are read from
    the tensors and set in the config. Tensors do not show dilation (DC5): set it with an option.

    Args:
        source: A file with its weights under ``"model"``. Other entries are ignored.
        out: As for :func:`densessl.weights.detector.export.export_detector`.
        family: One of ``FAMILIES``, or ``"auto"`` to recognise it by its tensor names.
        coco_classes: Keep the class branches of a detector that was fine-tuned on COCO, in MMDetection's order.
        options: Further changes to the stock config's ``model`` by dotted name.

    Returns:
        The load report that fine-tuning will give.

    Raises:
        ExportError: The family is unknown, has pre-norm layers, or its classes are not COCO's.
        LoadError: MMDetection's detector does not have the names or shapes. Nothing was written.
    """
    source = open_checkpoint(source)
    weights, source = source.state, source.name
    if PRE_NORM in weights:
        raise ExportError(
            f"{source} has {PRE_NORM!r}: its transformer was trained with pre-norm layers. MMDetection's normalise "
            "after each residual; they would take the tensors and compute something else. Convert a model that was "
            "trained without --pre_norm, or pretrain one here"
        )
    recognised = family_of(weights)
    if family == "auto" and recognised is None:
        raise ExportError(f"{source} is of no family known here, {list(FAMILIES)}; it has {sorted(weights)[:3]}")
    family = recognised if family == "auto" else family
    config, settings = FAMILIES[family].config, dict(FAMILIES[family].options)
    layers = _layers(weights, "transformer.decoder.layers")
    if not layers:
        raise ExportError(
            f"{source} holds no DETR: expected tensors named 'transformer.decoder.layers.*', found "
            f"{sorted(weights)[:3]}"
        )
    state = {renamed(name, family, layers): tensor for name, tensor in weights.items()}
    state.pop(None, None)
    classes = {name: tensor for name, tensor in state.items() if CLASS_TENSORS.match(name)}
    state = {name: tensor for name, tensor in state.items() if name not in classes}
    if coco_classes:
        state |= {name: coco_rows(name, tensor) for name, tensor in classes.items()}
    bare = {name.removeprefix("backbone."): tensor for name, tensor in state.items() if name.startswith("backbone.")}
    backbone = fp.of_state(bare, dict(type="ResNet"), PIXELS)
    settings |= {**_sizes(state, config, backbone.depth), **(options or {})}
    return write_detector(out, state, config, settings, backbone, meta=dict(converted_from=family))


def coco_rows(name: str, tensor: Tensor) -> Tensor:
    """Reorder the rows of a class tensor from COCO's category ids, (91, …) or (92, …), to MMDetection's order, (80, …).

    The last row of DETR's softmax (92, …) is "no object", and stays last: (81, …).

    Raises:
        ExportError: The tensor has another number of rows.
    """
    if len(tensor) not in (91, 92):
        raise ExportError(f"{name} has {len(tensor)} rows, expected 91 or 92, by COCO's category ids")
    last = [91] if name.startswith("bbox_head.fc_cls") and len(tensor) == 92 else []
    return tensor[torch.tensor(COCO_IDS + last)]


def _sizes(state: Mapping[str, Tensor], config: str, depth: int | None) -> dict[str, Any]:
    """Return the changes to a config, by dotted name, that make it fit the shapes of the tensors."""
    sizes: dict[str, Any] = {"backbone.depth": depth} if depth else {}
    if QUERIES in state:
        sizes["num_queries"] = len(state[QUERIES])
    for part in ("encoder", "decoder"):
        sizes[f"{part}.num_layers"] = _layers(state, f"{part}.layers")
        first = state.get(f"{part}.layers.0.ffn.layers.0.0.weight")
        if first is not None:
            sizes[f"{part}.layer_cfg.ffn_cfg.feedforward_channels"] = len(first)
    model = stock_model(config)
    return {key: value for key, value in sizes.items() if entry_at(model, key) != value}


def _layers(state: Mapping[str, Tensor], prefix: str) -> int:
    depth = prefix.count(".") + 1
    return len({name.split(".")[depth] for name in state if name.startswith(f"{prefix}.")})
