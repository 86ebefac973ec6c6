"""Public checkpoints as their codes leave them, in small: every tensor holds one number that no other has.

The names are made here in the direction in which those codes make them, from the names of torchvision and timm; what is
tested goes the other way.
"""

import argparse
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from densessl.branches.resnet import ResNet
from densessl.branches.vit import ViT

NORMAL = dict(mean=(123.675, 116.28, 103.53), std=(58.395, 57.12, 57.375), channel_order="RGB")
VIT = dict(image_size=64, patch_size=16, dim=32, depth=3, heads=2, mlp_ratio=2.0, final_norm=True)


def numbered(shapes: Mapping[str, Tensor], start: int) -> dict[str, Tensor]:
    """Tensors of these names and shapes, filled with ``start``, ``start + 1`` …"""
    return {name: torch.full_like(value, start + i) for i, (name, value) in enumerate(shapes.items())}


def resnet(start: int = 0, depth: int = 50) -> dict[str, Tensor]:
    return numbered(ResNet(depth, width=8).state_dict(), start)


def vit(start: int = 0) -> dict[str, Tensor]:
    return numbered(ViT(**VIT).state_dict(), start)


def same(name: str) -> str:
    return name


def sequential(name: str) -> str:
    """Children of torchvision's ResNet in an nn.Sequential: relu and maxpool are 2 and 3."""
    children = ["conv1", "bn1", "relu", "maxpool", "layer1", "layer2", "layer3", "layer4"]
    first, _, rest = name.partition(".")
    return f"{children.index(first)}.{rest}"


def detectron2(name: str) -> str:
    """As convert-pretrain-to-detectron2.py of MoCo, DenseCL, PixPro, DetCo and RegionCL names them."""
    if "layer" not in name:
        name = "stem." + name
    for stage in (1, 2, 3, 4):
        name = name.replace(f"layer{stage}", f"res{stage + 1}")
    for number in (1, 2, 3):
        name = name.replace(f"bn{number}", f"conv{number}.norm")
    return name.replace("downsample.0", "shortcut").replace("downsample.1", "shortcut.norm")


def caffe2(name: str, kinds: Mapping[str, str]) -> str:
    """Blobs of Detectron's and Detectron2's MSRA files; ``kinds`` are the blobs of a norm."""
    place, kind = name.rsplit(".", 1)
    if place == "conv1":
        return "conv1_w"
    if place == "bn1":
        return f"res_conv1_bn_{kinds[kind]}"
    stage, block, layer = place.split(".", 2)
    head = f"res{int(stage[-1]) + 1}_{block}_branch"
    branch = "1" if "downsample" in layer else "2" + "abc"[int(layer[-1]) - 1]
    norm = layer == "downsample.1" or layer.startswith("bn")
    return f"{head}{branch}_bn_{kinds[kind]}" if norm else f"{head}{branch}_w"


def mmpretrain_vit(name: str) -> str:
    for pattern, replacement in {
        r"^blocks": "layers",
        r"patch_embed\.proj": "patch_embed.projection",
        r"\.norm1": ".ln1",
        r"\.norm2": ".ln2",
        r"mlp\.fc1": "ffn.layers.0.0",
        r"mlp\.fc2": "ffn.layers.1",
        r"^norm": "ln1",
    }.items():
        name = re.sub(pattern, replacement, name)
    return name


def torchvision_vit(name: str) -> str:
    names = {"cls_token": "class_token", "pos_embed": "encoder.pos_embedding"}
    name = names.get(name, name).replace("patch_embed.proj", "conv_proj")
    name = re.sub(r"^norm\.", "encoder.ln.", name)
    name = re.sub(r"^blocks\.(\d+)\.norm(\d)", r"encoder.layers.encoder_layer_\1.ln_\2", name)
    name = re.sub(r"^blocks\.(\d+)", r"encoder.layers.encoder_layer_\1", name)
    name = name.replace("attn.qkv.", "self_attention.in_proj_").replace("attn.proj", "self_attention.out_proj")
    return name.replace("mlp.fc1", "mlp.0").replace("mlp.fc2", "mlp.3")


class Case(NamedTuple):
    """A public file.

    Attributes:
        layout: What it is to be called.
        online: What precedes the names of its backbone.
        target: The same of its other network.
        dropped: What else is in it.
        name: From torchvision's or timm's names to the file's, without the prefix.
        wrap: From its named tensors to what is saved.
        network: "resnet" or "vit".
        facts: Expected of the fingerprint.
        branch: The default.
        depth: Of a ResNet.
    """

    layout: str
    online: str
    target: str | None = None
    dropped: tuple[str, ...] = ()
    name: Callable[[str], str] = same
    wrap: Callable[[dict], Any] = lambda state: OrderedDict(state)
    network: str = "resnet"
    facts: Mapping[str, Any] = dict(stride="3x3", eps=1e-5, **NORMAL)
    branch: str = "online"
    depth: int = 18

    def tensors(self, branch: str) -> dict[str, Tensor]:
        """The backbone of a branch, by torchvision's or timm's names."""
        start = 0 if branch == "online" else 1000
        return resnet(start, self.depth) if self.network == "resnet" else vit(start)

    def content(self) -> Any:
        """What the file holds."""
        state = {self.online + self.name(key): value for key, value in self.tensors("online").items()}
        if self.target is not None:
            state |= {self.target + self.name(key): value for key, value in self.tensors("target").items()}
        return self.wrap(state | {name: torch.full((2,), 5000.0) for name in self.dropped})


def in_state_dict(state: dict) -> dict:
    """As the official codes of MoCo and its like, with an optimiser."""
    momentum = {0: dict(momentum_buffer=torch.ones(2))}
    return dict(
        epoch=7, arch="resnet50", state_dict=state, optimizer=dict(state=momentum, param_groups=[dict(lr=0.03)])
    )


def in_model(state: dict) -> dict:
    return dict(model=state, epoch=7, optimizer=dict(state={}), args=argparse.Namespace(lr=0.1, output_dir="out"))


def of_lightning(state: dict) -> dict:
    return {
        "epoch": 7,
        "global_step": 70,
        "pytorch-lightning_version": "2.1.0",
        "state_dict": state,
        "callbacks": {},
        "hyper_parameters": dict(batch_size=8),
    }


def nested(state: dict) -> dict:
    """Networks under their own keys, each a state dict: what precedes the first dot is the key."""
    content: dict[str, Any] = dict(epoch=7, args=argparse.Namespace(arch="resnet50"))
    for name, value in state.items():
        key, _, rest = name.partition(".")
        content.setdefault(key, {})[rest] = value
    return content


def of_vissl(state: dict) -> dict:
    trunk = {name.removeprefix("classy_state_dict.base_model.model.trunk."): value for name, value in state.items()}
    heads = {"0.clf.0.weight": torch.ones(2)}
    model = dict(base_model=dict(model=dict(trunk=trunk, heads=heads)), train_phase_idx=3)
    return dict(phase_idx=3, iteration=10, loss={}, classy_state_dict=model)


NONE = dict(stride=None, eps=None, mean=None, std=None, channel_order=None)
