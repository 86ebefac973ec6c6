"""Heads whose outputs are logits over learnt classes: DINO's over prototypes, SCFS's over its output channels."""

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from densessl.branches.norm import build_norm
from densessl.branches.projector import MLP
from densessl.losses import full_precision, unit
from densessl.registry import MODELS


class Prototypes(nn.Module):
    """DINO's last layer, weight-normalised and without bias: products of vectors with learnt directions of learnt or
    fixed lengths.

    Computed in at least fp32: the target's logits are divided by a temperature of a few hundredths, which would make
    errors of bf16 as large as the differences between logits.

    Args:
        dim: width D of the vectors.
        count: number K of prototypes.
        learn_gain: whether the lengths are learnt. Otherwise they are 1, and the outputs are cosines.

    Attributes:
        weight: (K, D), of which only the directions matter.
        gain: (K, 1), the lengths.
        frozen: whether both get zero gradients. The official code sets them to None, for which DistributedDataParallel
            would wait. Weight decay then still shortens ``weight``, which does not change the outputs.
    """

    def __init__(self, dim: int, count: int, learn_gain: bool = False):
        super().__init__()
        self.weight = nn.Parameter(torch.empty(count, dim))
        nn.init.kaiming_uniform_(self.weight, a=math.sqrt(5))  # nn.Linear's, which the official head leaves in place
        self.gain = nn.Parameter(torch.ones(count, 1), requires_grad=learn_gain)
        self.frozen = False

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (M, D), normalised by the caller, to logits (M, K)."""
        with torch.autocast(vectors.device.type, enabled=False):
            vectors, weight, gain = full_precision(vectors, self.weight, self.gain)
            prototypes = weight * (gain / weight.norm(dim=1, keepdim=True))
            if self.frozen:
                prototypes = prototypes.detach() + 0 * prototypes
            return F.linear(vectors, prototypes)


@MODELS.register_module()
class DINOHead(nn.Module):
    """DINO's projector: an MLP, L2 normalisation, and :class:`Prototypes`.

    Args:
        dims: channels (in, hidden..., bottleneck). Linear weights start as normals of deviation 0.02, biases at 0.
        prototypes: K.
        norm: config of norms between the layers; None, as published for ResNet-50.
        learn_gain: whether the lengths of the prototypes are learnt.
    """

    def __init__(
        self,
        dims: Sequence[int] = (2048, 2048, 2048, 256),
        prototypes: int = 65536,
        norm: dict[str, Any] | None = None,
        learn_gain: bool = False,
    ):
        super().__init__()
        self.mlp = MLP(dims=dims, act="gelu", norm=norm)
        for module in self.mlp.modules():
            if isinstance(module, nn.Linear):
                # The official code truncates them at ±2, which is 100 deviations away. `trunc_normal_` of torch 2.11
                # gives a weight of -2 once in some 2^25, and for one seed other weights than that of torch 2.14.
                nn.init.normal_(module.weight, std=0.02)
                nn.init.zeros_(module.bias)
        self.prototypes = Prototypes(dims[-1], prototypes, learn_gain)

    def forward(self, vectors: Tensor) -> Tensor:
        """Vectors (M, C) to logits (M, K), in at least fp32."""
        return self.prototypes(unit(self.mlp(vectors)))


@MODELS.register_module()
class ShallowHead(nn.Module):
    """SCFS's head of one level: a residual bottleneck, the mean over the cells, an MLP with norms, L2 normalisation.

    The unit vectors themselves are the logits: there are no prototypes.

    Args:
        channels: channels C of the maps.
        width: inner channels of the bottleneck.
        hidden, dim: hidden and output width of the MLP.
        norm: config of all norms.
    """

    def __init__(
        self,
        channels: int,
        width: int = 256,
        hidden: int = 2048,
        dim: int = 256,
        norm: dict[str, Any] | None = None,
    ):
        super().__init__()
        norm = norm or dict(type="SyncBN")
        self.conv1 = nn.Conv2d(channels, width, 1, bias=False)
        self.norm1 = build_norm(norm, width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.norm2 = build_norm(norm, width)
        self.conv3 = nn.Conv2d(width, channels, 1, bias=False)
        self.norm3 = build_norm(norm, channels)
        self.mlp = MLP(dims=(channels, hidden, dim), norm=norm, last_norm=True)

    def forward(self, maps: Tensor) -> Tensor:
        """Maps (N, C, H, W) to unit vectors (N, dim), in at least fp32.

        Raises:
            SettingError: N is 1 in training, see :class:`MLP`.
        """
        inner = self.norm1(self.conv1(maps)).relu()
        inner = self.norm2(self.conv2(inner)).relu()
        inner = (self.norm3(self.conv3(inner)) + maps).relu()
        return unit(self.mlp(inner.mean((2, 3))))
