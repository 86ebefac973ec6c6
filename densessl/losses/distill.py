"""Losses between distributions: soft cross entropy, and targets from Sinkhorn normalisation or from centring.

Legend: M rows (samples), K classes or prototypes.
"""

import torch
import torch.distributed as dist
from mmengine.dist import get_world_size
from torch import Tensor

from densessl.losses.reduce import full_precision


def soft_cross_entropy(logits: Tensor, target: Tensor, temperature: float = 1.0, dim: int = -1) -> Tensor:
    """``-sum_k target_k log softmax(logits / T)_k`` along ``dim``; the other dimensions remain.

    Args:
        target: weights, same shape as ``logits``. Where all are zero, loss and gradient are zero. They get a gradient
            unless detached.
    """
    logits, target = full_precision(logits, target)
    with torch.autocast(logits.device.type, enabled=False):
        return -(target * (logits / temperature).log_softmax(dim)).sum(dim)


def cross_view_entropy(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """Mean cross entropy over all pairs of a target and *another* view (DINO, equation 3).

    ``mean over g, v != g and n of -sum_k targets[g, n, k] log softmax(logits[v, n] / T)_k``. Apart from the scaled
    logits nothing of size V x N x K is kept: the cross entropy is a log-sum-exp for each view minus a dot product for
    each pair.

    Args:
        logits: (V, N, K) of all views; the first G are those of the targets.
        targets: (G, N, K), each summing to 1 over K.
        temperature: softmax temperature T of the logits.
    """
    logits, targets = full_precision(logits, targets)
    with torch.autocast(logits.device.type, enabled=False):
        scaled = logits / temperature
        cost = scaled.logsumexp(2).mean(1)[:, None] - torch.einsum("vnk,gnk->vg", scaled, targets) / scaled.shape[1]
        return (cost.sum() - cost.diagonal().sum()) / (len(targets) * (len(logits) - 1))


@torch.no_grad()
def centred_softmax(logits: Tensor, centre: Tensor | None, temperature: float) -> Tensor:
    """DINO's targets ``softmax((logits - centre) / T)`` (M, K), without gradient; ``centre`` (K,) or None."""
    (logits,) = full_precision(logits)
    with torch.autocast(logits.device.type, enabled=False):
        return ((logits if centre is None else logits - centre) / temperature).softmax(-1)


@torch.no_grad()
def sinkhorn(scores: Tensor, epsilon: float = 0.05, iterations: int = 3) -> Tensor:
    """Soft assignment of samples to prototypes with equal shares (SwAV, section 3.1), over the samples of all ranks.

    Each iteration gives all prototypes the same mass, then all samples, so that each row of the result is a
    distribution. Computed in logarithms, since ``exp(scores / epsilon)`` overflows half precision for usual ``epsilon``
    and single precision for small ones. The constant factors of the official code, 1/K and 1/M, cancel and are left
    out.

    Args:
        scores: (M, K). M may differ between ranks and be 0, but every rank must call this function.
        epsilon: temperature of the scores.
        iterations: number of iterations; 0 only scales ``exp(scores / epsilon)`` to a mean row sum of 1, as in the
            official code.

    Returns:
        (M, K) in at least fp32, without gradient.
    """
    (scores,) = full_precision(scores)
    with torch.autocast(scores.device.type, enabled=False):
        log_q = scores / epsilon
        samples = _sum_over_ranks(log_q.new_tensor(float(len(log_q))))
        log_q = log_q - _logsumexp_over_ranks(log_q.flatten()[:, None]) + samples.log()
        for _ in range(iterations):
            log_q = (log_q - _logsumexp_over_ranks(log_q)).log_softmax(1)
        return log_q.exp()


def _logsumexp_over_ranks(values: Tensor) -> Tensor:
    """Log-sum-exp over the rows (M, K) of all ranks, (1, K)."""
    local = values.logsumexp(0, keepdim=True)  # minus infinity without rows
    if get_world_size() == 1:
        return local
    largest = local.clone()
    dist.all_reduce(largest, dist.ReduceOp.MAX)
    return _sum_over_ranks((local - largest).exp()).log() + largest


def _sum_over_ranks(value: Tensor) -> Tensor:
    if get_world_size() > 1:
        dist.all_reduce(value)
    return value
