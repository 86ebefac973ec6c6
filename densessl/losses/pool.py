"""Pool the vectors of masks, regions and points from maps.

Legend: N images, C channels, H x W cells, P points, R regions.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.losses.reduce import full_precision, unit


def masked_mean(features: Tensor, mask: Tensor) -> Tensor:
    """Mean of a map over the cells of a mask.

    Args:
        features: (N, C, H, W).
        mask: (N or 1, H, W), bool or weights.

    Returns:
        (N, C); zeros for an image whose mask is empty.
    """
    (features,) = full_precision(features)
    with torch.autocast(features.device.type, enabled=False):
        weights = mask.to(features.dtype).flatten(1).expand(len(features), -1)
        total = weights.sum(1, keepdim=True)
        summed = (features.flatten(2) @ weights[..., None])[..., 0]
        return summed / torch.where(total > 0, total, torch.ones_like(total))


def soft_regions(features: Tensor, logits: Tensor, valid: Tensor | None = None) -> Tensor:
    """Sums of features under soft masks (DenseSiam, RegionSim): ``r_n = sum_hw softmax_n(logits) f``.

    Args:
        features: (N, C, H, W).
        logits: (N, R, H, W); their softmax over R gives the masks.
        valid: (N, H, W) bool, the cells that count; by default all.

    Returns:
        (N, R, C): sums, not means, as in the official code.
    """
    features, logits = full_precision(features, logits)
    with torch.autocast(features.device.type, enabled=False):
        masks = logits.softmax(1)
        if valid is not None:
            masks = masks * valid[:, None]
        return masks.flatten(2) @ features.flatten(2).mT


def sample_points(features: Tensor, points: Tensor) -> Tensor:
    """Sample a map bilinearly at points.

    Args:
        features: (N, C, H, W).
        points: (N, P, 2) as from :func:`densessl.geometry.sampling_grid`; outside [-1, 1] the border value is used.

    Returns:
        (N, P, C).
    """
    (features,) = full_precision(features)
    with torch.autocast(features.device.type, enabled=False):
        grid = points.to(features.dtype)[:, :, None]
        sampled = F.grid_sample(features, grid, mode="bilinear", padding_mode="border", align_corners=False)
        return sampled[..., 0].mT


def cell_cosines(features: Tensor, vectors: Tensor) -> Tensor:
    """Cosines between all cells of a map and vectors, the weights of SCFS's feature search. The map is not copied to
    normalise it.

    Args:
        features: (N, C, H, W).
        vectors: (..., N, C).

    Returns:
        (..., N, H, W).
    """
    features, vectors = full_precision(features, vectors)
    with torch.autocast(features.device.type, enabled=False):
        products = torch.einsum("nchw,...nc->...nhw", features, unit(vectors, dim=-1))
        return products / features.norm(dim=1).clamp(min=1e-12)
