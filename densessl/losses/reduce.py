"""Means that mean the same on any number of ranks."""

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
    """L2-normalised over ``dim``, in at least fp32 whatever the autocast."""
    return F.normalize(*full_precision(tensor), dim=dim)


def global_count(count: Tensor) -> Tensor:
    """Mean over the ranks of a per-rank count, without gradient: dividing a local sum by it makes the average that
    data parallelism takes over the ranks equal to the mean over all of them."""
    count = count.detach().clone()
    if dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1:
        dist.all_reduce(count)
        count /= dist.get_world_size()
    return count


Mean = Literal["global", "local"]


def valid_mean(values: Tensor, valid: Tensor, mean: Mean = "global") -> Tensor:
    """Mean of ``values`` (M,) where ``valid`` (M,); 0 with zero gradient where nothing is.

    Args:
        mean: "global" counts valid entries over all ranks; "local" is the per-GPU mean of the official codes, which
            weighs ranks equally whatever their counts.

    Returns:
        Scalar; with "global" the local share, to be averaged over the ranks.
    """
    count = valid.sum().to(values.dtype)
    if choose("mean", mean, ("global", "local")) == "global":
        count = global_count(count)
    total = torch.where(valid, values, torch.zeros_like(values)).sum()
    return total / torch.where(count > 0, count, torch.ones_like(count))
