"""The precision contract of every operator here: compute in at least fp32, return in the dtype the caller allocated."""

import functools
from collections.abc import Callable

import torch
from torch import Tensor


def widest(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast tensors to one dtype: the widest among theirs and float32, so that float64 stays float64.

    torchvision's kernels want their arguments in one dtype and have no bf16 form on CPU.
    """
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)


def operator(function: Callable) -> Callable:
    """Run ``function(tensor, ...)`` as a compiled operator runs: outside autograd and outside autocast.

    mmcv wraps its operators in ``autograd.Function``, where autocast stays on and could narrow what `widest` widened.
    """

    @functools.wraps(function)
    def run(first: Tensor, *args, **kwargs):
        with torch.no_grad(), torch.autocast(first.device.type, enabled=False):
            return function(first, *args, **kwargs)

    return run
