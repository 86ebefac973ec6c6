"""Necks and the shared convolutions of one-stage heads: where files and detectors have them, and what must agree.

A :class:`~densessl.weights.fingerprint.Fingerprint` describes what a backbone's weights assume. For a neck or head, a
dict of *facts* does: a key that one side lacks does not apply there (such as the kind of extra levels, if there are
none), and the value None means unknown.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.weights.fingerprint import EPS, NORMS

PARTS = {"backbone": "backbone", "neck": "neck", "head": "bbox_head"}  # ours, and their names in MMDetection
TOWERS = ("cls_convs", "reg_convs")  # of a head; the layers after them predict, and belong to the detector
NORM_KEYS = {"bn": "BN", "gn": "GN", "ln": "LN"}


def part_of_state(state: Mapping[str, Tensor], part: str, branch: str = "online") -> dict[str, Tensor]:
    """Return the tensors of a part in a checkpoint of densessl, an export, or a detector, without prefix; for a head,
    only those of the towers. Empty if there is no such part."""
    if any(key.startswith(f"{branch}.backbone.") for key in state):
        prefix = f"{branch}.{part}."
    elif any(key.startswith("backbone.") for key in state):
        prefix = f"{PARTS[part]}."
    else:
        return {}  # a bare backbone
    tensors = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return only_towers(tensors) if part == "head" else tensors


def part_of_model(model: nn.Module, part: str) -> tuple[str, nn.Module | None]:
    """Return name and module of a part of a detector; the module is None if it has no such part. A two-stage detector
    whose proposals come from a dense head, such as FCOS, has the towers in its ``rpn_head``."""
    names = ("bbox_head", "rpn_head") if part == "head" else (PARTS[part],)
    for name in names:
        module = getattr(model, name, None)
        if module is not None and (part != "head" or any(hasattr(module, tower) for tower in TOWERS)):
            return name, module
    return names[0], None


def only_towers(tensors: Mapping[str, Any]) -> dict[str, Any]:
    """Entries of a head's state that belong to its towers."""
    return {key: value for key, value in tensors.items() if key.partition(".")[0] in TOWERS}


def count(state: Mapping[str, Any], blocks: str) -> int:
    """Return the number of blocks in a list of that name. An FPN has one ``lateral_convs`` per stage of the backbone
    that it uses; further ``fpn_convs`` make extra levels."""
    return len({key.split(".")[1] for key in state if key.startswith(f"{blocks}.")})


def facts_of_state(part: str, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Return the facts of the neck or head in a file.

    Args:
        state: its tensors, from :func:`part_of_state`.
        config: its config, for facts that tensors do not show; None if unknown.
    """
    if config is None:
        return _facts(part, state, {})
    norm = config.get("norm_cfg") or {}
    told = {
        "type": str(config["type"]).rpartition(".")[2],
        "eps": norm.get("eps", EPS),
        "groups": norm.get("num_groups"),
        "extra": _extra(config.get("add_extra_convs", False), config.get("relu_before_extra_convs", False)),
    }
    return _facts(part, state, told)


def facts_of_module(part: str, module: nn.Module) -> dict[str, Any]:
    """Return the facts of a built neck or head, read from its modules."""
    inside = [module] if part == "neck" else [getattr(module, tower) for tower in TOWERS if hasattr(module, tower)]
    kinds = (_BatchNorm, *NORMS)
    norms = [layer for outer in inside for layer in outer.modules() if isinstance(layer, kinds)]
    told = {
        "type": type(module).__name__,
        "eps": _only({norm.eps for norm in norms}),
        "groups": _only({norm.num_groups for norm in norms if isinstance(norm, nn.GroupNorm)}),
        "extra": _extra(getattr(module, "add_extra_convs", False), getattr(module, "relu_before_extra_convs", False)),
    }
    state = module.state_dict()
    return _facts(part, only_towers(state) if part == "head" else state, told)


def _facts(part: str, state: Mapping[str, Tensor], told: Mapping[str, Any]) -> dict[str, Any]:
    """Combine the facts that tensors show with those of ``told`` that apply to them."""
    lists = ("lateral_convs",) if part == "neck" else TOWERS
    blocks = next((name for name in lists if f"{name}.0.conv.weight" in state), None)
    if blocks is None:
        return {"type": told.get("type")} if part == "neck" else {}  # for others only names and shapes are compared
    width, inputs = state[f"{blocks}.0.conv.weight"].shape[:2]
    used = count(state, blocks)
    if part == "neck":
        inputs = tuple(state[f"lateral_convs.{i}.conv.weight"].shape[1] for i in range(used))
        facts = {"type": told.get("type", "FPN"), "inputs": inputs, "out_channels": width}
        if count(state, "fpn_convs") > used:
            facts["extra"] = told.get("extra")
    else:
        facts = {"in_channels": inputs, "feat_channels": width, "stacked_convs": used}
    norm = _only({NORM_KEYS[name] for key in state for name in key.split(".") if name in NORM_KEYS})
    facts["norm"] = norm or "none"
    if norm:
        facts["eps"] = told.get("eps")
    if norm == "GN":
        facts["groups"] = told.get("groups")
    return facts


def _only(values: set) -> Any:
    return next(iter(values)) if len(values) == 1 else None


def _extra(source: bool | str, relu: bool) -> str:
    """Describe the input of the convolutions of extra levels."""
    return f"{'on_input' if source is True else source}{', through ReLUs' if relu else ''}"
