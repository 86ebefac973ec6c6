"""An objective on given maps computes, and trains, what it does inside TwoBranch."""

import pytest
import torch

from densessl.errors import SettingError
from densessl.model import TwoBranch
from densessl.objectives import Objective
from densessl.objectives.pixpro import PixPro
from densessl.on_maps import ObjectiveOnMaps
from tests.objectives.toy import BACKBONE, HORIZON, toy_batch

SMALL = dict(hidden=12, dim=8)
EMA = dict(kind="ema", momentum=dict(type="cosine_momentum", base=0.9))
REGIONS = dict(type="CCOP", levels=(-1,), sizes=(64,), output=3, length=30, reference=64, min_area=20, dropout=0.0)
SWAV = dict(type="SwAV", prototypes=6, queue_length=8, views=((0, 1),), train_prototypes=True)
CASES = {
    "pixpro": (dict(type="PixPro", weight=0.5, **SMALL), EMA),
    "moco": (dict(type="MoCo", length=16, **SMALL), EMA),  # one way, with a queue
    "densecl": (
        dict(type="DenseCL", length=16, level=0, weight=dict(type="linear", start=0.1, end=1.0), **SMALL),
        dict(EMA, timing="after_step"),
    ),
    "simsiam": (dict(type="SimSiam", dim=8, hidden=8, bottleneck=4), dict(kind="stop_gradient")),  # shared projections
    "swav": (
        dict(type="SwAV", prototypes=6, queue_length=8, views=((0, 1),), train_prototypes=True, **SMALL),
        dict(kind="stop_gradient"),
    ),
    "lcloss": (dict(type="LCLoss", level=0, **SMALL), dict(kind="frozen")),
    "ccop": (dict(REGIONS, **SMALL), EMA),
}


def recorded(branch, batch):
    """The passes of a branch from now on: by view, its maps with the rows of them that are this view's."""
    maps, images = {}, len(batch.keys)

    def record(module, inputs, features):
        for level in features.levels:
            if level.requires_grad:
                level.retain_grad()
        for start in range(0, len(inputs[0]), images):  # a pass may have several views
            rows = slice(start, start + images)
            (view,) = [number for number, view in enumerate(batch.views) if torch.equal(view, inputs[0][rows])]
            maps[view] = (features.levels, rows)

    return maps, branch.register_forward_hook(record)


def maps_in_model(model, batch):
    """The model's loss and figures, and the maps of both branches that it reads for them."""
    online, hook = recorded(model.online, batch)
    target, other = recorded(model.target.branch(model.online), batch)
    loss, figures = model.parse_losses(model.loss(batch))
    hook.remove()
    other.remove()
    return loss, figures, online, None if model.target.is_online else by_view(target)


def by_view(maps, leaves=False):
    """The same as arguments: a list by view of maps without history, None for a view without a pass."""
    cut = {
        view: [level[rows].detach().requires_grad_(leaves) for level in levels] for view, (levels, rows) in maps.items()
    }
    return [cut.get(view) for view in range(2)]


@pytest.mark.parametrize("case", CASES)
def test_it_is_the_objective_of_the_model_bit_for_bit(case):
    """Three steps: losses, figures, gradients of maps and projectors, and all that either one keeps."""
    config, target = CASES[case]
    torch.manual_seed(0)
    model = TwoBranch(dict(backbone=BACKBONE), [config], target, channels_last=False)
    torch.manual_seed(1)
    term = ObjectiveOnMaps(config, model.online.backbone.out_channels, target)
    names = {name: name.replace("objective.", f"objectives.{case}.") for name in term.state_dict()}
    term.load_state_dict({name: model.state_dict()[theirs].clone() for name, theirs in names.items()})
    optimizers = [torch.optim.SGD(each.parameters(), lr=0.1) for each in (model, term)]
    for each in (model, term):
        each.begin(HORIZON, seed=3)
    for number in range(3):
        batch = toy_batch(seed=number, regions=dict(jitter=4) if case == "ccop" else None)
        expected, logged, online, targets = maps_in_model(model, batch)
        given = by_view(online, leaves=True)
        loss, figures = term(given, batch.geometry, targets, batch.regions)
        assert torch.equal(loss, expected)
        assert {f"{case}.{name}" for name in figures} == logged.keys() - {"loss", "target_momentum"}
        assert all(torch.equal(value, logged[f"{case}.{name}"]) for name, value in figures.items())
        for optimizer, value in zip(optimizers, (expected, loss)):
            optimizer.zero_grad()
            value.backward()
        read = [(view, i) for view in online for i, level in enumerate(given[view]) if level.grad is not None]
        assert {view for view, _ in read} == online.keys()
        for view, i in read:
            levels, rows = online[view]
            assert torch.equal(given[view][i].grad, levels[i].grad[rows])
        theirs = dict(model.named_parameters())
        for name, value in term.named_parameters():
            if value.grad is not None:
                assert torch.equal(value.grad, theirs[names[name]].grad), name
        for optimizer, each in zip(optimizers, (model, term)):
            optimizer.step()
            each.advance()
        for name, value in term.state_dict().items():
            assert torch.equal(value, model.state_dict()[names[name]]), name


def pixpro(**settings):
    return ObjectiveOnMaps(dict(type="PixPro", **SMALL), 6, dict(kind="stop_gradient"), **settings)


def maps(channels=6, images=4):
    return [torch.randn(images, channels, 4, 4) for _ in range(2)]


def test_a_map_is_one_level():
    term, batch, given = pixpro(), toy_batch(), maps()
    term.begin(HORIZON)
    loss, _ = term(given, batch.geometry)
    again, _ = term([[level] for level in given], batch.geometry)
    assert torch.equal(loss, again) and torch.isfinite(loss)


def test_targets_get_no_gradient():
    term, batch = ObjectiveOnMaps(PixPro(**SMALL), 6), toy_batch()
    term.begin(HORIZON)
    online, target = ([level.requires_grad_() for level in maps()] for _ in range(2))
    loss, figures = term(online, batch.geometry, target)
    loss.backward()
    assert all(level.grad.abs().sum() > 0 for level in online) and all(level.grad is None for level in target)
    assert all(value.grad is None for value in term.target.parameters())
    assert not any(value.requires_grad for value in figures.values())


class Agreement(Objective):
    """Reads the maps themselves, and leaves it to the model to cut the target's history."""

    def forward(self, maps, batch, step):
        return {"loss": -(maps["online"][0][-1] * maps["target"][0][-1]).mean()}


@pytest.mark.parametrize("given", [True, False], ids=["given", "shared"])
def test_target_maps_that_an_objective_reads_are_constants(given):
    term = ObjectiveOnMaps(Agreement(), 6, dict(kind="stop_gradient"))
    online, target = ([level.requires_grad_() for level in maps()] for _ in range(2))
    target = target if given else None
    loss, _ = term(online, toy_batch().geometry, target)
    loss.backward()
    constant = (target or online)[0].detach()
    torch.testing.assert_close(online[0].grad, -constant / constant.numel(), rtol=1e-6, atol=0)
    assert not given or target[0].grad is None


def test_heads_are_named_by_their_paths():
    term = ObjectiveOnMaps(dict(type="BYOL", **SMALL), 6)
    term.begin(HORIZON)
    with pytest.raises(SettingError, match=r"online\.projectors\.byol_\w+\.norm0 is a batch norm"):
        term(maps(images=1), [geometry.index([0]) for geometry in toy_batch().geometry], maps(images=1))


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (dict(type="RegionCL", length=16), "objectives.regioncl needs 'composite0', expected an objective that reads"),
        (dict(type="DetCo", levels=(0,), weights=(1.0,), length=16), "objectives.detco needs 'tiles"),
        (dict(type="SIM"), "objectives.sim needs 'tokens.0', expected an objective that reads only maps"),
        (dict(type="PixPro", level="neck.0"), "objectives.pixpro needs 'neck.0'"),
        (dict(type="PixPro", level=1), "objectives.pixpro: level 1 is asked for, the backbone gives 1"),
        (dict(type="PixPr"), "objective 'PixPr' is unknown; did you mean PixPro"),
    ],
    ids=lambda value: value["type"] if isinstance(value, dict) else None,
)
def test_what_needs_more_than_maps_is_refused(config, words):
    with pytest.raises(SettingError) as error:
        ObjectiveOnMaps(config, 6)
    assert words in str(error.value)


@pytest.mark.parametrize(
    ("online", "target", "words"),
    [
        (maps(), None, "target: found None, expected the maps of a target network, since the target is 'ema'"),
        (maps()[:1], maps(), "online: found maps of 1 view and the geometry of 2"),
        (maps(), maps(5), "target[0]: found maps of (images, channels) [(4, 5)], expected [(4, 6)]"),
        (maps(images=3), maps(), "online[0]: found maps of (images, channels) [(3, 6)], expected [(4, 6)]"),
        ([None, *maps()[:1]], maps(), "online[0]: found maps of (images, channels) [], expected [(4, 6)]"),
    ],
    ids=["target", "views", "channels", "images", "none"],
)
def test_maps_that_do_not_fit_are_told_with_their_view(online, target, words):
    term = ObjectiveOnMaps(dict(type="PixPro", **SMALL), 6)
    term.begin(HORIZON)
    with pytest.raises(SettingError) as error:
        term(online, toy_batch().geometry, target)
    assert words in str(error.value)


def test_a_view_that_is_not_planned_is_not_read():
    with pytest.raises(SettingError, match=r"reads views \[0, 2\]"):
        term = ObjectiveOnMaps(dict(type="BYOL", views=(0, 2), **SMALL), 6)
        term.begin(HORIZON)
        term(maps(), toy_batch().geometry, maps())


def test_a_schedule_needs_the_length_of_the_run():
    term = ObjectiveOnMaps(dict(type="PixPro", **SMALL), 6, EMA)
    with pytest.raises(SettingError, match="begin"):
        term(maps(), toy_batch().geometry, maps())
