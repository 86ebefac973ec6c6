"""The three forms of LARS against the order of operations of the codes they are named after, on Python floats."""

import math

import pytest
import torch
from torch import nn

from densessl.engine.lars import LARS, lars_gradient, split_parameters

SHAPES = [(3, 4), (5,), (2, 2, 1), (4, 2), (2, 3)]
MOMENTUM, DECAY, ETA = 0.8, 0.05, 0.02
CHANGING = [0.0, 0.3, 0.9, 0.5, 0.2, 0.05]


def norm(values):
    return math.sqrt(sum(x * x for x in values))


def deepmind(p, g, buffer, lr):
    """`utils/optimizers.py` of BYOL: decay, trust ratio, momentum, learning rate."""
    g = [gi + DECAY * pi for gi, pi in zip(g, p)]
    ratio = ETA * norm(p) / norm(g) if norm(p) > 0 and norm(g) > 0 else 1.0
    buffer = [MOMENTUM * bi + ratio * gi for bi, gi in zip(buffer, g)]
    return [pi - lr * bi for pi, bi in zip(p, buffer)], buffer


def apex(p, g, buffer, lr):
    """`apex.parallel.LARC` with clip=False around SGD with momentum: no decay either where a norm is zero."""
    if norm(p) != 0 and norm(g) != 0:
        ratio = ETA * norm(p) / (norm(g) + DECAY * norm(p) + 1e-8)
        g = [(gi + DECAY * pi) * ratio for gi, pi in zip(g, p)]
    buffer = [MOMENTUM * bi + gi for bi, gi in zip(buffer, g)]
    return [pi - lr * bi for pi, bi in zip(p, buffer)], buffer


def openselfsup(p, g, buffer, lr):
    """`lars.py` of TWIST: the buffer holds steps, not gradients."""
    size = norm(g) + DECAY * norm(p)
    local = ETA * norm(p) / size if size > 0 else 0.0
    buffer = [MOMENTUM * bi + (gi + DECAY * pi) * local * lr for bi, gi, pi in zip(buffer, g, p)]
    return [pi - bi for pi, bi in zip(p, buffer)], buffer


FORMS = [("lars", {"eps": 0.0}, deepmind), ("larc", {}, apex), ("openselfsup", {}, openselfsup)]


def tensors(seed):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, dtype=torch.float64, generator=generator) for shape in SHAPES]


def gradients(step):
    """The fourth gradient is zero at times, the fifth tensor starts at zero."""
    grads = tensors(10 + step)
    if step % 2 == 0:
        grads[3].zero_()
    return grads


def start():
    values = tensors(0)
    values[4].zero_()
    return [nn.Parameter(value) for value in values]


def train(form, lrs, **options):
    params = start()
    optimizer = LARS(params, 1.0, MOMENTUM, DECAY, ETA, form=form, **options)
    for step, lr in enumerate(lrs):
        for param, grad in zip(params, gradients(step)):
            param.grad = grad
        optimizer.param_groups[0]["lr"] = lr
        optimizer.step()
        assert all(torch.equal(param.grad, grad) for param, grad in zip(params, gradients(step)))
    return [param.detach() for param in params]


@pytest.mark.parametrize(("form", "options", "oracle"), FORMS, ids=[form for form, _, _ in FORMS])
def test_form_equals_its_code_while_the_learning_rate_changes(form, options, oracle):
    values = [param.flatten().tolist() for param in start()]
    buffers = [[0.0] * len(value) for value in values]
    for step, lr in enumerate(CHANGING):
        for i, grad in enumerate(gradients(step)):
            values[i], buffers[i] = oracle(values[i], grad.flatten().tolist(), buffers[i], lr)
    for actual, value in zip(train(form, CHANGING, **options), values):
        expected = torch.tensor(value, dtype=torch.float64)
        torch.testing.assert_close(actual.flatten(), expected, rtol=1e-11, atol=1e-14)


def test_the_forms_are_not_interchangeable():
    results = {form: train(form, CHANGING, eps=0.0)[0] for form, _, _ in FORMS}
    for a, b in [("lars", "larc"), ("larc", "openselfsup"), ("lars", "openselfsup")]:
        assert (results[a] - results[b]).norm() > 1e-3 * results[a].norm()


def test_at_a_constant_rate_it_does_not_matter_where_the_rate_goes():
    larc, openselfsup = (train(form, [0.3] * 5, eps=0.0)[:3] for form in ("larc", "openselfsup"))
    torch.testing.assert_close(larc, openselfsup, rtol=1e-12, atol=0)


def test_zero_norms():
    zero, other = torch.zeros(3, 2), torch.randn(3, 2)
    assert torch.equal(lars_gradient(zero, other, 0.1, form="larc"), other)
    assert torch.equal(lars_gradient(other, zero, 0.1, form="larc"), zero)
    assert torch.equal(lars_gradient(zero, other, 0.1, form="openselfsup"), zero)
    torch.testing.assert_close(lars_gradient(other, zero, 0.1, 0.02, form="openselfsup"), 0.02 * other)
    assert torch.equal(lars_gradient(other, zero, 0.0, form="openselfsup"), zero)
    assert torch.equal(lars_gradient(zero, zero, 0.1, form="openselfsup"), zero)


def test_larc_recipes_exclude_nothing():
    """Biases and batch norm are decayed and scaled: one group, and a bias moves by a share of its own size."""
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    groups = split_parameters(model, DECAY, exclude=())
    assert len(groups) == 1 and len(groups[0]["params"]) == 4
    bias = model[0].bias
    before, bias.grad = bias.detach().clone(), torch.randn(4)
    LARS(groups, 1.0, trust_coefficient=ETA, form="larc").step()
    expected = before - lars_gradient(before, bias.grad, DECAY, ETA, form="larc")
    torch.testing.assert_close(bias.detach(), expected)


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_forms_by_group_and_unscaled_groups(momentum):
    params = [nn.Parameter(torch.ones(2, 2)), nn.Parameter(torch.ones(3))]
    optimizer = LARS(
        [{"params": params[:1], "form": "larc"}, {"params": params[1:], "form": "openselfsup", "trust": False}],
        lr=0.5,
        momentum=momentum,
        trust_coefficient=ETA,
    )
    for lr in (0.5, 0.1):
        for group, param in zip(optimizer.param_groups, params):
            group["lr"], param.grad = lr, torch.ones_like(param)
        optimizer.step()
    # The unscaled group: steps of lr * 1, and momentum keeps the first at its old rate.
    torch.testing.assert_close(params[1].detach(), torch.full((3,), 1 - 0.5 - (momentum * 0.5 + 0.1)))
    first = 1 - 0.5 * ETA
    expected = first - 0.1 * (momentum * ETA + ETA * first)
    torch.testing.assert_close(params[0].detach(), torch.full((2, 2), expected))


@pytest.mark.parametrize("form", [form for form, _, _ in FORMS])
def test_no_value_is_read_back_to_the_host(form):
    """Meta tensors have no values: whoever asks for one raises."""
    params = [nn.Parameter(torch.empty(shape, device="meta")) for shape in SHAPES]
    for param in params:
        param.grad = torch.empty_like(param)
    LARS(params, 1.0, weight_decay=DECAY, form=form).step()


@pytest.mark.parametrize("groups", [[{}], [{"form": "lars"}, {"form": "lark"}]])
def test_unknown_forms_are_errors(groups):
    groups = [dict(group, params=[nn.Parameter(torch.ones(2))]) for group in groups]
    with pytest.raises(ValueError, match=r"LARS form 'lar[kx]' is unknown; did you mean lar[cs]"):
        LARS(groups, lr=1.0, form="larx")
