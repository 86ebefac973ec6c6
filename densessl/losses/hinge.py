"""Hinge losses between the regions of an image."""

import torch
from torch import Tensor

from densessl.losses.reduce import full_precision


def pairwise_hinge(similarity: Tensor, valid: Tensor, margin: float = 0.4) -> Tensor:
    """Hinge losses of a similarity matrix, by column (CCOP's intra-image term).

    ``h_ij = max(0, s_ij - s_jj + margin)`` where ``valid``: for key j, the other *queries* i are the negatives.

    Args:
        similarity: (..., R, R), with queries as rows and keys as columns.
        valid: (..., R, R) bool, the pairs that count; the diagonal never does.
        margin: least difference of the similarities at which the loss is zero.

    Returns:
        (..., R, R), 0 for pairs that do not count.
    """
    (similarity,) = full_precision(similarity)
    positive = similarity.diagonal(dim1=-2, dim2=-1)[..., None, :]
    kept = valid & ~torch.eye(similarity.shape[-1], dtype=torch.bool, device=similarity.device)
    return torch.where(kept, (similarity - positive + margin).clamp(min=0), torch.zeros_like(similarity))
