"""ViTs: a training checkpoint, and the detector's backbone that takes it."""

import torch
from torch import nn

from densessl.branches.vit import ViT
from densessl.finetune.vitdet import ViTDet
from tests.weights.cases import NORMALIZE

CONFIG = dict(image_size=64, patch_size=16, dim=32, depth=3, heads=2, mlp_ratio=2.0)
VITDET = dict(
    img_size=128,
    patch_size=16,
    embed_dim=32,
    depth=3,
    num_heads=2,
    mlp_ratio=2.0,
    window_size=4,
    window_block_indexes=(0, 2),
    pretrain_img_size=64,
)


def stirred(module: nn.Module, seed: int = 0) -> nn.Module:
    """Move every tensor away from where it starts, so that features depend on all of them."""
    generator = torch.Generator().manual_seed(seed)
    for tensor in module.state_dict().values():
        tensor += 0.1 * torch.randn(tensor.shape, generator=generator, dtype=tensor.dtype)
    return module.eval()


def checkpoint(**config) -> tuple[dict, ViT]:
    """A training checkpoint as a dict, and the online backbone in it; the target's tensors are others."""
    config = {**CONFIG, **config}
    online, target = (stirred(ViT(**config), seed) for seed in (0, 1))
    state = {f"online.backbone.{key}": value for key, value in online.state_dict().items()}
    state |= {f"target.backbone.{key}": value for key, value in target.state_dict().items()}
    state |= {"online.projectors.sim_decoder.output.weight": torch.ones(4, 4), "global_step": torch.tensor(3)}
    told = {"backbone": {"type": "ViT", **config}, "normalize": NORMALIZE, "version": "0"}
    return {"state_dict": state, "meta": {"densessl": told}}, online


def vitdet(**config) -> ViTDet:
    return ViTDet(**{**VITDET, **config})
