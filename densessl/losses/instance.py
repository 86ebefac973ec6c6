"""Losses between the vectors of two views of an image."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.losses.reduce import full_precision


def cosine_regression(p: Tensor, z: Tensor) -> Tensor:
    """Mean cosine of predictions p (N, C) and targets z (N, C), normalised here; scalar in [-1, 1].

    BYOL and PixPro's instance branch minimise -2 times this value, SimSiam -1 times.
    """
    p, z = full_precision(p, z)
    with torch.autocast(p.device.type, enabled=False):
        return (F.normalize(p, dim=1) * F.normalize(z, dim=1)).sum(1).mean()
