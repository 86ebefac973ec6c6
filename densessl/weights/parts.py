"""Necks and the shared convolutions of one-stage heads: where files and detectors have them, what must agree.

What a backbone's weights presume is a :class:`~densessl.weights.fingerprint.Fingerprint`. For a part on top of it a
dict of *facts* says it: a key that one side lacks is a question that does not arise there (how extra levels are made,
where there are none), and the value None means not known.
"""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.weights.fingerprint import EPS, NORMS

PARTS = {"backbone": "backbone", "neck": "neck", "head": "bbox_head"}  # ours, and their names in MMDetection
TOWERS = ("cls_convs", "reg_convs")  # of a head; what comes after them predicts, and is the detector's own
NORM_KEYS = {"bn": "BN", "gn": "GN", "ln": "LN"}


def part_of_state(state: Mapping[str, Tensor], part: str, branch: str = "online") -> dict[str, Tensor]:
    """The tensors of a part in a checkpoint of densessl, an export, or a detector: without prefix, of a head only those
    of the towers, empty where there is no such part."""
    if any(key.startswith(f"{branch}.backbone.") for key in state):
        prefix = f"{branch}.{part}."
    elif any(key.startswith("backbone.") for key in state):
        prefix = f"{PARTS[part]}."
    else:
        return {}  # a bare backbone
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    return only_towers(found) if part == "head" else found


def part_of_model(model: nn.Module, part: str) -> tuple[str, nn.Module | None]:
    """Name and module of a part of a detector; the module is None where it has no such part. Towers can also be those
    of proposals, as where a two-stage detector has an FCOS for them."""
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
    """How many blocks a list of that name has. A pyramid has as many ``lateral_convs`` as it uses stages of the
    backbone; its ``fpn_convs`` past that number make extra levels."""
    return len({key.split(".")[1] for key in state if key.startswith(f"{blocks}.")})


def facts_of_state(part: str, state: Mapping[str, Tensor], config: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Facts of the neck or head in a file.

    Args:
        state: its tensors, as :func:`part_of_state` gives them.
        config: what it was built from, which tells what tensors cannot; None if that is not known.
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
    """Facts of a built neck or head, read off its modules."""
    inside = [module] if part == "neck" else [getattr(module, tower) for tower in TOWERS if hasattr(module, tower)]
    kinds = (_BatchNorm, *NORMS)
    norms = [item for outer in inside for item in outer.modules() if isinstance(item, kinds)]
    told = {
        "type": type(module).__name__,
        "eps": _only({item.eps for item in norms}),
        "groups": _only({item.num_groups for item in norms if isinstance(item, nn.GroupNorm)}),
        "extra": _extra(getattr(module, "add_extra_convs", False), getattr(module, "relu_before_extra_convs", False)),
    }
    state = module.state_dict()
    return _facts(part, only_towers(state) if part == "head" else state, told)


def _facts(part: str, state: Mapping[str, Tensor], told: Mapping[str, Any]) -> dict[str, Any]:
    """What the tensors tell, and those things told that they make a question of."""
    lists = ("lateral_convs",) if part == "neck" else TOWERS
    blocks = next((name for name in lists if f"{name}.0.conv.weight" in state), None)
    if blocks is None:
        return {"type": told.get("type")} if part == "neck" else {}  # of others only names and shapes are compared
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
    """What convolutions of extra levels start from."""
    return f"{'on_input' if source is True else source}{', through ReLUs' if relu else ''}"
