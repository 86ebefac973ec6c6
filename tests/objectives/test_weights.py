"""Scheduled settings of objectives: numbers stay, configs are evaluated at the step of the model."""

import pytest
import torch
from torch import nn

from densessl.branches import build_target
from densessl.errors import SettingError
from densessl.objectives import Objective
from densessl.objectives.ccop import CCOP
from densessl.objectives.swav import SwAV
from densessl.registry import OBJECTIVES
from densessl.schedules import Step, scheduled, warmup_cosine
from tests.objectives.toy import HORIZON, toy_batch, toy_model

RAMP = dict(type="warmup_cosine", base=2.0, warmup_epochs=1, start_factor=0.0, final=1.0)
LATER = dict(type="switch", before=False, after=True, at_epoch=1)


def test_numbers_stay_and_schedules_follow_the_step():
    assert [scheduled(0.3)(Step(index, HORIZON)) for index in (0, 7)] == [0.3, 0.3]
    assert scheduled(0.3)(Step(0)) == 0.3  # outside a run
    config = dict(RAMP)
    schedule = scheduled(config)
    for index in range(HORIZON.total_steps):
        expected = warmup_cosine(index, total=10, base=2.0, warmup=5, start_factor=0.0, final=1.0)
        assert schedule(Step(index, HORIZON)) == expected
    assert config == RAMP  # reading a config does not use it up
    with pytest.raises(ValueError, match=r"schedule type 'warmup_cosin' is unknown; did you mean warmup_cosine"):
        scheduled(dict(RAMP, type="warmup_cosin"))


@OBJECTIVES.register_module(force=True)
class Weighed(Objective):
    """Two losses and two figures of known values."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor = nn.Parameter(torch.ones(()))

    def forward(self, maps, batch, step):
        return {
            "loss": 3 * self.factor,
            "loss_more": 4 * self.factor,
            "figure": self.factor * 5,
            "top_loss": torch.tensor(6.0),
        }


@pytest.mark.parametrize(
    ("setting", "ask"),
    [
        ("the schedule .*warmup_cosine", lambda: scheduled(RAMP)(Step(0))),
        (
            "the schedule .*cosine_momentum",
            lambda: build_target(
                nn.ModuleList([nn.Linear(1, 1)]), momentum=dict(type="cosine_momentum", base=0.9)
            ).before_forward(nn.ModuleList([nn.Linear(1, 1)]), 0),
        ),
        (
            "objectives.swav.use_queue",
            lambda: SwAV(dim=8, prototypes=10, queue_length=4, use_queue=LATER).codes({}, Step(0)),
        ),
        ("objectives.ccop.iou_threshold", lambda: CCOP(length=8).curriculum(Step(0))),
    ],
    ids=["schedule", "target", "queue", "curriculum"],
)
def test_outside_a_run_the_setting_that_needs_its_length_is_named(setting, ask):
    with pytest.raises(SettingError, match=rf"{setting}.* depends on the length of the run: call model\.begin"):
        ask()
    assert scheduled(dict(type="constant", value=0.3))(Step(0)) == 0.3


def test_the_model_weighs_losses_and_nothing_else_at_its_step():
    objectives = [dict(type="Weighed", name="a", weight=RAMP), dict(type="Weighed", name="b", weight=0.5)]
    model, batch = toy_model(objectives), toy_batch(2)
    for step in range(4):
        losses = model.loss(batch)
        shares = {"a": 2.0 * step / 5, "b": 0.5}
        for name, share in shares.items():
            found = {key: losses[f"{name}.{key}"].item() for key in ("loss", "loss_more", "figure", "top_loss")}
            assert found == pytest.approx(dict(loss=3 * share, loss_more=4 * share, figure=5, top_loss=6))
        total, logged = model.parse_losses(losses)
        assert total.item() == pytest.approx(7 * sum(shares.values()))
        assert not any(value.requires_grad for value in logged.values())
        gradients = torch.autograd.grad(total, [model.objectives[name].factor for name in shares])
        assert [gradient.item() for gradient in gradients] == pytest.approx([7 * share for share in shares.values()])
        model.advance()
