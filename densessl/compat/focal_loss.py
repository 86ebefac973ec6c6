"""Sigmoid focal loss with the signatures of ``mmcv._ext``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.compat.numerics import widest


def _rows(target: Tensor, weight: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """One-hot positives `(N, C)` and row weights `(N, 1)`; a row of no class (target outside [0, C)) weighs one."""
    classes = torch.arange(num_classes, device=target.device)
    positive = target[:, None] == classes
    if not weight.numel():
        return positive, weight.new_ones(1)
    scale = torch.where(positive.any(dim=1), weight[target.clamp(0, num_classes - 1)], weight.new_ones(()))
    return positive, scale[:, None]


def sigmoid_focal_loss_forward(
    input: Tensor, target: Tensor, weight: Tensor, output: Tensor, gamma: float, alpha: float
) -> None:
    """Focal loss of each logit (Lin et al., 2017, Eq. 5).

    ``-alpha (1 - p)^gamma log p`` for the target class, ``-(1 - alpha) p^gamma log(1 - p)`` for all others, p the
    sigmoid of the logit. Log-sigmoids keep both finite for any logit.

    Args:
        input: `(N, C)` logits.
        target: `(N,)` int64 class; C, or anything outside [0, C), is background.
        weight: `(C,)` weight of the row by its class, or empty for none.
        output: `(N, C)`, filled.
        gamma: focusing exponent.
        alpha: weight of the positive class.
    """
    logits, weight = widest(input, weight)
    positive, scale = _rows(target, weight, logits.shape[1])
    p = logits.sigmoid()
    on = -alpha * (1 - p) ** gamma * F.logsigmoid(logits)
    off = -(1 - alpha) * p**gamma * F.logsigmoid(-logits)
    output.copy_(torch.where(positive, on, off) * scale)


def sigmoid_focal_loss_backward(
    input: Tensor, target: Tensor, weight: Tensor, grad_input: Tensor, gamma: float, alpha: float
) -> None:
    """Derivative of `sigmoid_focal_loss_forward` with respect to each logit (the paper's Appendix B).

    Args: as in the forward; ``grad_input`` `(N, C)` is filled.
    """
    logits, weight = widest(input, weight)
    positive, scale = _rows(target, weight, logits.shape[1])
    p = logits.sigmoid()
    on = -alpha * (1 - p) ** gamma * (1 - p - gamma * p * F.logsigmoid(logits))
    off = -(1 - alpha) * p**gamma * (gamma * (1 - p) * F.logsigmoid(-logits) - p)
    grad_input.copy_(torch.where(positive, on, off) * scale)
