"""Contrastive losses: one positive against a bank and local negatives, several positives, weighted targets.

Legend: M queries, C channels, K keys of a bank, m local negatives of a query. The caller normalises queries and keys.
All functions return a loss *per row*, so that the caller decides which rows count and over which ranks to average.
"""

from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from densessl.losses.distill import soft_cross_entropy
from densessl.losses.reduce import full_precision

BLOCK_BYTES = 64 * 2**20  # on a CPU: larger is not faster, 16 MiB or less is slower (benchmarks/large_bank.py)


class NCE(NamedTuple):
    """Results of :func:`info_nce`, one per row.

    Attributes:
        rows: (M,) losses.
        hits: (M,) bool, whether the positive is more similar than every negative (top-1 accuracy).
    """

    rows: Tensor
    hits: Tensor


class _BankLogSumExp(torch.autograd.Function):
    """log sum_k exp(q . b_k / T) and the largest exponent, computed in blocks of rows.

    The gradient, softmax(q B^T / T) B / T, needs only one factor per row from upstream. It is therefore computed in the
    forward pass, while a block of logits exists: nothing of size M x K is kept, and nothing is computed twice.
    """

    @staticmethod
    def forward(ctx, q: Tensor, bank: Tensor, temperature: float, block_bytes: int) -> tuple[Tensor, Tensor]:
        wants_gradient = ctx.needs_input_grad[0]
        rows = max(1, block_bytes // (len(bank) * q.element_size()))
        logits = q.new_empty(min(rows, len(q)), len(bank))
        total, largest = q.new_empty(len(q)), q.new_empty(len(q))
        gradient = torch.empty_like(q) if wants_gradient else None
        for start in range(0, len(q), rows):
            part = slice(start, start + rows)
            block = logits[: len(q[part])]
            torch.mm(q[part] / temperature, bank.T, out=block)
            top = torch.amax(block, 1, out=largest[part])
            mass = block.sub_(top[:, None]).exp_().sum(1)
            total[part] = mass.log() + top
            if wants_gradient:
                torch.mm(block, bank, out=gradient[part]).div_(mass[:, None] * temperature)
        ctx.save_for_backward(gradient)
        ctx.mark_non_differentiable(largest)
        return total, largest

    @staticmethod
    @once_differentiable
    def backward(ctx, upstream: Tensor, _) -> tuple[Tensor | None, ...]:
        (gradient,) = ctx.saved_tensors
        return (None if gradient is None else upstream[:, None] * gradient), None, None, None


def bank_logsumexp(
    q: Tensor, bank: Tensor, temperature: float, block_bytes: int | None = None
) -> tuple[Tensor, Tensor]:
    """``log sum_k exp(q_i . b_k / T)`` (M,) and ``max_k q_i . b_k / T`` (M,) without keeping M x K logits.

    Args:
        q: (M, C); gets a gradient, but no second derivative.
        bank: (K, C); gets no gradient, and may be overwritten before the backward pass.
        temperature: softmax temperature T.
        block_bytes: memory for the logits of one block of rows, at least one row; None for ``BLOCK_BYTES``.

    Returns:
        Both values; for an empty bank both are minus infinity, without gradient.
    """
    q, bank = full_precision(q, bank)
    if not len(bank):
        nothing = q.new_full((len(q),), -torch.inf)
        return nothing, nothing
    with torch.autocast(q.device.type, enabled=False):
        q = q.contiguous() if torch.is_grad_enabled() else q.detach().contiguous()
        return _BankLogSumExp.apply(q, bank.detach().to(q.dtype), temperature, block_bytes or BLOCK_BYTES)


def info_nce(
    q: Tensor, k: Tensor, bank: Tensor | None = None, local: Tensor | None = None, temperature: float = 0.2
) -> NCE:
    """InfoNCE (MoCo, equation 1): ``-log softmax`` of the positive among itself and all negatives, each over T.

    Args:
        q: (M, C) queries.
        k: (M, C) positives; they get a gradient unless detached.
        bank: (K, C) negatives of all rows, without gradient; None or empty for none.
        local: (M, m) similarities of each row with its local negatives; they get a gradient.
        temperature: softmax temperature T.
    """
    q, k = full_precision(q, k)
    with torch.autocast(q.device.type, enabled=False):
        positive = (q * k).sum(1) / temperature
        total, hits = positive, torch.ones_like(positive, dtype=torch.bool)
        if bank is not None:
            negative, largest = bank_logsumexp(q, bank, temperature)
            total, hits = torch.logaddexp(total, negative), hits & (positive > largest)
        if local is not None and local.shape[1]:
            negative = full_precision(local)[0] / temperature
            total, hits = torch.logaddexp(total, negative.logsumexp(1)), hits & (positive > negative.amax(1))
        return NCE(total - positive, hits)


def multi_positive_nce(
    similarity: Tensor, positive: Tensor, temperature: float, candidate: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """``-log(sum over positives exp(s / T) / sum over candidates exp(s / T))`` along the last dimension.

    Args:
        similarity: (..., K).
        positive: (..., K) bool.
        temperature: softmax temperature T.
        candidate: (..., K) bool, the entries that count in the denominator beside the positives; by default all.

    Returns:
        Losses (...,), 0 with zero gradient where there is no positive; valid (...,) bool, where there is one.
    """
    (similarity,) = full_precision(similarity)
    with torch.autocast(similarity.device.type, enabled=False):
        logits = similarity / temperature
        valid = positive.any(-1)
        # Rows without a positive get one, so that no infinity enters the graph; their loss is set to zero below.
        kept = positive | ~valid[..., None]
        total = logits if candidate is None else logits.masked_fill(~(candidate | kept), -torch.inf)
        rows = total.logsumexp(-1) - logits.masked_fill(~kept, -torch.inf).logsumexp(-1)
        return torch.where(valid, rows, torch.zeros_like(rows)), valid


def matching_nce(similarity: Tensor, target: Tensor, temperature: float) -> Tensor:
    """Soft matching: cross entropy of ``softmax(similarity / T)`` over the last dimension against target weights.

    With one-hot targets this is InfoNCE among the candidates; with bilinear weights the target lies between cells.

    Args:
        similarity: (..., K).
        target: (..., K) weights that sum to 1.

    Returns:
        (...,) losses.
    """
    return soft_cross_entropy(similarity, target, temperature)
