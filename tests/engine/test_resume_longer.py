"""A run that goes on with more steps follows the schedule of its new length, as if it had had it from its beginning."""

import time

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper

from densessl.errors import CheckpointError
from densessl.weights.io.checkpoints import read_checkpoint
from tests.engine.test_resume import Two
from tests.engine.toy import Toy, build

PER_EPOCH = 5  # iterations


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    """MMEngine's loop over iterations sleeps for two seconds whenever the images start again."""
    monkeypatch.setattr(time, "sleep", lambda seconds: None)


class Rates(Hook):
    """Records the learning rates and momenta of each update, by iteration."""

    priority = "LOWEST"

    def __init__(self):
        self.values = {}

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        wrapper = runner.optim_wrapper
        wrappers = wrapper.values() if hasattr(wrapper, "keys") else [wrapper]
        self.values[runner.iter] = [
            (group["lr"], group.get("momentum"), group.get("betas")) for w in wrappers for group in w.param_groups
        ]


def by_iteration(steps):
    return [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=4),
        dict(type="CosineAnnealingLR", T_max=steps - 4, by_epoch=False, begin=4, end=steps, eta_min=1e-4),
    ]


SCHEDULES = {
    "warm-up and cosine": by_iteration,
    "warm-up past the end of the first run": lambda steps: [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=12),
        dict(type="ConstantLR", factor=0.5, by_epoch=False, begin=0, end=steps - 3),
    ],
    "multistep by epoch after a warm-up by iteration": lambda steps: [
        dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=7),
        dict(type="MultiStepLR", milestones=[steps // 10, steps // 7], gamma=0.3, by_epoch=True),
    ],
    "poly": lambda steps: [dict(type="PolyLR", power=0.9, eta_min=1e-4, begin=0, end=steps, by_epoch=False)],
    "poly by epoch": lambda steps: [dict(type="PolyLR", power=2, begin=0, end=steps // 5, by_epoch=True)],
    "epochs converted to iterations": lambda steps: [
        dict(type="CosineAnnealingLR", T_max=steps // 5, end=steps // 5, by_epoch=True, convert_to_iter_based=True)
    ],
    "one cycle": lambda steps: [dict(type="OneCycleLR", eta_max=0.5, total_steps=steps, by_epoch=False)],
    "steps, exponents and restarts": lambda steps: [
        dict(type="StepLR", step_size=steps // 4, gamma=0.5, by_epoch=False),
        dict(type="ExponentialLR", gamma=0.99, by_epoch=False, end=steps),
        dict(type="CosineRestartLR", periods=[steps // 2, steps], restart_weights=[1, 0.5], eta_min=0, by_epoch=False),
    ],
    "rate and momentum": lambda steps: [
        *by_iteration(steps),
        dict(type="CosineAnnealingMomentum", T_max=steps, eta_min=0.5, by_epoch=False),
        dict(type="LinearMomentum", start_factor=0.9, begin=0, end=steps // 5, by_epoch=True),
    ],
}
CONSTANT = "poly by epoch", "iterations"  # a loop over iterations is one epoch
SGD = dict(type="SGD", lr=0.1, momentum=0.9)
ADAM = dict(type="AdamW", lr=0.1)


def run(where, steps, schedule, loop="epochs", optimizer=SGD, groups=True, **options):
    rates = Rates()
    length, checkpoint = dict(by_epoch=True, max_epochs=steps // PER_EPOCH), dict(type="CheckpointHook", interval=1)
    if loop == "iterations":
        checkpoint = dict(type="CheckpointHook", interval=PER_EPOCH, by_epoch=False)
        length = dict(by_epoch=False, max_iters=steps, val_interval=1000)
    wrapper = dict(optimizer=dict(optimizer), paramwise_cfg=dict(custom_keys={"fc": dict(lr_mult=0.1)}))
    runner = build(
        where,
        train_cfg=length,
        optim_wrapper=wrapper if groups else dict(optimizer=dict(optimizer)),
        param_scheduler=schedule(steps),
        custom_hooks=[rates],
        default_hooks=dict(checkpoint=checkpoint),
        default_scope="mmengine",
        log_level="INFO",
        **options,
    )
    runner.train()
    return rates.values


def assert_continues(tmp_path, *setting, after=10, to=30, **options):
    straight = run(tmp_path / "straight", to, *setting, **options)
    run(tmp_path / "longer", after, *setting, **options)
    resumed = run(tmp_path / "longer", to, *setting, resume=True, **options)
    assert sorted(resumed) == list(range(after, to))
    for step, values in resumed.items():
        assert values == straight[step], step
    assert len({values[0] for values in straight.values()}) > 2
    return resumed


@pytest.mark.parametrize(
    ("name", "loop"),
    [(name, loop) for name in SCHEDULES for loop in ("epochs", "iterations") if (name, loop) != CONSTANT],
)
def test_rates_are_those_of_a_run_of_the_new_length(tmp_path, name, loop):
    assert_continues(tmp_path, SCHEDULES[name], loop)


def test_the_first_momentum_of_adam_is_scheduled_too(tmp_path):
    rates = assert_continues(tmp_path, SCHEDULES["rate and momentum"], "epochs", ADAM, False)
    assert len({values[0][2] for values in rates.values()}) > 10


def test_what_changed_is_told_in_a_line(tmp_path, capsys):
    run(tmp_path, 10, by_iteration)
    capsys.readouterr()
    run(tmp_path, 30, by_iteration, resume=True)
    (line,) = [line for line in capsys.readouterr().out.splitlines() if "another schedule" in line]
    assert "this run lasts 30 iterations, that one 10" in line
    assert "CosineAnnealingLR.T_max 6 -> 26" in line and "LinearLR" not in line
    capsys.readouterr()
    run(tmp_path, 30, by_iteration, resume=True)
    assert "another schedule" not in capsys.readouterr().out


def test_a_checkpoint_without_the_length_of_its_run(tmp_path):
    """Those of earlier versions: the schedulers' own settings show the difference."""
    straight = run(tmp_path / "straight", 30, by_iteration)
    run(tmp_path / "longer", 10, by_iteration)
    path = tmp_path / "longer" / "epoch_2.pth"
    checkpoint = read_checkpoint(path)
    del checkpoint["meta"]["run"]["max_iters"]
    torch.save(checkpoint, path)
    resumed = run(tmp_path / "longer", 30, by_iteration, resume=True)
    assert resumed == {step: straight[step] for step in range(10, 30)}


@pytest.mark.parametrize(("loop", "said"), [("epochs", "2 epochs.*lasts 1 "), ("iterations", "10 iter.*lasts 5 ")])
def test_a_run_shorter_than_what_was_trained_is_refused(tmp_path, loop, said):
    run(tmp_path, 10, SCHEDULES["one cycle"], loop)
    with pytest.raises(CheckpointError, match=f"has trained {said}.*train_cfg.max_"):
        run(tmp_path, 5, SCHEDULES["one cycle"], loop, resume=True)
    assert run(tmp_path, 10, SCHEDULES["one cycle"], loop, resume=True) == {}


def test_a_pretraining_is_not_shortened_either(tmp_path):
    build(tmp_path, epochs=2).train()
    with pytest.raises(CheckpointError, match="has trained 2 epochs, this run lasts 1 "):
        build(tmp_path, epochs=1, resume=True).train()


def test_a_schedule_that_follows_validation_results_is_refused_only_if_others_change(tmp_path):
    def schedule(warmup):
        plateau = dict(type="ReduceOnPlateauLR", monitor="loss", patience=1)
        return lambda steps: [plateau, dict(type="LinearLR", start_factor=0.1, end=warmup, by_epoch=True)]

    run(tmp_path, 10, schedule(4))
    with pytest.raises(CheckpointError, match=r"LinearLR.end 4 -> 5.*ReduceOnPlateauLR follows validation results"):
        run(tmp_path, 30, schedule(5), resume=True)
    rates = [values[0][0] for values in run(tmp_path, 30, schedule(4), resume=True).values()]
    assert rates[0] == pytest.approx(0.1 * 0.7) and rates[-1] == pytest.approx(0.1)


def test_several_optimisers(tmp_path):
    def train(where, epochs, **options):
        rates, model = Rates(), Two()
        wrappers = {
            "fc": OptimWrapper(torch.optim.SGD(model.fc.parameters(), lr=0.1, momentum=0.9)),
            "conv": OptimWrapper(torch.optim.AdamW(model.conv.parameters(), lr=0.01)),
        }
        schedulers = {
            "fc": [dict(type="PolyLR", end=epochs, by_epoch=True)],
            "conv": [dict(type="CosineAnnealingLR", T_max=epochs * PER_EPOCH, by_epoch=False)],
        }
        options |= dict(optim_wrapper=wrappers, param_scheduler=schedulers, custom_hooks=[rates])
        build(where, epochs, model=model, **options).train()
        return rates.values

    straight = train(tmp_path / "straight", 6)
    train(tmp_path / "longer", 2)
    assert train(tmp_path / "longer", 6, resume=True) == {step: straight[step] for step in range(10, 30)}


def test_without_the_state_of_the_optimiser_rates_are_right_too(tmp_path):
    straight = run(tmp_path / "straight", 30, by_iteration)
    runner = build(
        tmp_path / "other",
        train_cfg=dict(by_epoch=True, max_epochs=6),
        optim_wrapper=dict(optimizer=SGD),
        param_scheduler=by_iteration(30),
        model=Toy(),
        default_scope="mmengine",
        custom_hooks=[],
    )
    runner.resume(str(tmp_path / "straight" / "epoch_2.pth"), resume_optimizer=False)
    assert runner.optim_wrapper.get_lr()["lr"][0] == max(values[0] for values in straight[10])
