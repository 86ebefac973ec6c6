"""Schedules in another number of steps, against the curves that MMEngine's own schedulers give."""

import copy

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.evaluator import BaseMetric
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.registry import PARAM_SCHEDULERS
from mmengine.runner import Runner
from torch import nn

from densessl.errors import SettingError
from densessl.finetune.config.resize_schedule import iters_per_epoch, set_steps
from tests.finetune.voc_coco_fixtures import write_voc

EPOCH = 20  # iterations
ITERS = dict(type="IterBasedTrainLoop", max_iters=240)
EPOCHS = dict(type="EpochBasedTrainLoop", max_epochs=12, val_interval=1)
WARM = dict(type="LinearLR", start_factor=0.1, by_epoch=False, begin=0, end=40)
SCHEDULES = {
    "1x": (EPOCHS, [WARM, dict(type="MultiStepLR", by_epoch=True, begin=0, end=12, milestones=[8, 11], gamma=0.1)]),
    "24k": (ITERS, [WARM, dict(type="MultiStepLR", by_epoch=False, milestones=[180, 220], gamma=0.1)]),
    "milestones from begin": (ITERS, [WARM, dict(type="MultiStepLR", by_epoch=False, begin=40, milestones=[60, 120])]),
    "converted cosine": (
        EPOCHS,
        [WARM, dict(type="CosineAnnealingLR", by_epoch=True, convert_to_iter_based=True, begin=0, end=12, T_max=12)],
    ),
    "cosine of the second half": (
        EPOCHS,
        [WARM, dict(type="CosineAnnealingLR", by_epoch=True, begin=6, end=12, T_max=6, eta_min=0.05)],
    ),
    "cosine in a loop of iterations": (
        ITERS,
        [dict(type="CosineAnnealingLR", convert_to_iter_based=True, begin=0, end=12, eta_min_ratio=0.1)],
    ),
    "cosine after a warm-up in epochs": (
        EPOCHS,
        [
            dict(type="LinearLR", start_factor=0.2, by_epoch=True, begin=0, end=3),
            dict(type="CosineAnnealingLR", by_epoch=True, begin=3, end=12, T_max=9),
        ],
    ),
    "poly after a warm-up": (
        ITERS,
        [WARM, dict(type="PolyLR", power=0.9, eta_min=0.01, begin=40, end=240, by_epoch=False)],
    ),
    "poly by epoch": (dict(by_epoch=True, max_epochs=12), [dict(type="PolyLR", power=2.0, by_epoch=True)]),
    "steps": (ITERS, [dict(type="mmengine.StepLR", step_size=70, gamma=0.5, by_epoch=False)]),
    "steps in epochs": (EPOCHS, [dict(type="StepLR", step_size=5, by_epoch=True)]),
    "exponential": (EPOCHS, [dict(type="ExponentialLR", gamma=0.8, by_epoch=True)]),
    "constant warm-up": (ITERS, [dict(type="ConstantLR", factor=0.3, by_epoch=False, end=60)]),
    "restarts": (
        ITERS,
        [dict(type="CosineRestartLR", periods=[80, 160], restart_weights=[1, 0.5], eta_min=0, by_epoch=False)],
    ),
    "one cycle": (ITERS, [dict(type="OneCycleLR", eta_max=2.0, total_steps=240, by_epoch=False)]),
}


def config(loop: dict, schedulers, **more) -> Config:
    loader = dict(batch_size=2, sampler=dict(type="DefaultSampler", shuffle=True), dataset=dict(type="none"))
    return Config(dict(train_cfg=loop, param_scheduler=copy.deepcopy(schedulers), train_dataloader=loader, **more))


def curve(cfg: Config, epoch: int = EPOCH) -> np.ndarray:
    """Learning rates of the iterations of a run (T,): MMEngine's schedulers, stepped as its loops step them."""
    by_epoch = "max_epochs" in cfg.train_cfg
    total = cfg.train_cfg.max_epochs * epoch if by_epoch else cfg.train_cfg.max_iters
    optimizer = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
    built = []
    for each in cfg.param_scheduler:
        # Runner._build_param_scheduler: its end is the loop's, in its own unit; a loop by iterations has one epoch.
        length = (cfg.train_cfg.max_epochs if by_epoch else 1) if each.get("by_epoch", True) else total
        settings = {"end": length, **each}
        built.append(PARAM_SCHEDULERS.build(settings, default_args=dict(optimizer=optimizer, epoch_length=epoch)))
    rates = []
    for iteration in range(total):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        for scheduler in built:
            if not scheduler.by_epoch or (by_epoch and (iteration + 1) % epoch == 0):
                scheduler.step()
    return np.array(rates)


@pytest.mark.parametrize("steps", [60, 113, 240, 700])
@pytest.mark.parametrize("name", SCHEDULES)
def test_a_resized_schedule_has_the_rates_of_the_original_at_the_same_share(name, steps):
    """At each step the rate is one that the original has within a step around that place. A staircase of epochs becomes
    the line through its left corners: there it is within an epoch, and goes on downwards in the last one. Where a ramp
    meets a decay the peak may be sharper."""
    original, resized = config(*SCHEDULES[name]), config(*SCHEDULES[name])
    set_steps(resized, steps, epoch_length=EPOCH)
    was, now = curve(original), curve(resized)
    assert len(now) == steps
    stairs = any(each.get("by_epoch", True) and not each.get("convert_to_iter_based") for each in SCHEDULES[name][1])
    window = max(len(was) / steps, EPOCH if stairs else 1) + 1
    last_stair = abs(was[-1] - was[-1 - EPOCH]) if stairs else 0
    for step, rate in enumerate(now):
        place = step * len(was) / steps
        around = was[max(0, int(place - window)) : int(np.ceil(place + window)) + 1]
        lowest = around.min() - (last_stair if place > len(was) - EPOCH else 0)
        assert lowest - 0.015 <= rate <= around.max() + 0.015, (step, rate)


@pytest.mark.parametrize("name", [name for name in SCHEDULES if name != "exponential"])  # MMEngine leaves its gamma
def test_a_schedule_of_its_own_length_stays_as_it_is(name):
    loop, schedulers = SCHEDULES[name]
    resized = config(loop, schedulers)
    set_steps(resized, 240, epoch_length=EPOCH)
    converted = [
        dict(each, **{"convert_to_iter_based": True} if each.get("by_epoch", True) else {}) for each in schedulers
    ]
    converted = [dict(dict(end=12), **each) if each.get("by_epoch", True) else each for each in converted]
    np.testing.assert_allclose(curve(resized), curve(config(loop, converted)), rtol=1e-9, atol=1e-12)


def test_milestones_are_where_their_share_of_the_steps_is():
    cfg = config(*SCHEDULES["1x"])
    set_steps(cfg, 90, epoch_length=EPOCH)
    rates = curve(cfg)
    assert list(np.flatnonzero(np.diff(rates) < 0) + 1) == [60, 83]  # 8 / 12 and 11 / 12 of 90
    assert rates[14] == pytest.approx(1.0) and rates[13] < 1.0  # 40 of 240 iterations are 15 steps


def test_a_short_warm_up_still_ends_at_the_full_rate():
    """500 of 90,000 iterations are half a step of 90: the ramp takes two, and the cosine begins behind it."""
    schedulers = [dict(WARM, end=500), dict(type="CosineAnnealingLR", by_epoch=False, begin=500, end=90000)]
    cfg = config(dict(ITERS, max_iters=90000), schedulers)
    set_steps(cfg, 90)
    assert [(each.begin, each.end) for each in cfg.param_scheduler] == [(0, 2), (2, 90)]
    rates = curve(cfg)
    assert rates[0] == pytest.approx(0.1) and rates[1] == pytest.approx(1.0) and rates[-1] < 0.01


def test_milestones_count_from_where_their_scheduler_begins():
    """It begins at step 2, behind a stretched ramp, and the rate still falls at half of the steps."""
    schedulers = [dict(WARM, end=500), dict(type="MultiStepLR", by_epoch=False, begin=500, milestones=[44500])]
    cfg = config(dict(ITERS, max_iters=90000), schedulers)
    set_steps(cfg, 90)
    assert list(np.flatnonzero(np.diff(curve(cfg)) < 0) + 1) == [45]


def test_schedulers_of_several_optimisers_are_all_resized():
    cfg = config(ITERS, dict(g=copy.deepcopy(SCHEDULES["24k"][1]), d=dict(type="PolyLR", by_epoch=False)))
    set_steps(cfg, 24)
    assert [each.end for each in cfg.param_scheduler.g] == [4, 24] and cfg.param_scheduler.d.end == 24


class Toy(BaseModel):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(1, 1)

    def forward(self, inputs, mode="loss"):
        value = self.layer(torch.stack(inputs))
        return dict(loss=value.sum()) if mode == "loss" else value


class Metric(BaseMetric):
    def process(self, data_batch, data_samples):
        self.results.append(1)

    def compute_metrics(self, results):
        return dict(count=len(results))


class Recorder(Hook):
    """When it was evaluated, and with which rates it was trained."""

    def __init__(self):
        self.evaluated, self.rates, self.updates = [], [], 0

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.rates.append(runner.optim_wrapper.get_lr()["lr"][0])

    def before_val_epoch(self, runner):
        self.evaluated.append(runner.iter)


@pytest.mark.parametrize(
    ("steps", "evaluations", "accumulated", "points"),
    [
        (12, 4, 1, [3, 6, 9, 12]),
        (10, 3, 1, [3, 7, 10]),
        (11, 5, 1, [2, 4, 7, 9, 11]),
        (5, 5, 1, [1, 2, 3, 4, 5]),
        (7, 1, 1, [7]),
        (5, 2, 3, [6, 15]),
    ],
)
def test_a_run_is_evaluated_at_even_points_and_saved_at_the_end(tmp_path, steps, evaluations, accumulated, points):
    data = [dict(inputs=torch.ones(1) * i) for i in range(6)]
    loader = dict(batch_size=2, num_workers=0, dataset=data, sampler=dict(type="DefaultSampler", shuffle=False))
    cfg = config(dict(type="EpochBasedTrainLoop", max_epochs=3), [dict(type="CosineAnnealingLR", T_max=3, end=3)])
    cfg.optim_wrapper = dict(optimizer=dict(type="SGD", lr=1.0), accumulative_counts=accumulated)
    cfg.default_hooks = dict(checkpoint=dict(type="CheckpointHook", interval=1, save_best="count"))
    set_steps(cfg, steps, evaluations)
    recorder = Recorder()
    runner = Runner(
        Toy(),
        str(tmp_path),
        train_dataloader={**loader, "sampler": cfg.train_dataloader.sampler},
        val_dataloader=loader,
        val_cfg=dict(),
        val_evaluator=[Metric()],
        custom_hooks=[recorder],
        experiment_name=f"{steps}-{evaluations}-{accumulated}",
        **{
            key: cfg[key] for key in ("train_cfg", "optim_wrapper", "param_scheduler", "default_hooks", "log_processor")
        },
    )
    runner.train()
    assert recorder.evaluated == points
    assert len(recorder.rates) == steps * accumulated and recorder.rates[-1] < recorder.rates[0] == 1.0
    assert [path.name for path in tmp_path.glob("*.pth")] == [f"iter_{steps * accumulated}.pth"]


@pytest.mark.det
def test_an_epoch_is_counted_from_the_data_set_after_its_filter(tmp_path, monkeypatch):
    write_voc(tmp_path, ["fox"], images=7)
    empty = tmp_path / "VOC2007/Annotations/2007_000003.xml"
    empty.write_text(empty.read_text().replace("fox", "hen"))
    dataset = dict(
        type="XMLDataset",
        data_root=str(tmp_path),
        ann_file="VOC2007/ImageSets/Main/trainval.txt",
        data_prefix=dict(sub_data_root="VOC2007/"),
        metainfo=dict(classes=["fox"]),
        filter_cfg=dict(filter_empty_gt=True),
        pipeline=[],
    )
    cfg = config(EPOCHS, [dict(WARM, end=9)], default_scope="mmdet")
    cfg.train_dataloader.dataset = dataset
    assert iters_per_epoch(cfg) == 3  # six images in batches of two
    set_steps(cfg, 12)  # of 36 iterations
    assert cfg.param_scheduler[0].end == 3
    cfg.launcher = "pytorch"
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert iters_per_epoch(cfg) == 2


@pytest.mark.parametrize(
    ("change", "steps", "evaluations", "said"),
    [
        ({}, 0, 1, "--steps: found 0, expected at least 1"),
        ({}, 5, 9, "--evaluations: found 9 in 5 steps, expected 1 to 5; the nearest is 5"),
        ({}, 5, 0, "the nearest is 1"),
        (
            {"param_scheduler": [dict(type="ReduceOnPlateauLR")]},
            5,
            1,
            "has a ReduceOnPlateauLR, which cannot be resized",
        ),
        (
            {"custom_hooks": [dict(type="PipelineSwitchHook", switch_epoch=9)]},
            5,
            1,
            "custom_hooks.0, PipelineSwitchHook",
        ),
        ({"train_cfg": dict(type="FlexibleLoop")}, 5, 1, "train_cfg.type is FlexibleLoop"),
    ],
)
def test_what_cannot_be_resized_is_named(change, steps, evaluations, said):
    cfg = config(ITERS, [WARM])
    cfg.merge_from_dict(change)
    with pytest.raises(SettingError, match=said):
        set_steps(cfg, steps, evaluations)
