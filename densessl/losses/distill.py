"""Losses between distributions: soft cross entropy, and the targets it takes from Sinkhorn or from centring.

Legend: M rows (samples), K classes or prototypes.
"""

import math

import torch
import torch.distributed as dist
from torch import Tensor

from densessl.losses.reduce import full_precision


def soft_cross_entropy(logits: Tensor, target: Tensor, temperature: float = 1.0, dim: int = -1) -> Tensor:
    """``-sum_k target_k log softmax(logits / T)_k`` along ``dim``; the other dimensions remain.

    Args:
        target: weights, same shape as ``logits``; where they are all zero, loss and gradient are. Their gradient flows
            unless they are detached.
    """
    logits, target = full_precision(logits, target)
    with torch.autocast(logits.device.type, enabled=False):
        return -(target * (logits / temperature).log_softmax(dim)).sum(dim)


@torch.no_grad()
def centred_softmax(logits: Tensor, centre: Tensor | None, temperature: float) -> Tensor:
    """DINO's targets ``softmax((logits - centre) / T)`` (M, K), without gradient; ``centre`` (K,) or None."""
    (logits,) = full_precision(logits)
    with torch.autocast(logits.device.type, enabled=False):
        return ((logits if centre is None else logits - centre) / temperature).softmax(-1)


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignment of samples to prototypes with equal shares (SwAV, section 3.1), over the samples of all ranks.

    Alternately every prototype's mass becomes 1/K and every sample's 1/M; a sample comes last, so that each row of the
    result is a distribution. In logarithms: ``exp(scores / epsilon)`` overflows half precision at once and single
    precision for small ``epsilon``.

    Args:
        scores: (M, K); M may differ between ranks, but every rank has to call.

    Returns:
        (M, K) in at least fp32, without gradient.
    """
    (scores,) = full_precision(scores)
    with torch.autocast(scores.device.type, enabled=False):
        log_q = scores / epsilon
        samples = _sum_over_ranks(log_q.new_tensor(float(len(log_q))))
        log_q = log_q - _logsumexp_over_ranks(log_q.flatten()[:, None])
        for _ in range(iterations):
            log_q = log_q - _logsumexp_over_ranks(log_q) - math.log(log_q.shape[1])
            log_q = log_q - log_q.logsumexp(1, keepdim=True) - samples.log()
        return (log_q + samples.log()).exp()


def _logsumexp_over_ranks(values: Tensor) -> Tensor:
    """Over the rows (M, K) of all ranks: (1, K)."""
    if not _distributed():
        return values.logsumexp(0, keepdim=True)
    if len(values):
        local = values.logsumexp(0, keepdim=True)
    else:
        local = values.new_full((1, values.shape[1]), -torch.inf)
    largest = local.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return _sum_over_ranks((local - largest).exp()).log() + largest


def _sum_over_ranks(value: Tensor) -> Tensor:
    if _distributed():
        dist.all_reduce(value)
    return value


def _distributed() -> bool:
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1
