"""The frozen network that says what a region shows."""

from typing import Any

import torch
from torch import Tensor, nn

from densessl.branches import build_backbone


class Teacher:
    """A backbone in evaluation mode, without gradient, outside the module tree: checkpoints do not hold it.

    Args:
        backbone: config; its first output is pooled over the patch. DETReg's released code takes ``layer2`` of a
            ResNet-50 (512 channels), whatever the detector: ``out_indices=(1,)``.
    """

    def __init__(self, backbone: dict[str, Any]):
        self.network: nn.Module = build_backbone(backbone).requires_grad_(False)
        self.network.eval()
        self.channels = self.network.out_channels[0]

    @torch.no_grad()
    def __call__(self, patches: Tensor) -> Tensor:
        """Mean features (M, C) of patches (M, 3, h, w), normalised."""
        self.network.to(patches.device)
        return self.network(patches)[0].mean((2, 3))
