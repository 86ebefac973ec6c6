"""A run that is stepped through is the run that ``train()`` makes."""

import itertools
import json

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook

from densessl.engine.stepping import steps
from densessl.errors import SettingError
from densessl.weights.io.checkpoints import read_checkpoint
from tests.engine.toy import DATA, Toy, assert_same, build


class Record(Hook):
    """The points of a run that were passed, in order."""

    def __init__(self):
        self.points = []


for _point in Hook.stages:
    setattr(Record, _point, lambda self, *_, point=_point, **__: self.points.append(point))


class Validated(Toy):
    def forward(self, *samples, mode="loss"):
        return [{}] * len(samples) if mode == "predict" else super().forward(*samples)


class Count(BaseMetric):
    def process(self, batch, outputs):
        self.results += outputs

    def compute_metrics(self, results):
        return {"count": len(results)}


def with_validation():
    loader = dict(dataset=DATA[:6], sampler=dict(type="DefaultSampler", shuffle=False), batch_size=3)
    return dict(
        model=Validated,
        val_dataloader=loader,
        val_cfg={},
        val_evaluator=[Count()],
        train_cfg=dict(by_epoch=True, max_epochs=4, val_interval=3, val_begin=2),
    )


def recorded(work_dir, model=Toy, **options):
    torch.manual_seed(0)
    runner, record = build(work_dir, model=model(), **options), Record()
    runner.register_hook(record)
    return runner, record.points


@pytest.mark.parametrize(("options", "validations"), [(dict, 0), (with_validation, 2)])
def test_to_its_end_it_leaves_what_training_leaves(tmp_path, options, validations):
    """The same weights, optimiser and position, by hooks at the same points."""
    trained, expected = recorded(tmp_path / "trained", **options())
    trained.train()
    stepped, points = recorded(tmp_path / "stepped", **options())
    losses = [figures["loss"].item() for figures in steps(stepped)]
    assert len(set(losses)) == 20 and losses[-1] < losses[0]  # 4 epochs of 22 // 4 steps
    assert points == expected and points.count("after_val") == validations
    one, other = (read_checkpoint(tmp_path / name / "epoch_4.pth") for name in ("trained", "stepped"))
    for key in ("state_dict", "optimizer"):
        assert_same(one[key], other[key], key)
    assert (one["meta"]["epoch"], one["meta"]["iter"]) == (other["meta"]["epoch"], other["meta"]["iter"]) == (4, 20)


def test_broken_off_it_closes_the_logs_and_ends_no_training(tmp_path):
    writes = dict(type="Visualizer", vis_backends=[dict(type="JsonlVisBackend")])
    progress = dict(logger=dict(type="ProgressHook", interval=1), runtime_info=dict(type="AsyncRuntimeInfoHook"))
    runner, points = recorded(tmp_path, visualizer=writes, default_hooks=progress)
    (backend,) = runner.visualizer._vis_backends.values()
    training = steps(runner)
    for _ in itertools.islice(training, 7):  # five an epoch
        pass
    assert runner.iter == 7 and runner.epoch == 1 and backend._env_initialized
    training.close()
    assert points.count("after_train_iter") == 7 and points.count("after_run") == 1 and "after_train" not in points
    assert not backend._env_initialized
    assert [json.loads(line)["step"] for line in backend.path.read_text().splitlines()] == [1, 2, 3, 4, 5, 6, 7]
    assert [path.name for path in tmp_path.glob("*.pth")] == ["epoch_1.pth"]
    with pytest.raises(SettingError, match="has trained 7 iterations already"):
        next(steps(runner))


def test_it_resumes(tmp_path):
    straight, _ = recorded(tmp_path / "straight")
    straight.train()
    begun, _ = recorded(tmp_path / "begun")
    training = steps(begun)
    for _ in itertools.islice(training, 12):  # into the third epoch; that one is lost
        pass
    training.close()
    resumed, points = recorded(tmp_path / "begun", resume=True)
    assert len(list(steps(resumed))) == 10 and points.count("before_train_epoch") == 2
    one, other = (read_checkpoint(tmp_path / name / "epoch_4.pth") for name in ("straight", "begun"))
    assert_same(one["state_dict"], other["state_dict"])


def test_a_loop_over_iterations_is_refused(tmp_path):
    runner = build(tmp_path, train_cfg=dict(by_epoch=False, max_iters=3))
    with pytest.raises(SettingError, match="found IterBasedTrainLoop, expected a loop over epochs"):
        next(steps(runner))


def test_runs_built_within_a_second_share_neither_logs_nor_scalars(tmp_path, monkeypatch):
    """MMEngine tells them apart by name and second."""
    monkeypatch.setattr("time.time", lambda: 1e9)
    first, second = (build(tmp_path / name, experiment_name="same") for name in ("one", "two"))
    assert first.timestamp == second.timestamp
    assert first.visualizer is not second.visualizer and first.message_hub is not second.message_hub
    assert first.logger is not second.logger
