import copy
import io
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from densessl.branches.target import build_target, ema_update_


def online_branch() -> nn.Module:
    torch.manual_seed(0)
    branch = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Linear(5, 2)).double()
    return branch.train()


def change(module: nn.Module, step: int) -> None:
    """Stands for an optimiser step and a training forward: everything in the branch changes."""
    generator = torch.Generator().manual_seed(step)
    with torch.no_grad():
        for value in module.state_dict().values():
            if value.is_floating_point():
                value += torch.randn(value.shape, generator=generator, dtype=value.dtype)
            else:
                value += 1


def test_recurrence_equals_a_loop():
    target, online = ([torch.randn(3, 2, dtype=torch.float64) for _ in range(4)] for _ in range(2))
    expected = [value.clone() for value in target]
    for step in range(20):
        m = 0.9 + step / 200
        ema_update_(target, online, m)
        for e, o in zip(expected, online):
            for index in range(e.numel()):
                e.view(-1)[index] = m * e.view(-1)[index] + (1 - m) * o.view(-1)[index]
    for found, e in zip(target, expected):
        torch.testing.assert_close(found, e, rtol=0, atol=1e-12)


@pytest.mark.parametrize("momentum, source", [(0.0, 1), (1.0, 0)])
def test_momentum_zero_copies_and_one_keeps(momentum, source):
    target, online = torch.randn(100), torch.randn(100)
    expected = (target, online)[source].clone()
    ema_update_([target], [online], momentum)
    assert torch.equal(target, expected)


def test_half_precision_average_is_refused():
    with pytest.raises(TypeError, match=r"torch\.bfloat16; it needs float32 or float64"):
        ema_update_([torch.zeros(1).bfloat16()], [torch.zeros(1).bfloat16()], 0.99)


@pytest.mark.parametrize("buffers", ["params_only", "all"])
def test_parameters_follow_and_buffers_do_as_told(buffers):
    online = online_branch()
    target = build_target(online, momentum=0.75, buffers=buffers)
    expected = copy.deepcopy(online.state_dict())
    parameters = dict(online.named_parameters())
    for step in range(3):
        change(online, step)
        assert target.before_forward(online, step)
        for name, value in online.state_dict().items():
            if name in parameters or (buffers == "all" and value.is_floating_point()):
                expected[name] = 0.75 * expected[name] + 0.25 * value
            elif buffers == "all":
                expected[name] = value.clone()
    for name, value in target.branch(online).state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=0, atol=1e-12)


def test_accumulation_moves_once_a_step():
    online = online_branch()
    target = build_target(online, momentum=0.5)
    moved = []
    for step in range(3):
        for micro_step in range(4):
            change(online, 10 * step + micro_step)  # only to make any further update visible
            before = target.branch(online)[0].weight.clone()
            moved.append(target.before_forward(online, step))
            assert moved[-1] != torch.equal(before, target.branch(online)[0].weight)
            assert not target.after_step(online, step)
    assert moved == [True, False, False, False] * 3


@pytest.mark.parametrize("timing, seen", [("before_forward", [0, 1, 2]), ("after_step", [0, 1, 2])])
def test_schedule_is_asked_for_the_step_of_the_update(timing, seen):
    """Both timings index the schedule from 0; one counts the steps before its update, the other after."""
    online = online_branch()
    config = {"type": "cosine_momentum", "base": 0.9, "final": 1.0}
    target, horizon = build_target(online, momentum=config, timing=timing), SimpleNamespace(total_steps=4)
    assert target.momentum is None
    found = []
    for step in range(3):
        target.before_forward(online, step, horizon)
        if timing == "before_forward":
            found.append(target.momentum)
        target.after_step(online, step + 1, horizon)
        if timing == "after_step":
            found.append(target.momentum)
    # 1 - 0.1 (1 + cos(pi t / 4)) / 2 at t = 0, 1, 2
    assert found == pytest.approx([0.9, 0.9146446609, 0.95], abs=1e-9)


def test_state_survives_saving_and_resuming():
    online = online_branch()
    target = build_target(online, momentum=0.5)
    for step in range(3):
        change(online, step)
        target.before_forward(online, step)
    assert sorted(target.state_dict()) == sorted(["updated_at", *online.state_dict()])

    file = io.BytesIO()
    torch.save({"online": online.state_dict(), "target": target.state_dict()}, file)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    resumed_online = online_branch()
    resumed = build_target(resumed_online, momentum=0.5)
    nn.ModuleDict({"online": resumed_online, "target": resumed}).load_state_dict(
        {f"{part}.{key}": value for part, state in saved.items() for key, value in state.items()}
    )
    assert not resumed.before_forward(resumed_online, 2), "the step was updated for before saving"
    for branch, its_target in ((online, target), (resumed_online, resumed)):
        change(branch, 9)
        assert its_target.before_forward(branch, 3)
    for name, value in target.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name


def test_a_copy_of_the_target_is_whole():
    """The branch and its holder share their children, also after copying and after replacing one."""
    online = online_branch()
    target = copy.deepcopy(build_target(online, momentum=0.0)).float().double()
    change(online, 0)
    target.before_forward(online, 0)
    for name, value in online.named_parameters():
        assert torch.equal(target.get_parameter(name), value)
        assert target.branch(online).get_parameter(name) is target.get_parameter(name)
    target.add_module("2", nn.Identity())
    assert isinstance(target.branch(online)[2], nn.Identity)


@pytest.mark.parametrize("kind", ["ema", "frozen"])
def test_copies_never_receive_gradients(kind):
    online = online_branch()
    target = build_target(online, kind=kind)
    assert not any(p.requires_grad for p in target.parameters())
    assert all(p.requires_grad for p in online.parameters())
    assert not {id(p) for p in target.parameters()} & {id(p) for p in online.parameters()}


def test_modes():
    online = online_branch()
    ema, frozen, norm_eval = (
        build_target(online, **options) for options in ({}, {"kind": "frozen"}, {"norm": "eval", "buffers": "all"})
    )
    model = nn.ModuleList([ema, frozen, norm_eval]).train()
    assert [m.training for m in ema.branch(online)] == [True] * 4
    assert [m.training for m in frozen.branch(online)] == [False] * 4
    assert [m.training for m in norm_eval.branch(online)] == [True, False, True, True]
    model.eval()
    assert not any(m.training for m in model.modules())


def test_frozen_and_stop_gradient_never_move():
    online = online_branch()
    frozen, same = build_target(online, kind="frozen"), build_target(online, kind="stop_gradient")
    before = copy.deepcopy(frozen.state_dict())
    change(online, 0)
    for target in (frozen, same):
        assert not target.before_forward(online, 0)
        assert not target.after_step(online, 1)
        assert target.momentum is None
    assert all(torch.equal(value, before[name]) for name, value in frozen.state_dict().items())
    assert same.is_online and same.branch(online) is online
    assert list(same.state_dict()) == ["updated_at"]


def test_parameters_of_the_online_branch_alone_are_left_out():
    online = online_branch()
    target = build_target(online, momentum=0.0)
    online.add_module("predictor", nn.Linear(2, 2))
    change(online, 0)
    assert target.before_forward(online, 0)
    assert torch.equal(target.get_parameter("0.weight"), online[0].weight)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"kind": "emaa"}, "target kind 'emaa' is unknown; did you mean ema"),
        ({"timing": "before"}, "target timing 'before' is unknown; did you mean before_forward"),
        ({"buffers": "params"}, "target buffers 'params' is unknown; did you mean params_only"),
        ({"norm": "BN"}, "target norm 'BN' is unknown; known: eval, train"),
        ({"momentum": 1.5}, "target momentum=1.5, expected a number from 0 to 1"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(ValueError, match=message):
        build_target(online_branch(), **options)


def test_loose_parameters_are_refused():
    with pytest.raises(TypeError, match="Linear has parameters or buffers outside its children"):
        build_target(nn.Linear(2, 2))
