"""ProgressHook and JsonlVisBackend in real MMEngine runs. The terminal's part is in test_live.py."""

import json
import math
import os
import re
import time
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.runner import Runner
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch.utils.data import Dataset

from densessl.engine.progress import (
    AsyncRuntimeInfoHook,
    Means,
    ProgressHook,
    StepTimer,
    _of_moving,
    batch_size_of,
    loader_advice,
)
from densessl.engine.vis_backends import JsonlVisBackend
from densessl.wording import duration
from tests.distributed import run_pair

WAIT = 0.02


class Numbers(Dataset):
    """Ten numbers; each takes WAIT seconds to load when `slow`."""

    metainfo = {}

    def __init__(self, slow: bool = False):
        self.slow = slow

    def __len__(self):
        return 10

    def __getitem__(self, index):
        if self.slow:
            time.sleep(WAIT)
        return {"inputs": torch.tensor([float(index)]), "data_samples": index}


class Model(BaseModel):
    """Loss terms that are functions of the batch alone, so that every mean is known."""

    def __init__(self, fail_at: float = math.inf):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.fail_at = fail_at

    def forward(self, inputs, data_samples=None, mode="tensor"):
        inputs = torch.stack(inputs) if isinstance(inputs, list) else inputs
        if mode == "predict":
            return list(inputs)
        if inputs.max() >= self.fail_at:
            raise KeyboardInterrupt
        return {"loss_a": inputs.mean() + 0 * self.weight, "loss_b": 2 * inputs.mean(), "accuracy": inputs.max()}


class Stepping(Model):
    """A model that counts optimiser steps itself."""

    step = 1000


class Mean(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.extend(float(value) for value in data_samples)

    def compute_metrics(self, results):
        return {"score": sum(results) / len(results)}


def runner(work_dir, model=None, hook=None, epochs=2, slow=False, val=False, runtime=None, **cfg) -> Runner:
    """5 iterations of 2 images an epoch, in order."""
    loader = {"batch_size": 2, "num_workers": 0, "sampler": {"type": "DefaultSampler", "shuffle": False}}
    if val:
        cfg |= {"val_dataloader": loader | {"dataset": Numbers()}, "val_cfg": {}, "val_evaluator": Evaluator(Mean())}
    return Runner(
        model=model or Model(),
        work_dir=str(work_dir),
        train_dataloader=loader | {"dataset": Numbers(slow)},
        train_cfg={"by_epoch": True, "max_epochs": epochs, "val_interval": 1},
        optim_wrapper={"optimizer": {"type": "SGD", "lr": 0.5}},
        param_scheduler=[{"type": "MultiStepLR", "milestones": [1], "gamma": 0.1}],
        default_hooks={
            "logger": hook or {"type": "ProgressHook", "interval": 4},
            "runtime_info": runtime or {"type": "AsyncRuntimeInfoHook"},
            "checkpoint": {
                "type": "CheckpointHook",
                "save_best": "score" if val else None,
                "rule": "greater",
                "interval": 100,
            },
        },
        visualizer={
            "type": "Visualizer",
            "vis_backends": [{"type": "JsonlVisBackend"}, {"type": "TensorboardVisBackend"}],
        },
        experiment_name=f"progress-{work_dir}",
        default_scope="densessl",
        **cfg,
    )


def lines(work_dir) -> list[dict]:
    return [json.loads(line) for line in (Path(work_dir) / "metrics.jsonl").read_text().splitlines()]


def test_scalars_are_interval_means_under_finished_iterations(tmp_path, capsys):
    runner(tmp_path).train()
    found = lines(tmp_path)
    assert [line["step"] for line in found] == [1, 4, 8, 10]
    means = [2 * i + 0.5 for i in range(5)] * 2  # batch i holds 2i and 2i + 1
    for line, (begin, end) in zip(found, [(0, 1), (1, 4), (4, 8), (8, 10)]):
        expected = np.mean(means[begin:end])
        assert line["loss_a"] == pytest.approx(expected, rel=1e-6)
        assert line["loss"] == pytest.approx(3 * expected, rel=1e-6)
        assert line["accuracy"] == pytest.approx(expected + 0.5, rel=1e-6)
        assert line["images_per_second"] == pytest.approx(2 / line["step_time"], rel=1e-6)
        # Iterations 6 to 10 ran at the lower rate; iteration 5 (the end of epoch one) did not.
        assert line["lr"] == pytest.approx(0.5 if end <= 5 else 0.05)
    printed = [line for line in capsys.readouterr().out.splitlines() if "img/s" in line]
    assert len(printed) == 4
    assert "epoch 1/2  iter 1/5" in printed[0]
    assert printed[0].endswith("eta --")
    assert "epoch 2/2  iter 5/5" in printed[3]
    assert printed[3].endswith("eta 0:00:00")
    assert re.search(r"loss 12  loss_a 4  .* data wait \d+% \(\d\.\d{3} s\)", printed[2])
    log = next(tmp_path.glob("*/*.log")).read_text()
    assert all(line.split(" - ")[-1] in log for line in printed)


def test_tensorboard_has_the_same(tmp_path):
    runner(tmp_path, model=Stepping()).train()
    events = EventAccumulator(str(next(tmp_path.glob("*/vis_data"))))
    events.Reload()
    found = lines(tmp_path)
    assert {line["step"] for line in found} == {1000}
    for name in ("loss", "loss_b", "lr", "images_per_second", "data_wait"):
        scalars = events.Scalars(name)
        assert [scalar.step for scalar in scalars] == [1000] * 4
        np.testing.assert_allclose([scalar.value for scalar in scalars], [line[name] for line in found], rtol=1e-6)


def test_validation_is_printed_written_and_usable_by_checkpoints(tmp_path, capsys):
    runner(tmp_path, val=True, runtime={"type": "RuntimeInfoHook"}).train()
    scores = [line for line in lines(tmp_path) if "score" in line]
    assert [(line["step"], line["score"]) for line in scores] == [(5, 4.5), (10, 4.5)]
    assert "Epoch(val) [2][5/5]    score: 4.5000" in capsys.readouterr().out
    assert list(tmp_path.glob("best_score_epoch_1.pth"))


def test_figures_are_not_read_at_every_iteration(tmp_path, monkeypatch):
    """Reading a tensor from a device waits for it, so it is done only for the lines written."""
    reads = []
    for name in ("item", "__float__", "tolist"):
        real = getattr(torch.Tensor, name)
        monkeypatch.setattr(torch.Tensor, name, lambda self, real=real: (reads.append(self), real(self))[1])
    runner(tmp_path, epochs=4, hook={"type": "ProgressHook", "interval": 10}).train()
    assert len(lines(tmp_path)) == 3
    # loss, loss_a, loss_b and accuracy; the sampler, the loader and the runner's time stamp read integers and doubles.
    assert sum(tensor.dtype == torch.float32 for tensor in reads) == 3 * 4


def test_a_slow_loader_is_measured_and_named_once(tmp_path, capsys):
    runner(tmp_path, slow=True, epochs=3).train()
    last = lines(tmp_path)[-1]
    assert 2 * WAIT <= last["data_wait"] <= last["step_time"]
    advice = [line for line in capsys.readouterr().out.splitlines() if "bottleneck" in line]
    assert len(advice) == 1
    assert "num_workers is 0" in advice[0]


def test_a_slow_model_is_not_blamed_on_the_loader(tmp_path, capsys):
    class Slow(Model):
        def forward(self, *args, **kwargs):
            time.sleep(5 * WAIT)
            return super().forward(*args, **kwargs)

    runner(tmp_path, model=Slow(), epochs=1).train()
    assert lines(tmp_path)[-1]["step_time"] >= 5 * WAIT
    assert "bottleneck" not in capsys.readouterr().out


def test_what_other_hooks_spend_is_not_waiting(tmp_path):
    class Lingering(Hook):
        priority = "VERY_LOW"

        def after_train_iter(self, *args, **kwargs):
            time.sleep(5 * WAIT)

    runner(tmp_path, epochs=1, custom_hooks=[Lingering()]).train()
    assert lines(tmp_path)[-1]["data_wait"] < 2.5 * WAIT < 5 * WAIT < lines(tmp_path)[-1]["step_time"]


def test_epoch_shares_do_not_leak_from_one_epoch_to_the_next(tmp_path):
    """An interval that spans two epochs is counted once, in parts: epoch sums add up to what was measured."""
    spent = []

    class Recording(ProgressHook):
        def after_train_epoch(self, runner):
            super().after_train_epoch(runner)
            spent.append(self._epoch_time + self._timer.read()[1])

    runner(tmp_path, epochs=3, hook=Recording(interval=4)).train()
    found = lines(tmp_path)
    iterations = np.diff([0, *(line["step"] for line in found)])
    assert sum(spent) == pytest.approx(sum(n * line["step_time"] for n, line in zip(iterations, found)), rel=1e-6)
    assert min(spent) > 0


def test_advice_depends_on_what_is_left_to_raise(monkeypatch):
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: range(8), raising=False)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "2")
    assert "43% of this epoch" in loader_advice(0.43, 2)
    assert loader_advice(0.43, 2).endswith("raise it, up to 4.")
    assert "all cores are in use" in loader_advice(0.43, 4)


def test_batch_sizes():
    class Ours:
        views = [torch.zeros(3, 3, 8, 8), torch.zeros(3, 3, 4, 4)]

    assert batch_size_of(Ours()) == 3
    assert batch_size_of({"inputs": [0, 0], "data_samples": [0, 0]}) == 2
    assert batch_size_of((torch.zeros(5, 3), torch.zeros(5))) == 5
    assert batch_size_of({"images": 3}) == batch_size_of(None) == batch_size_of([]) == 0


def test_means_keep_float64_and_survive_absent_and_odd_figures():
    means = Means()
    means.add({"a": torch.tensor(1 + 1e-12, dtype=torch.float64), "b": 1, "map": torch.zeros(3), "name": "x"})
    means.add({"a": torch.tensor([1.0], dtype=torch.float64), "c": torch.tensor(2.0, dtype=torch.bfloat16)})
    assert means.read() == {"a": 1 + 5e-13, "b": 1, "c": 2}


def test_timer_leaves_pauses_out():
    timer = StepTimer(cuda=False)
    for _ in range(2):
        timer.pause()
        time.sleep(WAIT)
        timer.batch_arrived()
        timer.step_done()
    assert timer.read()[0] == 0
    assert timer.read()[1] < WAIT
    assert timer.steps == 2


def test_rates_that_are_held_constant_are_not_shown():
    rates = [{"lr": 0.1}, {"lr": 0.5, "lr_constant": True}]
    runner = SimpleNamespace(optim_wrapper=SimpleNamespace(optimizer=SimpleNamespace(param_groups=rates)))
    assert _of_moving(runner, [0.1, 0.5]) == 0.1
    rates[0]["lr_constant"] = True
    assert _of_moving(runner, [0.1, 0.5]) == 0.5
    assert _of_moving(SimpleNamespace(optim_wrapper=object()), [0.1, 0.5]) == 0.5


def test_durations():
    assert duration(3723.4) == "1:02:03"
    assert [duration(seconds) for seconds in (math.nan, math.inf, -1.0)] == ["--"] * 3


def test_jsonl_appends_flushes_and_converts(tmp_path):
    backend = JsonlVisBackend(str(tmp_path / "20240101_000000" / "vis_data"))
    figures = {
        "t": torch.tensor(1.5, requires_grad=True),
        "n": np.float32(2),
        "nan": math.nan,
        "v": np.array([1, np.inf]),
    }
    backend.add_scalars(figures, step=np.int64(3), file_path="other.json")
    (line,) = lines(tmp_path)  # on disk before the file is closed
    assert {**line, "time": 0} == {"step": 3, "time": 0, "t": 1.5, "n": 2.0, "nan": None, "v": [1.0, None]}
    assert abs(line["time"] - time.time()) < 60
    backend.close()
    backend.add_scalar("again", True, 4)
    JsonlVisBackend(str(tmp_path / "20240102_000000" / "vis_data")).add_scalar("later", 1, 5)
    assert [line["step"] for line in lines(tmp_path)] == [3, 4, 5]
    with pytest.raises(TypeError, match=r"'bad'.*set"):
        backend.add_scalar("bad", {1})


def train_on_every_rank(work_dir: str) -> int:
    """How many lines of progress this rank logs."""
    run, records = runner(work_dir, epochs=1), []
    run.logger.handlers[0].addFilter(lambda record: records.append(record.getMessage()) or True)
    run.train()
    return sum("img/s" in record for record in records)


def test_one_rank_speaks_for_all(tmp_path):
    """Each of two ranks has five numbers: batches of 2, 2 and 1, of which the first and the last are reported."""
    assert run_pair(train_on_every_rank, str(tmp_path)) == [2, 0]
    first, last = lines(tmp_path)
    assert (first["step"], last["step"]) == (1, 3)
    assert first["images_per_second"] == pytest.approx(2 * 2 / first["step_time"])
    assert last["images_per_second"] == pytest.approx(2 * (2 + 1) / (2 * last["step_time"]))


def test_async_runtime_info_keeps_the_rest(tmp_path):
    run = runner(tmp_path)
    assert any(isinstance(hook, AsyncRuntimeInfoHook) for hook in run.hooks)
    run.train()
    assert run.message_hub.get_info("max_iters") == 10
    assert run.message_hub.get_scalar("train/lr").current() == pytest.approx(0.05)
