"""Find the timm model that loads exported weights unchanged and computes the same."""

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from densessl.errors import ExportError
from densessl.weights.fingerprint import Fingerprint
from densessl.wording import count

# timm's plain ViTs with patches of 16 pixels: name, depth and heads, by width.
VITS = {192: ("tiny", 12, 3), 384: ("small", 12, 6), 768: ("base", 12, 12), 1024: ("large", 24, 16)}
EPS = 1e-6  # eps of their norms; no plain-data argument of create_model changes it


def timm_arguments(state: Mapping[str, Tensor], fingerprint: Fingerprint) -> tuple[str, dict[str, Any]]:
    """Return name and arguments for ``timm.create_model`` that give a model with exactly the tensors of ``state``.

    Args:
        state: Tensors of a bare ViT or ResNet.
        fingerprint: Its fingerprint; for a ResNet only the depth is used.

    Raises:
        ExportError: timm has no such network, or the fingerprint lacks a needed field.
    """
    if fingerprint.arch == "resnet":
        return f"resnet{fingerprint.depth}", {"num_classes": 0}
    if fingerprint.arch != "vit":
        raise ExportError(f"timm: found a network of the kind {fingerprint.arch!r}, expected 'resnet' or 'vit'")
    unknown = [name for name in ("heads", "eps", "image_size") if getattr(fingerprint, name) is None]
    if unknown:
        raise ExportError(f"timm has ViTs of several {', '.join(unknown)}; the checkpoint does not state its own")
    if not math.isclose(fingerprint.eps, EPS, rel_tol=1e-6):
        raise ExportError(f"timm's ViT is another network: eps: found {fingerprint.eps}, timm has {EPS}")
    odd = sorted(_names(state, fingerprint) ^ state.keys())
    if odd:
        raise ExportError(
            f"timm's ViT is another network: only one of the two has {count(len(odd), 'tensor')}: {odd[:5]}"
        )

    width = fingerprint.embed_dim if fingerprint.embed_dim in VITS else 768
    name, depth, heads = VITS[width]
    class_token = "cls_token" in state
    needed_and_default = {
        "img_size": (fingerprint.image_size, 224),
        "patch_size": (fingerprint.patch_size, 16),
        "embed_dim": (fingerprint.embed_dim, width),
        "depth": (fingerprint.depth, depth),
        "num_heads": (fingerprint.heads, heads),
        "mlp_ratio": (len(state["blocks.0.mlp.fc1.weight"]) / fingerprint.embed_dim, 4.0),
        "qkv_bias": (fingerprint.qkv_bias, True),
        "init_values": (1.0 if fingerprint.layer_scale else None, None),
        "class_token": (class_token, True),
        "no_embed_class": (class_token and not fingerprint.class_row, False),
        "global_pool": ("token" if class_token else "avg", "token"),
        "fc_norm": (None if class_token else False, None),  # otherwise the final norm would follow the pooling
        "final_norm": ("norm.weight" in state, True),
    }
    changed = {key: needed for key, (needed, default) in needed_and_default.items() if needed != default}
    return f"vit_{name}_patch16_224", {"num_classes": 0, **changed}


def _names(state: Mapping[str, Tensor], fingerprint: Fingerprint) -> set[str]:
    """Return the tensor names of timm's ViT."""
    modules = ["norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2"]
    block = {f"{module}.{kind}" for module in modules for kind in ("weight", "bias")}
    block -= set() if fingerprint.qkv_bias else {"attn.qkv.bias"}
    block |= {"ls1.gamma", "ls2.gamma"} if fingerprint.layer_scale else set()
    names = {f"blocks.{i}.{name}" for i in range(fingerprint.depth) for name in block}
    names |= {"pos_embed", "patch_embed.proj.weight", "patch_embed.proj.bias"}
    names |= {"cls_token"} & state.keys()
    return names | ({"norm.weight", "norm.bias"} if "norm.weight" in state else set())
