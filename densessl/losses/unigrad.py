"""UniGrad's loss, which attracts predictions to their target and decorrelates them from all targets (Tao et al., CVPR
2022, arXiv 2112.05141), in SIM's dense form and in the original form."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from densessl.losses.reduce import full_precision, global_count


def correlation(targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean outer product (D, D) of targets over all valid rows of all ranks, not centred, without gradient.

    Args:
        targets: (M, D).
        valid: (M,) bool; None for all. Without valid rows on any rank the result is zero.
    """
    (targets,) = full_precision(targets.detach())
    if valid is None:
        count = targets.new_full((), len(targets))
    else:
        count, targets = valid.sum().to(targets.dtype), targets * valid[:, None]
    with torch.autocast(targets.device.type, enabled=False):
        total = targets.mT @ targets
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
        total /= dist.get_world_size()
        count = global_count(count)
    return total / count.clamp(min=1e-12)


class UniGradTerms(NamedTuple):
    """The two terms of each row, (M,): the squared distance to the target, and p C p^T."""

    positive: Tensor
    negative: Tensor


def unigrad_terms(predictions: Tensor, targets: Tensor, matrix: Tensor | None) -> UniGradTerms:
    """SIM's terms (released code, ``models_sim.py``). Of P C P^T only the diagonal is computed.

    Args:
        predictions: (M, D).
        targets: (M, D), without gradient.
        matrix: C, (D, D), symmetric; None for zeros.
    """
    predictions, targets = full_precision(predictions, targets.detach())
    positive = (predictions - targets).square().sum(1)
    if matrix is None:
        return UniGradTerms(positive, torch.zeros_like(positive))
    with torch.autocast(predictions.device.type, enabled=False):
        correlated = predictions @ matrix.detach().to(predictions.dtype)
    return UniGradTerms(positive, (correlated * predictions).sum(1))


def gradient_terms(online: Tensor, targets: Tensor, matrix: Tensor) -> UniGradTerms:
    """UniGrad's terms in gradient form, as in its code: ``<stopgrad(-t + weight z F), z>`` is the first term plus
    ``weight`` times the second.

    The first term is -z t^T instead of a squared distance. The second has the value z F z^T but the gradient F z, half
    the gradient of that value. Nothing is normalised here.

    Args:
        online: z, (M, D).
        targets: t, (M, D), without gradient.
        matrix: F, (D, D), symmetric.
    """
    online, targets, matrix = full_precision(online, targets.detach(), matrix.detach())
    with torch.autocast(online.device.type, enabled=False):
        positive = -(online * targets).sum(1)
        negative = ((online.detach() @ matrix) * online).sum(1)
    return UniGradTerms(positive, negative)
