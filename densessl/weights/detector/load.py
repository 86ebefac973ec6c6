"""Loading of a whole pretrained detector into a stock one: with a report, or not at all.

Tensors do not tell all: two DETRs of equal shapes compute different things where positions are encoded with another
offset, or attention has another number of heads. Such *facts* are read off the built detector, kept in the file beside
the backbone's fingerprint, and compared.
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

# What says which class is which: a pretraining knows none, so these are new wherever classes differ.
CLASS_TENSORS = re.compile(r"(bbox_head\.fc_cls|bbox_head\.cls_branches|dn_query_generator\.label_embedding)\.")
QUERIES = "query_embedding.weight"
POSITIONS = ("num_feats", "temperature", "normalize", "scale", "offset")
# What a Deformable DETR in two stages has, and no other.
TWO_STAGES = "pos_trans_fc.weight"
# Inputs of DINO's decoder.ref_point_head over its outputs, and whose they are.
SHAPES = {2: "mmdet-3.3", 4: "onedl-3.5.1"}


def detector_state(source: Source) -> dict[str, Tensor]:
    """The tensors of a detector by MMDetection's names: all of a file, of a pretraining's checkpoint those under
    ``detector.`` but for the ones of classes. What scores the proposals of a Deformable DETR is not one of them."""
    state = open_checkpoint(source).state
    inside = {key.removeprefix("detector."): value for key, value in state.items() if key.startswith("detector.")}
    kept = _proposal_scorer(inside)
    return {key: value for key, value in inside.items() if key in kept or not CLASS_TENSORS.match(key)} or dict(state)


def _proposal_scorer(state: Mapping[str, Tensor]) -> set[str]:
    """Names of the branch that scores the encoder's proposals, the last one, where its first row scores objects of any
    class: in Deformable DETR. DINO takes the score of the best class instead, of which a pretraining has none."""
    branches = [key for key in state if key.startswith("bbox_head.cls_branches.")] if TWO_STAGES in state else []
    last = max((int(key.split(".")[2]) for key in branches), default=None)
    return {key for key in branches if int(key.split(".")[2]) == last}


def shapes_of(state: Mapping[str, Tensor]) -> str | None:
    """Whose shapes a DINO has: ``"mmdet-3.3"`` (and of the official code) or ``"onedl-3.5.1"``; None of another."""
    head = state.get("decoder.ref_point_head.layers.0.weight")
    if head is None or "decoder.norm.weight" not in state:
        return None
    return SHAPES.get(head.shape[1] // head.shape[0])


def facts_of_detector(model: nn.Module) -> dict[str, Any]:
    """What must agree between two DETRs of MMDetection beside names and shapes of tensors; plain data."""
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

    New are the class branches and DINO's label embedding, where the file has none or of other classes, and the queries
    where the file has another number of them. Of the branch that scores the proposals of a Deformable DETR in two
    stages the first row is loaded; the others, by which no proposal is chosen, stay as they are. Everything else must
    be in both, in the same shape.

    Args:
        model: A DETR of MMDetection, wrapped or not.
        path: A file of ``tools/export.py --to mmdet-detector`` or ``tools/convert.py``, a checkpoint of a pretraining,
            or one of MMDetection.
        strict_fingerprint: Raise where the facts differ. With ``False`` the report still says so.

    Returns:
        The report; ``print(report)`` shows one line, and more where something deserves it.

    Raises:
        LoadError: Something does not fit; the message lists names. Nothing has been loaded then.
    """
    model, source = bare_model(model), open_checkpoint(path)
    own, given = model.state_dict(), detector_state(source)
    # Old and converted files lack the step counters of batch norm, and PyTorch neither misses nor needs them.
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
    """Facts of the detector, and the fingerprint of its backbone."""
    found = facts_of_detector(model)
    told = source.meta.get("detector")
    wanted = {key: told.get(key) if isinstance(told, Mapping) else None for key in found}
    if "shapes" in found:
        wanted["shapes"] = shapes_of(given)
    differences, unverified = compare_facts(found, wanted, "detector")
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
            ("transformer.", "These are names of the official code: convert the file by tools/convert.py."),
            ("neck.convs.0.conv.bias", "Its neck has biases: set model.neck.bias=True."),
        ]
        said = [hint for start, hint in hints if any(key.startswith(start) for key in report.unexpected)]
        raise LoadError("\n".join([f"{report.source} does not fit this detector.", str(report), *said]), report)
