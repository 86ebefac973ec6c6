"""Load a backbone, and the neck and head pretrained with it, into a detector: completely and with reports, or not at
all."""

import re
from collections import Counter
from collections.abc import Collection, Mapping
from typing import Any, NamedTuple

from torch import Tensor, nn

from densessl import wording
from densessl.errors import LoadError, SettingError
from densessl.weights.fingerprint import Fingerprint, compare, compare_facts, is_resnet, of_model
from densessl.weights.load_report import LoadReport, mismatches
from densessl.weights.parts import PARTS, count, facts_of_module, facts_of_state, only_towers, part_of_model
from densessl.weights.read import Source, open_checkpoint, part_configs, parts_in, read_backbone
from densessl.weights.state import bare_model
from densessl.weights.vit_facts import CLASSIFIER, is_vit, new_by_design, unused_by_design
from densessl.wording import choose

# Stages and blocks of which a model may have fewer than the file; the fingerprints decide whether that is allowed.
WHOLE = re.compile(r"(layer[2-4]|blocks\.\d+)\.")


def load_backbone(
    model: nn.Module,
    path: Source,
    min_coverage: float = 1.0,
    strict_fingerprint: bool = True,
    branch: str | None = None,
    allow_unexpected: bool = False,
) -> LoadReport:
    """Load a backbone into ``model.backbone``, or into ``model`` if it has no such attribute.

    In a C4 detector, whose box head runs the last stage of the ResNet, that stage counts as part of the backbone. The
    last layer of a classifier (``fc`` in torchvision and timm, ``head`` in timm's ViTs) keeps its values. A ViT for
    detection starts its relative positions anew, and may ignore the file's class token and final norm.

    Args:
        model: A detector of MMDet, wrapped or not, whose ``data_preprocessor`` is compared too; or a bare backbone
            or classifier.
        path: A file of :func:`densessl.weights.export.export_backbone`, a checkpoint of densessl, or any other file
            that :func:`densessl.weights.read.read_backbone` reads.
        min_coverage: Least share of the model's backbone tensors, 0 to 1, that the file must fill.
        strict_fingerprint: Raise if the fingerprints differ. With ``False`` only the report says so.
        branch: ``"online"``, ``"target"``, or None for the one that the method's paper transfers.
        allow_unexpected: Ignore tensors of the file's ResNet or ViT that the model lacks. A network trained with them,
            such as squeeze and excitation or register tokens, computes something else without them. Always ignored are
            batch counters, stages that the model does not have at all, and a ViT's class token and final norm.

    Returns:
        The load report; ``print(report)`` shows one line, and further lines for anything unusual.

    Raises:
        LoadError: The coverage is too low, the fingerprints differ, or the model lacks tensors. Nothing was loaded.
        ExportError: The file holds no backbone.
    """
    settings = (min_coverage, strict_fingerprint, branch, ("backbone",), allow_unexpected)
    return load_parts(model, path, *settings)["backbone"]


def load_parts(
    model: nn.Module,
    path: Source,
    min_coverage: float | Mapping[str, float] = 1.0,
    strict_fingerprint: bool = True,
    branch: str | None = None,
    parts: Collection[str] | None = None,
    allow_unexpected: bool = False,
) -> dict[str, LoadReport]:
    """Load a backbone, and the neck and the shared convolutions of a head if the file has them.

    A neck is loaded into one of the same type (``FPN``); levels that the file lacks, such as P6 and P7, count as new,
    not as missing. For a head, only the towers ``cls_convs`` and ``reg_convs`` are loaded, into a detector's
    ``bbox_head``, or into its ``rpn_head`` if that has such towers; the prediction layers are new.

    Args:
        model, path, strict_fingerprint, branch, allow_unexpected: As for :func:`load_backbone`.
        min_coverage: Least share of each part's tensors, 0 to 1; or shares by part, 1 for those not named.
        parts: Parts to load, of ``"backbone"``, ``"neck"`` and ``"head"``; the backbone is always loaded. By default
            all parts in the file; the report says which ones were skipped because the model does not have them.

    Returns:
        A load report for each part, by the names above.

    Raises:
        LoadError: The coverage of a part is too low, its fingerprint differs, the model's backbone lacks tensors, or
            the file or the model lacks a named part. Nothing was loaded.
        ExportError: The file holds no backbone.
        SettingError: ``model`` is no module, or ``path`` no source of weights.
    """
    if not isinstance(model, nn.Module):
        raise SettingError(f"model: found {model!r:.80}, expected the module to load the weights into")
    model, source = bare_model(model), open_checkpoint(path)
    given = parts_in(source, branch)
    for part in parts or ():
        choose("part", part, PARTS)
        if part not in ("backbone", *given):
            raise LoadError(f"parts: {source.name} has no {part}; it has {['backbone', *given]}")
    backbone, wanted = read_backbone(source, branch)
    known = is_resnet(backbone) or is_vit(backbone)  # for other networks, the role of unexpected tensors is unknown
    fits = {"backbone": _fit_backbone(model, backbone, wanted, source.name)}
    for part, state in given.items():
        if parts is None or part in parts:
            config = part_configs(source.meta).get(part)
            fits[part] = _fit_part(model, part, state, facts_of_state(part, state, config), source.name)
    for part, fit in fits.items():
        share = min_coverage.get(part, 1.0) if isinstance(min_coverage, Mapping) else min_coverage
        whole = known and part == "backbone" and not allow_unexpected
        _check(fit.report, share, strict_fingerprint, whole, named=parts is not None)
    for fit in fits.values():
        if not fit.report.skipped:
            fit.module.load_state_dict(fit.tensors, strict=False)
            fit.report.applied = True
            if fit.report.part != "backbone":
                fits["backbone"].report.new.pop(fit.report.part, None)
    return {part: fit.report for part, fit in fits.items()}


class _Fit(NamedTuple):
    """The tensors of a file that fit a module, with the report."""

    module: nn.Module | None
    tensors: Mapping[str, Tensor]
    report: LoadReport


def _fit(module: nn.Module, own: Mapping[str, Tensor], given: Mapping[str, Tensor], **report) -> _Fit:
    """Compare the tensors of a module with those of a file by name and shape."""
    mismatched = mismatches(own, given)
    fitting = {key: value for key, value in given.items() if key in own and key not in mismatched}
    details = LoadReport(
        expected=len(own),
        loaded=len(fitting),
        missing=[key for key in own if key not in given],
        mismatched=list(mismatched.values()),
        unexpected=[key for key in given if key not in own],
        **report,
    )
    return _Fit(module, fitting, details)


def _fit_backbone(model: nn.Module, given: Mapping[str, Tensor], wanted: Fingerprint, name: str) -> _Fit:
    backbone = _whole_backbone(model)
    differences, unverified = compare(of_model(backbone, getattr(model, "data_preprocessor", None)), wanted)
    details = dict(differences=differences, unverified=unverified)
    own, new = backbone.state_dict(), _others(model, backbone)
    unused = _left_out(own, given)
    if wanted.arch == "vit":
        fresh, unused = new_by_design(own, given), unused_by_design(own, given) + unused
        own = {key: value for key, value in own.items() if key not in fresh}
        new = {"rel_pos": len(fresh)} | new if fresh else new
    if backbone is model:
        last = [key for key in own if key not in given and re.match(rf"{CLASSIFIER}\.", key)]
        own = {key: value for key, value in own.items() if key not in last}
        new = new | Counter(key.partition(".")[0] for key in last)
    given = {key: value for key, value in given.items() if key not in unused}
    return _fit(backbone, own, given, source=name, part="backbone", new=new, unused=unused, **details)


def _left_out(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors of a file that a ResNet or ViT can do without: stages and blocks that it does not have at all,
    and batch counters."""
    present = {match[0] for key in own if (match := WHOLE.match(key))}
    lacked = {key for key in given if (match := WHOLE.match(key)) and match[0] not in present}
    return [key for key in given if key not in own and (key in lacked or key.endswith(".num_batches_tracked"))]


def _fit_part(model: nn.Module, part: str, given: Mapping[str, Tensor], wanted: Mapping[str, Any], name: str) -> _Fit:
    """Compare a neck or head, whose facts are ``wanted``, with the model's."""
    label, module = part_of_model(model, part)

    def skipped(why: str) -> _Fit:
        held = wording.count(len(given), "tensor")
        return _Fit(module, {}, LoadReport(name, label, 0, 0, skipped=f"the file has {held}, {why}"))

    if module is None:
        return skipped("the model has none" + " of the names cls_convs and reg_convs" * (part == "head"))
    found, tensors = facts_of_module(part, module), module.state_dict()
    if part == "neck" and None not in (wanted["type"], found["type"]) and wanted["type"] != found["type"]:
        return skipped(f"of the type {wanted['type']}, the model's is a {found['type']}")
    if not given.keys() & tensors.keys():
        return skipped("none by a name that the model's has")
    if part == "head":  # towers of the file, which may have only one
        towers = {key.partition(".")[0] for key in given}
        own = {key: value for key, value in only_towers(tensors).items() if key.partition(".")[0] in towers}
        new = Counter(key.partition(".")[0] for key in tensors if key not in own)
    else:
        extra = [f"fpn_convs.{i}." for i in range(count(tensors, "lateral_convs"), count(tensors, "fpn_convs"))]
        own = {k: v for k, v in tensors.items() if k in given or not k.startswith(tuple(extra))}
        new = Counter(".".join(key.split(".")[:2]) for key in tensors if key not in own)
    differences, unverified = compare_facts(found, wanted, label)
    details = dict(new=dict(new), differences=differences, unverified=unverified)
    return _fit(module, own, given, source=name, part=label, **details)


def _check(report: LoadReport, min_coverage: float, strict_fingerprint: bool, whole: bool, named: bool) -> None:
    """Raise :class:`LoadError` unless the part may be loaded, or skipped.

    Args:
        whole: Whether the model must have all tensors of the file.
        named: Whether the caller named the part; a named part may not be skipped.
    """
    if report.skipped:
        if named:
            raise LoadError(f"{report.source}: {report}", report)
        return
    remedy = "" if report.part == "backbone" else "\nTo skip this part, name the others: parts=['backbone', …]."
    if strict_fingerprint and report.differences:
        raise LoadError(
            f"{report.source} was trained in another network than this model's {report.part}.\n{report}{remedy}",
            report,
        )
    if report.coverage < min_coverage:
        raise LoadError(
            f"{report.source} fills {report.coverage:.1%} of the {report.part}, expected at least {min_coverage:.1%} "
            f"(min_coverage).\n{report}{remedy}",
            report,
        )
    if whole and report.unexpected:
        raise LoadError(
            f"{report.source} has {wording.count(len(report.unexpected), 'tensor')} that this model's {report.part} "
            "lacks, so it would compute something else. Build the model that has them or, if they are not needed, set "
            "allow_unexpected=True.\n"
            f"{report}",
            report,
        )


def _whole_backbone(model: nn.Module) -> nn.Module:
    """Return ``model.backbone``, together with the stage that a C4 detector keeps in its box head."""
    backbone = getattr(model, "backbone", model)
    shared_head = getattr(getattr(model, "roi_head", None), "shared_head", None)
    if not hasattr(shared_head, "layer4") or hasattr(backbone, "layer4"):
        return backbone
    whole = nn.Module()
    for name, child in [*backbone.named_children(), ("layer4", shared_head.layer4)]:
        whole.add_module(name, child)
    return whole


def _others(model: nn.Module, backbone: nn.Module) -> dict[str, int]:
    """Count the tensors of each part of a detector outside the backbone."""
    inside = {id(tensor) for tensor in backbone.state_dict(keep_vars=True).values()}
    tensors = model.state_dict(keep_vars=True).items()
    return dict(Counter(name.partition(".")[0] for name, tensor in tensors if id(tensor) not in inside))
