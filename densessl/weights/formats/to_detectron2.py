"""The backbone by detectron2's names, in a pickle of plain arrays that any numpy opens.

    ResNet   {"model": {"stem.conv1.weight": …, "res2.0.shortcut.norm.weight": …}, "__author__": "densessl",
             "matching_heuristics": True, "meta": {"fingerprint": {…}, …}}
    ViT      {"model": {"backbone.net.blocks.0.attn.qkv.weight": …}, …}, of detectron2's ViTDet

With ``matching_heuristics`` detectron2 takes a name for the end of its own, so that ``res5`` also finds the box head of
a C4 detector. It passes over ``meta``, which is for our own reader, so its config has to say what the pixels and the
kind of network are: see :func:`detectron2_settings`.
"""

import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from densessl.errors import ExportError
from densessl.files import written_whole
from densessl.weights import fingerprint as fp
from densessl.weights.fingerprint import Fingerprint
from densessl.weights.vit_facts import unused_by_design

# torchvision's names and detectron2's (its tools/convert-torchvision-to-d2.py). weights/layouts/renames.py leads back.
RESNET = [
    ("downsample.0.", "shortcut."),
    ("downsample.1.", "shortcut.norm."),
    *((f"bn{i}.", f"conv{i}.norm.") for i in (1, 2, 3)),
    *((f"layer{i}.", f"res{i + 1}.") for i in (1, 2, 3, 4)),
]
STEM = "stem."
VIT = "backbone.net."

# All that detectron2's networks have (modeling/backbone/resnet.py, vit.py).
KNOWN = re.compile(
    r"(stem\.conv1|res[2-5]\.\d+\.(conv[123]|shortcut))\."
    r"(weight|norm\.(weight|bias|running_mean|running_var|num_batches_tracked))"
    r"|backbone\.net\.(pos_embed|patch_embed\.proj\.(weight|bias)|blocks\.\d+\.attn\.rel_pos_[hw]"
    r"|blocks\.\d+\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias))"
)


def detectron2_name(name: str, arch: str) -> str:
    """detectron2's name of a tensor of a bare backbone.

    Args:
        arch: ``"resnet"`` or ``"vit"``.
    """
    if arch == "vit":
        return VIT + name
    for ours, theirs in RESNET:
        name = name.replace(ours, theirs)
    return name if name.startswith("res") else STEM + name


def write_detectron2(
    out: str | Path, state: Mapping[str, Tensor], fingerprint: Fingerprint, meta: Mapping[str, Any]
) -> None:
    """Write a bare ResNet or ViT. Class token and final norm, which ViTDet does without, are left out; bfloat16, which
    numpy lacks, becomes float32.

    Args:
        meta: Plain data beside the weights. The configs of its ``parts`` are left out, as they may be of a network with
            tensors that the file does not have.

    Raises:
        ExportError: detectron2 has no such network.
    """
    _check(state, fingerprint)
    unused = unused_by_design({}, state) if fingerprint.arch == "vit" else []
    named = {detectron2_name(key, fingerprint.arch): value for key, value in state.items() if key not in unused}
    strangers = sorted(key for key in named if not KNOWN.fullmatch(key))
    if strangers:
        raise ExportError(f"detectron2 has none of these {len(strangers)} tensors: {strangers[:5]}")
    if fingerprint.arch == "resnet":
        widths = [_widths(state, stage) for stage in range(4)]
        if widths != [[width * 2**stage for width in widths[0]] for stage in range(4)]:
            raise ExportError(f"detectron2: found stages of the widths {widths}, expected each to be twice the last")
    arrays = {
        key: (value.float() if value.dtype == torch.bfloat16 else value).contiguous().numpy()
        for key, value in named.items()
    }
    # Through json, so that nothing but strings, numbers, lists and dicts gets into the pickle.
    told = json.loads(
        json.dumps({key: value for key, value in meta.items() if key != "parts"} | {"names": "detectron2"})
    )
    content = {"model": arrays, "__author__": "densessl", "matching_heuristics": True, "meta": told}
    with written_whole(out) as temporary:
        temporary.write_bytes(_pickled(content))


def _check(state: Mapping[str, Tensor], fingerprint: Fingerprint) -> None:
    """Raise where names and shapes would fit and yet another function would be computed, or a config cannot say it."""
    if fingerprint.arch not in ("resnet", "vit"):
        raise ExportError(f"detectron2: found a network of the kind {fingerprint.arch!r}, expected 'resnet' or 'vit'")
    has: dict[str, Any] = {"norm": "LN", "layer_scale": False}
    if fingerprint.arch == "resnet":
        if fingerprint.depth is None:
            raise ExportError(f"detectron2 has no such ResNet as this one: {fingerprint.to_dict()}")
        has = {"stem": "7x7", "shortcut": "conv", "norm": "BN", "eps": fp.EPS}
        has |= {"width": 64} if fingerprint.depth < 50 else {}
    elif "pos_embed" not in state:
        raise ExportError("detectron2: found a ViT without a 'pos_embed', expected one")
    differences, _ = fp.compare_facts(has, {key: getattr(fingerprint, key) for key in has}, "backbone")
    if differences:
        said = "; ".join(f"{field}: found {found}, expected {own}" for field, own, found, _ in differences)
        raise ExportError(f"detectron2: found another network than those it is written for: {said}")


def _widths(state: Mapping[str, Tensor], stage: int) -> list[int]:
    """Channels that a block of a ResNet's stage, 0 to 3, gives, and those inside it: all, and those of a group. Of
    ResNeXts and wide ResNets they are in other proportions than of a ResNet."""
    block = f"layer{stage + 1}.0"
    inside, per_group = state[f"{block}.conv2.weight"].shape[:2]
    return [len(state.get(f"{block}.conv3.weight", state[f"{block}.conv2.weight"])), inside, per_group]


def _pickled(content: Mapping[str, Any]) -> bytes:
    """A pickle that refers to nothing but numpy's own array, dtype and ``_reconstruct``, by names that numpy 1 and 2
    both know: numpy 2 writes its module as numpy._core, which numpy 1 lacks, and opens numpy.core too.

    Protocol 3 writes such a name as text, once, before the first array's bytes.
    """
    before, found, after = pickle.dumps(content, protocol=3).partition(b"cnumpy._core.multiarray\n_reconstruct\n")
    return before + found.replace(b"numpy._core", b"numpy.core") + after


def detectron2_settings(out: str | Path, state: Mapping[str, Tensor], fingerprint: Fingerprint) -> str:
    """What a config of detectron2 has to say for the file to mean what it meant: lines of YAML for a ResNet, of Python
    for a ViT. Its own defaults are BGR, Caffe's means, and the stride in the 1x1 convolutions."""
    told = fingerprint
    if told.arch == "vit":
        net = "model.backbone.net"
        settings = {
            "train.init_checkpoint": f'"{out}"',
            "model.input_format": told.channel_order and f'"{told.channel_order}"',
            "model.pixel_mean": told.mean and list(told.mean),
            "model.pixel_std": told.std and list(told.std),
            f"{net}.patch_size": told.patch_size,
            f"{net}.embed_dim": told.embed_dim,
            f"{net}.depth": told.depth,
            f"{net}.num_heads": told.heads,
            f"{net}.mlp_ratio": len(state["blocks.0.mlp.fc1.weight"]) / told.embed_dim,
            f"{net}.qkv_bias": told.qkv_bias,
            f"{net}.norm_layer": told.eps and f"partial(nn.LayerNorm, eps={told.eps})",
            f"{net}.pretrain_img_size": told.image_size,
            f"{net}.pretrain_use_cls_token": told.class_row,
        }
        lines = [f"{key} = {value}" for key, value in settings.items() if value is not None]
    else:
        outside, inside, per_group = _widths(state, 0)
        widths = {
            "MODEL.RESNETS.RES2_OUT_CHANNELS": (outside, 256),
            "MODEL.RESNETS.STEM_OUT_CHANNELS": (len(state["conv1.weight"]), 64),
            "MODEL.RESNETS.NUM_GROUPS": (inside // per_group, 1),
            "MODEL.RESNETS.WIDTH_PER_GROUP": (per_group, 64),
        }
        settings = {
            "MODEL.WEIGHTS": f'"{out}"',
            "MODEL.PIXEL_MEAN": told.mean and list(told.mean),
            "MODEL.PIXEL_STD": told.std and list(told.std),
            "MODEL.RESNETS.DEPTH": told.depth,
            "MODEL.RESNETS.STRIDE_IN_1X1": told.stride and told.stride == "1x1",
            **{key: value for key, (value, default) in widths.items() if value != default},
            "INPUT.FORMAT": told.channel_order and f'"{told.channel_order}"',
        }
        lines = _yaml({key: value for key, value in settings.items() if value is not None})
    unknown = [key for key, value in settings.items() if value is None]
    return "\n".join(lines + [f"# The checkpoint does not tell {', '.join(unknown)}"] * bool(unknown))


def _yaml(settings: Mapping[str, Any]) -> list[str]:
    """Lines of nested YAML from dotted names, those with one parent being neighbours."""
    lines, above = [], []
    for key, value in settings.items():
        *parents, last = key.split(".")
        shared = next((i for i, (a, b) in enumerate(zip(above, parents)) if a != b), min(len(above), len(parents)))
        lines += [f"{'  ' * depth}{parents[depth]}:" for depth in range(shared, len(parents))]
        lines.append(f"{'  ' * len(parents)}{last}: {value}")
        above = parents
    return lines
