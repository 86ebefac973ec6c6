"""Deformable convolution, v1 and modulated, with the signatures of ``mmcv._ext``.

Both are torchvision's operator: same sampling, same zero padding, same channel order of offsets (deformable group,
kernel position, then y before x). The column buffers and ``im2col_step`` of the compiled form are not used.

The operator is called with autocast off, because under autocast torchvision 0.29 computes the weight gradient in the
lower precision. What precision is computed in is decided here, by :func:`densessl.compat.numerics.widest`.

Shapes: input `(N, C, H, W)`, weight `(K, C / group, kh, kw)`, offset `(N, G * kh * kw * 2, Ho, Wo)` and mask
`(N, G * kh * kw, Ho, Wo)` for G deformable groups, bias `(K,)` or empty, output `(N, K, Ho, Wo)`.
"""

import torch
from torch import Tensor

from densessl.compat.numerics import widest

Geometry = tuple[int, int, int, int, int, int, int, int]  # stride, padding, dilation as (h, w); group, deform group


def _forward(
    input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, bias: Tensor, geometry: Geometry
) -> Tensor:
    modulated = mask is not None
    if mask is None:  # torchvision looks at its batch size all the same
        mask = input.new_empty(len(input), 0)
    input, weight, offset, mask, bias = widest(input, weight, offset, mask, bias)
    if not bias.numel():  # torchvision has no absent bias
        bias = bias.new_zeros(len(weight))
    with torch.autocast(input.device.type, enabled=False):
        return torch.ops.torchvision.deform_conv2d(input, weight, offset, mask, bias, *geometry, modulated)


def _backward(
    grad: Tensor, input: Tensor, weight: Tensor, offset: Tensor, mask: Tensor | None, geometry: Geometry
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients of input, weight, offset, mask and bias."""
    modulated = mask is not None
    if mask is None:  # torchvision looks at its batch size all the same
        mask = input.new_empty(len(input), 0)
    grad, input, weight, offset, mask = widest(grad, input, weight, offset, mask)
    bias = grad.new_zeros(len(weight))
    with torch.autocast(input.device.type, enabled=False):
        return torch.ops.torchvision._deform_conv2d_backward(
            grad, input, weight, offset, mask, bias, *geometry, modulated
        )


def deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    offset: Tensor,
    output: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Deformable convolution (Dai et al., 2017, Eq. 2) into ``output``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    output.copy_(_forward(input, weight, offset, None, weight.new_empty(0), geometry))


def deform_conv_backward_input(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradInput: Tensor,
    gradOffset: Tensor,
    weight: Tensor,
    columns: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    im2col_step: int,
) -> None:
    """Gradients of `deform_conv_forward` for input and offset, into ``gradInput`` and ``gradOffset``."""
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = _backward(gradOutput, input, weight, offset, None, geometry)
    gradInput.copy_(grads[0])
    gradOffset.copy_(grads[2])


def deform_conv_backward_parameters(
    input: Tensor,
    offset: Tensor,
    gradOutput: Tensor,
    gradWeight: Tensor,
    columns: Tensor,
    ones: Tensor,
    kW: int,
    kH: int,
    dW: int,
    dH: int,
    padW: int,
    padH: int,
    dilationW: int,
    dilationH: int,
    group: int,
    deformable_group: int,
    scale: float,
    im2col_step: int,
) -> None:
    """Add ``scale`` times the weight gradient of `deform_conv_forward` to ``gradWeight``.

    mmcv does not hand over the weight, on which its own gradient does not depend: only its shape matters.
    """
    geometry = (dH, dW, padH, padW, dilationH, dilationW, group, deformable_group)
    grads = _backward(gradOutput, input, torch.zeros_like(gradWeight), offset, None, geometry)
    gradWeight.add_(grads[1], alpha=scale)


def modulated_deform_conv_forward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    output: Tensor,
    columns: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Modulated deformable convolution (Zhu et al., 2019, Eq. 1) into ``output``."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    output.copy_(_forward(input, weight, offset, mask, bias if with_bias else bias.new_empty(0), geometry))


def modulated_deform_conv_backward(
    input: Tensor,
    weight: Tensor,
    bias: Tensor,
    ones: Tensor,
    offset: Tensor,
    mask: Tensor,
    columns: Tensor,
    grad_input: Tensor,
    grad_weight: Tensor,
    grad_bias: Tensor,
    grad_offset: Tensor,
    grad_mask: Tensor,
    grad_output: Tensor,
    kernel_h: int,
    kernel_w: int,
    stride_h: int,
    stride_w: int,
    pad_h: int,
    pad_w: int,
    dilation_h: int,
    dilation_w: int,
    group: int,
    deformable_group: int,
    with_bias: bool,
) -> None:
    """Gradients of `modulated_deform_conv_forward`, into the five ``grad_*`` tensors (no bias: its is left alone)."""
    geometry = (stride_h, stride_w, pad_h, pad_w, dilation_h, dilation_w, group, deformable_group)
    grads = _backward(grad_output, input, weight, offset, mask, geometry)
    targets = (grad_input, grad_weight, grad_offset, grad_mask, grad_bias)
    for target, grad in zip(targets[: 4 + with_bias], grads):
        target.copy_(grad)
