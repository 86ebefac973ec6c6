"""Means that do not depend on the number of ranks, and the precision of losses."""

from typing import Literal

import torch
import torch.distributed as dist
import torch.nn.functional as F
from torch import Tensor

from densessl.wording import choose


def full_precision(*tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in at least fp32; float64 stays float64."""
    return tuple(tensor.to(torch.promote_types(tensor.dtype, torch.float32)) for tensor in tensors)


def unit(tensor: Tensor, dim: int = 1) -> Tensor:
    """L2-normalise over ``dim``, in at least fp32 also under autocast."""
    return F.normalize(*full_precision(tensor), dim=dim)


def global_count(count: Tensor) -> Tensor:
    """Mean of a count over the ranks, without gradient. Divide a local sum by it: the average that data parallelism
    takes over the ranks then equals the mean over the samples of all ranks."""
    count = count.detach().clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count


Mean = Literal["global", "local"]


def valid_mean(values: Tensor, valid: Tensor, mean: Mean = "global") -> Tensor:
    """Mean of the valid values; 0 with zero gradient if there are none.

    Args:
        values: (M,).
        valid: (M,) bool, whether a value counts.
        mean: "global" divides by the number of valid values on all ranks; "local" by the number on this rank, as the
            official codes do, which gives ranks equal weight whatever their counts.

    Returns:
        Scalar; with "global" the contribution of this rank, to be averaged over the ranks.
    """
    count = valid.sum().to(values.dtype)
    if choose("mean", mean, ("global", "local")) == "global":
        count = global_count(count)
    total = torch.where(valid, values, torch.zeros_like(values)).sum()
    return total / torch.where(count > 0, count, torch.ones_like(count))
