"""Multi-scale deformable attention (Zhu et al., 2021) with the signatures of ``mmcv._ext``."""

import torch
import torch.nn.functional as F
from torch import Tensor

from densessl.compat.numerics import widest


def deformable_attention(value: Tensor, shapes: list[list[int]], locations: Tensor, weights: Tensor) -> Tensor:
    """Weighted sum of bilinear samples over levels and points (Eq. 3 without its projections).

    Args:
        value: `(N, S, M, D)`: S keys of all levels, level by level and row by row; M heads of D channels.
        shapes: `(h, w)` of each of the L levels; their areas sum to S.
        locations: `(N, Q, M, L, P, 2)`, x y in [0, 1] across the level, pixel-edge convention; outside is zero.
        weights: `(N, Q, M, L, P)`.

    Returns:
        `(N, Q, M * D)`.
    """
    batch, _, heads, channels = value.shape
    queries = locations.shape[1]
    grids = (2 * locations - 1).transpose(1, 2).flatten(0, 1)  # (N * M, Q, L, P, 2)
    weights = weights.transpose(1, 2).flatten(0, 1)  # (N * M, Q, L, P)
    maps = value.permute(0, 2, 3, 1).flatten(0, 1).split([h * w for h, w in shapes], dim=2)
    output = value.new_zeros(batch * heads, channels, queries)
    for level, (h, w) in enumerate(shapes):
        samples = F.grid_sample(maps[level].unflatten(2, (h, w)), grids[:, :, level], align_corners=False)
        output = output + (samples * weights[:, None, :, level]).sum(dim=3)  # samples (N * M, D, Q, P)
    return output.unflatten(0, (batch, heads)).permute(0, 3, 1, 2).flatten(2)


def ms_deform_attn_forward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    im2col_step: int,
) -> Tensor:
    """Deformable attention; see `deformable_attention` for the shapes.

    ``value_level_start_index`` follows from ``value_spatial_shapes`` `(L, 2)`, and ``im2col_step`` is a tuning knob of
    the compiled kernel: neither is used.
    """
    wide = widest(value, sampling_locations, attention_weights)
    return deformable_attention(wide[0], value_spatial_shapes.tolist(), *wide[1:]).to(value.dtype)


def ms_deform_attn_backward(
    value: Tensor,
    value_spatial_shapes: Tensor,
    value_level_start_index: Tensor,
    sampling_locations: Tensor,
    attention_weights: Tensor,
    grad_output: Tensor,
    grad_value: Tensor,
    grad_sampling_loc: Tensor,
    grad_attn_weight: Tensor,
    im2col_step: int,
) -> None:
    """Fill the three gradients by differentiating a recomputed forward; ``grad_output`` is `(N, Q, M * D)`."""
    *wide, grad_output = widest(value, sampling_locations, attention_weights, grad_output)
    with torch.enable_grad():
        leaves = [tensor.detach().requires_grad_() for tensor in wide]
        output = deformable_attention(leaves[0], value_spatial_shapes.tolist(), *leaves[1:])
        grads = torch.autograd.grad(output, leaves, grad_output)
    for target, grad in zip((grad_value, grad_sampling_loc, grad_attn_weight), grads):
        target.copy_(grad)
