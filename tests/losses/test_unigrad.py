"""SIM's dense form of UniGrad against loops in float64, on one process and on two."""

import pytest
import torch
import torch.distributed as dist

from densessl.losses import correlation, unigrad_terms, valid_mean
from tests.distributed import run_pair

EXACT = dict(rtol=1e-12, atol=1e-14)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def correlation_loop(targets, valid):
    rows = [row for row, counts in zip(targets.tolist(), valid) if counts]
    dim = targets.shape[1]
    return torch.tensor(
        [[sum(row[i] * row[j] for row in rows) / len(rows) for j in range(dim)] for i in range(dim)],
        dtype=torch.float64,
    )


@pytest.mark.parametrize("valid", [None, [1, 0, 1, 1, 0, 0, 1], [0, 0, 0, 0, 0, 1, 0]])
def test_correlation_matches_a_loop(valid):
    targets = noise(7, 4).requires_grad_()
    found = correlation(targets, None if valid is None else torch.tensor(valid).bool())
    torch.testing.assert_close(found, correlation_loop(targets, valid or [1] * 7), **EXACT)
    assert not found.requires_grad


def test_correlation_of_nothing_is_zero():
    assert not correlation(noise(3, 4), torch.zeros(3, dtype=torch.bool)).any()


def test_terms_match_a_loop():
    p, t, matrix = noise(5, 4), noise(5, 4, seed=1), correlation(noise(9, 4, seed=2))
    positive, negative = unigrad_terms(p, t, matrix)
    for m in range(5):
        assert positive[m].item() == pytest.approx(sum((a - b) ** 2 for a, b in zip(p[m].tolist(), t[m].tolist())))
        rows = [sum(p[m, i].item() * matrix[i, j].item() for i in range(4)) for j in range(4)]
        assert negative[m].item() == pytest.approx(sum(a * b for a, b in zip(rows, p[m].tolist())))
    without = unigrad_terms(p, t, None)
    assert torch.equal(without.positive, positive) and not without.negative.any()


def dense_loss(p, t, valid, weight):
    positive, negative = unigrad_terms(p, t, correlation(t, valid))
    return (valid_mean(positive, valid) + weight * valid_mean(negative, valid)) / p.shape[1]


@pytest.mark.parametrize("weight", [0.0, 0.02, 1.5])
def test_the_gradient_is_the_fact_sheets(weight):
    """2 / (n D) (P - T + w P C) of the valid rows, and none of the targets."""
    p, t = noise(6, 4).requires_grad_(), noise(6, 4, seed=1).requires_grad_()
    valid = torch.tensor([1, 1, 0, 1, 0, 1]).bool()
    dense_loss(p, t, valid, weight).backward()
    matrix = correlation_loop(t.detach(), valid)
    expected = 2 / (4 * 4) * (p.detach() - t.detach() + weight * p.detach() @ matrix) * valid[:, None]
    torch.testing.assert_close(p.grad, expected, **EXACT)
    assert t.grad is None


def test_autocast_and_coarse_inputs_are_counted_in_fp32():
    p, t = noise(64, 32).bfloat16(), noise(64, 32, seed=1).bfloat16()
    with torch.autocast("cpu", torch.bfloat16):
        matrix = correlation(t)
        terms = unigrad_terms(p, t, matrix)
    assert matrix.dtype == terms.positive.dtype == terms.negative.dtype == torch.float32
    exact = correlation(t.double())
    torch.testing.assert_close(matrix.double(), exact, rtol=1e-5, atol=1e-6)
    for found, expected in zip(terms, unigrad_terms(p.double(), t.double(), exact)):
        torch.testing.assert_close(found.double(), expected, rtol=1e-5, atol=1e-5)


def on_rank(p, t, valid, sizes):
    p, t, valid = (item.split(sizes)[dist.get_rank()] for item in (p, t, valid))
    p = p.clone().requires_grad_()
    loss = dense_loss(p, t, valid, 0.7)
    loss.backward()
    return correlation(t, valid), correlation(t), loss.detach(), p.grad


@pytest.mark.parametrize("sizes", [(4, 4), (5, 3), (8, 0)], ids=str)
def test_two_ranks_with_any_rows_are_one_process(sizes):
    p, t, valid = noise(8, 4), noise(8, 4, seed=1), torch.tensor([1, 1, 1, 0, 1, 0, 0, 0]).bool()
    whole = p.clone().requires_grad_()
    loss = dense_loss(whole, t, valid, 0.7)
    loss.backward()
    first, second = run_pair(on_rank, p, t, valid, sizes)
    for part in (first, second):
        torch.testing.assert_close(part[0], correlation(t, valid), **EXACT)
        torch.testing.assert_close(part[1], correlation(t), **EXACT)
    # What data parallelism makes of the ranks' losses and gradients: their mean.
    torch.testing.assert_close((first[2] + second[2]) / 2, loss.detach(), **EXACT)
    torch.testing.assert_close(torch.cat([first[3], second[3]]) / 2, whole.grad, **EXACT)


def test_two_ranks_with_nothing_valid_have_no_loss():
    nothing = torch.zeros(8, dtype=torch.bool)
    for matrix, _, loss, gradient in run_pair(on_rank, noise(8, 4), noise(8, 4, seed=1), nothing, (4, 4)):
        assert not matrix.any() and loss == 0 and not gradient.any()
