"""Checkpoints and detectors that the transfer tests share."""

import torch
from torch import nn

from densessl.branches.resnet import ResNet

NORMALIZE = {"mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225], "channel_order": "RGB"}
PREPROCESSOR = {
    "type": "DetDataPreprocessor",
    "mean": [123.675, 116.28, 103.53],
    "std": [58.395, 57.12, 57.375],
    "bgr_to_rgb": True,
    "pad_size_divisor": 32,
}


def lived_in(backbone: nn.Module, seed: int) -> nn.Module:
    """Give norm layers statistics and weights of their own, so that features depend on every tensor, and on eps."""
    generator = torch.Generator().manual_seed(seed)
    for module in backbone.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            for tensor in (module.weight.data, module.running_var):
                tensor.copy_(0.5 + torch.rand(tensor.shape, generator=generator))
            for tensor in (module.bias.data, module.running_mean):
                tensor.copy_(0.1 * torch.randn(tensor.shape, generator=generator))
            module.num_batches_tracked.fill_(seed + 7)
        elif isinstance(module, nn.Conv2d):
            fan = module.weight[0].numel()
            module.weight.data.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan) ** 0.5)
    return backbone.eval()


def checkpoint(depth: int = 18, width: int = 64, **config) -> tuple[dict, ResNet, ResNet]:
    """A training checkpoint as a dict, with the online and the target backbone in it."""
    config = {"depth": depth, "width": width, "out_indices": (0, 1, 2, 3), **config}
    online, target = (lived_in(ResNet(**config), seed) for seed in (0, 1))
    state = {f"online.backbone.{key}": value for key, value in online.state_dict().items()}
    state |= {f"target.backbone.{key}": value for key, value in target.state_dict().items()}
    state |= {"online.projectors.dense.0.weight": torch.ones(4, 4), "global_step": torch.tensor(3)}
    told = {"backbone": {"type": "ResNet", **config}, "normalize": NORMALIZE, "version": "0"}
    return {"state_dict": state, "optimizer": {}, "meta": {"densessl": told}}, online, target


def retinanet(depth: int = 18, width: int = 64, preprocessor: dict | None = None, **backbone) -> nn.Module:
    """A small RetinaNet of MMDet around its own ResNet."""
    from mmdet.registry import MODELS
    from mmengine.registry import DefaultScope

    channels = [width * 2**i * (4 if depth >= 50 else 1) for i in range(4)]
    config = {
        "type": "RetinaNet",
        "data_preprocessor": {**PREPROCESSOR, **(preprocessor or {})},
        "backbone": {"type": "ResNet", "depth": depth, "base_channels": width, "norm_eval": False, **backbone},
        "neck": {
            "type": "FPN",
            "in_channels": channels[: backbone.get("num_stages", 4)],
            "out_channels": 8,
            "num_outs": 5,
        },
        "bbox_head": {"type": "RetinaHead", "num_classes": 1, "in_channels": 8, "feat_channels": 8, "stacked_convs": 1},
    }
    with DefaultScope.overwrite_default_scope("mmdet"):
        return MODELS.build(config)
