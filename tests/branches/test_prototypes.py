"""The heads of DINO and SCFS."""

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

from densessl.branches.prototypes import DINOHead, Prototypes, ShallowHead


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


@pytest.mark.parametrize("learn_gain", [False, True])
def test_prototypes_are_a_weight_normed_linear_layer(learn_gain):
    ours = Prototypes(5, 7, learn_gain).double()
    theirs = weight_norm(nn.Linear(5, 7, bias=False).double())
    gain, weight = theirs.parametrizations.weight.original0, theirs.parametrizations.weight.original1
    with torch.no_grad():
        weight.copy_(ours.weight)
        gain.copy_(ours.gain.normal_() if learn_gain else torch.ones(7, 1))
    x = torch.randn(3, 5, dtype=torch.float64)
    upstream = torch.randn(3, 7, dtype=torch.float64)
    for module in (ours, theirs):
        (module(x) * upstream).sum().backward()
    torch.testing.assert_close(ours(x), theirs(x))
    torch.testing.assert_close(ours.weight.grad, weight.grad)
    if learn_gain:
        torch.testing.assert_close(ours.gain.grad, gain.grad)
    else:
        assert ours.gain.grad is None and not ours.gain.requires_grad


def test_frozen_prototypes_pass_the_gradient_on_and_get_zeros():
    head = DINOHead((4, 6, 5), 7, learn_gain=True)
    x = torch.randn(3, 4)
    expected = torch.autograd.grad(head(x).square().sum(), head.mlp.linear0.weight)[0]
    free = head(x)
    head.prototypes.frozen = True
    frozen = head(x)
    assert torch.equal(frozen, free)
    frozen.square().sum().backward()
    torch.testing.assert_close(head.mlp.linear0.weight.grad, expected)
    for parameter in head.prototypes.parameters():
        assert torch.equal(parameter.grad, torch.zeros_like(parameter))


def test_logits_of_the_dino_head_are_cosines_in_full_precision():
    head = DINOHead((8, 16, 4), 9)
    x = torch.randn(6, 8)
    with torch.autocast("cpu", torch.bfloat16):
        rough = head(x)
        vectors = head.mlp(x)
    assert rough.dtype == torch.float32 and vectors.dtype == torch.bfloat16
    exact = torch.cosine_similarity(vectors.double()[:, None], head.prototypes.weight.double(), dim=2)
    torch.testing.assert_close(rough.double(), exact, rtol=1e-5, atol=1e-6)


def test_the_dino_head_starts_as_published():
    head = DINOHead((256, 512, 512, 64), 1000)
    for linear in (head.mlp.linear0, head.mlp.linear1, head.mlp.linear2):
        assert linear.weight.std().item() == pytest.approx(0.02, rel=0.03) and not linear.bias.any()
    # Uniform within 1 / sqrt(64).
    assert head.prototypes.weight.std().item() == pytest.approx(1 / 8 / 3**0.5, rel=0.03)
    assert head.prototypes.weight.abs().max() <= 1 / 8


def test_the_shallow_head_keeps_the_batch_dimension_of_one_image():
    head = ShallowHead(4, 3, 6, 5).eval()
    maps = torch.randn(2, 4, 3, 3)
    vectors = head(maps)
    assert vectors.shape == (2, 5)
    torch.testing.assert_close(head(maps[:1]), vectors[:1])
    torch.testing.assert_close(vectors.norm(dim=1), torch.ones(2))
    with pytest.raises(ValueError, match="norm0 is a batch norm and would see a single vector"):
        head.train()(maps[:1])


def test_the_shallow_head_is_a_residual_bottleneck():
    """With the last convolution's norm at zero the maps pass, but for their negative part."""
    head = ShallowHead(4, 3, 6, 5).eval()
    nn.init.zeros_(head.norm3.weight)
    maps = torch.randn(2, 4, 3, 3)
    expected = nn.functional.normalize(head.mlp(maps.clamp(min=0).mean((2, 3))), dim=1)
    torch.testing.assert_close(head(maps), expected)
