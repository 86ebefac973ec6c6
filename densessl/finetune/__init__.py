"""Components for fine-tuning configs: hooks that load weights, heads, ViTDet, layer-wise learning rates. Imports no
mmdet."""

from densessl.finetune.layer_decay import LayerDecayConstructor
from densessl.finetune.load_hooks import LoadBackboneHook, LoadDetectorHook
from densessl.finetune.precise_bn import PreciseBNHook, set_precise_statistics
from densessl.finetune.res5_head import Res5Head
from densessl.finetune.vitdet import LN2d, SimpleFPN, ViTDet

__all__ = [
    "LN2d",
    "LayerDecayConstructor",
    "LoadBackboneHook",
    "LoadDetectorHook",
    "PreciseBNHook",
    "Res5Head",
    "SimpleFPN",
    "ViTDet",
    "set_precise_statistics",
]
