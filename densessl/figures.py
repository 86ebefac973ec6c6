"""Figures of features, as tensors that training can log without waiting for the device."""

import torch
from torch import Tensor

from densessl.losses import unit


def cell_vectors(maps: Tensor) -> Tensor:
    """The vectors (N*H*W, C) of all cells of maps (N, C, H, W)."""
    return maps.permute(0, 2, 3, 1).flatten(0, 2)


def between_image_cosine(maps: Tensor) -> Tensor:
    """Mean cosine similarity over all pairs of cells in different images; NaN for a single image.

    Near 1, the network gives the same vector for every input. With S_n the sum of the unit vectors of image n, the sum
    over pairs is |sum_n S_n|^2 - sum_n |S_n|^2, so that memory does not grow with the number of pairs.

    Args:
        maps: (N, C, H, W).
    """
    images, _, height, width = maps.shape
    sums = unit(maps.detach()).sum(dim=(2, 3))
    pairs = images * (images - 1) * (height * width) ** 2
    between = sums.sum(dim=0).square().sum() - sums.square().sum()
    return between / pairs if pairs else between * torch.nan


def channel_spread(vectors: Tensor) -> Tensor:
    """sqrt(C) times the mean over channels of the standard deviation of the normalised vectors (M, C).

    1 where vectors are spread over all directions, 0 where all are equal (SimSiam, Chen & He, CVPR 2021, section 4.1,
    figure 2). It is the population standard deviation, so that 1 is the maximum.
    """
    directions = unit(vectors.detach())
    return directions.std(dim=0, correction=0).mean() * directions.shape[1] ** 0.5
