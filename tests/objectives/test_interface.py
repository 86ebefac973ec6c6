"""The objective interface carries methods of other kinds: derived views, shared forwards with searched maps, masks.

A method that is not provided here is sketched, small but whole: its plan, its own inputs, its loss. They prove that the
interface needs no change for them.
"""

import pytest
import torch
from torch import nn

from densessl.objectives import Forward, Objective, Step
from densessl.registry import MODELS, OBJECTIVES
from tests.objectives.toy import take_step, toy_batch, toy_model

EMA = dict(kind="ema", momentum=0.9)
# Two global and three local crops, each kind in one forward; target maps searched at two levels.
SCFS = dict(type="SCFS", views=((0, 1), (2, 3, 4)), levels=(0, 1), width=4, hidden=8, dim=8)
# Composites of 2 x 2 cells.
REGIONCL = dict(type="RegionCL", hidden=8, dim=8, length=8, lower=1, upper=2)


@MODELS.register_module(force=True)
class TinyViT(nn.Module):
    """Patches of 8, one attention block; keeps the tokens it is told to."""

    def __init__(self, dim=16):
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 8, 8)
        self.block = nn.TransformerEncoderLayer(dim, 2, 32, dropout=0.0, batch_first=True, norm_first=True)
        self.out_channels = (dim,)

    def forward(self, x, keep=None):
        tokens = self.patches(x).flatten(2).mT
        if keep is not None:
            tokens = tokens.gather(1, keep[..., None].expand(-1, -1, tokens.shape[2]))
        return (self.block(tokens),)


@OBJECTIVES.register_module(force=True)
class MaskedPrediction(Objective):
    """SIM: the online branch sees the kept tokens of view 0, a decoder predicts all tokens of view 1 from them and from
    where view 1 lies relative to view 0."""

    def __init__(self, dim=16, **kwargs):
        super().__init__(**kwargs)
        self.decoder = nn.TransformerEncoderLayer(dim, 2, 32, dropout=0.0, batch_first=True)
        self.position = nn.Linear(6, dim)

    def plan(self):
        return [Forward("online", (0,), keep="keep"), Forward("target", (1,))]

    def forward(self, maps, batch, step):
        visible, target = maps["online"][0][0], maps["target"][1][0]
        relative = (batch.geometry[1].matrix - batch.geometry[0].matrix).flatten(1).to(visible.dtype)
        asked = self.position(relative / 100)[:, None].expand(-1, target.shape[1], -1)
        predicted = self.decoder(torch.cat([visible, asked], 1))[:, -target.shape[1] :]
        return {"loss": (predicted - target).square().mean(), "visible": torch.tensor(float(visible.shape[1]))}


def with_keep(batch, count=20):
    keep = torch.stack([torch.randperm(64)[:count] for _ in batch.views[0]])
    return batch._replace(draws=[{"keep": keep}, {}])


SKETCHES = {
    "regioncl": (REGIONCL, None, toy_batch()),
    "scfs": (SCFS, None, toy_batch(sizes=(64, 64, 32, 32, 32))),
    "sim": (dict(type="MaskedPrediction"), dict(type="TinyViT"), with_keep(toy_batch())),
}


@pytest.mark.parametrize("name", SKETCHES)
def test_two_steps(name):
    objective, backbone, batch = SKETCHES[name]
    model = toy_model([objective], EMA, backbone)
    before = {k: v.clone() for k, v in model.named_parameters()}
    for _ in range(2):
        take_step(model, batch, lr=0.1)
    for key, value in model.named_parameters():
        if key.startswith("target."):
            assert value.grad is None, key
        elif value.requires_grad:
            assert value.grad is not None, key
            assert value.ndim < 2 or not torch.equal(value, before[key]), key
    online, target = dict(model.online.named_parameters()), dict(model.target.branch(model.online).named_parameters())
    assert any(not torch.equal(target[k], before[f"target.{k}"]) for k in online)


def count_forwards(model, batch):
    """Shapes that entered each branch's backbone."""
    seen = {"online": [], "target": []}
    for which, branch in (("online", model.online), ("target", model.target.branch(model.online))):
        branch.backbone.register_forward_pre_hook(lambda _, args, which=which: seen[which].append(tuple(args[0].shape)))
    model.loss(batch)
    return seen


def test_distinct_forwards_run_once():
    """PixPro and RegionCL share the plain views; only the composite comes on top."""
    pixpro = dict(type="PixPro", hidden=8, dim=4)
    seen = count_forwards(toy_model([pixpro, REGIONCL], EMA), toy_batch())
    assert len(seen["online"]) == 3 and len(seen["target"]) == 2
    dino = dict(type="DINO", views=SCFS["views"], prototypes=8, hidden=(8,), bottleneck=4)
    seen = count_forwards(toy_model([dino, SCFS], EMA), toy_batch(2, sizes=(64, 64, 32, 32, 32)))
    assert seen["online"] == [(4, 3, 64, 64), (6, 3, 32, 32)] and seen["target"] == [(4, 3, 64, 64)]


def test_a_stop_gradient_target_costs_no_forward_and_moves_no_statistics_twice():
    model = toy_model([dict(type="InstanceCosine", hidden=8, dim=4)], dict(kind="stop_gradient"))
    seen = []
    model.online.backbone.register_forward_pre_hook(lambda *_: seen.append(1))
    model.loss(toy_batch())
    assert len(seen) == 2
    norms = [m for m in model.online.projectors.modules() if hasattr(m, "num_batches_tracked")]
    assert norms and all(norm.num_batches_tracked == 2 for norm in norms)


def test_views_of_one_forward_share_their_statistics():
    """Two views in one forward are one batch for batch norm: the maps differ from those of separate forwards."""

    @OBJECTIVES.register_module(force=True)
    class Together(Objective):
        together = True

        def plan(self):
            return [Forward("online", (0, 1))] if self.together else [Forward("online", (v,)) for v in (0, 1)]

        def forward(self, maps, batch, step):
            return {"loss": torch.cat([maps["online"][v][-1] for v in (0, 1)]).square().mean()}

    model = toy_model([dict(type="Together")], EMA, dtype=torch.float64)
    batch = toy_batch(dtype=torch.float64)
    joint = model.loss(batch)["together.loss"]
    whole = model.online(torch.cat(batch.views)).levels[-1].square().mean()
    torch.testing.assert_close(joint, whole)
    Together.together = False
    model.plans["together"] = model.objectives["together"].plan()
    assert abs(model.loss(batch)["together.loss"] - joint) > 1e-6 * joint


def test_batch_level_draws_depend_on_seed_step_and_purpose_only():
    numbers = [Step(*step).rng(name).random() for step, name in (((3, None, 1), "a"), ((3, None, 1), "a"))]
    assert numbers[0] == numbers[1]
    others = [Step(3, None, 2).rng("a"), Step(4, None, 1).rng("a"), Step(3, None, 1).rng("b")]
    assert len({numbers[0], *(rng.random() for rng in others)}) == 4
