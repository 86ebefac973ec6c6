"""UniGrad's loss of predictions: near their target, decorrelated from all targets (Tao et al., CVPR 2022, arXiv
2112.05141), in SIM's dense form and in the original one."""

from typing import NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from densessl.losses.reduce import full_precision, global_count


def correlation(targets: Tensor, valid: Tensor | None = None) -> Tensor:
    """Mean outer product of targets (M, D) over all valid rows of all ranks, not centred, without gradient: (D, D).

    Args:
        valid: (M,) bool; None for all. Nothing valid anywhere gives zeros.
    """
    (targets,) = full_precision(targets.detach())
    count = targets.new_tensor(float(len(targets))) if valid is None else valid.sum().to(targets.dtype)
    if valid is not None:
        targets = targets * valid[:, None]
    with torch.autocast(targets.device.type, enabled=False):
        total = targets.mT @ targets
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(total)
        total /= dist.get_world_size()
        count = global_count(count)
    return total / count.clamp(min=1e-12)


class UniGradTerms(NamedTuple):
    """Terms of each row, (M,): squared distance to the target, and p C p^T."""

    positive: Tensor
    negative: Tensor


def unigrad_terms(predictions: Tensor, targets: Tensor, matrix: Tensor) -> UniGradTerms:
    """SIM's terms (released code; fact sheet of SIM, section 1.2). The diagonal of P C P^T is made without the rest.

    Args:
        predictions: (M, D).
        targets: (M, D), without gradient.
        matrix: C, (D, D), symmetric.
    """
    predictions, targets, matrix = full_precision(predictions, targets.detach(), matrix.detach())
    with torch.autocast(predictions.device.type, enabled=False):
        positive = (predictions - targets).square().sum(1)
        negative = ((predictions @ matrix) * predictions).sum(1)
    return UniGradTerms(positive, negative)
