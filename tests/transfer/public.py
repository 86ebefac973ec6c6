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


QUEUE = ("module.queue", "module.queue_ptr")
DEIT = dict(norm="LN", eps=1e-6, **NORMAL)
NONE = dict(stride=None, eps=None, mean=None, std=None, channel_order=None)
CASES = {
    "moco v1": Case(
        "MoCo",
        "module.encoder_q.",
        "module.encoder_k.",
        ("module.encoder_q.fc.weight", "module.encoder_k.fc.bias", *QUEUE),
        wrap=in_state_dict,
    ),
    "moco v2": Case(
        "MoCo",
        "module.encoder_q.",
        "module.encoder_k.",
        ("module.encoder_q.fc.0.weight", "module.encoder_q.fc.2.bias", "module.encoder_k.fc.0.weight", *QUEUE),
        wrap=in_state_dict,
        depth=50,
    ),
    "moco v3": Case(
        "MoCo v3",
        "module.base_encoder.",
        "module.momentum_encoder.",
        (
            "module.base_encoder.fc.0.weight",
            "module.base_encoder.fc.1.running_mean",
            "module.momentum_encoder.fc.4.running_var",
            "module.predictor.0.weight",
        ),
        wrap=in_state_dict,
    ),
    "simsiam": Case(
        "SimSiam",
        "module.encoder.",
        None,
        ("module.encoder.fc.0.weight", "module.encoder.fc.7.running_mean", "module.predictor.3.bias"),
        wrap=in_state_dict,
    ),
    "byol lucidrains": Case(
        "BYOL of byol-pytorch",
        "online_encoder.net.",
        "target_encoder.net.",
        ("online_encoder.projector.0.weight", "online_encoder.net.fc.weight", "online_predictor.0.weight"),
        facts=dict(stride="3x3", channel_order="RGB", mean=None, std=None),
    ),
    "byol sthalles": Case(
        "BYOL of PyTorch-BYOL",
        "online_network_state_dict.encoder.",
        "target_network_state_dict.encoder.",
        ("online_network_state_dict.projetion.net.0.weight", "optimizer_state_dict.state"),
        sequential,
        nested,
        facts=dict(stride="3x3", channel_order="RGB", mean=None, std=None),
    ),
    "byol openselfsup": Case(
        "BYOL of OpenSelfSup",
        "online_net.0.",
        "target_net.0.",
        (
            "online_net.1.fc0.weight",
            "target_net.1.bn0.running_mean",
            "backbone.conv1.weight",
            "head.predictor.fc0.weight",
        ),
        wrap=lambda state: dict(state_dict=state, meta=dict(epoch=200)),
    ),
    "byol mmselfsup": Case(
        "mmselfsup or mmpretrain, with a target",
        "backbone.",
        "target_net.module.0.",
        (
            "target_net.steps",
            "target_net.module.1.fc0.weight",
            "neck.fc0.weight",
            "neck.bn0.running_mean",
            "head.predictor.fc1.weight",
        ),
        wrap=lambda state: dict(state_dict=state, meta=dict(cfg="x = 1")),
    ),
    "swav": Case(
        "SwAV",
        "module.",
        None,
        ("module.projection_head.0.weight", "module.projection_head.1.running_mean", "module.prototypes.weight"),
        facts=dict(stride="3x3", eps=1e-5, mean=NORMAL["mean"], std=None, channel_order="RGB"),
    ),
    "swav training": Case(
        "SwAV",
        "module.",
        None,
        ("module.projection_head.3.bias", "module.prototypes.prototypes0.weight"),
        wrap=in_state_dict,
        facts=dict(stride="3x3"),
    ),
    "dino": Case(
        "DINO",
        "student.module.backbone.",
        "teacher.module.backbone.",
        ("student.module.head.mlp.0.weight", "teacher.module.head.last_layer.weight_v", "dino_loss.center"),
        wrap=nested,
        branch="target",
        depth=50,
    ),
    "scfs": Case(
        "SCFS",
        "student.module.backbone.model.",
        "teacher.module.backbone.model.",
        ("student.module.layer2_head.mlp.0.weight", "teacher.module.head.mlp.0.weight", "dino_loss_l2_fn.center"),
        wrap=nested,
        branch="target",
    ),
    "densecl": Case(
        "DenseCL",
        "encoder_q.0.",
        "encoder_k.0.",
        (
            "backbone.conv1.weight",
            "encoder_q.1.mlp.0.weight",
            "encoder_q.1.mlp2.2.bias",
            "encoder_k.1.mlp2.2.bias",
            *("queue", "queue_ptr", "queue2", "queue2_ptr"),
        ),
        wrap=lambda state: dict(state_dict=state, meta=dict(mmcv_version="1.0")),
    ),
    "densecl mmselfsup": Case(
        "mmselfsup or mmpretrain, with a target",
        "backbone.",
        "encoder_k.module.0.",
        (
            "encoder_k.steps",
            "neck.mlp.0.weight",
            "neck.mlp2.0.weight",
            "queue",
            "queue2",
            "encoder_k.module.1.mlp.0.bias",
        ),
        wrap=lambda state: dict(state_dict=state),
    ),
    "regioncl": Case(
        "RegionCL or MoCo of OpenSelfSup",
        "encoder_q.0.",
        "encoder_k.0.",
        ("backbone.conv1.weight", "encoder_q.1.mlp.0.weight", "encoder_k.1.mlp.2.bias", "queue", "queue_ptr"),
        wrap=lambda state: dict(state_dict=state),
    ),
    "pixpro": Case(
        "PixPro",
        "module.encoder.",
        "module.encoder_k.",
        (
            "module.projector.linear1.weight",
            "module.projector.bn1.running_mean",
            "module.projector_k.linear2.bias",
            "module.value_transform.weight",
            "module.projector_instance.linear1.weight",
            "module.predictor.linear1.weight",
        ),
        wrap=in_model,
    ),
    "detco": Case(
        "Detectron2, from torchvision's names",
        "",
        None,
        ("stem.fc.0.weight", "stem.fc.2.bias"),
        detectron2,
        lambda state: dict(model=state, matching_heuristics=True, __author__="DetCo"),
        depth=50,
    ),
    "twist": Case(
        "TWIST",
        "backbone.",
        None,
        ("projection_heads.projection_head.0.weight", "projection_heads.last_linear.weight"),
        wrap=in_model,
    ),
    "fast-moco": Case(
        "Fast-MoCo",
        "module.backbone.",
        "module.bbone_ema.",
        ("module.encoder.0.0.weight", "module.encoder.1.linear1.weight", "module.predictor.linear1.weight"),
        sequential,
        in_model,
    ),
    "vissl": Case(
        "VISSL",
        "classy_state_dict.base_model.model.trunk._feature_blocks.",
        wrap=of_vissl,
    ),
    "lightly": Case(
        "lightly",
        "backbone.",
        "backbone_momentum.",
        (
            "projection_head.layers.0.weight",
            "prediction_head.layers.0.weight",
            "projection_head_momentum.layers.0.weight",
        ),
        sequential,
        of_lightning,
    ),
    "lightly byol": Case(
        "lightly",
        "backbone.",
        "teacher_backbone.",
        (
            "projection_head.layers.0.weight",
            "teacher_projection_head.layers.0.weight",
            "online_classifier.linear.weight",
        ),
        wrap=of_lightning,
    ),
    "lightly moco": Case(
        "MoCo of lightly",
        "query_backbone.",
        "backbone.",
        ("query_projection_head.layers.0.weight", "projection_head.layers.0.weight", "criterion.memory_bank.bank"),
        wrap=of_lightning,
    ),
    "lightly dino": Case(
        "DINO of lightly",
        "student_backbone.",
        "backbone.",
        ("student_projection_head.layers.0.weight", "projection_head.layers.0.weight", "criterion.center"),
        wrap=of_lightning,
        branch="target",
    ),
    "solo-learn": Case(
        "solo-learn",
        "backbone.",
        "momentum_backbone.",
        ("projector.0.weight", "momentum_projector.0.weight", "classifier.weight", "classifier.bias", "queue"),
        wrap=of_lightning,
        facts=dict(stride="3x3", channel_order="RGB", mean=None),
    ),
    "solo-learn 1.0": Case(
        "solo-learn",
        "encoder.",
        "momentum_encoder.",
        ("projector.0.weight", "predictor.0.weight", "classifier.weight", "classifier.bias"),
        wrap=of_lightning,
        facts=dict(stride="3x3", channel_order="RGB", mean=None),
    ),
    "mmpretrain": Case(
        "mmselfsup or mmpretrain",
        "backbone.",
        None,
        ("head.fc.weight", "head.fc.bias"),
        wrap=lambda state: dict(state_dict=state),
    ),
    "torchvision": Case("a bare backbone", "", None, ("fc.weight", "fc.bias"), facts=NONE, depth=50),
    "official detr": Case(
        "the official code of a DETR",
        "backbone.0.body.",
        None,
        ("transformer.encoder.layers.0.linear1.weight", "query_embed.weight", "class_embed.weight"),
        wrap=in_model,
        depth=50,
    ),
    "detectron2 fpn": Case(
        "a detector of Detectron2",
        "backbone.bottom_up.",
        None,
        ("backbone.fpn_lateral2.weight", "proposal_generator.rpn_head.conv.weight", "pixel_mean"),
        detectron2,
        in_model,
        facts=NONE,
        depth=50,
    ),
    "mmdet": Case(
        "MMDetection", "backbone.", None, ("rpn_head.rpn_conv.weight",), wrap=in_state_dict, facts=NONE, depth=50
    ),
    "dino vit": Case(
        "DINO",
        "student.module.backbone.",
        "teacher.backbone.",
        ("student.module.head.mlp.0.weight", "teacher.head.last_layer.weight_v", "dino_loss.center"),
        wrap=nested,
        network="vit",
        facts=DEIT,
        branch="target",
    ),
    "moco v3 vit": Case(
        "MoCo v3",
        "module.base_encoder.",
        "module.momentum_encoder.",
        (
            "module.base_encoder.head.0.weight",
            "module.momentum_encoder.head.7.running_mean",
            "module.predictor.0.weight",
        ),
        wrap=in_state_dict,
        network="vit",
        facts=DEIT,
    ),
    "mae": Case(
        "MAE",
        "",
        None,
        (
            "mask_token",
            "decoder_pos_embed",
            "decoder_embed.weight",
            "decoder_blocks.0.attn.qkv.weight",
            "decoder_pred.bias",
        ),
        wrap=in_model,
        network="vit",
        facts=DEIT,
    ),
    "siameseim": Case(
        "SiameseIM",
        "",
        None,
        (
            *("mask_token", "decoder_pos_embed", "mm_cls_token", "mm_blocks.0.norm1.weight", "decoder_pos_mlp.weight"),
            *("mm_patch_embed.proj.weight", "projector_decoder_blocks.0.norm1.bn.running_var", "decoder_pred.weight"),
        ),
        wrap=in_model,
        network="vit",
        facts=DEIT,
    ),
    "mmpretrain mae": Case(
        "mmselfsup or mmpretrain",
        "backbone.",
        None,
        ("neck.mask_token", "neck.decoder_pos_embed", "neck.decoder_blocks.0.ln1.weight"),
        mmpretrain_vit,
        lambda state: dict(state_dict=state),
        "vit",
        DEIT,
    ),
    "mmselfsup 0 mocov3": Case(
        "MoCo v3 of mmselfsup 0",
        "base_encoder.0.",
        "momentum_encoder.0.",
        ("backbone.cls_token", "base_encoder.1.fc0.weight", "momentum_encoder.1.bn0.running_mean", "neck.fc0.weight"),
        mmpretrain_vit,
        lambda state: dict(state_dict=state),
        "vit",
        DEIT,
    ),
    "mmpretrain mocov3": Case(
        "mmselfsup or mmpretrain, with a target",
        "backbone.",
        "momentum_encoder.module.0.",
        (
            "momentum_encoder.steps",
            "momentum_encoder.module.1.fc0.weight",
            "neck.fc0.weight",
            "head.predictor.fc0.weight",
        ),
        mmpretrain_vit,
        lambda state: dict(state_dict=state),
        "vit",
        DEIT,
    ),
    "lightly mae": Case(
        "lightly",
        "backbone.vit.",
        None,
        ("backbone.mask_token", "decoder.decoder_embed.weight", "decoder.decoder_blocks.0.norm1.weight", "mask_token"),
        wrap=of_lightning,
        network="vit",
        facts=DEIT,
    ),
    "lightly mae torchvision": Case(
        "lightly",
        "backbone.",
        None,
        ("decoder.decoder_embed.weight", "decoder.layers.encoder_layer_0.ln_1.weight", "mask_token"),
        torchvision_vit,
        of_lightning,
        "vit",
        DEIT,
    ),
    "solo-learn mae": Case(
        "solo-learn",
        "backbone.",
        None,
        ("backbone.fc_norm.weight", "decoder.mask_token", "decoder.decoder_blocks.0.norm1.weight", "classifier.weight"),
        wrap=of_lightning,
        network="vit",
        facts=dict(eps=1e-6, channel_order="RGB", mean=None),
    ),
    "timm": Case("a bare ViT", "", None, ("head.weight", "head.bias"), network="vit", facts=dict(NONE, stride=None)),
    "torchvision vit": Case(
        "a bare ViT", "", None, ("heads.head.weight", "heads.head.bias"), torchvision_vit, network="vit", facts=NONE
    ),
}
