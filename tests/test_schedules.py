import math

import numpy as np
import pytest
import torch
from torch import nn

from densessl.errors import SettingError
from densessl.schedules import (
    Horizon,
    build_schedule,
    constant,
    cosine_momentum,
    fractional_total,
    linear,
    warmup_cosine,
    warmup_multistep,
)


@pytest.mark.parametrize(
    ("epoch", "lr"),
    [(0, 0.04), (1, 0.832), (5, 4.0), (10, 3.972723), (50, 2.165159), (99, 0.001094), (100, 1e-6)],
)
def test_pixpro_learning_rate(epoch, lr):
    horizon = Horizon(1251, 100, 125100, 1281167, 1024)
    schedule = build_schedule({"type": "warmup_cosine", "base": 4.0, "warmup_epochs": 5, "final": 1e-6})
    assert schedule(1251 * epoch, horizon) == pytest.approx(lr, abs=6e-7)


@pytest.mark.parametrize(("progress", "m"), [(0, 0.99), (0.25, 0.991464), (0.5, 0.995), (0.75, 0.998536), (1, 1.0)])
def test_pixpro_momentum(progress, m):
    schedule = build_schedule({"type": "cosine_momentum", "base": 0.99})
    assert schedule(progress * 4000, Horizon(40, 100, 4000, 0, 1)) == pytest.approx(m, abs=6e-7)


@pytest.mark.parametrize(("epoch", "lr"), [(0, 0.3), (1, 0.299999), (400, 0.15), (793, 5.667e-5), (799, 1.16e-6)])
def test_densecl_learning_rate_changes_between_epochs_only(epoch, lr):
    horizon = Horizon(7, 800, 5600, 0, 256)
    schedule = build_schedule({"type": "warmup_cosine", "base": 0.3, "by_epoch": True})
    values = {schedule(7 * epoch + i, horizon) for i in range(7)}
    assert len(values) == 1 and values.pop() == pytest.approx(lr, rel=4e-3 if lr < 1e-4 else 5e-6)


def test_cosine_follows_torch_stepped_recursively():
    param = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([param], lr=0.7)
    theirs = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 50, eta_min=0.1)
    for step in range(51):
        ours = warmup_cosine(step, total=50, base=0.7, final=0.1)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()
    assert warmup_cosine(80, total=50, base=0.7, final=0.1) == pytest.approx(0.1)


def test_warmup_is_a_line_from_start_to_base():
    values = [warmup_cosine(s, total=100, base=2.0, warmup=10, start_factor=0.0) for s in range(11)]
    assert values == pytest.approx([0.2 * s for s in range(11)])
    assert warmup_cosine(3, total=3, base=2.0, warmup=3) == 0.0  # a run that is all warm-up


def test_multistep_follows_torch_and_warmup_ends_at_the_peak():
    param = nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([param], lr=0.8)
    theirs = torch.optim.lr_scheduler.MultiStepLR(optimizer, [4, 9], gamma=0.2)
    for step in range(14):
        ours = warmup_multistep(step, base=0.8, milestones=[4, 9], gamma=0.2)
        assert ours == pytest.approx(optimizer.param_groups[0]["lr"], rel=1e-12)
        optimizer.step()
        theirs.step()
    warm = [warmup_multistep(s, base=1.0, milestones=[2, 8], warmup=4, start_factor=0.5) for s in range(10)]
    assert warm == pytest.approx([0.5, 0.625, 0.75, 0.875, 1.0, 0.1, 0.1, 0.1, 0.01, 0.01])


def test_milestones_are_epochs_in_any_order():
    schedule = build_schedule({"type": "warmup_multistep", "base": 1.0, "milestones": [3, 1], "gamma": 0.5})
    horizon = Horizon(10 / 3, 4, 14, 0, 1)
    assert [schedule(s, horizon) for s in (0, 3, 4, 9, 10)] == [1.0, 1.0, 0.5, 0.5, 0.25]


def test_by_epoch_with_fractional_epochs_starts_an_epoch_on_its_step():
    schedule = build_schedule({"type": "warmup_cosine", "base": 1.0, "by_epoch": True})
    horizon = Horizon(7 / 3, 30, 70, 0, 1)  # 35 / (7 / 3) is a little less than 15 in floating point
    assert schedule(34, horizon) == pytest.approx((1 + math.cos(math.pi * 14 / 30)) / 2)
    assert schedule(35, horizon) == pytest.approx((1 + math.cos(math.pi * 15 / 30)) / 2)


def test_momentum_falls_again_unless_clamped():
    assert cosine_momentum(150, total=100, base=0.9) == pytest.approx(0.95)
    assert cosine_momentum(150, total=100, base=0.9, clamp=True) == 1.0
    assert cosine_momentum(100, total=100, base=0.9, final=0.97) == pytest.approx(0.97)


def test_momentum_over_images_counts_fractions_of_batches():
    horizon = Horizon(3, 10, 30, 31, 8)  # 31 images: 3 whole batches of 8 an epoch, 3.875 with fractions
    assert fractional_total(31, 2, 4, 10) == 38
    by_images = build_schedule({"type": "cosine_momentum", "base": 0.9, "total": "images"})
    assert by_images(30, horizon) == cosine_momentum(30, total=38, base=0.9)
    assert build_schedule({"type": "cosine_momentum", "base": 0.9})(30, horizon) == 1.0


@pytest.mark.parametrize(("start", "end"), [(0.04, 0.07), (0.07, 0.04)])
@pytest.mark.parametrize("warm", [0, 1, 2, 30])
def test_dino_teacher_temperature(start, end, warm):
    """An entry an epoch: numpy.linspace over the warm epochs, then the end."""
    cfg = {"type": "linear", "start": start, "end": end, "epochs": warm, "by_epoch": True, "inclusive": True}
    horizon = Horizon(7 / 3, 42, 98, 0, 1)
    table = np.concatenate([np.linspace(start, end, warm), np.full(42 - warm, end)])
    schedule = build_schedule(cfg)
    for step in range(98):
        assert schedule(step, horizon) == pytest.approx(table[math.floor(step * 3 / 7)], rel=1e-14)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({}, [0, 1, 2, 3, 4, 5, 6, 6, 6]),
        ({"by_epoch": True}, [0, 0, 0, 3, 3, 3, 6, 6, 6]),
        ({"inclusive": True}, [0, 1.2, 2.4, 3.6, 4.8, 6, 6, 6, 6]),
        ({"by_epoch": True, "inclusive": True}, [0, 0, 0, 6, 6, 6, 6, 6, 6]),
        ({"lead": 1}, [1, 2, 3, 4, 5, 6, 6, 6, 6]),
        ({"by_epoch": True, "lead": 1}, [3, 3, 3, 6, 6, 6, 6, 6, 6]),
        ({"epochs": None}, [6 * step / 9 for step in range(9)]),
        ({"epochs": None, "lead": 1}, [6 * step / 9 for step in range(1, 10)]),
        ({"epochs": None, "by_epoch": True}, [0, 0, 0, 2, 2, 2, 4, 4, 4]),
    ],
)
def test_linear_by_step_and_by_epoch(options, expected):
    schedule = build_schedule({"type": "linear", "start": 0.0, "end": 6.0, "epochs": 2, **options})
    assert [schedule(step, Horizon(3, 3, 9, 0, 1)) for step in range(9)] == pytest.approx(expected)


def test_an_inclusive_line_of_a_fraction_of_a_step_stays_below_its_end():
    assert linear(0, start=1.0, end=2.0, length=0.5, inclusive=True) == 1.0
    assert [linear(s, start=0.0, end=2.0, length=2.5, inclusive=True) for s in range(3)] == [0.0, 2 / 1.5, 2.0]


@pytest.mark.parametrize(
    ("when", "first"), [({"at_step": 4}, 4), ({"at_epoch": 2}, 5), ({"at_epoch": 3}, 7), ({"at_epoch": 0}, 0)]
)
def test_switch(when, first):
    """DenseCL's lambda starts at a step, DenseSiam's region weight with an epoch."""
    schedule = build_schedule({"type": "switch", "before": 1.0, "after": 0.5, **when})
    values = [schedule(step, Horizon(7 / 3, 4, 10, 0, 1)) for step in range(10)]
    assert values == [1.0] * first + [0.5] * (10 - first)


@pytest.mark.parametrize(
    ("start", "base", "final", "warm"),
    [(0.0, 0.4, 0.0048, 10), (0.3, 4.8, 0.0048, 10), (0.0, 0.4, 0.0048, 0)],
    ids=["dino", "swav", "nowarm"],
)
def test_learning_rate_of_dino_and_swav(start, base, final, warm):
    """Their tables: numpy.linspace up, then the cosine over the rest of the iterations."""
    epochs, each = 30, 5
    rest = (epochs - warm) * each
    table = [*np.linspace(start, base, warm * each)]
    table += [final + 0.5 * (base - final) * (1 + math.cos(math.pi * i / rest)) for i in range(rest)]
    schedule = build_schedule(
        {
            "type": "warmup_cosine",
            "base": base,
            "final": final,
            "warmup_epochs": warm,
            "start_factor": start / base,
            "inclusive": True,
        }
    )
    horizon = Horizon(each, epochs, epochs * each, 0, 1)
    assert [schedule(step, horizon) for step in range(epochs * each)] == pytest.approx(table, rel=1e-12)


def test_constant():
    assert constant(7, value=0.996) == 0.996
    assert build_schedule({"type": "constant", "value": 0.996})(7, Horizon(1, 1, 1, 1, 1)) == 0.996


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"type": "warmup_cosin", "base": 1}, "schedule type 'warmup_cosin' is unknown; did you mean warmup_cosine"),
        ({"base": 1}, "schedule type None"),
        (
            {"type": "warmup_cosine", "base": 1, "warmup_epoch": 5},
            "schedule 'warmup_cosine': key 'warmup_epoch' is unknown; did you mean warmup_epochs",
        ),
        ({"type": "warmup_cosine"}, "needs the key 'base'"),
        ({"type": "cosine_momentum", "base": 1, "total": "epochs"}, "total 'epochs' is unknown; known: images, steps"),
        ({"type": "switch", "before": 0, "after": 1}, "needs at_step or at_epoch, found at_step=None, at_epoch=None"),
        ({"type": "switch", "before": 0, "after": 1, "at_step": 1, "at_epoch": 2}, "found at_step=1, at_epoch=2"),
        ({"type": "linear", "start": 0, "epochs": 1}, "needs the key 'end'"),
    ],
)
def test_config_errors_name_the_key(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(cfg)


def test_the_horizon_of_a_training_loop():
    """22 images in batches of 4: five steps an epoch."""
    assert Horizon.of(22, 4, epochs=3) == Horizon(
        steps_per_epoch=5, epochs=3, total_steps=15, num_images=22, global_batch=4
    )
    for batch_size in (4, 0):
        with pytest.raises(SettingError, match=f"found 3 images for a batch of {batch_size}, expected at least a full"):
            Horizon.of(3, batch_size, epochs=3)
