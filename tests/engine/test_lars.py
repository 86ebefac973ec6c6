import math

import pytest
import torch
from mmengine.optim import build_optim_wrapper
from torch import nn

import densessl.engine.precision  # noqa: F401  (registers the wrapper)
from densessl.engine.lars import LARS, lars_gradient, split_parameters

DOUBLE = torch.float64


def loop_gradient(param, grad, weight_decay, trust_coefficient, eps):
    """The update rule element by element on Python floats."""
    shape = param.shape
    p, g = param.flatten().tolist(), grad.flatten().tolist()
    decayed = [gi + weight_decay * pi for gi, pi in zip(g, p)]
    p_norm = math.sqrt(sum(x * x for x in p))
    g_norm = math.sqrt(sum(x * x for x in decayed))
    scale = trust_coefficient * p_norm / (g_norm + eps) if p_norm > 0 and g_norm > 0 else 1.0
    return torch.tensor([scale * x for x in decayed], dtype=DOUBLE).view(shape)


def random(*shape, seed=0):
    return torch.randn(shape, dtype=DOUBLE, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("weight_decay", [0.0, 1e-2])
@pytest.mark.parametrize("eps", [0.0, 0.3])
def test_gradient_equals_loop(weight_decay, eps):
    param, grad = random(4, 3, 2), random(4, 3, 2, seed=1)
    before = grad.clone()
    actual = lars_gradient(param, grad, weight_decay, 2e-3, eps)
    torch.testing.assert_close(actual, loop_gradient(param, grad, weight_decay, 2e-3, eps), rtol=1e-12, atol=0)
    assert torch.equal(grad, before)


@pytest.mark.parametrize("eps", [0.0, 1e-8])
def test_zero_norms_leave_the_gradient_unscaled(eps):
    zero, grad = torch.zeros(3, 2, dtype=DOUBLE), random(3, 2)
    assert torch.equal(lars_gradient(zero, grad, 0.1, 1e-3, eps), grad)
    assert torch.equal(lars_gradient(grad, zero, 0.0, 1e-3, eps), zero)


def test_step_equals_loop_over_groups_and_skips_missing_gradients():
    values = [random(3, 4), random(5, seed=1), random(2, 2, 1, seed=2), random(4, 4, seed=3)]
    params = [nn.Parameter(value.clone()) for value in values]
    scaled = {"params": [params[0], params[3]], "weight_decay": 1e-2, "lr": 0.7}
    plain = {"params": [params[1]], "trust": False, "momentum": 0.0}
    decayed = {"params": [params[2]], "trust": False, "weight_decay": 0.1}
    optimizer = LARS([scaled, plain, decayed], lr=0.5, momentum=0.8, eps=1e-6)

    expected, buffers = [value.clone() for value in values], [torch.zeros_like(value) for value in values]
    for step in range(3):
        grads = [random(*value.shape, seed=10 * step + i) for i, value in enumerate(values)]
        grads[3] = None if step == 1 else grads[3]
        for param, grad in zip(params, grads):
            param.grad = grad
        kept = [None if grad is None else grad.clone() for grad in grads]
        optimizer.step()
        for grad, copy in zip(grads, kept):
            assert grad is copy is None or torch.equal(grad, copy)
        for i, (lr, decay, trust, momentum) in enumerate(
            [(0.7, 1e-2, True, 0.8), (0.5, 0.0, False, 0.0), (0.5, 0.1, False, 0.8), (0.7, 1e-2, True, 0.8)]
        ):
            if grads[i] is None:
                continue
            update = (
                loop_gradient(expected[i], grads[i], decay, 1e-3, 1e-6) if trust else grads[i] + decay * expected[i]
            )
            buffers[i] = momentum * buffers[i] + update
            expected[i] = expected[i] - lr * buffers[i]
        for param, value in zip(params, expected):
            torch.testing.assert_close(param.data, value, rtol=1e-12, atol=1e-14)
    assert "momentum_buffer" not in optimizer.state[params[1]]


def test_without_trust_it_is_sgd():
    ours, theirs = nn.Parameter(random(4, 3)), nn.Parameter(random(4, 3))
    options = {"lr": 0.3, "momentum": 0.9, "weight_decay": 0.05}
    pair = [(ours, LARS([ours], trust=False, **options)), (theirs, torch.optim.SGD([theirs], **options))]
    for step in range(4):
        for param, optimizer in pair:
            param.grad = random(4, 3, seed=step)
            optimizer.step()
    torch.testing.assert_close(ours, theirs, rtol=1e-14, atol=0)


def test_scaled_update_ignores_the_size_of_the_gradient():
    """With lr 1 the first update is trust_coefficient * |p| long, whatever the gradient's scale."""
    for factor in (1e-3, 1.0, 1e3):
        param = nn.Parameter(random(6, 5))
        param.grad = factor * random(6, 5, seed=1)
        before = param.detach().clone()
        LARS([param], lr=1.0, trust_coefficient=0.02, eps=0.0).step()
        torch.testing.assert_close((param.detach() - before).norm(), 0.02 * before.norm())


def test_state_dict_round_trip_is_exact():
    def run(steps, saved=None):
        params = [nn.Parameter(random(3, 3)), nn.Parameter(random(3, seed=1))]
        optimizer = LARS([{"params": params[:1]}, {"params": params[1:], "trust": False}], lr=0.4, weight_decay=1e-3)
        if saved:
            optimizer.load_state_dict(saved[0])
            for param, value in zip(params, saved[1]):
                param.data.copy_(value)
        for step in steps:
            for i, param in enumerate(params):
                param.grad = random(*param.shape, seed=5 * step + i)
            optimizer.step()
        return optimizer.state_dict(), [param.detach() for param in params]

    straight, resumed = run(range(5)), run(range(2, 5), run(range(2)))
    assert all(torch.equal(a, b) for a, b in zip(straight[1], resumed[1]))
    assert resumed[0]["param_groups"] == straight[0]["param_groups"]


def test_bad_options_and_sparse_gradients_are_refused():
    with pytest.raises(ValueError, match="momentum is -1"):
        LARS([nn.Parameter(random(2))], lr=0.1, momentum=-1)
    table = nn.Embedding(4, 3, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(RuntimeError, match="sparse=False"):
        LARS(table.parameters(), lr=0.1).step()


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1, bias=False))
        self.head = nn.ModuleDict({"pred": nn.Linear(4, 2), "fixed": nn.Linear(2, 2)})
        self.head["fixed"].requires_grad_(False)
        self.pos_embed = nn.Parameter(torch.zeros(1, 5, 4))
        self.scale = nn.Parameter(torch.tensor(1.0))


def named_groups(model, groups):
    names = {param: name for name, param in model.named_parameters()}
    return [([names[param] for param in group["params"]], group) for group in groups]


def test_prefixes_of_constant_rate_are_groups_of_their_own():
    model = Net()
    split = split_parameters(model, 0.1, lr_mult={"backbone": 0.1}, constant_lr=("head", "backbone.2"))
    where = {name: group for names, group in named_groups(model, split) for name in names}
    constant = {name for name, group in where.items() if group["lr_constant"]}
    assert constant == {"head.pred.weight", "head.pred.bias", "backbone.2.weight"}
    assert where["backbone.2.weight"]["lr_scale"] == 0.1 and where["head.pred.bias"]["weight_decay"] == 0.0
    assert not any(group["lr_constant"] for group in split_parameters(model))


def test_split_is_the_one_dimensional_rule():
    model = Net()
    (decayed, first), (excluded, second) = sorted(
        named_groups(model, split_parameters(model, 1e-4)), key=lambda entry: entry[1]["trust"], reverse=True
    )
    assert decayed == ["pos_embed", "backbone.0.weight", "backbone.2.weight", "head.pred.weight"]
    assert excluded == ["scale", "backbone.0.bias", "backbone.1.weight", "backbone.1.bias", "head.pred.bias"]
    assert (first["weight_decay"], first["trust"], first["lr_scale"]) == (1e-4, True, 1.0)
    assert (second["weight_decay"], second["trust"], second["lr_scale"]) == (0.0, False, 1.0)


@pytest.mark.parametrize(
    ("exclude", "expected"),
    [
        ((), set()),
        (("bias",), {"backbone.0.bias", "backbone.1.bias", "head.pred.bias"}),
        (("norm",), {"backbone.1.weight", "backbone.1.bias"}),
    ],
)
def test_exclusion_rules(exclude, expected):
    model = Net()
    groups = named_groups(model, split_parameters(model, 1e-4, exclude=exclude))
    assert {name for names, group in groups if not group["trust"] for name in names} == expected


def test_patterns_and_longest_prefix():
    model = Net()
    groups = named_groups(
        model,
        split_parameters(model, 0.1, no_decay=["*pos_embed"], lr_mult={"backbone": 0.1, "backbone.2": 3, "head": 2}),
    )
    where = {name: group for names, group in groups for name in names}
    assert where["pos_embed"]["weight_decay"] == 0.0
    assert where["backbone.0.weight"]["lr_scale"] == 0.1
    assert where["backbone.2.weight"]["lr_scale"] == 3.0
    assert where["head.pred.weight"]["lr_scale"] == 2.0
    assert where["pos_embed"]["lr_scale"] == 1.0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"exclude": ("2d",)}, "'1d', 'bias', 'norm'"),
        ({"exclude": "1d"}, "expected a tuple"),
        ({"no_decay": ["*.posembed"]}, r"nearest name is 'pos_embed'"),
        ({"lr_mult": {"backbon": 2}}, "nearest name is 'backbone'"),
        ({"lr_mult": {"head.fixed": 2}}, "fits no trainable parameter"),
        ({"constant_lr": ("head.predictor",)}, "constant_lr prefix 'head.predictor' .* nearest name is 'head.pred'"),
        ({"constant_lr": "head"}, "constant_lr='head': expected a tuple"),
    ],
)
def test_misspelt_options_are_errors(options, message):
    with pytest.raises(ValueError, match=message):
        split_parameters(Net(), 0.1, **options)


def test_nothing_to_train_is_an_error():
    with pytest.raises(ValueError, match="Net has no parameter"):
        split_parameters(Net().requires_grad_(False))


@pytest.mark.parametrize(
    ("optimizer", "cls"),
    [
        ({"type": "densessl.LARS", "lr": 2.0, "weight_decay": 1e-5}, LARS),
        ({"type": "SGD", "lr": 2.0, "momentum": 0.9, "weight_decay": 1e-5}, torch.optim.SGD),
        ({"type": "AdamW", "lr": 2.0}, torch.optim.AdamW),
    ],
)
def test_constructor_builds_groups_for_any_optimizer(optimizer, cls):
    wrapper = build_optim_wrapper(
        Net(),
        {
            "constructor": "densessl.DenseOptimWrapperConstructor",
            "optimizer": optimizer,
            "precision": "fp32",
            "accumulative_counts": 2,
            "paramwise_cfg": {"lr_mult": {"head": 0.5}},
        },
    )
    assert type(wrapper).__name__ == "DenseOptimWrapper" and wrapper._accumulative_counts == 2
    assert type(wrapper.optimizer) is cls
    decay = optimizer.get("weight_decay", 0.01)  # AdamW's own default
    found = {(group["lr"], group["weight_decay"]) for group in wrapper.optimizer.param_groups}
    assert found == {(2.0, decay), (2.0, 0.0), (1.0, decay), (1.0, 0.0)}


def test_constructor_names_unknown_and_missing_keys():
    cfg = {"constructor": "densessl.DenseOptimWrapperConstructor", "optimizer": {"type": "SGD", "lr": 0.1}}
    with pytest.raises(ValueError, match="did you mean exclude"):
        build_optim_wrapper(Net(), {**cfg, "paramwise_cfg": {"excludes": ()}})
    with pytest.raises(ValueError, match="`lr`"):
        build_optim_wrapper(Net(), {**cfg, "optimizer": {"type": "SGD"}})


@pytest.mark.parametrize(
    ("options", "fused"), [({}, True), ({"fused": False}, False), ({"foreach": True}, None), ({"fused": None}, None)]
)
def test_adamw_is_fused_unless_told_otherwise(options, fused):
    """The same steps as unfused, in one pass over the weights."""
    wrappers = []
    for extra in (options, {"fused": False}):
        torch.manual_seed(0)
        net = Net()
        optimizer = {"type": "AdamW", "lr": 0.1, "weight_decay": 0.1, **extra}
        wrappers.append(
            build_optim_wrapper(
                net,
                {"constructor": "densessl.DenseOptimWrapperConstructor", "optimizer": optimizer, "precision": "fp32"},
            )
        )
        for step in range(3):
            for param in net.parameters():
                param.grad = torch.full_like(param, 0.1 + step)
            wrappers[-1].optimizer.step()
    assert wrappers[0].optimizer.defaults["fused"] is fused
    pairs = zip(*(wrapper.optimizer.param_groups for wrapper in wrappers))
    for ours, plain in pairs:
        for a, b in zip(ours["params"], plain["params"]):
            torch.testing.assert_close(a, b)
