"""PreciseBN: statistics against the definition in float64, on two processes, and what a run with it leaves alone."""

import random
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from torch import nn

from densessl.branches.sync_bn import SyncBN
from densessl.engine.runner import DenseRunner
from densessl.finetune.precise_bn import PreciseBNHook, set_precise_statistics
from tests.distributed import run_pair


class Net(nn.Module):
    """Two norms in a row; the second sees two levels, as one of a head does."""

    def __init__(self, norm=nn.BatchNorm2d):
        super().__init__()
        self.conv, self.first = nn.Conv2d(3, 4, 3, bias=False), norm(4)
        self.second, self.idle = norm(4, momentum=0.3), norm(4)

    def forward(self, x):
        x = F.relu(self.first(self.conv(x)))
        return [self.second(level) for level in (x, F.max_pool2d(x, 2))]


def net(norm=nn.BatchNorm2d) -> Net:
    torch.manual_seed(0)
    model = Net(norm).double()
    for module in (model.first, model.second):
        nn.init.uniform_(module.weight, 0.5, 1.5)
        nn.init.normal_(module.bias)
        nn.init.normal_(module.running_mean)
    return model


def images(*sizes) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [3 * torch.randn(n, 3, 8, 10, generator=generator, dtype=torch.float64) + 1 for n in sizes]


def expected(model: Net, batches) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Means and unbiased variances of what comes into the norms, value by value, averaged over the times it does."""
    found = {"first": [], "second": []}

    def normalised(values: np.ndarray, name: str) -> np.ndarray:
        norm, rows = getattr(model, name), values.transpose(1, 0, 2, 3).reshape(4, -1)
        mean = np.array([sum(row) / len(row) for row in rows])
        squares = np.array([sum((row - m) ** 2) for row, m in zip(rows, mean)])
        found[name].append((mean, squares / (rows.shape[1] - 1)))
        scale = norm.weight.detach().numpy() / np.sqrt(squares / rows.shape[1] + norm.eps)
        return (values - mean[:, None, None]) * scale[:, None, None] + norm.bias.detach().numpy()[:, None, None]

    for batch in batches:
        with torch.no_grad():
            maps = model.conv(batch).numpy()
        maps = np.maximum(normalised(maps, "first"), 0)
        normalised(maps, "second")
        normalised(maps.reshape(*maps.shape[:2], 3, 2, 4, 2).max((3, 5)), "second")
    return {name: tuple(np.mean([each[i] for each in pairs], 0) for i in (0, 1)) for name, pairs in found.items()}


def test_statistics_are_the_averages_over_batches():
    model, batches = net(), images(3, 5, 2)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    set_precise_statistics(model, batches, model)
    for name, (mean, variance) in expected(model, batches).items():
        norm = getattr(model, name)
        np.testing.assert_allclose(norm.running_mean, mean, rtol=1e-12, atol=1e-14)
        np.testing.assert_allclose(norm.running_var, variance, rtol=1e-12)
    assert (model.first.momentum, model.second.momentum) == (0.1, 0.3)
    changed = {f"{name}.running_{kind}" for name in ("first", "second") for kind in ("mean", "var")}
    assert {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])} == changed
    assert not any(module._forward_hooks for module in model.modules())


def test_what_was_there_before_does_not_matter_and_norms_that_are_frozen_stay():
    model, other, batches = net(), net(), images(3, 4)
    model.second.running_var.fill_(float("inf"))
    kept = model.first.running_mean.clone()
    for each in (model, other):
        each.first.eval()
    for each in (model, other):
        set_precise_statistics(each, batches, each)
    assert torch.equal(model.first.running_mean, kept)
    assert torch.equal(model.second.running_var, other.second.running_var)
    assert model.second.running_var.isfinite().all()


def test_a_forward_that_fails_leaves_everything_as_it_was():
    model = net()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(RuntimeError):
        set_precise_statistics(model, [*images(3), torch.zeros(1, 2, 8, 8, dtype=torch.float64)], model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert model.second.momentum == 0.3 and not model.second._forward_hooks


def on_this_rank(synchronised: bool) -> dict[str, torch.Tensor]:
    rank = torch.distributed.get_rank()
    batches = images(4, 4, 4, 4)
    if synchronised:  # both have half of every batch; otherwise every second one
        model, own = net(SyncBN), [batch.chunk(2)[rank] for batch in batches]
    else:
        model, own = net(), batches[rank::2]
    set_precise_statistics(model, own, model)
    return model.state_dict()


@pytest.mark.parametrize("synchronised", [False, True])
def test_two_processes_find_what_one_finds(synchronised):
    model = net()
    set_precise_statistics(model, images(4, 4, 4, 4), model)
    first, second = run_pair(on_this_rank, synchronised)
    for name, value in model.state_dict().items():
        assert torch.equal(first[name], second[name])
        torch.testing.assert_close(first[name], value, rtol=1e-12, atol=1e-14)


class Photos(torch.utils.data.Dataset):
    """Four images; with noise from every generator that a pipeline may draw from."""

    def __init__(self, noise: bool):
        self.images, self.noise = images(4)[0].float(), noise

    def __len__(self) -> int:
        return 4

    def __getitem__(self, index):
        drawn = np.random.rand() + random.random() + torch.rand(()) if self.noise else 0.0
        return dict(inputs=self.images[index] + drawn)


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)

    def forward(self, inputs, mode="tensor"):
        out = F.dropout(self.norm(self.conv(inputs)), 0.2, self.training)
        return dict(loss=(out - 1).abs().mean()) if mode == "loss" else [out.mean()]


class Nothing(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(0)

    def compute_metrics(self, results):
        return dict(nothing=0.0)


class Watch(Hook):
    """The norm's statistics at each validation, and what they are of all images under the weights of that moment."""

    priority = "VERY_LOW"

    def __init__(self):
        self.seen = []

    def before_val(self, runner):
        model = runner.model
        with torch.no_grad():
            values = model.conv(images(4)[0].float()).transpose(0, 1).flatten(1)
        exact = torch.stack([values.mean(1), values.var(1)])
        self.seen.append((runner.iter, torch.stack([model.norm.running_mean, model.norm.running_var]), exact))


def run(folder: Path, by_epoch: bool, batches: int | None, noise: bool = False) -> tuple[DenseRunner, list]:
    """Five epochs or steps of one batch of all images, validated at 2, 3 and 5: every second one, later every third."""
    loop = dict(type="EpochBasedTrainLoop", max_epochs=5) if by_epoch else dict(type="IterBasedTrainLoop", max_iters=5)
    loader = dict(batch_size=4, num_workers=0, dataset=Photos(noise), collate_fn=dict(type="default_collate"))
    sampler = dict(type="DefaultSampler" if by_epoch else "InfiniteSampler", shuffle=True)
    checkpoint = dict(type="CheckpointHook", by_epoch=by_epoch, interval=5)
    torch.manual_seed(3)
    watch = Watch()
    runner = DenseRunner(
        Toy(),
        work_dir=str(folder),
        train_dataloader=loader | dict(sampler=sampler),
        val_dataloader=loader | dict(sampler=dict(type="DefaultSampler", shuffle=False)),
        val_evaluator=[Nothing()],
        val_cfg=dict(),
        train_cfg=loop | dict(val_interval=2, dynamic_intervals=[(4, 3)]),
        optim_wrapper=dict(optimizer=dict(type="SGD", lr=0.1)),
        default_hooks=dict(checkpoint=checkpoint),
        custom_hooks=[watch, *([PreciseBNHook(batches)] if batches else [])],
        randomness=dict(seed=0),
        experiment_name=folder.name,
    )
    runner.train()
    return runner, watch.seen


@pytest.mark.parametrize("by_epoch", [False, True])
def test_statistics_are_new_at_every_validation_and_in_the_last_checkpoint(tmp_path, by_epoch):
    _, seen = run(tmp_path, by_epoch, batches=3)
    assert [step for step, _, _ in seen] == [2, 3, 5]
    for _, found, exact in seen:
        torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-6)
    (file,) = tmp_path.glob("*_5.pth")
    state = torch.load(file, weights_only=True)["state_dict"]
    torch.testing.assert_close(torch.stack([state["norm.running_mean"], state["norm.running_var"]]), seen[-1][1])
    _, running = run(tmp_path / "without", by_epoch, batches=None)
    assert not torch.allclose(running[-1][1], running[-1][2], rtol=1e-2)


def test_the_training_does_not_notice_and_the_draws_are_those_of_seed_and_step(tmp_path):
    runs = {name: run(tmp_path / name, False, batches, noise=True) for name, batches in dict(a=2, b=2, c=None).items()}
    weights = {name: runner.model.conv.weight for name, (runner, _) in runs.items()}
    assert torch.equal(weights["a"], weights["c"])
    (first, seen), (_, again) = runs["a"], runs["b"]
    assert all(torch.equal(one[1], other[1]) for one, other in zip(seen, again))
    hook = next(hook for hook in first.hooks if isinstance(hook, PreciseBNHook))
    norm = first.model.norm
    found = []
    for number in (2, 2, 5):
        torch.rand(number), np.random.rand(number), random.random()
        first.train_loop._iter = number
        first.model.train()
        hook.recompute(first)
        found.append(norm.running_mean.clone())
    assert torch.equal(found[0], found[1]) and not torch.equal(found[0], found[2])


def test_no_batches_are_refused():
    with pytest.raises(ValueError, match="PreciseBNHook: batches=0, expected at least 1"):
        PreciseBNHook(0)
