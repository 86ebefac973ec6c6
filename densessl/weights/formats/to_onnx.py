"""Write a backbone as an ONNX graph with the input ``image`` (N, 3, H, W) and one output map per stage.

    ResNet   ``c2`` … ``c5`` (N, C, ⌈H / stride⌉, ⌈W / stride⌉) of strides 4, 8, 16 and 32, for any N, H and W
    ViT      ``last_map`` (N, C, H / patch, W / patch) of its last block, for any N and one size of images

The graph does not normalise: runtimes have their own place for that (DALI, DeepStream, TensorRT's preprocessing), in
integers or fused into the decoding, and normalising twice is a common silent error. The metadata says how to normalise:
``mean`` and ``std`` of pixels in 0 to 255, and ``channel_order``; everything else is under ``densessl``.
"""

import json
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from densessl.branches.positions import resized_table
from densessl.branches.resnet import DEPTHS, ResNet
from densessl.branches.vit import ViT
from densessl.errors import ExportError
from densessl.extras import import_extra
from densessl.files import written_whole
from densessl.weights.equality import feature_differences, require_same_network
from densessl.weights.file_configs import checked
from densessl.weights.fingerprint import Fingerprint

OPSET = 18  # PyTorch's exporter writes it without converting; ONNX Runtime 1.14 and TensorRT 8.6 read it
STAGES = ("c2", "c3", "c4", "c5")
LARGEST = 2**31 - 2**20  # most bytes of weights: the limit of a protocol buffer, minus some for the graph


def write_onnx(
    out: str | Path,
    state: Mapping[str, Tensor],
    fingerprint: Fingerprint,
    header: Mapping[str, Any],
    size: int | None = None,
) -> None:
    """Write the graph of a bare ResNet or ViT, in fp32.

    Args:
        state: Tensors of the network.
        fingerprint: Its fingerprint.
        header: The ``meta`` of an export.
        size: Side in pixels of a ViT's images, a multiple of its patch size; by default that of pretraining.

    Raises:
        MissingPackage: onnx or onnxscript is not installed.
        ExportError: the network cannot be built here, or is too large for one file.
    """
    onnx = import_extra("onnx", "to='onnx'")
    import_extra("onnxscript", "to='onnx'")  # torch's exporter imports it
    state = {key: value.float() if value.is_floating_point() else value for key, value in state.items()}
    if sum(value.nbytes for value in state.values()) > LARGEST:
        raise ExportError("onnx: found more than 2 GB of weights, which is the limit of one file")
    network = backbone_network(state, fingerprint, header["parts"]["backbone"])
    content = {"state_dict": {f"backbone.{key}": value for key, value in state.items()}, "meta": header}
    differences = feature_differences(network, content)
    if any((differences or {}).values()):
        raise ExportError(f"onnx: the network of this fingerprint computes something else: {differences}")

    free: dict[int, Any] = {0: torch.export.Dim("batch")}
    side, names = 128, STAGES  # any side works for a ResNet: its dimensions are dynamic
    if fingerprint.arch == "resnet":
        free |= {2: torch.export.Dim("height"), 3: torch.export.Dim("width")}
        if size is not None:
            raise ExportError(f"size: found {size}, expected none: a ResNet's graph takes images of any size")
    else:
        side, names = set_side(network, size or fingerprint.image_size), ("last_map",)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of PyTorch's exporter about PyTorch itself
        program = torch.onnx.export(
            network,
            (torch.zeros(2, 3, side, side),),
            dynamo=True,
            opset_version=OPSET,
            input_names=["image"],
            output_names=names,
            dynamic_shapes=(free,),
            verbose=False,
        )
    model = program.model_proto
    for node in model.graph.node:
        del node.metadata_props[:]  # stack traces, with the paths of this machine
    pixels = {"mean": fingerprint.mean, "std": fingerprint.std}
    onnx.helper.set_model_props(
        model,
        {
            **{key: json.dumps(value) for key, value in pixels.items() if value is not None},
            **({"channel_order": fingerprint.channel_order} if fingerprint.channel_order else {}),
            "densessl": json.dumps(header),
        },
    )
    onnx.checker.check_model(model)
    with written_whole(out) as temporary:
        onnx.save_model(model, temporary)


def backbone_network(
    state: Mapping[str, Tensor], fingerprint: Fingerprint, config: Mapping[str, Any] | None
) -> nn.Module:
    """Build our ResNet or ViT of a fingerprint, in evaluation mode. It returns all stages, or the last block's map.

    Args:
        config: Config of the network, which determines norms other than BN; None if unknown.

    Raises:
        ExportError: The network is not one of ours, or the fingerprint lacks a needed field.
    """
    needed = {"resnet": ("depth", "stride", "norm"), "vit": ("heads", "eps", "image_size")}.get(fingerprint.arch)
    if needed is None:
        raise ExportError(f"onnx: found a network of the kind {fingerprint.arch!r}, expected 'resnet' or 'vit'")
    batch_norm = fingerprint.norm == "BN"  # synchronised or not: in evaluation it is the same
    unknown = [name for name in (*needed, *["eps"] * batch_norm) if getattr(fingerprint, name) is None]
    if unknown:
        raise ExportError(f"onnx: the checkpoint does not state {', '.join(unknown)}, which the graph depends on")
    with torch.device("meta"):
        if fingerprint.arch == "resnet":
            if fingerprint.depth not in DEPTHS:
                raise ExportError(f"onnx: depth: found {fingerprint.depth}, expected one of {sorted(DEPTHS)}")
            norm = {"type": "BN", "eps": fingerprint.eps}
            if not batch_norm:
                norm = checked(config, "the checkpoint", "backbone").get("norm_cfg") if config else None
            network = ResNet(fingerprint.depth, range(4), norm, width=fingerprint.width)
        else:
            network = ViT(
                fingerprint.image_size,
                fingerprint.patch_size,
                fingerprint.embed_dim,
                fingerprint.depth,
                fingerprint.heads,
                len(state["blocks.0.mlp.fc1.weight"]) / fingerprint.embed_dim,
                fingerprint.qkv_bias,
                layer_scale=1.0 if fingerprint.layer_scale else None,
                class_token="cls_token" in state,
                final_norm="norm.weight" in state,
                eps=fingerprint.eps,
            )
    require_same_network(network, state, fingerprint, "densessl", type(network).__name__)
    network.load_state_dict(state, assign=True)
    return network.eval().requires_grad_(False)


def set_side(vit: ViT, side: int) -> int:
    """Resample a ViT's position embedding for square images of another side, in place. Return the side."""
    if side % vit.patch_size:
        raise ExportError(f"size: found {side}, expected a multiple of the patches' {vit.patch_size}")
    cells = side // vit.patch_size
    vit.pos_embed = resized_table(vit.pos_embed, (cells, cells), vit.cls_token is not None)
    return side


def onnx_signature(out: str | Path) -> str:
    """Return inputs and outputs of a written graph with their shapes, and how to normalise images: one line each."""
    import onnx  # of the onnx extra

    model = onnx.load(out)
    metadata = {entry.key: entry.value for entry in model.metadata_props}

    def shape(value) -> str:
        return ", ".join(dim.dim_param or str(dim.dim_value) for dim in value.type.tensor_type.shape.dim)

    lines = [f"opset {model.opset_import[0].version}"]
    lines += [f"input {value.name} ({shape(value)}), fp32" for value in model.graph.input]
    lines += [f"output {value.name} ({shape(value)})" for value in model.graph.output]
    if {"mean", "std", "channel_order"} <= metadata.keys():
        lines.append(
            f"feed it (pixels - {metadata['mean']}) / {metadata['std']} of "
            f"{metadata['channel_order']} pixels in 0 to 255"
        )
    else:
        lines.append(
            "the checkpoint does not state mean, std and channel order: normalise images as the pretraining did"
        )
    return "\n".join(lines)
