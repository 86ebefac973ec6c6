"""Pooling of maps against loops in float64, on maps that are not square."""

import itertools
import math

import pytest
import torch

from densessl.losses import cell_cosines, masked_mean, sample_points, soft_regions

N, C, H, W = 2, 3, 4, 5


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("kind", ["bool", "weights", "shared"])
def test_masked_mean_matches_a_loop(kind):
    features = noise(N, C, H, W)
    mask = noise(1 if kind == "shared" else N, H, W, seed=1)
    mask = 0.01 * mask.abs() if kind == "weights" else mask > 0  # weights may sum to less than one
    actual = masked_mean(features, mask)
    assert actual.shape == (N, C)
    for n in range(N):
        weights = mask[n if len(mask) > 1 else 0]
        total = sum(float(weights[y, x]) for y in range(H) for x in range(W))
        for c in range(C):
            summed = sum(features[n, c, y, x].item() * float(weights[y, x]) for y in range(H) for x in range(W))
            assert actual[n, c].item() == pytest.approx(summed / total, rel=1e-12)


def test_masked_mean_of_an_empty_mask_is_zero_with_zero_gradient():
    features, mask = noise(N, C, H, W).requires_grad_(), torch.ones(N, H, W, dtype=torch.bool)
    mask[1] = False
    means = masked_mean(features, mask)
    means.square().sum().backward()
    torch.testing.assert_close(means[0], features[0].mean((1, 2)))
    assert not means[1].any() and not features.grad[1].any() and features.grad[0].any()


def test_soft_regions_match_a_loop():
    features, logits = noise(N, C, H, W), noise(N, 2, H, W, seed=1)
    actual = soft_regions(features, logits)
    for n in range(N):
        expected = torch.zeros(2, C, dtype=torch.float64)
        for y in range(H):
            for x in range(W):
                terms = [math.exp(logits[n, r, y, x].item()) for r in range(2)]
                for r in range(2):
                    expected[r] += terms[r] / sum(terms) * features[n, :, y, x]
        torch.testing.assert_close(actual[n], expected, rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(actual.sum(1), features.sum((2, 3)))  # the masks share each cell out


def ramp(height, width):
    """A map whose features are the (x, y) of its cell centres in units of its size, in [-1, 1] as sampling wants."""
    y = 2 * (torch.arange(height, dtype=torch.float64) + 0.5) / height - 1
    x = 2 * (torch.arange(width, dtype=torch.float64) + 0.5) / width - 1
    return torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)])[None]


@pytest.mark.parametrize("size", [(H, W), (7, 2), (1, 6)], ids=str)
def test_points_of_a_ramp_are_themselves_inside_and_the_border_cell_outside(size):
    points = 3 * torch.rand(1, 200, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64) - 1.5
    limit = 1 - 1 / torch.tensor([size[1], size[0]], dtype=torch.float64)  # where the outermost centres are
    expected = torch.minimum(torch.maximum(points, -limit), limit)
    found = sample_points(ramp(*size), points)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-14)
    inside = (points.abs() <= limit).all(2)
    assert inside.any() or 1 in size
    torch.testing.assert_close(found[inside], points[inside], rtol=0, atol=1e-14)


def test_sampling_is_the_bilinear_mean_of_four_cells_and_so_is_its_gradient():
    features = noise(N, C, H, W).requires_grad_()
    column, row = torch.tensor([0.25, 2.5, 3.0]), torch.tensor([1.75, 0.0, 2.0])  # in cells, from the first centre
    points = torch.stack([2 * (column + 0.5) / W - 1, 2 * (row + 0.5) / H - 1], -1).expand(N, -1, -1)
    actual = sample_points(features, points)
    assert actual.shape == (N, 3, C) and actual.dtype == torch.float64
    expected = torch.zeros(N, 3, C, dtype=torch.float64)
    for p, (x, y) in enumerate(zip(column.tolist(), row.tolist())):
        for dy in (0, 1):
            for dx in (0, 1):
                weight = (1 - abs(x - int(x) - dx)) * (1 - abs(y - int(y) - dy))
                if weight:
                    expected[:, p] += weight * features[:, :, int(y) + dy, int(x) + dx]
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-6)  # the points are in fp32
    assert torch.autograd.gradcheck(lambda f: sample_points(f, points), (features,))


def test_points_of_each_image_are_its_own():
    features = torch.stack([torch.zeros(1, H, W), torch.ones(1, H, W)])
    assert sample_points(features, torch.zeros(2, 3, 2, dtype=torch.float64)).flatten().tolist() == [0] * 3 + [1] * 3


def test_cell_cosines_match_a_loop():
    features, vectors = noise(N, C, H, W).requires_grad_(), noise(2, N, C, seed=1).requires_grad_()
    actual = cell_cosines(features, vectors)
    assert actual.shape == (2, N, H, W)
    for many, n, y, x in itertools.product(range(2), range(N), range(H), range(W)):
        f, v = features[n, :, y, x].tolist(), vectors[many, n].tolist()
        cosine = sum(a * b for a, b in zip(f, v)) / math.hypot(*f) / math.hypot(*v)
        assert actual[many, n, y, x].item() == pytest.approx(cosine, rel=1e-12, abs=1e-14)
    torch.testing.assert_close(cell_cosines(features, vectors[0]), actual[0])
    assert torch.autograd.gradcheck(cell_cosines, (features, vectors))
    # A cell without length has no direction.
    assert (cell_cosines(features * 0, vectors) == 0).all()


def test_half_precision_under_autocast_is_computed_in_fp32():
    features, mask = noise(N, 32, H, W).to(torch.bfloat16), noise(N, H, W, seed=1) > 0
    logits, points = noise(N, 2, H, W, seed=2).to(torch.bfloat16), noise(N, 3, 2, seed=3)
    for pooled in (
        lambda f: masked_mean(f, mask),
        lambda f: soft_regions(f, logits),
        lambda f: sample_points(f, points),
        lambda f: cell_cosines(f, f[:, :, 0, 0]),
    ):
        with torch.autocast("cpu", torch.bfloat16):
            actual = pooled(features)
        assert actual.dtype == torch.float32 and torch.equal(actual, pooled(features.float()))
