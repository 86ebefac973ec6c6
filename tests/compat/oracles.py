"""The operators as plain loops in float64, written from their papers and mmcv's documented conventions."""

import math

import numpy as np


def box_iou(a: np.ndarray, b: np.ndarray, offset: int) -> float:
    """IoU of two boxes x1 y1 x2 y2 whose widths are x2 - x1 + offset; nan for two boxes without area."""
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]) + offset)
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]) + offset)
    areas = [(box[2] - box[0] + offset) * (box[3] - box[1] + offset) for box in (a, b)]
    shared = width * height
    return shared / (sum(areas) - shared) if sum(areas) > shared else math.nan


def nms(boxes: np.ndarray, scores: np.ndarray, threshold: float, offset: int) -> list[int]:
    """Indices kept by greedy suppression, by falling score."""
    kept: list[int] = []
    for index in np.argsort(-scores, kind="stable"):
        if not any(box_iou(boxes[index], boxes[other], offset) > threshold for other in kept):
            kept.append(int(index))
    return kept


def soft_nms(boxes, scores, threshold, sigma, min_score, method, offset) -> tuple[list[int], list[float]]:
    """Indices in the order taken and their scores when taken; ``method`` is 'naive', 'linear' or 'gaussian'."""
    left = dict(enumerate(scores.tolist()))
    order, taken = [], []
    while left:
        best = max(left, key=left.get)
        order.append(best)
        taken.append(left.pop(best))
        for index in list(left):
            iou = box_iou(boxes[best], boxes[index], offset)
            if method == "gaussian":
                left[index] *= math.exp(-(iou**2) / sigma)
            elif iou >= threshold:
                left[index] *= 1 - iou if method == "linear" else 0.0
            if left[index] < min_score:
                del left[index]
    return order, taken


def bilinear(image: np.ndarray, y: float, x: float, border: str) -> float:
    """Sample `(H, W)` at pixel-centre coordinates.

    border 'zero': pixels outside count as zero (deformable operators). border 'clamp': a point up to one pixel outside
    takes the border, one further out is zero (RoIAlign).
    """
    height, width = image.shape
    if border == "clamp":
        if y < -1 or y > height or x < -1 or x > width:
            return 0.0
        y, x = min(max(y, 0.0), height - 1.0), min(max(x, 0.0), width - 1.0)
    total = 0.0
    for row in (math.floor(y), math.floor(y) + 1):
        for column in (math.floor(x), math.floor(x) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


def roi_align(maps, rois, size, scale, sampling_ratio, mode, aligned) -> np.ndarray:
    """RoIAlign `(R, C, ph, pw)`; mode 'avg' or 'max'."""
    output = np.zeros((len(rois), maps.shape[1], *size))
    for (r, c, i, j), _ in np.ndenumerate(output):
        image, x1, y1, x2, y2 = rois[r]
        shift = 0.5 if aligned else 0.0
        extents = [(y2 - y1) * scale, (x2 - x1) * scale]
        if not aligned:
            extents = [max(extent, 1.0) for extent in extents]
        bins = [extent / count for extent, count in zip(extents, size)]
        counts = [sampling_ratio or math.ceil(step) for step in bins]
        values = []
        for a in range(counts[0]):
            for b in range(counts[1]):
                y = y1 * scale - shift + (i + (a + 0.5) / counts[0]) * bins[0]
                x = x1 * scale - shift + (j + (b + 0.5) / counts[1]) * bins[1]
                values.append(bilinear(maps[int(image), c], y, x, "clamp"))
        if values:
            output[r, c, i, j] = max(values) if mode == "max" else sum(values) / len(values)
    return output


def roi_pool(maps, rois, size, scale) -> np.ndarray:
    """RoI max pooling `(R, C, ph, pw)` over every pixel that a bin of [x1 * scale, (x2 + 1) * scale] touches."""
    height, width = maps.shape[2:]
    output = np.zeros((len(rois), maps.shape[1], *size))
    for (r, c, i, j), _ in np.ndenumerate(output):
        image, x1, y1, x2, y2 = rois[r]
        tall, wide = (y2 + 1 - y1) * scale / size[0], (x2 + 1 - x1) * scale / size[1]
        if tall <= 0 or wide <= 0:
            continue
        rows = range(max(math.floor(y1 * scale + i * tall), 0), min(math.ceil(y1 * scale + (i + 1) * tall), height))
        columns = range(max(math.floor(x1 * scale + j * wide), 0), min(math.ceil(x1 * scale + (j + 1) * wide), width))
        output[r, c, i, j] = max((maps[int(image), c, y, x] for y in rows for x in columns), default=0.0)
    return output


def focal_loss(logits, target, gamma, alpha, weight=None) -> np.ndarray:
    """Sigmoid focal loss of every logit `(N, C)`; a row whose target is no class has weight one."""
    output = np.zeros_like(logits)
    for (n, c), x in np.ndenumerate(logits):
        p = 1 / (1 + math.exp(-x))
        if target[n] == c:
            output[n, c] = -alpha * (1 - p) ** gamma * math.log(p)
        else:
            output[n, c] = -(1 - alpha) * p**gamma * math.log(1 - p)
        if weight is not None and 0 <= target[n] < logits.shape[1]:
            output[n, c] *= weight[target[n]]
    return output


def deform_conv(x, offset, weight, stride, padding, dilation, groups, deform_groups, mask=None) -> np.ndarray:
    """Deformable convolution; ``mask`` modulates each sample."""
    count, channels = x.shape[:2]
    filters, per_group, kh, kw = weight.shape
    output = np.zeros((count, filters, *offset.shape[2:]))
    for (n, f, i, j), _ in np.ndenumerate(output):
        for k in range(per_group):
            channel = f // (filters // groups) * per_group + k
            group = channel // (channels // deform_groups)
            for a in range(kh):
                for b in range(kw):
                    position = group * kh * kw + a * kw + b
                    y = i * stride[0] - padding[0] + a * dilation[0] + offset[n, 2 * position, i, j]
                    x_ = j * stride[1] - padding[1] + b * dilation[1] + offset[n, 2 * position + 1, i, j]
                    gate = 1.0 if mask is None else mask[n, position, i, j]
                    output[n, f, i, j] += weight[f, k, a, b] * gate * bilinear(x[n, channel], y, x_, "zero")
    return output


def deformable_attention(value, shapes, locations, weights) -> np.ndarray:
    """Multi-scale deformable attention `(N, Q, M * D)`."""
    batch, queries, heads, _, points, _ = locations.shape
    channels = value.shape[3]
    output = np.zeros((batch, queries, heads, channels))
    for (n, q, m, d), _ in np.ndenumerate(output):
        start = 0
        for level, (height, width) in enumerate(shapes):
            image = value[n, start : start + height * width, m, d].reshape(height, width)
            start += height * width
            for p in range(points):
                x, y = locations[n, q, m, level, p]
                sample = bilinear(image, y * height - 0.5, x * width - 0.5, "zero")
                output[n, q, m, d] += weights[n, q, m, level, p] * sample
    return output.reshape(batch, queries, heads * channels)
