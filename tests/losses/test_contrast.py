"""Contrastive losses against loops in float64, their gradients, and what the blockwise bank promises."""

import math

import pytest
import torch
import torch.nn.functional as F

from densessl.losses import bank_logsumexp, contrast, info_nce, matching_nce, multi_positive_nce, unit

T = 0.2


def noise(*shape, seed=0, dtype=torch.float64):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def vectors(count, dim=6, seed=0, dtype=torch.float64):
    return unit(noise(count, dim, seed=seed)).to(dtype)


def loop(q, k, bank, local) -> torch.Tensor:
    """InfoNCE row by row and number by number, differentiable."""
    rows = []
    for i in range(len(q)):
        positive = sum(q[i, c] * k[i, c] for c in range(q.shape[1])) / T
        negatives = [sum(q[i, c] * key[c] for c in range(q.shape[1])) / T for key in bank]
        negatives += [] if local is None else [number / T for number in local[i]]
        rows.append(-torch.log(positive.exp() / sum(number.exp() for number in [positive, *negatives])))
    return torch.stack(rows)


@pytest.mark.parametrize("keys", [0, 1, 5])
@pytest.mark.parametrize("locals_", [None, 0, 3])
def test_info_nce_and_its_gradients_match_a_loop(keys, locals_):
    q, k, bank = vectors(4), vectors(4, seed=1), vectors(keys, seed=2)
    local = None if locals_ is None else noise(4, locals_, seed=3)
    inputs = [x.requires_grad_() for x in (q, k, local) if x is not None and x.numel()]
    upstream = noise(4, seed=4)
    actual, expected = info_nce(q, k, bank, local, T).rows, loop(q, k, bank, local)
    torch.testing.assert_close(actual, expected, rtol=0, atol=1e-12)
    for ours, theirs in zip(*(torch.autograd.grad((rows * upstream).sum(), inputs) for rows in (actual, expected))):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


def test_without_negatives_the_loss_is_zero_and_every_positive_hits():
    q, k = vectors(3).requires_grad_(), vectors(3, seed=1)
    for bank in (None, torch.zeros(0, 6)):
        rows, hits = info_nce(q, k, bank)
        (grad,) = torch.autograd.grad(rows.sum(), q)
        assert not rows.any() and hits.all() and not grad.any()
    total, largest = bank_logsumexp(q, torch.zeros(0, 6), T)
    assert (total == -torch.inf).all() and (largest == -torch.inf).all()


def test_hits_are_the_rows_whose_positive_beats_bank_and_local_negatives():
    q = k = torch.eye(3)
    bank = torch.tensor([[0.5, 2.0, 0.5]])  # beats the second positive
    local = torch.tensor([[0.9, 0.0], [0.0, 0.0], [0.0, 1.0]])  # ties with the third
    assert info_nce(q, k, bank).hits.tolist() == [True, False, True]
    assert info_nce(q, k, None, local).hits.tolist() == [True, True, False]
    assert info_nce(q, k, bank, local).hits.tolist() == [True, False, False]


def test_no_rows_give_no_losses():
    q = torch.zeros(0, 6, requires_grad=True)
    rows, hits = info_nce(q, torch.zeros(0, 6), vectors(5), torch.zeros(0, 2))
    rows.sum().backward()
    assert rows.shape == hits.shape == (0,) and q.grad.shape == (0, 6)


@pytest.mark.parametrize("rows", [1, 7, 16])
@pytest.mark.parametrize("block_rows", [0.5, 1, 2, 3, 7, 100])
def test_any_block_size_gives_the_same_values_and_gradients(rows, block_rows):
    q, bank, upstream = vectors(rows).requires_grad_(), vectors(11, seed=1), noise(rows, seed=2)
    logits = q @ bank.T / T
    total, largest = bank_logsumexp(q, bank, T, block_bytes=int(block_rows * 11 * 8))
    torch.testing.assert_close(total, logits.logsumexp(1), rtol=0, atol=1e-12)
    torch.testing.assert_close(largest, logits.amax(1), rtol=0, atol=1e-12)
    ours, theirs = (torch.autograd.grad((v * upstream).sum(), q)[0] for v in (total, logits.logsumexp(1)))
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)


@pytest.fixture
def products(monkeypatch):
    """Shapes of the results of all matrix products."""
    shapes, product = [], torch.mm

    def counted(*args, **kwargs):
        result = product(*args, **kwargs)
        shapes.append(tuple(result.shape))
        return result

    monkeypatch.setattr(torch, "mm", counted)
    return shapes


def test_the_library_takes_blocks_of_block_bytes(monkeypatch, products):
    q, bank = vectors(9), vectors(5, seed=1)
    monkeypatch.setattr(contrast, "BLOCK_BYTES", 2 * 5 * 8)
    info_nce(q, q, bank)
    assert products == [(2, 5)] * 4 + [(1, 5)]


def test_bank_gradient_checks_and_has_no_second_derivative():
    q, bank = vectors(4).requires_grad_(), vectors(5, seed=1)
    assert torch.autograd.gradcheck(lambda x: bank_logsumexp(x, bank, T, 80)[0], (q,))
    (grad,) = torch.autograd.grad(bank_logsumexp(q, bank, T)[0].square().sum(), q, create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        grad.sum().backward()


def test_without_gradient_there_is_no_second_product_and_nothing_is_kept(products):
    q, bank = vectors(4).requires_grad_(), vectors(5, seed=1)
    total, _ = bank_logsumexp(q, bank, T)
    assert products == [(4, 5), (4, 6)]
    assert [saved.shape for saved in total.grad_fn.saved_tensors] == [(4, 6)]
    products.clear()
    with torch.no_grad():
        bank_logsumexp(q, bank, T)
    total, _ = bank_logsumexp(q.detach(), bank, T)
    assert products == [(4, 5)] * 2 and total.grad_fn is None


def test_nothing_of_the_size_of_the_logits_is_saved():
    sizes = []

    def note(saved):
        sizes.append(saved.numel())
        return saved

    q, k = vectors(64).requires_grad_(), vectors(64, seed=1)
    with torch.autograd.graph.saved_tensors_hooks(note, lambda saved: saved):
        info_nce(q, k, vectors(1000, seed=2)).rows.mean()
    assert sizes and max(sizes) <= q.numel()


def test_the_bank_may_be_overwritten_before_the_backward_pass():
    q, k, bank = vectors(4).requires_grad_(), vectors(4, seed=1), vectors(5, seed=2)
    (expected,) = torch.autograd.grad(info_nce(q, k, bank.clone()).rows.sum(), q)
    loss = info_nce(q, k, bank).rows.sum()
    bank.normal_()
    torch.testing.assert_close(torch.autograd.grad(loss, q)[0], expected, rtol=0, atol=0)


def test_large_exponents_stay_finite():
    q = torch.eye(3, requires_grad=True)
    rows, _ = info_nce(q, -torch.eye(3), torch.eye(3), temperature=1e-3)
    rows.sum().backward()
    torch.testing.assert_close(rows, torch.full((3,), 2000.0))
    assert torch.isfinite(q.grad).all()


def test_half_precision_under_autocast_is_computed_in_fp32():
    q, k, bank = (vectors(count, 64, seed, torch.bfloat16) for seed, count in enumerate((4, 4, 5)))
    local, weights = noise(4, 3, dtype=torch.bfloat16), noise(4, 3, seed=1).softmax(1).to(torch.bfloat16)
    losses = [
        lambda cast: info_nce(cast(q), cast(k), cast(bank), cast(local)).rows,
        lambda cast: multi_positive_nce(cast(local), local > 0, T)[0],
        lambda cast: matching_nce(cast(local), cast(weights), T),
    ]
    for loss in losses:
        with torch.autocast("cpu", torch.bfloat16):
            actual = loss(lambda x: x)
        assert actual.dtype == torch.float32
        assert torch.equal(actual, loss(torch.Tensor.float))


def multi_loop(similarity, positive, candidate):
    rows = []
    for s, p, c in zip(similarity, positive, candidate):
        terms = (s / T).exp()
        if not p.any():
            rows.append(0 * s.sum())
            continue
        top = sum(term for term, hit in zip(terms, p) if hit)
        bottom = sum(term for term, hit, counts in zip(terms, p, c) if hit or counts)
        rows.append(-torch.log(top / bottom))
    return torch.stack(rows)


@pytest.mark.parametrize("candidates", [None, 0.5, 0.0])
def test_several_positives_match_a_loop(candidates):
    similarity = noise(6, 5).requires_grad_()
    positive = noise(6, 5, seed=1) > 0.3
    positive[2], positive[3] = False, True
    candidate = None if candidates is None else noise(6, 5, seed=2) > (0 if candidates else 9)
    rows, valid = multi_positive_nce(similarity.view(2, 3, 5), positive.view(2, 3, 5), T, _view(candidate))
    expected = multi_loop(similarity, positive, positive | True if candidate is None else candidate)
    torch.testing.assert_close(rows.flatten(), expected, rtol=0, atol=1e-12)
    assert valid.flatten().tolist() == positive.any(1).tolist()
    weights = noise(6, seed=3)
    ours, theirs = (
        torch.autograd.grad((x.flatten() * weights).sum(), similarity, retain_graph=True)[0] for x in (rows, expected)
    )
    torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-12)
    assert rows[0, 2] == 0 and not ours[2].any()
    # Where nothing but positives counts there is nothing to tell apart.
    assert candidates != 0.0 or rows.abs().max() < 1e-12


def _view(candidate):
    return None if candidate is None else candidate.view(2, 3, 5)


def test_one_positive_is_info_nce():
    q, k, bank = vectors(4), vectors(4, seed=1), vectors(5, seed=2)
    similarity = torch.cat([(q * k).sum(1, keepdim=True), q @ bank.T], 1)
    rows, _ = multi_positive_nce(similarity, torch.arange(6).expand(4, -1) == 0, T)
    torch.testing.assert_close(rows, info_nce(q, k, bank, temperature=T).rows, rtol=0, atol=1e-12)


def test_matching_matches_a_loop():
    similarity, target = noise(2, 3, 4).requires_grad_(), noise(2, 3, 4, seed=1).softmax(2)
    actual = matching_nce(similarity, target, T)
    for n in range(2):
        for i in range(3):
            terms = [math.exp(s / T) for s in similarity[n, i].tolist()]
            expected = -sum(w * math.log(t / sum(terms)) for w, t in zip(target[n, i].tolist(), terms))
            assert actual[n, i].item() == pytest.approx(expected, rel=1e-12)
    assert torch.autograd.gradcheck(lambda s: matching_nce(s, target, T), (similarity,))
    one_hot = F.one_hot(torch.tensor([[0, 1, 2], [3, 3, 3]]), 4)
    positive = multi_positive_nce(similarity, one_hot.bool(), T)[0]
    torch.testing.assert_close(matching_nce(similarity, one_hot, T), positive, rtol=0, atol=1e-12)
