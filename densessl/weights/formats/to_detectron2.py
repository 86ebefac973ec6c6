"""Write a backbone with detectron2's names, as a pickle of plain arrays that any numpy opens.

    ResNet   {"model": {"stem.conv1.weight": …, "res2.0.shortcut.norm.weight": …}, "__author__": "densessl",
             "matching_heuristics": True, "meta": {"fingerprint": {…}, …}}
    ViT      {"model": {"backbone.net.blocks.0.attn.qkv.weight": …}, …}, for detectron2's ViTDet

With ``matching_heuristics`` detectron2 matches a name with the end of its own, so that ``res5`` also finds the box head
of a C4 detector. It ignores ``meta``, which is for our own reader, so its config must set the pixel normalisation and
the kind of network: see :func:`detectron2_settings`.
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

# torchvision's names and detectron2's (its tools/convert-torchvision-to-d2.py). weights/layouts/renames.py has the
# inverse.
RESNET = [
    ("downsample.0.", "shortcut."),
    ("downsample.1.", "shortcut.norm."),
    *((f"bn{i}.", f"conv{i}.norm.") for i in (1, 2, 3)),
    *((f"layer{i}.", f"res{i + 1}.") for i in (1, 2, 3, 4)),
]
STEM = "stem."
VIT = "backbone.net."

# All tensor names of detectron2's networks (modeling/backbone/resnet.py, vit.py).
KNOWN = re.compile(
    r"(stem\.conv1|res[2-5]\.\d+\.(conv[123]|shortcut))\."
    r"(weight|norm\.(weight|bias|running_mean|running_var|num_batches_tracked))"
    r"|backbone\.net\.(pos_embed|patch_embed\.proj\.(weight|bias)|blocks\.\d+\.attn\.rel_pos_[hw]"
    r"|blocks\.\d+\.(norm[12]|attn\.qkv|attn\.proj|mlp\.fc[12])\.(weight|bias))"
)


def detectron2_name(name: str, arch: str) -> str:
    """Return detectron2's name of a tensor of a bare backbone.

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
    """Write a bare ResNet or ViT. Class token and final norm, which ViTDet lacks, are left out; bfloat16, which numpy
    lacks, becomes float32.

    Args:
        meta: Plain data to store beside the weights. The configs of its ``parts`` are left out, because they may
            describe a network with tensors that the file does not have.

    Raises:
        ExportError: detectron2 has no such network.
    """
    check_detectron2(state, fingerprint)
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
    # Through json, so that only strings, numbers, lists and dicts get into the pickle.
    plain = json.loads(
        json.dumps({key: value for key, value in meta.items() if key != "parts"} | {"names": "detectron2"})
    )
    content = {"model": arrays, "__author__": "densessl", "matching_heuristics": True, "meta": plain}
    with written_whole(out) as temporary:
        temporary.write_bytes(_pickled(content))


def check_detectron2(state: Mapping[str, Tensor], fingerprint: Fingerprint) -> None:
    """Raise if detectron2 would load the tensors and compute another function, or if no config of it fits the
    network."""
    if fingerprint.arch not in ("resnet", "vit"):
        raise ExportError(f"detectron2: found a network of the kind {fingerprint.arch!r}, expected 'resnet' or 'vit'")
    theirs: dict[str, Any] = {"norm": "LN", "layer_scale": False}
    if fingerprint.arch == "resnet":
        if fingerprint.depth is None:
            raise ExportError(f"detectron2 has no such ResNet as this one: {fingerprint.to_dict()}")
        theirs = {"stem": "7x7", "shortcut": "conv", "norm": "BN", "eps": fp.EPS}
        theirs |= {"width": 64} if fingerprint.depth < 50 else {}
    elif "pos_embed" not in state:
        raise ExportError("detectron2: found a ViT without a 'pos_embed', expected one")
    differences, _ = fp.compare_facts(theirs, {key: getattr(fingerprint, key) for key in theirs}, "backbone")
    if differences:
        listed = "; ".join(f"{field}: found {found}, expected {own}" for field, own, found, _ in differences)
        raise ExportError(f"detectron2 has no such network: {listed}")


def _widths(state: Mapping[str, Tensor], stage: int) -> list[int]:
    """Return the output channels of a block in a ResNet's stage (0 to 3), the channels inside it, and those per group.
    Their proportions distinguish ResNeXts and wide ResNets from ResNets."""
    block = f"layer{stage + 1}.0"
    inside, per_group = state[f"{block}.conv2.weight"].shape[:2]
    return [len(state.get(f"{block}.conv3.weight", state[f"{block}.conv2.weight"])), inside, per_group]


def _pickled(content: Mapping[str, Any]) -> bytes:
    """Return a pickle that refers only to numpy's array, dtype and ``_reconstruct``, by names that numpy 1 and 2 both
    have: numpy 2 writes its module as numpy._core, which numpy 1 lacks, but also opens numpy.core.

    Protocol 3 writes such a name once, as text, before the first array's bytes.
    """
    before, found, after = pickle.dumps(content, protocol=3).partition(b"cnumpy._core.multiarray\n_reconstruct\n")
    return before + found.replace(b"numpy._core", b"numpy.core") + after


def detectron2_settings(out: str | Path, state: Mapping[str, Tensor], fingerprint: Fingerprint) -> str:
    """Return the settings that detectron2's config needs for the file: lines of YAML for a ResNet, of Python for a ViT.
    Its own defaults are BGR, Caffe's means, and the stride in the 1x1 convolutions."""
    known = fingerprint
    if known.arch == "vit":
        net = "model.backbone.net"
        settings = {
            "train.init_checkpoint": f'"{out}"',
            "model.input_format": known.channel_order and f'"{known.channel_order}"',
            "model.pixel_mean": known.mean and list(known.mean),
            "model.pixel_std": known.std and list(known.std),
            f"{net}.patch_size": known.patch_size,
            f"{net}.embed_dim": known.embed_dim,
            f"{net}.depth": known.depth,
            f"{net}.num_heads": known.heads,
            f"{net}.mlp_ratio": len(state["blocks.0.mlp.fc1.weight"]) / known.embed_dim,
            f"{net}.qkv_bias": known.qkv_bias,
            f"{net}.norm_layer": known.eps and f"partial(nn.LayerNorm, eps={known.eps})",
            f"{net}.pretrain_img_size": known.image_size,
            f"{net}.pretrain_use_cls_token": known.class_row,
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
            "MODEL.PIXEL_MEAN": known.mean and list(known.mean),
            "MODEL.PIXEL_STD": known.std and list(known.std),
            "MODEL.RESNETS.DEPTH": known.depth,
            "MODEL.RESNETS.STRIDE_IN_1X1": known.stride and known.stride == "1x1",
            **{key: value for key, (value, default) in widths.items() if value != default},
            "INPUT.FORMAT": known.channel_order and f'"{known.channel_order}"',
        }
        lines = _yaml({key: value for key, value in settings.items() if value is not None})
    unknown = [key for key, value in settings.items() if value is None]
    return "\n".join(lines + [f"# The checkpoint does not state {', '.join(unknown)}"] * bool(unknown))


def _yaml(settings: Mapping[str, Any]) -> list[str]:
    """Return lines of nested YAML from dotted names; names with the same parent must be neighbours."""
    lines, above = [], []
    for key, value in settings.items():
        *parents, last = key.split(".")
        shared = next((i for i, (a, b) in enumerate(zip(above, parents)) if a != b), min(len(above), len(parents)))
        lines += [f"{'  ' * depth}{parents[depth]}:" for depth in range(shared, len(parents))]
        lines.append(f"{'  ' * len(parents)}{last}: {value}")
        above = parents
    return lines
