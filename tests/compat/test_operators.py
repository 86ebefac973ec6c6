"""mmcv's public operators, run by the stand-in extension, against loops and numerical derivatives in float64."""

import numpy as np
import pytest
import torch
from mmcv import ops

from tests.compat import oracles

pytestmark = pytest.mark.det

HALF = (torch.bfloat16, torch.float16)


def rng() -> np.random.Generator:
    return np.random.default_rng(7)


def real(*shape: int, low: float = -1.0, high: float = 1.0, seed: int = 0) -> torch.Tensor:
    """Uniform float64 values, the same for the same arguments."""
    return torch.from_numpy(np.random.default_rng([seed, *shape]).uniform(low, high, shape))


def close(actual: torch.Tensor, expected: np.ndarray, tolerance: float = 1e-10) -> None:
    np.testing.assert_allclose(actual.detach().double().numpy(), expected, rtol=tolerance, atol=tolerance)


def boxes_and_scores(count: int = 40) -> tuple[np.ndarray, np.ndarray]:
    draws = rng()
    corner, size = draws.uniform(0, 30, (count, 2)), draws.uniform(4, 20, (count, 2))
    return np.concatenate([corner, corner + size], axis=1), draws.permutation(count) / count


# --- suppression ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("threshold", [0.2, 0.6])
def test_nms(threshold: float, offset: int) -> None:
    boxes, scores = boxes_and_scores()
    dets, kept = ops.nms(boxes, scores, threshold, offset=offset)
    assert kept.tolist() == oracles.nms(boxes, scores, threshold, offset)
    assert 1 < len(kept) < len(boxes)
    np.testing.assert_array_equal(dets, np.c_[boxes, scores][kept])


def test_nms_offset_matters() -> None:
    """Two one-pixel-wide neighbours overlap only where a width is x2 - x1 + 1."""
    boxes, scores = torch.tensor([[0.0, 0, 1, 9], [1.0, 0, 2, 9]]), torch.tensor([0.9, 0.8])
    assert [len(ops.nms(boxes, scores, 0.3, offset=offset)[1]) for offset in (0, 1)] == [2, 1]


@pytest.mark.parametrize("dtype", HALF)
def test_nms_takes_half_scores(dtype: torch.dtype) -> None:
    boxes, scores = boxes_and_scores()
    scores = torch.from_numpy(scores).to(dtype)
    _, kept = ops.nms(torch.from_numpy(boxes).float(), scores, 0.4)
    assert kept.tolist() == oracles.nms(boxes.astype(np.float32), scores.double().numpy(), 0.4, 0)


def test_batched_nms_keeps_classes_apart() -> None:
    boxes, scores = boxes_and_scores()
    label = np.arange(len(boxes)) % 3
    _, kept = ops.batched_nms(*map(torch.from_numpy, (boxes, scores, label)), {"type": "nms", "iou_threshold": 0.4})
    members = [np.flatnonzero(label == k) for k in range(3)]
    expected = [member[oracles.nms(boxes[member], scores[member], 0.4, 0)] for member in members]
    assert sorted(kept.tolist()) == sorted(np.concatenate(expected).tolist())


@pytest.mark.parametrize("offset", [0, 1])
@pytest.mark.parametrize("method", ["naive", "linear", "gaussian"])
def test_soft_nms(method: str, offset: int) -> None:
    boxes, scores = boxes_and_scores()
    dets, order = ops.soft_nms(boxes, scores, 0.3, 0.4, 0.05, method, offset)
    expected, decayed = oracles.soft_nms(boxes, scores, 0.3, 0.4, 0.05, method, offset)
    assert order.tolist() == expected
    assert 1 < len(order) < len(boxes)
    np.testing.assert_allclose(dets, np.c_[boxes[order], decayed], rtol=1e-12)


@pytest.mark.parametrize("operator", [ops.nms, ops.soft_nms])
def test_suppression_of_nothing(operator) -> None:
    dets, kept = operator(torch.zeros(0, 4), torch.zeros(0), 0.5)
    assert dets.shape == (0, 5) and kept.shape == (0,) and kept.dtype == torch.int64


# --- regions -------------------------------------------------------------------------------------------------------

ROIS = [
    [0, 1.3, 2.1, 13.7, 9.2],  # inside the map
    [1, -4.0, -3.0, 30.0, 11.0],  # over its border
    [1, 5.0, 5.0, 5.4, 12.3],  # thinner than a pixel
    [0, 60.0, 60.0, 70.0, 70.0],  # wholly outside
    [0, 9.3, 3.2, 8.2, 9.1],  # inside out
]


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("sampling_ratio", [0, 2])
@pytest.mark.parametrize("mode", ["avg", "max"])
def test_roi_align(mode: str, sampling_ratio: int, aligned: bool) -> None:
    maps, rois = real(2, 3, 8, 9), torch.tensor(ROIS, dtype=torch.float64)
    args = ((2, 3), 0.5, sampling_ratio, mode, aligned)
    close(ops.roi_align(maps, rois, *args), oracles.roi_align(maps.numpy(), rois.numpy(), *args))
    maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: ops.roi_align(maps, rois, *args), maps, fast_mode=True)


@pytest.mark.parametrize("scale", [0.5, 0.37])
def test_roi_pool(scale: float) -> None:
    maps, rois = real(2, 3, 8, 9) - 2, torch.tensor(ROIS, dtype=torch.float64)
    pool = ops.RoIPool((2, 3), scale)
    close(pool(maps, rois), oracles.roi_pool(maps.numpy(), rois.numpy(), (2, 3), scale))
    maps.requires_grad_()
    assert torch.autograd.gradcheck(lambda maps: pool(maps, rois), maps, fast_mode=True)


@pytest.mark.parametrize("pool", [ops.RoIAlign(2, 0.5, 0, "max"), ops.RoIAlign(2, 0.5), ops.RoIPool(2, 0.5)])
def test_regions_of_nothing(pool: torch.nn.Module) -> None:
    maps = real(1, 3, 8, 8).requires_grad_()
    output = pool(maps, maps.new_zeros(0, 5))
    assert output.shape == (0, 3, 2, 2)
    output.sum().backward()
    assert not maps.grad.any()


# --- focal loss ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("weighted", [False, True])
@pytest.mark.parametrize("gamma, alpha", [(2.0, 0.25), (1.5, 0.6), (0.0, 0.5)])
def test_focal_loss(gamma: float, alpha: float, weighted: bool) -> None:
    logits, target = real(6, 4, low=-5, high=5), torch.tensor([0, 3, 4, 1, 2, 4])  # 4 is background
    weight = real(4, low=0.2, high=2.0) if weighted else None
    expected = oracles.focal_loss(logits.numpy(), target.tolist(), gamma, alpha, weight)
    for reduction, total in (("none", expected), ("sum", expected.sum()), ("mean", expected.sum() / len(logits))):
        close(ops.sigmoid_focal_loss(logits, target, gamma, alpha, weight, reduction), total)
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: ops.sigmoid_focal_loss(x, target, gamma, alpha, weight, "none"), logits)


def test_focal_loss_of_extreme_logits() -> None:
    logits = torch.tensor([[-200.0, 200.0]], requires_grad=True)
    loss = ops.sigmoid_focal_loss(logits, torch.tensor([0]), 2.0, 0.25, None, "none")
    close(loss, np.array([[0.25 * 200, 0.75 * 200]]), 1e-6)
    loss.sum().backward()
    close(logits.grad, np.array([[-0.25, 0.75]]), 1e-6)


# --- deformable operators ------------------------------------------------------------------------------------------

CONVOLUTIONS = {
    "plain": {"kernel_size": 3, "padding": 1},
    "strided": {"kernel_size": (3, 2), "stride": (2, 1), "padding": (2, 1), "dilation": (2, 1)},
    "grouped": {"kernel_size": 2, "groups": 2, "deform_groups": 4},
    "batched": {"kernel_size": 2, "deform_groups": 2, "im2col_step": 1},
}


def convolution(kind: type, options: dict):
    """The layer in float64 on a `(2, 4, 5, 6)` input, with the offset and mask it needs."""
    layer = kind(4, 6, **options).double()
    with torch.no_grad():
        for seed, parameter in enumerate(layer.parameters()):
            parameter.copy_(real(*parameter.shape, seed=seed))
    size = torch.nn.functional.conv2d(
        torch.zeros(1, 4, 5, 6),
        torch.zeros(1, 4, *layer.kernel_size),
        None,
        layer.stride,
        layer.padding,
        layer.dilation,
    ).shape[2:]
    samples = layer.deform_groups * layer.kernel_size[0] * layer.kernel_size[1]
    # Fractions away from whole pixels, where bilinear interpolation has no derivative.
    offset = real(2, 2 * samples, *size, low=-2, high=2).round() + real(2, 2 * samples, *size, low=0.1, high=0.9)
    return layer, real(2, 4, 5, 6), offset, real(2, samples, *size, low=0, high=1)


@pytest.mark.parametrize("options", CONVOLUTIONS.values(), ids=CONVOLUTIONS)
def test_deform_conv(options: dict) -> None:
    layer, x, offset, _ = convolution(ops.DeformConv2d, options)
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups, layer.deform_groups)
    arrays = (tensor.detach().numpy() for tensor in (x, offset, layer.weight))
    close(layer(x, offset), oracles.deform_conv(*arrays, *geometry))
    inputs = [tensor.detach().requires_grad_() for tensor in (x, offset, layer.weight)]
    step = layer.im2col_step
    assert torch.autograd.gradcheck(lambda *t: ops.deform_conv2d(*t, *geometry, False, step), inputs, fast_mode=True)


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("options", [CONVOLUTIONS[key] for key in ("plain", "strided", "grouped")])
def test_modulated_deform_conv(options: dict, bias: bool) -> None:
    layer, x, offset, mask = convolution(ops.ModulatedDeformConv2d, options | {"bias": bias})
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups, layer.deform_groups)
    arrays = [tensor.detach().numpy() for tensor in (x, offset, layer.weight)]
    expected = oracles.deform_conv(*arrays, *geometry, mask.numpy())
    if bias:
        expected = expected + layer.bias.detach().numpy()[:, None, None]
    close(layer(x, offset, mask), expected)
    parameters = [layer.weight, layer.bias] if bias else [layer.weight]
    inputs = [tensor.detach().requires_grad_() for tensor in (x, offset, mask, *parameters)]

    def run(x, offset, mask, weight, bias=None):
        return ops.modulated_deform_conv2d(x, offset, mask, weight, bias, *geometry)

    assert torch.autograd.gradcheck(run, inputs, fast_mode=True)


def test_convolution_layers_without_offsets_are_convolutions() -> None:
    """DCN and DCNv2 start with zero offsets and masks of one half, also under autocast."""
    x = real(2, 4, 7, 7).float()
    for kind, gate in ((ops.DeformConv2dPack, 1.0), (ops.ModulatedDeformConv2dPack, 0.5)):
        layer = kind(4, 6, 3, padding=1)
        expected = gate * torch.nn.functional.conv2d(x, layer.weight, padding=1)
        torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            output = layer(x)
            output.sum().backward()
        assert output.dtype == torch.bfloat16
        torch.testing.assert_close(output.float(), expected, rtol=0.03, atol=0.03)
        assert all(parameter.grad.isfinite().all() for parameter in layer.parameters())
        assert layer.conv_offset.weight.grad.any()


def attention():
    """value, shapes, level starts, locations (some outside the map) and weights of a two-level attention."""
    shapes = torch.tensor([[4, 5], [2, 3]])
    starts = torch.tensor([0, 20])
    return real(2, 26, 2, 3), shapes, starts, real(2, 5, 2, 2, 3, 2, low=-0.2, high=1.2), real(2, 5, 2, 2, 3)


def test_deformable_attention() -> None:
    value, shapes, starts, locations, weights = attention()
    run = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    expected = oracles.deformable_attention(value.numpy(), shapes.tolist(), locations.numpy(), weights.numpy())
    close(run(value, shapes, starts, locations, weights, 64), expected)
    inputs = [tensor.requires_grad_() for tensor in (value, locations, weights)]
    assert torch.autograd.gradcheck(lambda v, l, w: run(v, shapes, starts, l, w, 64), inputs)  # noqa: E741


# --- half precision ------------------------------------------------------------------------------------------------


def half_cases() -> dict:
    """Each operator as a function of floating inputs, with those inputs; RoIs stay wide, as they do in a detector."""
    rois, target = torch.tensor(ROIS), torch.tensor([0, 3, 4, 1, 2, 4])
    value, shapes, starts, locations, weights = attention()
    attend = ops.multi_scale_deform_attn.MultiScaleDeformableAttnFunction.apply
    layer, x, offset, mask = convolution(ops.ModulatedDeformConv2d, CONVOLUTIONS["grouped"])
    geometry = (layer.stride, layer.padding, layer.dilation, layer.groups, layer.deform_groups)
    weight, bias = layer.weight.detach(), layer.bias.detach()
    maps = real(2, 3, 8, 9)
    return {
        "roi_align avg": (lambda x: ops.roi_align(x, rois, 3, 0.5, 0, "avg"), maps),
        "roi_align max": (lambda x: ops.roi_align(x, rois, 3, 0.5, 0, "max"), maps),
        "roi_pool": (lambda x: ops.roi_pool(x, rois, 3, 0.5), maps),
        "focal": (lambda x: ops.sigmoid_focal_loss(x, target, 2.0, 0.25, None, "none"), real(6, 4, low=-5, high=5)),
        "deform": (lambda x, o, w: ops.deform_conv2d(x, o, w, *geometry), x, offset, weight),
        "modulated": (lambda *t: ops.modulated_deform_conv2d(*t, *geometry), x, offset, mask, weight, bias),
        "attention": (lambda v, p, w: attend(v, shapes, starts, p, w, 64), value, locations, weights),
    }


@pytest.mark.parametrize("dtype", HALF)
@pytest.mark.parametrize("name", half_cases())
def test_half_precision(name: str, dtype: torch.dtype) -> None:
    """Computed wide and rounded once: values and gradients are those of float64 on the same rounded inputs."""
    run, *inputs = half_cases()[name]
    half = [tensor.to(dtype).requires_grad_() for tensor in inputs]
    exact = [tensor.detach().double().requires_grad_() for tensor in half]
    with torch.autocast("cpu", dtype=dtype):
        output = run(*half)
        output.sum().backward()
    expected = run(*exact)
    expected.sum().backward()
    assert output.dtype == dtype
    for narrow, wide in [(output, expected)] + [(a.grad, b.grad) for a, b in zip(half, exact)]:
        torch.testing.assert_close(narrow.double(), wide, rtol=torch.finfo(dtype).eps, atol=2e-6)
