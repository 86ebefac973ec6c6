"""Losses between the cells of two feature maps.

Legend: N images, C channels, S = H*W cells of a map, row-major.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.losses.contrast import multi_positive_nce
from densessl.losses.reduce import full_precision, valid_mean


def pixel_propagation(features: Tensor, values: Tensor, gamma: float = 2.0, clamp: float = 0.0) -> Tensor:
    """Smooth a map by feature similarity (PixPro, equation 3, in the form of its code).

    ``y_i = sum_j max(cos(x_i, x_j), clamp)^gamma * v_j / |v_j|``: a plain sum, without softmax or division. Unlike in
    the equation, values are *normalised*. Gradient flows through similarities and values.

    Args:
        features: x, (N, C, H, W).
        values: v, the transformed features, (N, D, H, W).
        gamma: exponent of the similarity. If below 1, 1e-6 is added to the similarity first, since the gradient of the
            power is infinite at 0.
        clamp: lower bound of the similarity.

    Returns:
        (N, D, H, W), not normalised, in at least fp32.
    """
    features, values = full_precision(features, values)
    with torch.autocast(features.device.type, enabled=False):
        cells = F.normalize(features, dim=1).flatten(2)
        similarity = (cells.mT @ cells).clamp(min=clamp)
        if gamma < 1:
            similarity = similarity + 1e-6
        weights = similarity if gamma == 1 else similarity**gamma
        return (F.normalize(values, dim=1).flatten(2) @ weights.mT).unflatten(2, values.shape[2:])


def pixel_consistency(q: Tensor, k: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
    """Mean similarity of corresponding cells of each image (PixPro, equation 4).

    Args:
        q: (N, C, Hq, Wq), normalised over C by the caller.
        k: (N, C, Hk, Wk), likewise; gets a gradient unless detached.
        mask: (N, Sq, Sk) bool, the positive pairs.

    Returns:
        Mean similarity (N,) of the positive pairs, 0 with zero gradient for an image without positives, since 1e-6 is
        added to the count as in the official code; and the count (N,) of positive pairs.
    """
    q, k = full_precision(q, k)
    with torch.autocast(q.device.type, enabled=False):
        similarity = q.flatten(2).mT @ k.flatten(2)
        positive = mask.to(similarity.dtype)
        count = positive.flatten(1).sum(1)
        return (similarity * positive).flatten(1).sum(1) / (count + 1e-6), count


def pixel_contrast(
    q: Tensor, k: Tensor, mask: Tensor, temperature: float = 0.3, mean: Literal["global", "local"] = "global"
) -> Tensor:
    """PixContrast (PixPro, equation 2): each cell of q against all cells of the other view of the same image.

    ``-log(sum over positives exp(cos / T) / sum over all cells exp(cos / T))``, averaged over the cells of an image
    that have a positive, then over the images that have such cells.

    Args:
        q: (N, C, Hq, Wq), normalised over C by the caller.
        k: (N, C, Hk, Wk), likewise.
        mask: (N, Sq, Sk) bool, the positive pairs.
        temperature: softmax temperature T.
        mean: "global" or "local", see :func:`densessl.losses.reduce.valid_mean`.

    Returns:
        Scalar, 0 with zero gradient if no cell has a positive.
    """
    q, k = full_precision(q, k)
    with torch.autocast(q.device.type, enabled=False):
        similarity = q.flatten(2).mT @ k.flatten(2)
        rows, inside = multi_positive_nce(similarity, mask, temperature)
        count = inside.sum(1)
        return valid_mean(rows.sum(1) / count.clamp(min=1), count > 0, mean)
