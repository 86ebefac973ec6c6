"""Backbones, necks, heads and projectors, and the two branches built from them."""

from densessl.branches.backbone import build_backbone
from densessl.branches.branch import Branch, Features, build_branch
from densessl.branches.decoder import SumDecoder
from densessl.branches.dense_head import DenseHeadConvs
from densessl.branches.fpn import FPN
from densessl.branches.norm import build_norm
from densessl.branches.projector import MLP, label_heads
from densessl.branches.propagation import PixelPropagation
from densessl.branches.queue import Centre, Queue
from densessl.branches.resnet import ResNet
from densessl.branches.sync_bn import SplitBN, SyncBN
from densessl.branches.target import Target, build_target, ema_update_
from densessl.branches.token_decoder import RelativeDecoder, TokenProjector
from densessl.branches.vit import ViT

__all__ = [
    "FPN",
    "MLP",
    "Branch",
    "Centre",
    "DenseHeadConvs",
    "Features",
    "PixelPropagation",
    "Queue",
    "RelativeDecoder",
    "ResNet",
    "SplitBN",
    "SumDecoder",
    "SyncBN",
    "Target",
    "TokenProjector",
    "ViT",
    "build_backbone",
    "build_branch",
    "build_norm",
    "build_target",
    "ema_update_",
    "label_heads",
]
