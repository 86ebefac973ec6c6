"""A small model that is hard to resume, and a runner to train it with."""

import itertools

import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

import densessl.engine.lars
import densessl.engine.lr_hook
import densessl.engine.precision  # noqa: F401
from densessl.engine.runner import DenseRunner

NUMBER = itertools.count()
DATA = torch.randn(22, 3, 6, 6, generator=torch.Generator().manual_seed(0))


class Toy(BaseModel):
    """Batch norm, dropout, and a step counter in a buffer: all that makes resuming hard."""

    def __init__(self, classes=2):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.bn = nn.BatchNorm2d(4)
        self.drop = nn.Dropout(0.3)
        self.fc = nn.Linear(64, classes)
        self.register_buffer("global_step", torch.zeros((), dtype=torch.int64))

    step = property(lambda self: int(self.global_step))

    def begin(self, horizon, seed):
        self.horizon = horizon

    def advance(self):
        self.global_step += 1

    def forward(self, *samples, mode="loss"):
        features = self.drop(self.bn(self.conv(torch.stack(samples))).relu().flatten(1))
        return {"loss": self.fc(features).square().mean()}


def build(work_dir, epochs=4, model=None, cls=DenseRunner, init=0, **options):
    torch.manual_seed(init)
    model = model or Toy()
    torch.manual_seed(1000 + next(NUMBER))  # no run may profit from the state another left behind
    cfg = {
        "model": model,
        "work_dir": str(work_dir),
        "train_dataloader": {
            "dataset": DATA,
            "sampler": {"type": "DefaultSampler", "shuffle": True},
            "batch_size": 4,
            "drop_last": True,
        },
        "train_cfg": {"by_epoch": True, "max_epochs": epochs},
        "optim_wrapper": {
            "type": "densessl.DenseOptimWrapper",
            "optimizer": {"type": "SGD", "lr": 0.2, "momentum": 0.9},
            "precision": "fp32",
        },
        "custom_hooks": [
            {"type": "densessl.LRHook", "schedule": {"type": "warmup_cosine", "warmup_epochs": 1}},
            {"type": "densessl.StepHook"},
        ],
        "default_scope": "densessl",
        "randomness": {"seed": 7},
        "log_level": "WARNING",
        "experiment_name": f"run{next(NUMBER)}",
        **options,
    }
    return cls(**cfg)


class StopAfter(Hook):
    """Ends the run after some epochs, as a preempted job does; the configured length stays what it is."""

    priority = "LOWEST"

    def __init__(self, epochs):
        self.epochs = epochs

    def after_train_epoch(self, runner):
        runner.train_loop.stop_training = runner.epoch + 1 == self.epochs


def assert_same(a, b, where="checkpoint"):
    assert type(a) is type(b), where
    if isinstance(a, torch.Tensor):
        assert a.dtype == b.dtype and torch.equal(a, b), where
    elif isinstance(a, dict):
        assert list(a) == list(b), where
        for key in a:
            assert_same(a[key], b[key], f"{where}[{key!r}]")
    elif isinstance(a, list | tuple):
        assert len(a) == len(b), where
        for index, pair in enumerate(zip(a, b)):
            assert_same(*pair, f"{where}[{index}]")
    else:
        assert a == b, where


def train_one(work_dir, **options):
    runner = build(work_dir, epochs=1, **options)
    runner.train()
    return runner, work_dir / "epoch_1.pth"
