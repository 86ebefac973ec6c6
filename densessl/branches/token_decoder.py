"""Transformer heads on token sequences: SIM's projector and its predictor, the decoder."""

from typing import Any

import torch
from torch import Tensor, nn

from densessl.branches.positions import point_embedding, relative_embedding
from densessl.branches.transformer import Blocks, init_linear_


class TokenProjector(nn.Module):
    """A linear layer and blocks. Keys ``embed.*``, ``blocks.{i}.*``.

    Args:
        channels: of the tokens it gets.
        dim: of those it gives, D.
        depth: number of blocks; 0 for the linear layer alone.
        block: arguments of the blocks (:class:`densessl.branches.transformer.Block`) but ``dim``.
    """

    def __init__(self, channels: int, dim: int, depth: int, **block: Any):
        super().__init__()
        self.embed = nn.Linear(channels, dim)
        self.blocks = Blocks(depth, dim=dim, **block)
        init_linear_(self)

    def forward(self, tokens: Tensor) -> Tensor:
        """(N, L, channels) to (N, L, D)."""
        # Under autocast the linear layer gives bf16; what the blocks add to stays as precise as in the backbone.
        return self.blocks(self.embed(tokens).to(tokens.dtype))


class RelativeDecoder(nn.Module):
    """Predicts a view's cells from some of another's: asked cells are mask tokens that know where they lie in the view
    whose tokens are given. Self-attention runs over class token, given and asked cells together (SIM's released code,
    models_sim.py; fact sheet of SIM, section 1.1).

    Keys ``mask_token``, ``position.*``, ``blocks.{i}.*``, ``output.*``.

    Args:
        dim: D.
        depth: number of blocks.
        outputs: width of the predictions; None for D.
        block: arguments of the blocks but ``dim``.
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
            tokens: (N, [1 +] L, D) of the given cells, after the class token where there is one.
            given: (N, L, 2), or (L, 2) for all images, x and y of the given cells, in cells of their view.
            asked: (N, P, 2) of the asked ones, in the same units.
            scale: (N, 2) width and height of an asked cell in those units.
        """
        given, asked, scale = (item.to(self.mask_token.dtype) for item in (given, asked, scale))
        leading = tokens.shape[1] - given.shape[-2]
        placed = tokens[:, leading:] + point_embedding(given, self.dim).to(tokens.dtype)
        queries = self.mask_token + self.position(relative_embedding(asked, scale, self.dim))
        joined = self.blocks(torch.cat([tokens[:, :leading], placed, queries.to(tokens.dtype)], 1))
        return self.output(joined[:, -asked.shape[1] :])
