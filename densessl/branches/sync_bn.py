"""Batch normalisation over all processes (``SyncBN``) and over groups of one batch (``SplitBN``).

Both keep BatchNorm's parameters, buffers and keys, take (N, C), (N, C, L) or (N, C, H, W), and equal ``F.batch_norm``
in evaluation mode.

torch.nn.SyncBatchNorm refuses CPU tensors, so it could not be tested that two processes equal one. This implementation
runs the same code on CPU with gloo and on CUDA with NCCL, in any float type.
"""

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm

from densessl.errors import SettingError
from densessl.registry import MODELS


def _per_channel(x: Tensor) -> tuple[list[int], list[int]]:
    """The dimensions over which statistics are computed, and the shape that broadcasts a (C,) vector against ``x``."""
    return [d for d in range(x.dim()) if d != 1], [1, -1] + [1] * (x.dim() - 2)


def _joined_moments(x: Tensor, group: dist.ProcessGroup | None) -> tuple[Tensor, Tensor, Tensor]:
    """Mean (C,), biased variance (C,) and number () of the values per channel of all ranks, in at least fp32.

    Each rank centres its values, and the moments are merged by the formula of Chan, Golub and LeVeque: the difference
    E[x^2] - E[x]^2 of joined sums would lose a small variance next to a large mean.
    """
    values = x.to(torch.promote_types(x.dtype, torch.float32))
    count = x.numel() // x.shape[1]
    if count:
        variance, mean = torch.var_mean(values, _per_channel(x)[0], correction=0)
    else:  # an empty rank still takes part in the exchange
        variance = mean = values.new_zeros(x.shape[1])
    moments = torch.cat([mean, variance, mean.new_full((1,), count)])
    gathered = [torch.empty_like(moments) for _ in range(dist.get_world_size(group))]
    dist.all_gather(gathered, moments, group=group)
    means, variances, counts = torch.stack(gathered).split([x.shape[1], x.shape[1], 1], dim=1)
    total = counts.sum()
    share = counts / total
    mean = (share * means).sum(0)
    variance = (share * (variances + (means - mean) ** 2)).sum(0)
    return mean, variance, total


class _SyncBatchNorm(torch.autograd.Function):
    """Normalise by the joined moments: one gather of 2C + 1 numbers in the forward pass, one all-reduce of 2C numbers
    in the backward pass."""

    @staticmethod
    def forward(ctx, x, weight, bias, mean, variance, total, eps, group):
        ctx.save_for_backward(x, weight, mean, (variance + eps).rsqrt(), total)
        ctx.group = group
        return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)

    @staticmethod
    @once_differentiable
    def backward(ctx, grad):
        x, weight, mean, inverse_std, total = ctx.saved_tensors
        dims, shape = _per_channel(x)
        grad32 = grad.to(mean.dtype)
        normalised = (x.to(mean.dtype) - mean.view(shape)) * inverse_std.view(shape)
        grad_bias = grad32.sum(dims)
        grad_weight = (grad32 * normalised).sum(dims)
        grad_x = None
        if ctx.needs_input_grad[0]:
            # The moments depend on the inputs of all ranks, so the gradients of all ranks reach the inputs of this one.
            sums = torch.cat([grad_bias, grad_weight])
            dist.all_reduce(sums, group=ctx.group)
            mean_grad, mean_product = (sums / total).chunk(2)
            scale = inverse_std if weight is None else inverse_std * weight
            grad_x = grad32 - mean_grad.view(shape) - normalised * mean_product.view(shape)
            grad_x = (grad_x * scale.view(shape)).to(x.dtype)
        # Gradients of the parameters stay local: DistributedDataParallel averages them, as for any other parameter.
        if weight is None:
            grad_weight = grad_bias = None
        return grad_x, grad_weight, grad_bias, None, None, None, None, None


class _AnyDimBatchNorm(_BatchNorm):
    def _check_input_dim(self, x: Tensor) -> None:
        if x.dim() < 2 or x.shape[1] != self.num_features:
            raise ValueError(f"{type(self).__name__}: expected (N, {self.num_features}, ...), got {tuple(x.shape)}")

    def _next_factor(self) -> float:
        """Count this batch, and return the weight of its statistics in the running statistics."""
        self.num_batches_tracked.add_(1)
        return 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum


@MODELS.register_module()
class SyncBN(_AnyDimBatchNorm):
    """BatchNorm with the training statistics of the joined batch of all ranks.

    Ranks may hold different numbers of values, or none. Running statistics are equal on all ranks; the running variance
    is the unbiased variance of the joined batch. With one process this is exactly BatchNorm.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        momentum: weight of a batch's statistics in the running statistics; None for their mean over all batches.
        affine: whether there are a learnt scale and shift.
        track_running_stats: whether there are running statistics.
        process_group: ranks to join; None for all.
    """

    def __init__(self, num_features: int, *args, process_group: dist.ProcessGroup | None = None, **kwargs):
        super().__init__(num_features, *args, **kwargs)
        self.process_group = process_group

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same shape, type and memory format."""
        joined = dist.is_available() and dist.is_initialized() and dist.get_world_size(self.process_group) > 1
        if not joined or not (self.training or self.running_mean is None):
            return super().forward(x)
        self._check_input_dim(x)
        with torch.no_grad():
            mean, variance, total = _joined_moments(x, self.process_group)
            if self.training and self.track_running_stats:
                factor = self._next_factor()
                unbiased = variance * (total / (total - 1).clamp(min=1))
                self.running_mean.lerp_(mean.to(self.running_mean.dtype), factor)
                self.running_var.lerp_(unbiased.to(self.running_var.dtype), factor)
        return _SyncBatchNorm.apply(x, self.weight, self.bias, mean, variance, total, self.eps, self.process_group)


@MODELS.register_module()
class SplitBN(_AnyDimBatchNorm):
    """BatchNorm that normalises each of ``num_groups`` contiguous, equal parts of the batch by its own statistics.

    On one GPU it reproduces per-GPU BatchNorm on ``num_groups`` GPUs. Running statistics are updated by the mean over
    the groups.

    Args:
        num_features: number of channels C.
        eps: added to the variance.
        momentum: weight of a batch's statistics in the running statistics; None for their mean over all batches.
        affine: whether there are a learnt scale and shift.
        track_running_stats: whether there are running statistics.
        num_groups: number of parts, a divisor of the batch size.
    """

    def __init__(self, num_features: int, *args, num_groups: int, **kwargs):
        super().__init__(num_features, *args, **kwargs)
        self.num_groups = num_groups

    def forward(self, x: Tensor) -> Tensor:
        """(N, C, ...) to the same shape, type and memory format.

        Raises:
            SettingError: ``num_groups`` does not divide N.
        """
        if not self.training:
            return super().forward(x)
        self._check_input_dim(x)
        if len(x) % self.num_groups:
            raise SettingError(
                f"SplitBN: a batch of {len(x)} does not divide into num_groups={self.num_groups} equal groups"
            )
        parts = x.chunk(self.num_groups)
        if not self.track_running_stats:
            return torch.cat([self._normalise(part, None, None, 0.0) for part in parts])
        factor = self._next_factor()
        means = self.running_mean.repeat(self.num_groups, 1)
        variances = self.running_var.repeat(self.num_groups, 1)
        parts = [self._normalise(*group, factor) for group in zip(parts, means, variances)]
        self.running_mean.copy_(means.mean(0))
        self.running_var.copy_(variances.mean(0))
        return torch.cat(parts)

    def _normalise(self, x: Tensor, mean: Tensor | None, variance: Tensor | None, factor: float) -> Tensor:
        return F.batch_norm(x, mean, variance, self.weight, self.bias, True, factor, self.eps)

    def extra_repr(self) -> str:
        return f"{super().extra_repr()}, num_groups={self.num_groups}"
