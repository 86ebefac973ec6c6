"""Plain ViTs, with the names that timm, MAE, SIM and ViTDet share: their facts, and tensors that loading ignores."""

import inspect
import math
import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from densessl.branches.vit import ViT
from densessl.registry import SCOPE

# Last layers of the classifiers of torchvision and timm.
CLASSIFIER = r"(head|fc|fc_norm)"
# Tensors of bare files outside the encoder: classifiers, and the decoders and targets of MAE and SIM.
REST = re.compile(rf"({CLASSIFIER}|mask_token|mm_\w+|\w*decoder_\w+)(\..*)?")
RELATIVE = ("rel_pos_h", "rel_pos_w")


def is_vit(state: Mapping[str, Tensor]) -> bool:
    """Whether the tensors are those of a plain ViT."""
    return {"patch_embed.proj.weight", "blocks.0.attn.qkv.weight", "blocks.0.mlp.fc1.weight"} <= state.keys()


def facts_of_vit(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a :class:`~densessl.weights.fingerprint.Fingerprint` that follow from the tensors and the
    config of a ViT; the config may be empty."""
    embed_dim, _, patch_size, _ = state["patch_embed.proj.weight"].shape
    facts = {
        "depth": len({key.split(".")[1] for key in state if key.startswith("blocks.")}),
        "patch_size": patch_size,
        "embed_dim": embed_dim,
        "qkv_bias": "blocks.0.attn.qkv.bias" in state,
        "layer_scale": "blocks.0.ls1.gamma" in state,
        "norm": "LN",
    }
    if "pos_embed" in state:
        rows = state["pos_embed"].shape[-2]
        side = math.isqrt(rows)
        facts |= {"image_size": side * patch_size, "class_row": rows == side**2 + 1}
    if config.get("type") in ("ViT", f"{SCOPE}.ViT", ViT):
        defaults = {name: argument.default for name, argument in inspect.signature(ViT).parameters.items()}
        facts |= {name: config.get(name, defaults[name]) for name in ("heads", "eps")}
    elif "num_heads" in config:
        facts["heads"] = config["num_heads"]
    elif "blocks.0.attn.rel_pos_h" in state:
        facts["heads"] = embed_dim // state["blocks.0.attn.rel_pos_h"].shape[1]
    return facts


def heads_of(backbone: nn.Module) -> int | None:
    """Return the number of attention heads of a built ViT, read from its first block."""
    attention = backbone.get_submodule("blocks.0.attn")
    return getattr(attention, "heads", getattr(attention, "num_heads", None))


def new_by_design(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors of a model that no pretraining has: ViTDet's relative positions, which start from zero."""
    return [key for key in own if key not in given and key.rpartition(".")[2] in RELATIVE]


def unused_by_design(own: Mapping[str, Tensor], given: Mapping[str, Tensor]) -> list[str]:
    """Return the tensors of a file that a ViT for detection ignores: the class token and the final norm."""
    return [key for key in given if key not in own and (key == "cls_token" or key.startswith("norm."))]
