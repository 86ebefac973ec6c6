"""Transformer heads on token sequences: SIM's projector and its predictor, the decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from densessl.branches.positions import point_embedding, relative_embedding
from densessl.branches.transformer import Blocks, init_linear_


class TokenProjector(nn.Module):
    """A linear layer and transformer blocks. Keys ``embed.*``, ``blocks.{i}.*``.

    Args:
        channels: width of the input tokens.
        dim: width D of the output tokens.
        depth: number of blocks; 0 for the linear layer alone.
        block: arguments of the blocks (:class:`densessl.branches.transformer.Block`) except ``dim``.
    """

    def __init__(self, channels: int, dim: int, depth: int, **block: Any):
        super().__init__()
        self.embed = nn.Linear(channels, dim)
        self.blocks = Blocks(depth, dim=dim, **block)
        init_linear_(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """Tokens (N, L, channels) to (N, L, D)."""
        # Under autocast the linear layer gives bf16; the residual stream stays as precise as in the backbone.
        return self.blocks(self.embed(tokens).to(tokens.dtype))


class RelativeDecoder(nn.Module):
    """Predicts the cells of one view from given cells of another. The asked cells are mask tokens with an embedding of
    their position in the view of the given cells. Self-attention runs over the class token, the given and the asked
    cells together (SIM's released code, models_sim.py).

    Keys ``mask_token``, ``position.*``, ``blocks.{i}.*``, ``output.*``.

    Args:
        dim: width D of the tokens.
        depth: number of blocks.
        outputs: width of the predictions; None for D.
        block: arguments of the blocks except ``dim``.
    """

    def __init__(self, dim: int, depth: int, outputs: int | None = None, **block: Any):
        super().__init__()
        self.dim = dim
        self.mask_token = nn.Parameter(torch.empty(1, 1, dim))
        self.position = nn.Linear(2 * dim, dim)
        self.blocks = Blocks(depth, dim=dim, **block)
        self.output = nn.Linear(dim, outputs or dim)
        init_linear_(self)
        nn.init.normal_(self.mask_token, std=0.02)

    def forward(self, tokens: Tensor, given: Tensor, asked: Tensor, scale: Tensor) -> Tensor:
        """Predictions for all asked cells, (N, P, outputs).

        Args:
            tokens: (N, [1 +] L, D) of the given cells, after the class token if there is one.
            given: (N, L, 2), or (L, 2) for all images: (x, y) of the given cells, in cells of their view.
            asked: (N, P, 2), positions of the asked cells in the same units.
            scale: (N, 2), width and height of an asked cell in the same units.
        """
        given, asked, scale = (positions.to(self.mask_token.dtype) for positions in (given, asked, scale))
        leading = tokens.shape[1] - given.shape[-2]
        placed = tokens[:, leading:] + point_embedding(given, self.dim).to(tokens.dtype)
        queries = self.mask_token + self.position(relative_embedding(asked, scale, self.dim))
        joined = self.blocks(torch.cat([tokens[:, :leading], placed, queries.to(tokens.dtype)], 1))
        return self.output(joined[:, -asked.shape[1] :])
