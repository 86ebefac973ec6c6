"""RoI pooling with the signatures of ``mmcv._ext``.

Everywhere: feature maps `(N, C, H, W)`, rois `(R, 5)` as (image index, x1, y1, x2, y2) in input pixels, pooled
outputs `(R, C, ph, pw)`, ``spatial_scale`` = map size / input size. An average over bilinear samples is torchvision's
roi_align; their maximum, and mmcv's roi_pool, which rounds bins differently from torchvision's, are written here in
PyTorch: one gather for each sample position within a bin, all bins at once.
"""

import torch
from torch import Tensor

from densessl.compat.numerics import widest

MAX = 0  # mmcv's code of pool_mode='max'; 1 is 'avg'


def roi_align_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """RoIAlign (He et al., 2017) into ``output``.

    Args:
        sampling_ratio: bilinear samples per bin and axis; 0 takes ``ceil(roi size / output size)`` for each RoI.
        pool_mode: 1 averages a bin's samples; 0 keeps the greatest and notes it in ``argmax_y`` and ``argmax_x``.
        aligned: shift RoIs by half a pixel, so that samples lie where pixel centres say; False is the legacy form,
            which also widens RoIs to at least one pixel.
    """
    size = (aligned_height, aligned_width)
    input, rois = widest(input, rois)
    if pool_mode != MAX:
        pooled = torch.ops.torchvision.roi_align(input, rois, spatial_scale, *size, sampling_ratio, aligned)
        output.copy_(pooled)
        return
    maxima, sample = _max_align_forward(input, rois, size, spatial_scale, sampling_ratio, aligned)
    output.copy_(maxima)
    argmax_y.copy_(sample[0])
    argmax_x.copy_(sample[1])


def roi_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    grad_input: Tensor,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` for the feature maps, into ``grad_input``; RoIs have none."""
    size = (aligned_height, aligned_width)
    grad_output, rois = widest(grad_output, rois)
    if pool_mode == MAX:
        sample = torch.stack([argmax_y, argmax_x])
        grad = _max_align_backward(
            grad_output, rois, sample, grad_input.shape, size, spatial_scale, sampling_ratio, aligned
        )
    else:
        grad = torch.ops.torchvision._roi_align_backward(
            grad_output, rois, spatial_scale, *size, *grad_input.shape, sampling_ratio, aligned
        )
    grad_input.copy_(grad)


def _sampling(
    rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """First corner, bin size (both in map pixels) and samples per bin of each RoI: three `(2, R)`, y first."""
    corners = rois[:, 1:].T * scale - (0.5 if aligned else 0.0)
    start, extent = corners[[1, 0]], corners[[3, 2]] - corners[[1, 0]]
    if not aligned:
        extent = extent.clamp(min=1)
    bins = extent / extent.new_tensor(size)[:, None]
    samples = bins.ceil() if sampling_ratio <= 0 else torch.full_like(bins, sampling_ratio)
    return start, bins, samples


def _bilinear(y: Tensor, x: Tensor, height: int, width: int) -> list[tuple[Tensor, Tensor]]:
    """Flat indices and weights of the four pixels around each point; y and x broadcast to each other.

    Points up to one pixel outside the map take its border, further ones weigh nothing, as in the compiled kernel.
    """
    inside = (y >= -1) & (y <= height) & (x >= -1) & (x <= width)
    # `where` before `long`: a roi that is not finite must not become an index.
    y = torch.where(inside, y, 0).clamp(0, height - 1)
    x = torch.where(inside, x, 0).clamp(0, width - 1)
    top, left = y.floor(), x.floor()
    corners = []
    for row, row_weight in ((top, top + 1 - y), ((top + 1).clamp(max=height - 1), y - top)):
        for column, column_weight in ((left, left + 1 - x), ((left + 1).clamp(max=width - 1), x - left)):
            corners.append(((row * width + column).long(), row_weight * column_weight * inside))
    return corners


def _max_align_forward(
    input: Tensor, rois: Tensor, size: tuple[int, int], scale: float, sampling_ratio: int, aligned: bool
) -> tuple[Tensor, Tensor]:
    """Greatest bilinear sample of each bin `(R, C, ph, pw)`, and its (row, column) among the bin's samples `(2, ...)`.

    Sample numbers, unlike coordinates, survive in a half-precision buffer (bf16 counts exactly to 256). A bin without
    a sample yields zero and the number -1.
    """
    (channels, height, width), (rows, columns) = input.shape[1:], size
    pixels = input.flatten(2).transpose(1, 2)  # (N, H * W, C)
    image = rois[:, 0].long()[:, None, None]
    start, bins, samples = _sampling(rois, size, scale, sampling_ratio, aligned)
    (y0, x0), (bin_y, bin_x), (rows_in, columns_in) = (part[:, :, None] for part in (start, bins, samples))
    bin_row = torch.arange(rows, device=rois.device)
    bin_column = torch.arange(columns, device=rois.device)
    best = input.new_full((len(rois), rows, columns, channels), -torch.inf)
    sample = input.new_full((2, *best.shape), -1)
    most = samples.amax(dim=1).int().tolist() if len(rois) else (0, 0)
    for i in range(most[0]):
        y = y0 + (bin_row + (i + 0.5) / rows_in.clamp(min=1)) * bin_y
        for j in range(most[1]):
            x = x0 + (bin_column + (j + 0.5) / columns_in.clamp(min=1)) * bin_x
            corners = _bilinear(y[:, :, None], x[:, None, :], height, width)
            value = sum(pixels[image, index] * weight[..., None] for index, weight in corners)
            exists = ((i < rows_in) & (j < columns_in))[:, :, None, None]
            better = exists & (value > best)
            best = torch.where(better, value, best)
            position = sample.new_tensor([i, j]).view(2, 1, 1, 1, 1)
            sample = torch.where(better, position, sample)
    best = torch.where(sample[0] >= 0, best, 0)
    return best.permute(0, 3, 1, 2), sample.permute(0, 1, 4, 2, 3)


def _max_align_backward(
    grad_output: Tensor,
    rois: Tensor,
    sample: Tensor,
    shape: torch.Size,
    size: tuple[int, int],
    scale: float,
    sampling_ratio: int,
    aligned: bool,
) -> Tensor:
    """Scatter `(R, C, ph, pw)` gradients to the four pixels around each bin's winning sample: `(N, C, H, W)`."""
    _, channels, height, width = shape
    start, bins, samples = (part.view(2, -1, 1, 1, 1) for part in _sampling(rois, size, scale, sampling_ratio, aligned))
    bin_row = torch.arange(size[0], device=rois.device)[:, None]
    bin_column = torch.arange(size[1], device=rois.device)
    within = (sample + 0.5) / samples.clamp(min=1)
    y = start[0] + (bin_row + within[0]) * bins[0]
    x = start[1] + (bin_column + within[1]) * bins[1]
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    grad = grad_output.new_zeros(shape.numel())
    for index, weight in _bilinear(y, x, height, width):
        share = grad_output * weight * (sample[0] >= 0)
        grad.index_add_(0, (plane[:, :, None, None] * height * width + index).flatten(), share.flatten())
    return grad.view(shape)


def _pool_bins(start: Tensor, extent: Tensor, count: int, limit: int) -> tuple[Tensor, Tensor]:
    """First pixel and end (exclusive) of each bin along one axis, clipped to the map: two `(R, count)` int64."""
    steps = torch.arange(count, device=start.device)
    step = (extent / count)[:, None]
    first = (steps * step + start[:, None]).floor().clamp(0, limit).long()
    end = ((steps + 1) * step + start[:, None]).ceil().clamp(0, limit).long()
    return first, end


def roi_pool_forward(
    input: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Max pooling over RoI bins (Girshick, 2015) into ``output``, as mmcv's kernel rounds.

    A RoI spans ``x1 * scale`` to ``(x2 + 1) * scale``, unrounded; a bin takes each pixel it touches. Empty bins and
    RoIs without area give zero. ``argmax`` `(R, C, ph, pw)` int32 receives the flat pixel index of each maximum, -1
    for none.
    """
    input, rois = widest(input, rois)
    height, width = input.shape[2:]
    pixels = input.flatten(2).transpose(1, 2)  # (N, H * W, C)
    image = rois[:, 0].long()[:, None, None]
    start, extent = rois[:, 1:3] * spatial_scale, (rois[:, 3:] + 1 - rois[:, 1:3]) * spatial_scale
    top, bottom = _pool_bins(start[:, 1], extent[:, 1], pooled_height, height)
    left, right = _pool_bins(start[:, 0], extent[:, 0], pooled_width, width)
    best = input.new_full((len(rois), pooled_height, pooled_width, input.shape[1]), -torch.inf)
    where = torch.full(best.shape, -1, device=best.device)
    has_area = (extent > 0).all(dim=1)[:, None, None]
    tallest, widest_bin = (int((bottom - top).max()), int((right - left).max())) if len(rois) else (0, 0)
    for i in range(tallest):
        for j in range(widest_bin):
            y, x = (top + i)[:, :, None], (left + j)[:, None, :]
            exists = has_area & (y < bottom[:, :, None]) & (x < right[:, None, :])
            index = torch.where(exists, y * width + x, 0)
            value = pixels[image, index]
            better = exists[..., None] & (value > best)
            best = torch.where(better, value, best)
            where = torch.where(better, index[..., None], where)
    output.copy_(torch.where(where >= 0, best, 0).permute(0, 3, 1, 2))
    argmax.copy_(where.permute(0, 3, 1, 2))


def roi_pool_backward(
    grad_output: Tensor,
    rois: Tensor,
    argmax: Tensor,
    grad_input: Tensor,
    pooled_height: int,
    pooled_width: int,
    spatial_scale: float,
) -> None:
    """Gradient of `roi_pool_forward`, into ``grad_input``: each bin's goes to the pixel that was its maximum."""
    (grad_output,) = widest(grad_output)
    _, channels, height, width = grad_input.shape
    plane = rois[:, 0].long()[:, None] * channels + torch.arange(channels, device=rois.device)
    index = plane[:, :, None, None] * height * width + argmax.clamp(min=0)
    grad = grad_output.new_zeros(grad_input.numel())
    grad.index_add_(0, index.flatten(), (grad_output * (argmax >= 0)).flatten())
    grad_input.copy_(grad.view(grad_input.shape))
