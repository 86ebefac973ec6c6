"""The objective interface carries methods of all kinds: derived views, shared forwards with searched maps, masks."""

import copy

import pytest
import torch

from densessl.branches import MLP
from densessl.errors import SettingError
from densessl.objectives import Forward, Objective
from densessl.registry import OBJECTIVES
from densessl.schedules import Step
from tests.objectives.toy import VIT, take_step, total, toy_batch, toy_model

EMA = dict(kind="ema", momentum=0.9)
# Two global and three local crops, each kind in one forward; target maps searched at two levels.
SCFS = dict(type="SCFS", views=((0, 1), (2, 3, 4)), levels=(0, 1), width=4, hidden=8, dim=8)
# Composites of 2 x 2 cells.
REGIONCL = dict(type="RegionCL", hidden=8, dim=8, length=8, lower=1, upper=2)


# Six cells of 16 of the first view, all of the second.
SIM = dict(type="SIM", dim=16, heads=2, mlp_ratio=2, projector_depth=1, decoder_depth=1)
MASKS = {0: (16, 6)}
METHODS = {
    "regioncl": (REGIONCL, None, toy_batch()),
    "scfs": (SCFS, None, toy_batch(sizes=(64, 64, 32, 32, 32))),
    "sim": (SIM, VIT, toy_batch(masks=MASKS)),
}


@pytest.mark.parametrize("name", METHODS)
def test_two_steps(name):
    objective, backbone, batch = METHODS[name]
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


def cells_seen(model, batch):
    """Number of tokens that each pass puts through the blocks, and whether it was one of the online branch."""
    seen = []
    for online, branch in ((True, model.online), (False, model.target.branch(model.online))):
        branch.backbone.blocks[0].register_forward_pre_hook(
            lambda _, args, online=online: seen.append((online, args[0].shape[1]))
        )
    model.loss(batch)
    return seen


def test_a_masked_view_and_the_whole_one_are_two_passes():
    """SIM's target tokens and PixPro's target map are one pass; SIM's masked view is a pass of 6 cells and the class
    token beside PixPro's."""
    batch = toy_batch(masks=MASKS)
    assert cells_seen(toy_model([SIM], EMA, VIT), batch) == [(True, 7), (False, 17)]
    pixpro = dict(type="PixPro", hidden=8, dim=4)
    whole = [(True, 17)] * 2 + [(False, 17)] * 2
    assert sorted(cells_seen(toy_model([SIM, pixpro], EMA, VIT), batch)) == sorted([(True, 7), *whole])
    assert sorted(cells_seen(toy_model([pixpro, SIM], EMA, VIT), batch)) == sorted([(True, 7), *whole])


def test_objectives_on_one_transformer_do_not_see_each_other():
    """Neither SIM's figures nor PixPro's change where the other shares its passes."""
    batch = toy_batch(masks=MASKS, dtype=torch.float64)
    pixpro = dict(type="PixPro", hidden=8, dim=4)
    both = toy_model([SIM, pixpro], EMA, VIT, torch.float64)
    state = copy.deepcopy(both.state_dict())
    figures = both.loss(batch)
    for objective in (SIM, pixpro):
        alone = toy_model([objective], EMA, VIT, torch.float64)
        alone.load_state_dict({key: state[key] for key in alone.state_dict()})
        for key, value in alone.loss(batch).items():
            torch.testing.assert_close(figures[key], value, rtol=1e-12, atol=1e-12)


def test_a_masked_pass_says_where_its_mask_should_come_from():
    with pytest.raises(ValueError, match=r"masks view 0, whose draws have no 'keep': give views\[0\] a `mask`"):
        toy_model([SIM], EMA, VIT).loss(toy_batch())


def test_a_stop_gradient_target_costs_no_forward_and_moves_no_statistics_twice():
    model = toy_model([dict(type="InstanceCosine", hidden=8, dim=4)], dict(kind="stop_gradient"))
    seen = []
    model.online.backbone.register_forward_pre_hook(lambda *_: seen.append(1))
    model.loss(toy_batch())
    assert len(seen) == 2
    norms = [m for m in model.online.projectors.modules() if hasattr(m, "num_batches_tracked")]
    assert norms and all(norm.num_batches_tracked == 2 for norm in norms)


class Reads(Objective):
    """Reads one level of view 0 in each branch; as a loss, their sum. What it saw stays in ``seen``."""

    def __init__(self, online=-1, target=-1, keep=None, views=((0,),), **kwargs):
        super().__init__(**kwargs)
        self.read, self.keep, self.groups = {"online": online, "target": target}, keep, views

    def plan(self):
        online = [Forward("online", group, (self.read["online"],), self.keep) for group in self.groups]
        return [*online, Forward("target", (0,), (self.read["target"],))]

    def forward(self, maps, batch, step):
        self.seen = {branch: maps[branch][0][level] for branch, level in self.read.items()}
        return {"loss": sum(value.square().mean() for value in self.seen.values())}


FPN = dict(type="FPN", out_channels=10)
HEAD = dict(type="DenseHeadConvs", feat_channels=6, stacked_convs=1)


@pytest.mark.parametrize("levels", [("neck.1", -1, "cls.0"), ("cls.0", "neck.0", 0), (-1, "reg.0", "neck.0")])
def test_one_pass_makes_the_levels_that_all_objectives_read(levels):
    """In every order, and what is read is what the branch makes of the view."""
    objectives = [Reads(level, -1, name=f"o{i}") for i, level in enumerate(levels)]
    model, batch = toy_model(objectives, dict(kind="frozen"), neck=FPN, head=HEAD), toy_batch()
    model.online.eval()
    assert count_forwards(model, batch)["online"] == [(4, 3, 64, 64)]
    whole = model.online(batch.views[0], head=True)
    for objective, level in zip(objectives, levels):
        assert torch.equal(objective.seen["online"], whole[level]), level


def test_one_pass_makes_maps_and_tokens():
    objectives = [Reads("tokens.0", -1, name="tokens"), Reads(-1, -1, name="maps")]
    for order in (objectives, objectives[::-1]):
        model, batch = toy_model(order, EMA, VIT), toy_batch()
        assert cells_seen(model, batch) == [(True, 17), (False, 17)]
        whole = model.online(batch.views[0], tokens=True)
        assert torch.equal(objectives[0].seen["online"], whole["tokens.0"])
        assert torch.equal(objectives[1].seen["online"], whole[-1])


class TargetOnly(Objective):
    """A loss of the target alone: its map, a projection of it, and a projection of a tensor that asks for gradient."""

    def projectors(self, channels):
        return {"head": MLP(kind="map", dims=(channels(self.level), 4))}

    def forward(self, maps, batch, step):
        target, (view, _) = maps["target"], self.views
        online = maps["online"][view][self.level]
        tensors = [target[view][self.level], target.project("head", view), target.apply("head", online)]
        return {"loss": sum(tensor.square().mean() for tensor in tensors)}


@pytest.mark.parametrize("kind", ["stop_gradient", "ema", "frozen"])
def test_no_gradient_passes_through_the_target(kind):
    model = toy_model([TargetOnly()], dict(kind=kind))
    assert not total(model, toy_batch()).requires_grad


class Pairs(Objective):
    """Both views, masked, in one pass."""

    def plan(self):
        return [Forward("online", (0, 1), ("tokens.0",), keep="keep")]

    def forward(self, maps, batch, step):
        self.seen = [maps["online"][view]["tokens.0"] for view in self.views]
        return {"loss": sum(tokens.square().mean() for tokens in self.seen)}


def test_masks_of_views_in_one_pass_are_joined():
    objective, batch = Pairs(), toy_batch(masks={0: (16, 6), 1: (16, 6)})
    model = toy_model([objective], EMA, VIT)
    model.loss(batch)
    assert not torch.equal(batch.draws[0]["keep"], batch.draws[1]["keep"])
    for view, tokens in enumerate(objective.seen):
        alone = model.online(batch.views[view], batch.draws[view]["keep"], tokens=True)["tokens.0"]
        torch.testing.assert_close(tokens, alone)


def test_masks_of_unequal_sizes_in_one_pass_are_refused():
    batch = toy_batch(masks={0: (16, 6), 1: (16, 7)})
    with pytest.raises(SettingError, match=r"views \(0, 1\) .* keep \[6, 7\] cells; expected equal numbers"):
        toy_model([Pairs()], EMA, VIT).loss(batch)


def test_under_stop_gradient_the_online_pass_makes_what_only_the_target_reads():
    objective = Reads(-1, "neck.0")
    model, batch = toy_model([objective], dict(kind="stop_gradient"), neck=FPN), toy_batch()
    assert count_forwards(model, batch)["online"] == [(4, 3, 64, 64)]
    assert objective.seen["online"].requires_grad and not objective.seen["target"].requires_grad
    assert torch.equal(objective.seen["target"], model.online(batch.views[0], neck=True)["neck.0"])


@pytest.mark.parametrize(
    ("objective", "message"),
    [
        (Reads("neck.0"), r"objectives\.reads: level 'neck\.0' is asked for, the backbone gives 1"),
        (Reads(-1, keep="keep"), r"level -1 of masked views \(0,\) is asked for; .* 'tokens\.0'"),
        (Reads("tokens.0", keep="keep", views=((0,), (0, 1))), "plans view 0 twice in the online branch"),
    ],
)
def test_a_plan_that_cannot_run_is_refused_when_the_model_is_built(objective, message):
    with pytest.raises(SettingError, match=message):
        toy_model([objective], EMA, VIT)


def test_an_unknown_projector_is_answered_with_the_nearest():
    model = toy_model([dict(type="MoCo", hidden=8, dim=8, length=8)])
    with pytest.raises(ValueError, match=r"projector 'moco_haed' is unknown; did you mean moco_head\?"):
        model.online.projector("moco", "haed")


PAIRS = {
    *(
        "BYOL",
        "SimSiam",
        "UniGrad",
        "DenseUniGrad",
        "PixPro",
        "PixContrast",
        "InstanceCosine",
        "DenseCL",
        "MoCo",
        "CCOP",
    ),
    *("DenseSiam", "DenseSiamSegmentation", "LCLoss", "RegionCL", "RegionCLSimSiam", "SIM"),
}


@pytest.mark.parametrize("name", sorted(PAIRS))
def test_objectives_on_pairs_refuse_other_numbers_of_views(name):
    for views in ((0,), (0, 1, 2)):
        message = rf"objectives\.{name.lower()}\.views is .*; {name} compares exactly two views"
        with pytest.raises(SettingError, match=message):
            OBJECTIVES.build(dict(type=name, views=views))


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
