"""Figures of features that training logs without waiting for the device."""

import torch
from torch import Tensor

from densessl.losses import unit


def cell_vectors(maps: Tensor) -> Tensor:
    """The vectors of all cells: maps (N, C, H, W) -> (N*H*W, C)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def between_image_cosine(maps: Tensor) -> Tensor:
    """Mean cosine similarity over all pairs of cells that lie in different images, as a tensor that training can log
    without waiting for the device; NaN for a single image.

    Near 1, the network gives the same vector whatever it sees. The sum over pairs is that of the unit vectors u_n of
    image n, summed over its cells to S_n: |sum_n S_n|^2 - sum_n |S_n|^2, so nothing of the size of all pairs is made.

    Args:
        maps: (N, C, H, W).
    """
    images, _, height, width = maps.shape
    sums = unit(maps.detach()).sum(dim=(2, 3))
    pairs = images * (images - 1) * (height * width) ** 2
    between = sums.sum(dim=0).square().sum() - sums.square().sum()
    return between / pairs if pairs else between * torch.nan


def channel_spread(vectors: Tensor) -> Tensor:
    """sqrt(C) times the mean over channels of the standard deviation of the normalised vectors (M, C), as a tensor that
    training can log without waiting for the device.

    1 where they point everywhere alike, 0 where all are one (SimSiam, Chen & He, CVPR 2021, section 4.1, figure 2).
    The deviation is that of the population, so that 1 is the most it can be.
    """
    directions = unit(vectors.detach())
    return directions.std(dim=0, correction=0).mean() * directions.shape[1] ** 0.5
