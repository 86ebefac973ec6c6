"""The pairwise hinge against a loop, and CCOP's worked cases."""

import pytest
import torch

from densessl.losses import pairwise_hinge


def test_matches_a_loop():
    generator = torch.Generator().manual_seed(0)
    similarity = torch.rand(2, 4, 4, generator=generator, dtype=torch.float64).requires_grad_()
    valid = torch.rand(2, 4, 4, generator=generator) < 0.7
    expected = torch.zeros(2, 4, 4, dtype=torch.float64)
    gradient = torch.zeros(2, 4, 4, dtype=torch.float64)
    for n in range(2):
        for i in range(4):
            for j in range(4):
                gap = (similarity[n, i, j] - similarity[n, j, j] + 0.4).item()
                if i != j and valid[n, i, j] and gap > 0:
                    expected[n, i, j] = gap
                    gradient[n, i, j] += 1
                    gradient[n, j, j] -= 1
    actual = pairwise_hinge(similarity, valid, 0.4)
    actual.sum().backward()
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-15)
    torch.testing.assert_close(similarity.grad, gradient, rtol=0, atol=0)
    assert gradient.any() and (expected == 0).any() and torch.autograd.gradcheck(pairwise_hinge, (similarity, valid))


@pytest.mark.parametrize(("similarity", "expected"), [(torch.eye(3), 0.0), (torch.ones(3, 3), 0.4)])
def test_worked_cases(similarity, expected):
    hinges = pairwise_hinge(similarity, torch.ones(3, 3, dtype=torch.bool))
    torch.testing.assert_close(hinges, expected * (1 - torch.eye(3)))


def test_the_diagonal_and_what_is_not_valid_send_no_gradient():
    """Not even where a padded region has made the similarities infinite or undefined."""
    similarity = torch.tensor([[0.5, 0.9, torch.nan], [0.0, 0.5, torch.inf], [torch.nan] * 3], requires_grad=True)
    valid = torch.ones(3, 3, dtype=torch.bool)
    valid[2], valid[:, 2] = False, False
    hinges = pairwise_hinge(similarity, valid)
    hinges.sum().backward()
    torch.testing.assert_close(hinges, torch.tensor([[0, 0.8, 0], [0.0, 0, 0], [0, 0, 0]]))
    torch.testing.assert_close(similarity.grad, torch.tensor([[0.0, 1, 0], [0, -1, 0], [0, 0, 0]]))
    assert not pairwise_hinge(torch.ones(3, 3), torch.eye(3) > 0).any()


def test_half_precision_is_computed_in_fp32():
    similarity, valid = torch.rand(3, 3).to(torch.bfloat16), torch.ones(3, 3, dtype=torch.bool)
    with torch.autocast("cpu", torch.bfloat16):
        actual = pairwise_hinge(similarity, valid)
    assert actual.dtype == torch.float32 and torch.equal(actual, pairwise_hinge(similarity.float(), valid))
