"""What every objective promises, whatever its maths."""

import copy
import io

import pytest
import torch
from torch.nn.parallel import DistributedDataParallel

from tests.distributed import run_pair
from tests.objectives.toy import rows, take_step, total, toy_batch, toy_model, without_overlap

SMALL = dict(hidden=12, dim=8)
SYNC = dict(type="SyncBN")
CASES = {
    "pixpro": [dict(type="PixPro", **SMALL)],
    "pixpro-0-layers": [dict(type="PixPro", transform_layers=0, **SMALL)],
    "pixpro-2-layers": [dict(type="PixPro", transform_layers=2, transform_norm=SYNC, gamma=1.0, **SMALL)],
    "pixcontrast": [dict(type="PixContrast", **SMALL)],
    "instance": [dict(type="InstanceCosine", **SMALL)],
    "pixpro+instance": [dict(type="PixPro", **SMALL), dict(type="InstanceCosine", weight=0.5, **SMALL)],
    "levels": [dict(type="PixPro", level=-1, **SMALL), dict(type="PixContrast", level=0, weight=0.1, **SMALL)],
}
TARGETS = {
    "ema": dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.9)),
    "ema-after": dict(kind="ema", momentum=0.9, timing="after_step"),
    "stop": dict(kind="stop_gradient"),
    "frozen": dict(kind="frozen"),
}
every_case = pytest.mark.parametrize("objectives", CASES.values(), ids=CASES.keys())


@every_case
@pytest.mark.parametrize("target", TARGETS.values(), ids=TARGETS.keys())
def test_gradients_reach_what_is_trained_and_nothing_else(objectives, target):
    model = toy_model(objectives, target)
    total(model, toy_batch()).backward()
    for name, parameter in model.named_parameters():
        if name.startswith("target."):
            assert parameter.grad is None and not parameter.requires_grad, name
        else:
            assert parameter.grad is not None and torch.isfinite(parameter.grad).all(), name
            # A bias in front of a batch norm has none but rounding.
            assert parameter.grad.any() or name.endswith("bias"), name


@every_case
def test_the_target_follows_its_recurrence(objectives):
    model = toy_model(objectives, dtype=torch.float64)
    batch = toy_batch(dtype=torch.float64)
    expected = {k: v.clone() for k, v in model.target.branch(model.online).named_parameters()}
    for step in range(3):
        online = {k: v.clone() for k, v in model.online.named_parameters()}
        take_step(model, batch)
        momentum = 1 - 0.1 * (1 + torch.cos(torch.tensor(torch.pi * step / 10, dtype=torch.float64)).item()) / 2
        for name, value in model.target.branch(model.online).named_parameters():
            expected[name] = momentum * expected[name] + (1 - momentum) * online[name]
            torch.testing.assert_close(value, expected[name], rtol=1e-12, atol=1e-14)
    weights = {name: value for name, value in model.online.named_parameters() if value.ndim > 1}
    assert not any(torch.equal(expected[name], value) for name, value in weights.items())


def train_on_rank(rank, world_size, objectives):
    """Two steps of data-parallel training; the gradients of the second and the state after it."""
    model = toy_model(objectives, dtype=torch.float64)
    wrapped = DistributedDataParallel(model, broadcast_buffers=False) if world_size > 1 else model
    for seed in (0, 1):
        whole = without_overlap(
            toy_batch(8, dtype=torch.float64, seed=seed), [0, 2, 5]
        )  # two on one rank, one on the other
        batch = rows(whole, torch.arange(rank, 8, world_size))
        model.zero_grad()
        loss = model.parse_losses(wrapped(*batch, mode="loss"))[0]
        loss.backward()
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.requires_grad:
                    parameter -= 0.05 * parameter.grad
        model.advance()
    return {k: p.grad for k, p in model.named_parameters() if p.grad is not None}, model.state_dict()


def train_in_pair(objectives):
    return train_on_rank(torch.distributed.get_rank(), 2, objectives)


@every_case
def test_two_processes_equal_one(objectives):
    gradients, state = train_on_rank(0, 1, objectives)
    for other_gradients, other_state in run_pair(train_in_pair, objectives):
        for name, gradient in gradients.items():
            torch.testing.assert_close(other_gradients[name], gradient, rtol=1e-9, atol=1e-11, msg=name)
        for name, value in state.items():
            torch.testing.assert_close(other_state[name], value, rtol=1e-9, atol=1e-11, msg=name)


@every_case
def test_saving_and_loading_continues_bit_for_bit(objectives):
    straight = toy_model(objectives)
    for seed in range(4):
        take_step(straight, toy_batch(seed=seed))
    stopped = toy_model(objectives)
    for seed in range(2):
        take_step(stopped, toy_batch(seed=seed))
    file = io.BytesIO()
    torch.save(stopped.state_dict(), file)
    file.seek(0)
    resumed = toy_model(objectives, seed=9)
    resumed.load_state_dict(torch.load(file, weights_only=True))
    assert resumed.step == 2
    for seed in range(2, 4):
        take_step(resumed, toy_batch(seed=seed))
    state = straight.state_dict()
    assert all(torch.equal(state[name], value) for name, value in resumed.state_dict().items())


@every_case
def test_permuting_the_batch_changes_nothing(objectives):
    model = toy_model(objectives, dtype=torch.float64)
    batch = toy_batch(dtype=torch.float64)
    shuffled = rows(batch, torch.tensor([2, 0, 3, 1]))
    torch.testing.assert_close(total(copy.deepcopy(model), shuffled), total(model, batch), rtol=1e-10, atol=1e-12)


@every_case
def test_views_without_overlap_give_finite_losses_and_gradients(objectives):
    model = toy_model(objectives)
    batch = toy_batch(disjoint=True)
    figures = model.loss(batch)
    loss, _ = model.parse_losses(figures)
    loss.backward()
    assert torch.isfinite(loss) and all(torch.isfinite(v).all() for v in figures.values())
    assert all(torch.isfinite(p.grad).all() for p in model.parameters() if p.grad is not None)
    for name, value in figures.items():
        if name.endswith("no_overlap"):
            assert value == 1
        if name in ("pixpro.loss", "pixcontrast.loss"):
            assert value == 0


@every_case
def test_bf16_is_close_to_fp32(objectives):
    batch = toy_batch()
    exact = total(toy_model(objectives), batch)
    with torch.autocast("cpu", torch.bfloat16):
        rough = total(toy_model(objectives), batch)
    assert rough.dtype == torch.float32
    # bf16 keeps 8 bits; batch norm over 4 images of 4x4 cells lifts the rounding of the convolutions.
    assert abs(rough - exact) < 0.05 * max(1.0, abs(exact))


@pytest.mark.parametrize("micro", [1, 2, 4])
def test_accumulated_micro_steps_move_the_target_once(micro):
    model = toy_model(CASES["pixpro"], TARGETS["ema-after"] | dict(timing="before_forward"))
    before = [p.clone() for p in model.online.parameters()]
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter += 1
    for _ in range(micro):
        total(model, toy_batch())
    for own, start in zip(model.target.branch(model.online).parameters(), before):
        torch.testing.assert_close(own, start + 0.1, rtol=1e-5, atol=1e-6)


def test_identical_views_of_a_perfect_target_reach_the_floor():
    """With target and online alike, no propagation to learn (one cell a map), and equal views, the loss is -4."""
    model = toy_model([dict(type="PixPro", transform_layers=0, **SMALL)], dict(kind="stop_gradient"))
    batch = toy_batch(sizes=(16, 16))
    batch = batch._replace(views=[batch.views[0]] * 2, geometry=[batch.geometry[0]] * 2)
    assert total(model, batch).item() == pytest.approx(-4, abs=1e-4)


def test_the_loss_is_the_weighted_sum():
    """The same model and batch, so the same terms; only the weights differ."""
    batch = toy_batch(dtype=torch.float64)
    plain, weighted = (
        toy_model(
            [dict(type="PixPro", weight=a, **SMALL), dict(type="PixContrast", weight=b, **SMALL)], dtype=torch.float64
        )
        for a, b in ((1, 1), (0.25, 3))
    )
    terms = plain.loss(batch)
    torch.testing.assert_close(total(weighted, batch), 0.25 * terms["pixpro.loss"] + 3 * terms["pixcontrast.loss"])


def test_errors_name_the_key():
    with pytest.raises(ValueError, match="two objectives are named 'pixpro'"):
        toy_model([dict(type="PixPro", **SMALL)] * 2)
    with pytest.raises(ValueError, match="level 5 is asked for, the backbone gives 2"):
        toy_model([dict(type="PixPro", level=5, **SMALL)])
    with pytest.raises(ValueError, match=r"objectives.pixpro.coords is 'inclusive'"):
        toy_model([dict(type="PixPro", coords="inclusive", **SMALL)])
