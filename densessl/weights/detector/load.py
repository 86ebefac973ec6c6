"""Load a whole pretrained detector into a stock one: completely and with a report, or not at all.

Tensors do not show everything: two DETRs of equal shapes compute different things if their position encodings have
different offsets, or their attention different numbers of heads. Such *facts* are read from the built detector, stored
in the file beside the backbone's fingerprint, and compared.
"""

import re
from collections import Counter
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from densessl.errors import LoadError
from densessl.weights.fingerprint import Difference, Fingerprint, compare, compare_facts, of_model
from densessl.weights.load_report import LoadReport
from densessl.weights.read import Opened, Source, open_checkpoint
from densessl.weights.state import bare_model

# Tensors that depend on the classes: pretraining has no classes, so these are new whenever the classes differ.
CLASS_TENSORS = re.compile(r"(bbox_head\.fc_cls|bbox_head\.cls_branches|dn_query_generator\.label_embedding)\.")
QUERIES = "query_embedding.weight"
POSITIONS = ("num_feats", "temperature", "normalize", "scale", "offset")
# A tensor that only a two-stage Deformable DETR has.
TWO_STAGES = "pos_trans_fc.weight"
# Ratio of inputs to outputs of DINO's decoder.ref_point_head, and the distribution that has it.
SHAPES = {2: "mmdet-3.3", 4: "onedl-3.5.1"}


def detector_state(source: Source) -> dict[str, Tensor]:
    """Return the tensors of a detector by MMDetection's names: all tensors of a file; from a pretraining's checkpoint,
    those under ``detector.`` except class tensors. The branch that scores a Deformable DETR's proposals is kept."""
    state = open_checkpoint(source).state
    inside = {key.removeprefix("detector."): value for key, value in state.items() if key.startswith("detector.")}
    kept = _proposal_scorer(inside)
    return {key: value for key, value in inside.items() if key in kept or not CLASS_TENSORS.match(key)} or dict(state)


def _proposal_scorer(state: Mapping[str, Tensor]) -> set[str]:
    """Return the tensor names of the branch that scores the encoder's proposals, for a two-stage Deformable DETR. It is
    the last class branch, and its first row scores objects of any class. DINO uses the score of the best class instead,
    and a pretraining has no classes."""
    branches = [key for key in state if key.startswith("bbox_head.cls_branches.")] if TWO_STAGES in state else []
    last = max((int(key.split(".")[2]) for key in branches), default=None)
    return {key for key in branches if int(key.split(".")[2]) == last}


def shapes_of(state: Mapping[str, Tensor]) -> str | None:
    """Return which shapes a DINO has: ``"mmdet-3.3"`` (also the official code's) or ``"onedl-3.5.1"``; None for other
    detectors."""
    head = state.get("decoder.ref_point_head.layers.0.weight")
    if head is None or "decoder.norm.weight" not in state:
        return None
    return SHAPES.get(head.shape[1] // head.shape[0])


def facts_of_detector(model: nn.Module) -> dict[str, Any]:
    """Return what must agree between two DETRs of MMDetection besides names and shapes of tensors, as plain data."""
    kinds = [kind.__name__ for kind in type(model).__mro__ if kind.__module__.startswith("mmdet.")]
    facts: dict[str, Any] = {"type": kinds[0] if kinds else type(model).__name__}
    positions = getattr(model, "positional_encoding", None)
    facts |= {f"positional_encoding.{key}": getattr(positions, key) for key in POSITIONS if hasattr(positions, key)}
    for part in ("encoder", "decoder"):
        for field, attribute in (("heads", "num_heads"), ("points", "num_points")):
            modules = getattr(model, part, nn.Module()).modules()
            values = sorted({getattr(module, attribute) for module in modules if hasattr(module, attribute)})
            if values:
                facts[f"{part}.{field}"] = values[0] if len(values) == 1 else str(values)
    if hasattr(model, "with_box_refine"):
        facts["with_box_refine"] = bool(model.with_box_refine)
    shapes = shapes_of(model.state_dict())
    return facts | ({"shapes": shapes} if shapes else {})


def load_detector(model: nn.Module, path: Source, strict_fingerprint: bool = True) -> LoadReport:
    """Load a pretrained detector into a stock one, which may have other classes.

    The class branches and DINO's label embedding start anew if the file has none or has other classes; so do the
    queries if the file has another number of them. For a two-stage Deformable DETR, the first row of the branch that
    scores proposals is loaded; the other rows, which select no proposals, keep their values. Everything else must be in
    both detectors, with the same shapes.

    Args:
        model: A DETR of MMDetection, wrapped or not.
        path: A file of ``densessl export --to mmdet-detector`` or ``densessl convert``, a checkpoint of a pretraining,
            or one of MMDetection.
        strict_fingerprint: Raise if the facts differ. With ``False`` only the report says so.

    Returns:
        The load report; ``print(report)`` shows one line, and further lines for anything unusual.

    Raises:
        LoadError: Something does not fit; the message lists names. Nothing was loaded.
    """
    model, source = bare_model(model), open_checkpoint(path)
    own, given = model.state_dict(), detector_state(source)
    # Old and converted files lack the step counters of batch norm; PyTorch neither reports nor needs them.
    own = {key: value for key, value in own.items() if key in given or not key.endswith("num_batches_tracked")}
    given |= {
        key: torch.cat([given[key], own[key][1:].to(given[key])])
        for key in _proposal_scorer(given) & own.keys()
        if len(given[key]) == 1
    }
    shapes = {key: (tuple(value.shape), tuple(own[key].shape)) for key, value in given.items() if key in own}
    differ = {key for key, (found, expected) in shapes.items() if found != expected}
    new = {key for key in own if CLASS_TENSORS.match(key) and (key not in given or key in differ)}
    if QUERIES in differ and shapes[QUERIES][0][1:] == shapes[QUERIES][1][1:]:
        new.add(QUERIES)
    fitting = {key: value for key, value in given.items() if key in own and key not in differ}
    differences, unverified = _compare(model, source, given)
    report = LoadReport(
        source=source.name,
        part="detector",
        expected=len(own) - len(new),
        loaded=len(fitting),
        missing=[key for key in own if key not in given and key not in new],
        mismatched=[f"{key}: found {shapes[key][0]}, expected {shapes[key][1]}" for key in sorted(differ - new)],
        unexpected=[key for key in given if key not in own],
        new=dict(Counter(re.split(r"\.\d+\.|\.(?:weight|bias)$", key)[0] for key in own if key in new)),
        differences=differences,
        unverified=unverified,
    )
    _check(report, strict_fingerprint)
    model.load_state_dict(fitting, strict=False)
    report.applied = True
    return report


def _compare(model: nn.Module, source: Opened, given: Mapping[str, Tensor]) -> tuple[list[Difference], list[str]]:
    """Compare the facts of the detector, and the fingerprint of its backbone, with the file's."""
    found = facts_of_detector(model)
    described = source.meta.get("detector")
    expected = {key: described.get(key) if isinstance(described, Mapping) else None for key in found}
    if "shapes" in found:
        expected["shapes"] = shapes_of(given)
    differences, unverified = compare_facts(found, expected, "detector")
    if any(difference.field == "type" for difference in differences):
        return [difference for difference in differences if difference.field == "type"], []
    if "fingerprint" in source.meta:
        backbone = of_model(model.backbone, getattr(model, "data_preprocessor", None))
        more, unknown = compare(backbone, Fingerprint.from_dict(source.meta["fingerprint"]))
        differences, unverified = differences + more, unverified + unknown
    return differences, unverified


def _check(report: LoadReport, strict_fingerprint: bool) -> None:
    if strict_fingerprint and report.differences:
        raise LoadError(f"{report.source} was trained in another network than this detector.\n{report}", report)
    if report.missing or report.mismatched or report.unexpected:
        hints = [
            ("transformer.", "These are names of the official code: convert the file with densessl convert."),
            ("neck.convs.0.conv.bias", "Its neck has biases: set model.neck.bias=True."),
        ]
        fitting = [hint for start, hint in hints if any(key.startswith(start) for key in report.unexpected)]
        raise LoadError("\n".join([f"{report.source} does not fit this detector.", str(report), *fitting]), report)
