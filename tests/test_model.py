"""What TwoBranch does around its objectives: when the target moves, what each objective is handed, names and memory."""

import pytest
import torch

from densessl.branches import MLP
from densessl.model import TwoBranch
from densessl.objectives import DerivedView, Forward, Objective
from tests.objectives.toy import BACKBONE, HORIZON, VIT, toy_batch, toy_model


class Probe(Objective):
    """Keeps what it is handed. Its derived view is the first one, upside down."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.scale = torch.nn.Parameter(torch.ones(()))

    def plan(self):
        return [*super().plan(), Forward("online", ("flipped",), (self.level,))]

    def projectors(self, channels):
        return {"head": MLP(kind="map", dims=(channels(self.level), 4))}

    def derive(self, batch, step):
        owner = torch.arange(len(batch.views[0]))
        return {"flipped": DerivedView(batch.views[0].flip(2), batch.geometry[0], owner)}

    def forward(self, maps, batch, step):
        self.maps, self.batch, self.step = maps, batch, step
        return {"loss": self.scale * maps["online"][0][self.level].square().mean()}


def moved(model: TwoBranch) -> torch.Tensor:
    """Change the online branch; its first weight."""
    with torch.no_grad():
        for parameter in model.online.parameters():
            parameter += 0.1 * torch.randn_like(parameter)
    return next(model.online.backbone.parameters())


@pytest.mark.parametrize("timing", ["before_forward", "after_step"])
def test_the_target_moves_at_its_time(timing):
    """Momentum 0 copies the online branch. Before the forward, the target's own pass sees the moved weights."""
    probe = Probe()
    model, batch = toy_model([probe], dict(kind="ema", momentum=0.0, timing=timing)), toy_batch()
    model.eval()  # batch norm as a function of the weights alone
    weight = moved(model)
    target = next(model.target.branch(model.online).backbone.parameters())
    figures = model.loss(batch)
    if timing == "before_forward":
        assert torch.equal(target, weight) and figures["target_momentum"] == 0
        assert torch.equal(probe.maps["target"][0][-1], model.online(batch.views[0])[-1])
    else:
        assert not torch.equal(target, weight) and "target_momentum" not in figures
        model.advance()
        assert torch.equal(target, weight) and model.step == int(model.global_step) == 1
        assert model.loss(batch)["target_momentum"] == 0


def test_an_objective_is_handed_its_own_views_and_the_step():
    probes = [Probe(name="a"), Probe(name="b", views=(1, 0))]
    model, batch = toy_model(probes), toy_batch()
    model.begin(HORIZON, seed=5)
    model.advance()
    model.eval().loss(batch)
    for probe in probes:
        assert probe.step == (1, HORIZON, 5)
        assert torch.equal(probe.batch.derived["flipped"].images, batch.views[0].flip(2))
        assert torch.equal(probe.maps["online"]["flipped"][-1], model.online(batch.views[0].flip(2))[-1])
        assert all(torch.equal(probe.maps["online"][v][-1], model.online(batch.views[v])[-1]) for v in (0, 1))
    assert probes[0].maps["online"].projector("head") is model.online.projectors["a_head"]
    assert probes[1].maps["target"].projector("head") is model.target.branch(model.online).projectors["b_head"]


class MaskedAndWhole(Objective):
    """View 0 masked online, whole in the target; keeps both projections."""

    def plan(self):
        return [Forward("online", (0,), ("tokens.0",), "keep"), Forward("target", (0,), ("tokens.0",))]

    def projectors(self, channels):
        return {"head": torch.nn.Linear(channels("tokens.0"), 4)}

    def forward(self, maps, batch, step):
        self.seen = {branch: maps[branch].project("head", 0, "tokens.0") for branch in maps}
        return {"loss": self.seen["online"].square().mean()}


@pytest.mark.parametrize("kind", ["stop_gradient", "ema"])
def test_a_masked_projection_does_not_stand_for_that_of_the_whole_view(kind):
    objective, batch = MaskedAndWhole(), toy_batch(masks={0: (16, 6)})
    model = toy_model([objective], dict(kind=kind), VIT)
    model.loss(batch)
    branch = model.target.branch(model.online)
    whole = branch.projector("maskedandwhole", "head")(branch(batch.views[0], tokens=True)["tokens.0"])
    assert objective.seen["online"].shape[1] == 7
    torch.testing.assert_close(objective.seen["target"], whole)


def test_heads_know_their_place_in_the_model():
    model = toy_model([dict(type="BYOL", hidden=8, dim=4)])
    assert model.objectives["byol"].predictor.label == "objectives.byol.predictor"
    assert model.online.projectors["byol_projector"].label == "online.projectors.byol_projector"


@pytest.mark.parametrize("channels_last", [True, False])
def test_convolutions_are_kept_channels_last_where_asked(channels_last):
    model = TwoBranch(dict(backbone=BACKBONE), [Probe()], channels_last=channels_last)
    weight = model.online.backbone.layer1[0].conv1.weight
    assert weight.is_contiguous(memory_format=torch.channels_last) is channels_last
