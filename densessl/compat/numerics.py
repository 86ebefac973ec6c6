"""The precision contract of every operator here: compute in at least fp32, return in the dtype the caller allocated.

It holds under autocast, because no operator here uses a function that autocast narrows (matrix products and
convolutions), except torchvision's deformable convolution, which is therefore called with autocast off.
"""

import functools

import torch
from torch import Tensor


def widest(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Cast tensors to one dtype: the widest among theirs and float32, so that float64 stays float64.

    torchvision's kernels want their arguments in one dtype and have no bf16 form on CPU.
    """
    dtype = functools.reduce(torch.promote_types, (tensor.dtype for tensor in tensors), torch.float32)
    return tuple(tensor.to(dtype) for tensor in tensors)
