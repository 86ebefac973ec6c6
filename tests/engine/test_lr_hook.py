from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

import densessl.engine.lars
import densessl.engine.precision  # noqa: F401
from densessl.engine.lr_hook import LRHook, StepHook, configured_rate, seed_torch
from densessl.engine.runner import DenseRunner
from densessl.errors import SettingError
from densessl.schedules import Horizon, warmup_cosine
from tests.engine import toy


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


class Rates(Hook):
    """The learning rate of every group of the optimiser, step by step."""

    def __init__(self):
        self.lrs = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.lrs.append([group["lr"] for group in runner.optim_wrapper.optimizer.param_groups])


def run(work_dir, model=None, reseed=True, lr=None, schedule=None, paramwise=None, rate=1.0, **wrapper):
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
            "optimizer": {"type": "densessl.LARS", "lr": rate},
            "paramwise_cfg": paramwise or {"lr_mult": {"head": 0.5}},
            "precision": "fp32",
            **wrapper,
        },
        custom_hooks=[
            recorder,
            LRHook(schedule or {"type": "warmup_cosine"}, **(lr or {})),
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


def test_a_constant_schedule_follows_the_batch_as_well(tmp_path):
    _, recorder = run(tmp_path, lr={"reference_batch": 16}, schedule={"type": "constant"}, rate=2.0)  # 4 images a step
    assert {max(groups) for groups in recorder.lrs} == {0.5}


def test_constant_groups_stay_at_the_scaled_base(tmp_path):
    """Through warm-up and decay, and times their own factor; the end of the cosine is not scaled by the batch."""
    schedule = {"type": "warmup_cosine", "warmup_epochs": 1, "start_factor": 0.0, "final": 0.3}
    paramwise = {"constant_lr": ("head",), "lr_mult": {"head.bias": 0.5}, "exclude": ()}
    _, recorder = run(tmp_path, lr={"reference_batch": 8}, schedule=schedule, paramwise=paramwise)
    for step, groups in enumerate(recorder.lrs):
        lr = warmup_cosine(step, total=10, base=0.5, warmup=5, start_factor=0.0, final=0.3)
        # The rest, the head, its bias, and MMEngine's entry for the base learning rate.
        assert groups == pytest.approx([lr, 0.5, 0.25, lr])


@pytest.mark.parametrize(
    "schedule",
    [
        {"type": "warmup_cosine", "base": 1.0},
        {"type": "warmup_multistep", "base": 1.0, "milestones": [1]},
        {"type": "constant", "value": 1.0},
    ],
    ids=lambda schedule: schedule["type"],
)
def test_a_schedule_with_a_rate_of_its_own_is_refused(schedule):
    with pytest.raises(SettingError, match=r"lr\.schedule\.(base|value)=1\.0: .* set optim_wrapper\.optimizer\.lr"):
        LRHook(schedule)


@pytest.mark.parametrize(
    ("schedule", "message"),
    [
        ({"type": "warmup_cosin"}, "did you mean warmup_cosine"),
        ({"type": "linear", "start": 0.0, "end": 1.0, "epochs": 1}, "type 'linear' is no schedule of a learning rate"),
        ({"warmup_epochs": 1}, "type None is no schedule of a learning rate; known: constant, warmup_cosine"),
    ],
)
def test_only_shapes_that_scale_a_rate_are_schedules_of_a_learning_rate(schedule, message):
    with pytest.raises(SettingError, match=message):
        LRHook(schedule)


def test_an_optimiser_without_a_learning_rate_is_refused():
    optimiser = torch.optim.Optimizer([nn.Parameter(torch.zeros(1))], {})
    runner = SimpleNamespace(optim_wrapper=SimpleNamespace(optimizer=optimiser))
    with pytest.raises(SettingError, match=r"optim_wrapper\.optimizer\.lr is missing.* Optimizer has no default"):
        configured_rate(runner)


def test_the_rate_of_a_resumed_run_is_that_of_its_config(tmp_path):
    """The groups of a checkpoint hold the rate of its last step; another rate in the config is what is trained with."""

    def train(name, rate, extra=(), **options):
        wrapper = {"type": "densessl.DenseOptimWrapper", "optimizer": {"type": "SGD", "lr": rate}, "precision": "fp32"}
        runner = toy.build(tmp_path / name, optim_wrapper=wrapper, **options)
        record = Rates()
        for hook in (record, *extra):
            runner.register_hook(hook)
        runner.train()
        return [lr for (lr,) in record.lrs]

    straight = train("straight", 0.2)
    first = train("broken", 0.2, [toy.StopAfter(3)])
    assert first == straight[:15] and first[-1] < 0.2 / 2
    assert train("broken", 0.4, resume=True) == pytest.approx([2 * lr for lr in straight[15:]])


def test_constant_groups_survive_a_resume(tmp_path):
    def train(name, extra=(), **options):
        wrapper = {
            "constructor": "densessl.DenseOptimWrapperConstructor",
            "optimizer": {"type": "SGD", "lr": 0.2},
            "paramwise_cfg": {"constant_lr": ("fc",), "exclude": ()},
            "precision": "fp32",
        }
        record = Rates()
        runner = toy.build(tmp_path / name, optim_wrapper=wrapper, **options)
        for hook in (record, *extra):
            runner.register_hook(hook)
        runner.train()
        return runner, record.lrs

    _, straight = train("straight")
    _, first = train("broken", [toy.StopAfter(2)])
    runner, second = train("broken", resume=True)
    assert first + second == straight and len(second) == 10
    assert {fixed for _, fixed in straight} == {0.2} and len({lr for lr, _ in straight}) > 15
    assert [group["lr_constant"] for group in runner.optim_wrapper.optimizer.param_groups] == [False, True]


def test_an_unknown_batch_rule_is_an_error():
    with pytest.raises(ValueError, match=r"rule='square': expected one of \['linear', 'none', 'sqrt'\]"):
        LRHook({"type": "constant"}, rule="square")


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
    with pytest.raises(SettingError, match="LRHook needs a model with `step`; Counting lacks `step`"):
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
