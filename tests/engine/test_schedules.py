import math

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

import densessl.engine.lars
import densessl.engine.precision  # noqa: F401
from densessl.engine.lr_hook import LRHook, StepHook, seed_torch
from densessl.engine.runner import DenseRunner
from densessl.engine.schedules import (
    Horizon,
    build_schedule,
    constant,
    cosine_momentum,
    fractional_total,
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


def test_constant():
    assert constant(7, value=0.996) == 0.996
    assert build_schedule({"type": "constant", "value": 0.996})(7, Horizon(1, 1, 1, 1, 1)) == 0.996


@pytest.mark.parametrize(
    ("cfg", "message"),
    [
        ({"type": "warmup_cosin", "base": 1}, "nearest is 'warmup_cosine'"),
        ({"base": 1}, "schedule type None"),
        ({"type": "warmup_cosine", "base": 1, "warmup_epoch": 5}, "nearest is 'warmup_epochs'"),
        ({"type": "warmup_cosine"}, "needs the key 'base'"),
        ({"type": "cosine_momentum", "base": 1, "total": "epochs"}, "expected 'steps' or 'images'"),
    ],
)
def test_config_errors_name_the_key(cfg, message):
    with pytest.raises(ValueError, match=message):
        build_schedule(cfg)


class Counting(BaseModel):
    """Records what the hooks did around each optimiser step."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(2, 1)
        self.head = nn.Linear(1, 1)
        self.step, self.horizon, self.noise = 0, None, []

    def begin(self, horizon, seed):
        self.horizon, self.seed = horizon, seed

    def advance(self):
        self.step += 1

    def forward(self, *samples, mode="loss"):
        self.noise.append(torch.rand(()).item())
        return {"loss": self.head(self.fc(torch.stack(samples))).square().mean()}


class Recorder(Hook):
    """Looks at what a logging or checkpoint hook would see."""

    priority = "VERY_HIGH"

    def __init__(self):
        self.lrs, self.steps, self.weights = [], [], []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.lrs.append([group["lr"] for group in runner.optim_wrapper.param_groups])
        self.steps.append(runner.model.step)
        self.weights.append(runner.model.fc.weight.detach().clone())


def run(work_dir, model=None, reseed=True, lr=None, **wrapper):
    recorder = Recorder()
    model = model or Counting()
    runner = DenseRunner(
        model=model,
        work_dir=str(work_dir),
        train_dataloader={
            "dataset": torch.randn(21, 2, generator=torch.Generator().manual_seed(0)),
            "sampler": {"type": "DefaultSampler", "shuffle": False},
            "batch_size": 4,
            "drop_last": True,
        },
        train_cfg={"by_epoch": True, "max_epochs": 2},
        optim_wrapper={
            "constructor": "densessl.DenseOptimWrapperConstructor",
            "optimizer": {"type": "densessl.LARS", "lr": 9.0},
            "paramwise_cfg": {"lr_mult": {"head": 0.5}},
            "precision": "fp32",
            **wrapper,
        },
        custom_hooks=[
            recorder,
            LRHook({"type": "warmup_cosine", "base": 1.0}, **(lr or {})),
            StepHook(reseed=reseed),
        ],
        default_hooks={"checkpoint": None},
        default_scope="densessl",
        randomness={"seed": 3},
        log_level="WARNING",
        experiment_name=work_dir.name,
    )
    runner.train()
    return model, recorder


def test_hooks_count_steps_over_accumulation_with_a_remainder(tmp_path):
    """10 iterations accumulated by 3: the optimiser steps after the 3rd, 6th, 9th and, incomplete, the 10th."""
    model, recorder = run(tmp_path, accumulative_counts=3)
    assert model.horizon == Horizon(steps_per_epoch=5 / 3, epochs=2, total_steps=4, num_images=21, global_batch=12)
    assert model.seed == 3
    assert recorder.steps == [0, 0, 1, 1, 1, 2, 2, 2, 3, 4]
    moved = [not torch.equal(a, b) for a, b in zip(recorder.weights, recorder.weights[1:])]
    assert moved == [False, True, False, False, True, False, False, True, True]
    expected = [warmup_cosine(s, total=4, base=1.0) for s in (0, 0, 0, 1, 1, 1, 2, 2, 2, 3)]
    for lr, groups in zip(expected, recorder.lrs):
        # Two exclusion classes by two scales, and MMEngine's entry for the base learning rate.
        assert sorted(groups) == pytest.approx([lr / 2, lr / 2, lr, lr, lr])


@pytest.mark.parametrize(
    ("options", "factor"),
    [
        ({"reference_batch": 48}, 1 / 4),
        ({"reference_batch": 48, "rule": "sqrt"}, 1 / 2),
        ({"reference_batch": 48, "rule": "none"}, 1),
        ({"reference_batch": 12, "rule": "sqrt"}, 1),
    ],
)
def test_learning_rate_follows_the_batch(tmp_path, options, factor):
    _, recorder = run(tmp_path, accumulative_counts=3, lr=options)  # 12 images a step
    assert max(recorder.lrs[0]) == pytest.approx(factor)


def test_an_unknown_batch_rule_is_an_error():
    with pytest.raises(ValueError, match=r"rule='square': expected one of \['linear', 'none', 'sqrt'\]"):
        LRHook({"type": "constant", "value": 1.0}, rule="square")


def test_every_iteration_is_reseeded_by_its_position(tmp_path):
    model, _ = run(tmp_path / "a", accumulative_counts=3)
    again, _ = run(tmp_path / "b", accumulative_counts=3)
    assert model.noise == again.noise and len(set(model.noise)) == 10
    expected = []
    for step, micro in [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2), (2, 0), (2, 1), (2, 2), (3, 0)]:
        seed_torch(3, step, micro, 0, 0)
        expected.append(torch.rand(()).item())
    assert model.noise == expected


def test_reseeding_can_be_turned_off(tmp_path):
    torch.manual_seed(0)
    model, _ = run(tmp_path, reseed=False)
    seed_torch(3, 0, 0, 0, 0)
    assert model.noise[0] != torch.rand(()).item()


def test_a_model_without_counter_is_refused(tmp_path):
    model = Counting()
    del model.step
    with pytest.raises(TypeError, match=r"LRHook needs a model that counts .* Counting does not"):
        run(tmp_path, model=model)


def test_reseeding_leaves_other_generators_alone():
    own = torch.Generator().manual_seed(5)
    state = own.get_state()
    seed_torch(1, 2, 3)
    first = torch.rand(3)
    seed_torch(1, 2, 4)
    assert not torch.equal(first, torch.rand(3))
    seed_torch(1, 2, 3)
    assert torch.equal(first, torch.rand(3)) and torch.equal(state, own.get_state())
