"""Pre-norm transformer blocks with the keys of timm, MAE and ViTDet.

They replace timm's blocks for three reasons: batch norm over tokens (SIM's decoder), relative positions inside the
attention (ViTDet), and pretraining without timm installed.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torchvision.ops import StochasticDepth

from densessl.branches.norm import build_norm
from densessl.branches.recompute import recomputed
from densessl.errors import SettingError

LN = dict(type="LN", eps=1e-6)


class Attention(nn.Module):
    """Multi-head self-attention. Keys ``qkv.*`` (rows q, k, v), ``proj.*``.

    Args:
        dim: width C of the tokens, a multiple of ``heads``.
        heads: number of heads.
        qkv_bias: whether q, k and v have a bias.
    """

    def __init__(self, dim: int, heads: int, qkv_bias: bool = True):
        super().__init__()
        if dim % heads:
            raise SettingError(f"attention: dim={dim} is not a multiple of heads={heads}")
        self.heads = heads
        self.qkv = nn.Linear(dim, 3 * dim, bias=qkv_bias)
        self.proj = nn.Linear(dim, dim)

    def split(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Queries, keys and values (N, heads, L, C / heads) of tokens (N, L, C)."""
        return self.qkv(x).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)

    def join(self, values: Tensor) -> Tensor:
        """Attended values (N, heads, L, C / heads) to tokens (N, L, C)."""
        return self.proj(values.transpose(1, 2).flatten(2))

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, C) to tokens of the same shape."""
        return self.join(F.scaled_dot_product_attention(*self.split(x)))


class FeedForward(nn.Module):
    """Linear, GELU, linear. Keys ``fc1.*``, ``fc2.*``."""

    def __init__(self, dim: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(dim, hidden)
        self.fc2 = nn.Linear(hidden, dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(F.gelu(self.fc1(x)))


class LayerScale(nn.Module):
    """Multiplies channels by learnt factors. Key ``gamma``."""

    def __init__(self, dim: int, value: float):
        super().__init__()
        self.gamma = nn.Parameter(torch.full((dim,), float(value)))

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gamma


def over_tokens(norm: nn.Module, x: Tensor) -> Tensor:
    """Apply a norm of vectors to tokens (N, L, C). Batch norms use statistics over all tokens of all images."""
    return norm(x.flatten(0, 1)).view_as(x) if isinstance(norm, _BatchNorm) else norm(x)


class Block(nn.Module):
    """Attention and feed-forward as residual branches with pre-norm.

    Keys ``norm1.*``, ``attn.*``, ``norm2.*``, ``mlp.*``, and with LayerScale ``ls1.gamma``, ``ls2.gamma``.

    Args:
        dim: width C of the tokens.
        heads: number of attention heads.
        mlp_ratio: hidden width of the feed-forward layers as a multiple of C.
        norm: config of :func:`densessl.branches.norm.build_norm`; batch norms see all tokens.
        qkv_bias: see :class:`Attention`.
        layer_scale: initial value of LayerScale; None for none.
        drop_path: probability that an image skips a residual branch.
        attention: module that replaces :class:`Attention`.
    """

    def __init__(
        self,
        dim: int,
        heads: int,
        mlp_ratio: float = 4.0,
        norm: dict[str, Any] = LN,
        qkv_bias: bool = True,
        layer_scale: float | None = None,
        drop_path: float = 0.0,
        attention: nn.Module | None = None,
    ):
        super().__init__()
        self.norm1 = build_norm(norm, dim, dims=1)
        self.attn = attention or Attention(dim, heads, qkv_bias)
        self.ls1 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.norm2 = build_norm(norm, dim, dims=1)
        self.mlp = FeedForward(dim, int(dim * mlp_ratio))
        self.ls2 = nn.Identity() if layer_scale is None else LayerScale(dim, layer_scale)
        self.drop_path = StochasticDepth(drop_path, "row")

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, C) to tokens of the same shape."""
        x = x + self.drop_path(self.ls1(self.attn(over_tokens(self.norm1, x))))
        return x + self.drop_path(self.ls2(self.mlp(over_tokens(self.norm2, x))))


class Blocks(nn.Sequential):
    """A stack of :class:`Block`.

    Args:
        depth: number of blocks.
        with_cp: recompute the activations of each block in the backward pass instead of keeping them.
        block: arguments of each block.
    """

    def __init__(self, depth: int, with_cp: bool = False, **block: Any):
        super().__init__(*(Block(**block) for _ in range(depth)))
        self.with_cp = with_cp

    def forward(self, x: Tensor) -> Tensor:
        """Tokens (N, L, C) to tokens of the same shape."""
        for block in self:
            x = run(block, x, self.with_cp)
        return x


def run(block: nn.Module, x: Tensor, with_cp: bool) -> Tensor:
    """``block(x)``; with ``with_cp``, and where gradients are enabled, activations are recomputed in the backward
    pass."""
    return recomputed(block, x) if with_cp and torch.is_grad_enabled() else block(x)


def init_linear_(module: nn.Module) -> None:
    """Initialise all linear layers inside with Xavier-uniform weights and zero biases, as MAE and SIM do."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.xavier_uniform_(part.weight)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
