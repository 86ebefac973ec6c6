"""Soft cross entropy, centred softmax and Sinkhorn against loops in float64, on one process and on two."""

import math

import pytest
import torch
import torch.distributed as dist

from densessl.losses import centred_softmax, sinkhorn, soft_cross_entropy
from tests.distributed import run_pair


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


@pytest.mark.parametrize("dim", [-1, 1])
@pytest.mark.parametrize("temperature", [1.0, 0.1])
def test_soft_cross_entropy_matches_a_loop(dim, temperature):
    logits, target = noise(2, 3, 4), noise(2, 3, 4, seed=1).softmax(dim)
    actual = soft_cross_entropy(logits, target, temperature, dim)
    rows = zip(*(x.movedim(dim, -1).flatten(0, -2).tolist() for x in (logits, target)))
    for ours, (row, weights) in zip(actual.flatten().tolist(), rows, strict=True):
        terms = [math.exp(x / temperature) for x in row]
        expected = -sum(w * math.log(t / sum(terms)) for w, t in zip(weights, terms))
        assert ours == pytest.approx(expected, rel=1e-12)


def test_soft_cross_entropy_gradients():
    logits, target = noise(3, 4).requires_grad_(), noise(3, 4, seed=1).softmax(1).requires_grad_()
    assert torch.autograd.gradcheck(lambda a, b: soft_cross_entropy(a, b, 0.5), (logits, target))
    nothing = soft_cross_entropy(logits, torch.zeros(3, 4))
    (grad,) = torch.autograd.grad(nothing.sum(), logits)
    assert not nothing.any() and not grad.any()


def test_soft_cross_entropy_of_a_cold_softmax_stays_exact_in_fp32():
    """Logits of DINO's size over its coldest temperature: the loss is a small difference of large numbers."""
    logits = 40 + noise(64, 256)
    target = (logits / 0.02).softmax(1)
    exact = soft_cross_entropy(logits, target, 0.04)
    torch.testing.assert_close(
        soft_cross_entropy(logits.float(), target.float(), 0.04).double(), exact, rtol=0, atol=2e-4
    )


def test_centred_softmax_matches_a_loop_and_has_no_gradient():
    logits, centre = noise(3, 4).requires_grad_(), noise(4, seed=1)
    for shift in (centre, None):
        actual = centred_softmax(logits, shift, 0.04)
        for i in range(3):
            numbers = [x - (0 if shift is None else shift[j].item()) for j, x in enumerate(logits[i].tolist())]
            terms = [math.exp(x / 0.04) for x in numbers]
            expected = torch.tensor([term / sum(terms) for term in terms], dtype=torch.float64)
            torch.testing.assert_close(actual[i], expected, rtol=1e-12, atol=0)
        assert not actual.requires_grad


def sinkhorn_loop(scores: torch.Tensor, epsilon: float, iterations: int) -> torch.Tensor:
    """SwAV's pseudocode, number by number: q (M, K) stays in the linear domain."""
    q = [[math.exp(s / epsilon) for s in row] for row in scores.tolist()]
    samples, prototypes = len(q), len(q[0])
    total = sum(map(sum, q))
    q = [[number / total for number in row] for row in q]
    for _ in range(iterations):
        shares = [sum(row[k] for row in q) for k in range(prototypes)]
        q = [[row[k] / shares[k] / prototypes for k in range(prototypes)] for row in q]
        q = [[number / sum(row) / samples for number in row] for row in q]
    return torch.tensor(q, dtype=torch.float64) * samples


def scores(samples, prototypes, seed=0):
    """Cosines."""
    return torch.tanh(noise(samples, prototypes, seed=seed))


@pytest.mark.parametrize("iterations", [0, 1, 3])
@pytest.mark.parametrize("shape", [(12, 5), (4, 10), (1, 3), (3, 1)])
def test_sinkhorn_matches_a_loop(shape, iterations):
    actual = sinkhorn(scores(*shape), 0.05, iterations)
    torch.testing.assert_close(actual, sinkhorn_loop(scores(*shape), 0.05, iterations), rtol=1e-11, atol=1e-15)
    if iterations:
        torch.testing.assert_close(actual.sum(1), torch.ones(shape[0], dtype=torch.float64))


def test_sinkhorn_converges_to_equal_shares():
    q = sinkhorn(scores(12, 5), 0.5, 200)
    torch.testing.assert_close(q.sum(0), torch.full((5,), 12 / 5, dtype=torch.float64))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_sinkhorn_with_an_extreme_epsilon_is_finite_and_gives_distributions(dtype):
    found = scores(32, 6).to(dtype).requires_grad_()
    with torch.autocast("cpu", torch.bfloat16):
        q = sinkhorn(found, 1e-3, 3)
    assert q.dtype == torch.float32 and not q.requires_grad
    assert torch.isfinite(q).all() and (q >= 0).all()
    torch.testing.assert_close(q.sum(1), torch.ones(32))
    # exp(1000) overflows even float64, so the reference is our own float64, which the loops above vouch for.
    torch.testing.assert_close(q.double(), sinkhorn(found.double(), 1e-3, 3), rtol=0, atol=1e-3)


def rank_sinkhorn(found, sizes, epsilon, iterations):
    return sinkhorn(found.split(sizes)[dist.get_rank()], epsilon, iterations)


@pytest.mark.parametrize("sizes", [(6, 6), (9, 3), (12, 0), (0, 12)], ids=str)
@pytest.mark.parametrize(("epsilon", "iterations"), [(0.05, 3), (0.05, 0), (0.002, 2)])
def test_two_ranks_with_any_rows_are_one_process(sizes, epsilon, iterations):
    found = scores(12, 5)
    parts = run_pair(rank_sinkhorn, found, sizes, epsilon, iterations)
    assert tuple(map(len, parts)) == sizes
    torch.testing.assert_close(torch.cat(parts), sinkhorn(found, epsilon, iterations), rtol=1e-10, atol=1e-15)


def test_two_ranks_without_any_row_get_none():
    assert [tuple(part.shape) for part in run_pair(rank_sinkhorn, scores(0, 5), (0, 0), 0.05, 3)] == [(0, 5)] * 2
