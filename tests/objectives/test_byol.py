"""BYOL's distance where the golden cases do not go: vectors too short to be normalised, as the official code has it."""

import pytest
import torch

from densessl.objectives.byol import BYOL, squared_distance


def by_loops(p, z):
    """x * rsqrt(max(sum x^2, 1e-12)) of both, then the squared distance, in Python numbers."""
    distances = []
    for row, other in zip(p.tolist(), z.tolist()):
        units = [[x * max(sum(y * y for y in v), 1e-12) ** -0.5 for x in v] for v in (row, other)]
        distances.append(sum((a - b) ** 2 for a, b in zip(*units)))
    return torch.tensor(distances, dtype=torch.float64)


def test_short_vectors_stay_short():
    torch.manual_seed(0)
    lengths = torch.tensor([[1.0], [1e-5], [3e-7], [1e-9], [0.0]], dtype=torch.float64)
    p, z = (torch.randn(5, 6, dtype=torch.float64).requires_grad_() for _ in range(2))
    torch.testing.assert_close(squared_distance(p * lengths, z), by_loops(p * lengths, z), rtol=1e-12, atol=1e-14)
    torch.testing.assert_close(squared_distance(p, z * lengths), by_loops(p, z * lengths), rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(lambda p: squared_distance(p * lengths, z), p)
    short = (p * 0).detach().requires_grad_()
    squared_distance(short, z).sum().backward()
    assert torch.isfinite(short.grad).all() and short.grad.any()


def test_it_compares_two_views():
    with pytest.raises(ValueError, match=r"objectives.byol.views is \(0, 1, 2\)"):
        BYOL(views=(0, 1, 2))
