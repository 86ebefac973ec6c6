"""Pixel losses against loops in float64, their gradients, and their edge cases."""

import math

import pytest
import torch
import torch.nn.functional as F

from densessl.losses import cosine_regression, pixel_consistency, pixel_contrast, pixel_propagation, valid_mean


def maps(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("gamma, clamp", [(2.0, 0.0), (1.0, 0.0), (0.5, 0.0), (2.0, 0.3), (1.0, -1.0)])
def test_propagation_matches_a_loop(gamma, clamp):
    x, v = maps(2, 5, 2, 3), maps(2, 4, 2, 3, seed=1)
    actual = pixel_propagation(x, v, gamma, clamp).flatten(2)
    for n in range(2):
        for i in range(6):
            expected = torch.zeros(4, dtype=torch.float64)
            for j in range(6):
                xi, xj, vj = x[n].flatten(1)[:, i], x[n].flatten(1)[:, j], v[n].flatten(1)[:, j]
                a = max((xi @ xj / xi.norm() / xj.norm()).item(), clamp)
                expected += (a + (1e-6 if gamma < 1 else 0)) ** gamma * vj / vj.norm()
            torch.testing.assert_close(actual[n, :, i], expected, rtol=1e-10, atol=1e-12)


def test_propagation_of_equal_cells_returns_them_and_a_sharp_one_changes_nothing():
    same = maps(1, 6, 1, 1).expand(1, 6, 3, 3)
    torch.testing.assert_close(F.normalize(pixel_propagation(same, same), dim=1), F.normalize(same, dim=1))
    x = maps(2, 8, 3, 3)
    torch.testing.assert_close(pixel_propagation(x, x, gamma=400.0), F.normalize(x, dim=1), rtol=1e-6, atol=1e-6)


def test_propagation_gradients():
    x, v = maps(1, 3, 2, 2).requires_grad_(), maps(1, 3, 2, 2, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: pixel_propagation(a, b, 2.0, 0.0), (x, v))


def masks(*shape, seed=0):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.3


def test_consistency_matches_a_loop_and_an_image_without_positives_is_zero():
    q, k = (F.normalize(maps(3, 4, 2, 3, seed=s), dim=1) for s in (0, 1))
    mask = masks(3, 6, 6)
    mask[1] = False
    q.requires_grad_()
    similarity, count = pixel_consistency(q, k, mask)
    for n in range(3):
        pairs = [(i, j) for i in range(6) for j in range(6) if mask[n, i, j]]
        total = sum((q[n].flatten(1)[:, i] @ k[n].flatten(1)[:, j]).item() for i, j in pairs)
        assert similarity[n].item() == pytest.approx(total / (len(pairs) + 1e-6), rel=1e-10)
        assert count[n].item() == len(pairs)
    similarity.sum().backward()
    assert similarity[1] == 0 and not q.grad[1].any() and q.grad[0].any()


@pytest.mark.parametrize("shape_k", [(2, 3), (3, 2)])
def test_contrast_matches_a_loop(shape_k):
    q, k = F.normalize(maps(3, 4, 2, 3), dim=1), F.normalize(maps(3, 4, *shape_k, seed=1), dim=1)
    mask = masks(3, 6, 6)
    mask[2] = False
    images = []
    for n in range(3):
        rows = []
        for i in range(6):
            terms = [math.exp((q[n].flatten(1)[:, i] @ k[n].flatten(1)[:, j]).item() / 0.3) for j in range(6)]
            positive = sum(term for term, hit in zip(terms, mask[n, i]) if hit)
            if positive:
                rows.append(-math.log(positive / sum(terms)))
        if rows:
            images.append(sum(rows) / len(rows))
    assert pixel_contrast(q, k, mask, 0.3).item() == pytest.approx(sum(images) / len(images), rel=1e-10)


def test_contrast_without_any_positive_is_zero_with_zero_gradient():
    q, k = maps(2, 4, 2, 2).requires_grad_(), maps(2, 4, 2, 2, seed=1)
    loss = pixel_contrast(q, k, torch.zeros(2, 4, 4, dtype=torch.bool))
    loss.backward()
    assert loss == 0 and torch.isfinite(q.grad).all() and not q.grad.any()


def test_contrast_gradients():
    q, k = maps(2, 3, 2, 2).requires_grad_(), maps(2, 3, 2, 2, seed=1)
    assert torch.autograd.gradcheck(lambda a: pixel_contrast(a, k, masks(2, 4, 4, seed=3)), (q,))


def test_half_precision_under_autocast_is_computed_in_fp32():
    x = maps(2, 8, 4, 4).float()
    with torch.autocast("cpu", torch.bfloat16):
        lifted = pixel_propagation(x, x)
        cosine = cosine_regression(x.flatten(1), 2 * x.flatten(1))
    assert torch.equal(lifted, pixel_propagation(x, x)) and lifted.dtype == torch.float32
    assert cosine.item() == pytest.approx(1, abs=1e-6)


def test_valid_mean():
    values = torch.tensor([1.0, 5.0, float("nan")], dtype=torch.float64)
    assert valid_mean(values, torch.tensor([True, True, False])) == 3
    assert valid_mean(values, torch.zeros(3, dtype=torch.bool)) == 0
    with pytest.raises(ValueError, match="'mean'"):
        valid_mean(values, values > 0, "mean")
