"""RegionCL's pairs and losses against loops, and its parts against images of one grey each."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from densessl.objectives.regioncl import RegionCL, pair_rows
from densessl.schedules import Step
from tests.golden.regioncl import PooledPixels  # noqa: F401 registers it
from tests.objectives.toy import total, toy_batch, toy_model

SMALL = dict(lower=1, upper=3)
MOCO = dict(type="RegionCL", hidden=12, dim=8, length=10, **SMALL)
SIMSIAM = dict(type="RegionCLSimSiam", hidden=12, dim=12, bottleneck=6, **SMALL)
SETTINGS = [
    pytest.param(images, dict(pairing=pairing, placement=placement), id=f"{images}-{pairing}-{placement}")
    for images, pairing, placement in ((4, "reverse", "official"), (5, "reverse", "aligned"), (5, "shift", "cells"))
] + [pytest.param(5, dict(pairing="permutation", placement="aligned"), id="5-permutation-aligned")]


def pairs(count, pairing, groups=1):
    return pair_rows(count, pairing, groups, np.random.default_rng(3)).tolist()


def test_who_gets_whose_rectangle():
    assert pairs(4, "reverse") == [3, 2, 1, 0]
    assert pairs(5, "reverse") == [4, 3, 2, 1, 0]
    assert pairs(1, "reverse") == pairs(1, "shift") == pairs(1, "permutation") == [0]
    assert pairs(4, "shift") == [1, 2, 3, 0]
    assert sorted(pairs(9, "permutation")) == list(range(9)) != pairs(9, "permutation")


@pytest.mark.parametrize("pairing", ["reverse", "shift", "permutation"])
@pytest.mark.parametrize("count", [8, 7])
def test_groups_are_the_ranks_of_a_distributed_run(pairing, count):
    """Rank r of 2 holds rows r, r + 2, … and pairs them as if they were all."""
    whole = pairs(count, pairing, groups=2)
    for rank in range(2):
        rows = list(range(rank, count, 2))
        assert sorted(whole[row] for row in rows) == rows
        if count == 8:
            assert [whole[row] for row in rows] == [rows[i] for i in pairs(4, pairing)]


def run(objective, images, target=None):
    """A float64 model, its batch, what its objective saw, and its figures."""
    model = toy_model([objective], target, dtype=torch.float64)
    method = next(iter(model.objectives.values()))
    seen = []
    method.register_forward_pre_hook(lambda _, args: seen.append(args))
    batch = toy_batch(images, (96, 96), torch.float64)
    return model, method, batch, seen, model.loss(batch)


def parts_by_loops(method, maps, batch, view):
    """Means of the cells outside and inside the rectangle, cell by cell, and each row's partner."""
    swap = method.swap(batch.views[view], view, Step(0))
    features = maps["online"][f"composite{view}"][-1]
    left, top, width, height = swap.cells
    outside, inside = [], []
    for image in features:
        kinds = {True: [], False: []}
        for row in range(image.shape[1]):
            for column in range(image.shape[2]):
                hit = left <= column < left + width and top <= row < top + height
                kinds[hit].append(image[:, row, column])
        outside.append(sum(kinds[False]) / len(kinds[False]))
        inside.append(sum(kinds[True]) / len(kinds[True]))
    return torch.stack(outside), torch.stack(inside), swap.partner.tolist()


def gradients(loss, model):
    parameters = [p for p in model.online.parameters() if p.requires_grad]
    found = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(p) if g is None else g for p, g in zip(parameters, found)]


@pytest.mark.parametrize(("images", "settings"), SETTINGS)
def test_regioncl_m_equals_loops(images, settings):
    bank = toy_model([MOCO], dtype=torch.float64).objectives["regioncl"].queue.keys("keys").clone()
    model, method, batch, seen, figures = run(dict(MOCO, **settings), images)
    maps = seen[0][0]
    outside, inside, partner = parts_by_loops(method, maps, batch, 0)
    head = model.online.projectors["regioncl_head"]
    canvas, paste = (F.normalize(part, dim=1) for part in head(torch.cat([outside, inside])).chunk(2))
    key = F.normalize(maps["target"].project("head", 1, pool=True), dim=1)
    rows = []
    for image in range(images):
        for query, negative in (
            (canvas[image], paste[image]),
            # The paste that shows this image lies in the composite whose partner it is.
            (paste[partner.index(image)], canvas[partner.index(image)]),
        ):
            logits = [query @ key[image], query @ negative.detach(), *(query @ old for old in bank)]
            rows.append(-torch.log_softmax(torch.stack(logits) / 0.2, 0)[0])
    expected = sum(rows) / len(rows)
    torch.testing.assert_close(figures["regioncl.loss_region"], expected, rtol=1e-10, atol=0)
    for ours, theirs in zip(gradients(figures["regioncl.loss_region"], model), gradients(expected, model)):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


@pytest.mark.parametrize(("images", "settings"), SETTINGS)
def test_regioncl_s_equals_loops(images, settings):
    model, method, batch, seen, figures = run(dict(SIMSIAM, **settings), images, dict(kind="stop_gradient"))
    maps = seen[0][0]
    projector = model.online.projectors["regionclsimsiam_projector"]
    cosines = []
    for view, other in ((0, 1), (1, 0)):
        outside, inside, partner = parts_by_loops(method, maps, batch, view)
        predicted = method.predictor(projector(torch.cat([outside, inside])))
        target = projector(maps["online"][other][-1].mean((2, 3))).detach()
        for image in range(images):
            for row in (image, images + partner.index(image)):
                cosines.append(F.cosine_similarity(predicted[row], target[image], dim=0))
    expected = -sum(cosines) / len(cosines)
    torch.testing.assert_close(figures["regionclsimsiam.loss_region"], expected, rtol=1e-10, atol=0)
    for ours, theirs in zip(gradients(figures["regionclsimsiam.loss_region"], model), gradients(expected, model)):
        torch.testing.assert_close(ours, theirs, rtol=1e-8, atol=1e-10)


def test_without_its_region_term_it_is_the_method_it_extends():
    for ours, theirs, target in (
        (MOCO, dict(type="MoCo", hidden=12, dim=8, length=10), None),
        (SIMSIAM, dict(type="SimSiam", hidden=12, dim=12, bottleneck=6), dict(kind="stop_gradient")),
    ):
        batch = toy_batch(sizes=(96, 96), dtype=torch.float64)
        figures = toy_model([dict(ours, name="x", instance_weight=0.5)], target, dtype=torch.float64).loss(batch)
        plain = toy_model([dict(theirs, name="x")], target, dtype=torch.float64).loss(batch)
        torch.testing.assert_close(figures["x.loss_instance"], 0.5 * plain["x.loss"])


class Grey(RegionCL):
    """RegionCL whose head passes its input on."""

    def projectors(self, channels):
        return {"head": nn.Identity()}


def grey_parts(pairing, placement, step):
    """Parts of composites of images 0, 1, …, each of one grey, seen by an averaging backbone."""
    objective = Grey(name="grey", length=4, dim=1, pairing=pairing, placement=placement)
    model = toy_model([objective], backbone=dict(type="PooledPixels", inner=3, outer=1))
    with torch.no_grad():
        model.online.backbone.conv.weight.fill_(1 / 3)
        model.online.backbone.conv.bias.zero_()
    batch = toy_batch(5, (224, 224))
    batch = batch._replace(views=[torch.arange(5.0)[:, None, None, None].expand_as(view) for view in batch.views])
    model.step = step
    seen = []
    objective.register_forward_pre_hook(lambda _, args: seen.append(args))
    model.loss(batch)
    maps, batch, at = seen[0]
    canvas, paste, shown_in = objective.canvas_and_paste(maps, 0, batch, at, "head")
    return canvas[:, 0], paste[shown_in][:, 0]


@pytest.mark.parametrize("pairing", ["reverse", "shift", "permutation"])
@pytest.mark.parametrize("placement", ["aligned", "cells"])
def test_both_parts_of_an_image_show_nothing_but_it(pairing, placement):
    for step in range(6):
        for part in grey_parts(pairing, placement, step):
            torch.testing.assert_close(part, torch.arange(5.0))


def test_the_official_placement_mixes_the_parts():
    """As the published models were trained: of six rectangles most are not on the grid."""
    mixed = [not torch.allclose(grey_parts("reverse", "official", step)[0], torch.arange(5.0)) for step in range(6)]
    assert sum(mixed) >= 3


def test_each_step_has_its_rectangle_and_each_view_its_own():
    objective = RegionCL(hidden=8, dim=8, length=4, pairing="permutation")
    images = torch.zeros(4, 3, 224, 224)
    swaps = {(s, v): objective.swap(images, v, Step(s, seed=1)) for s in range(8) for v in (0, 1)}
    assert len({swap.pixels for swap in swaps.values()}) > 8
    again = objective.swap(images, 1, Step(3, seed=1))
    assert again.pixels == swaps[3, 1].pixels and torch.equal(again.partner, swaps[3, 1].partner)


def test_finer_levels_want_their_stride_as_the_cell():
    """160-pixel views at stride 16 have 10 x 10 cells."""
    batch = toy_batch(2, (160, 160))
    fine = dict(MOCO, level=0, cell=16, lower=3, upper=6)
    assert torch.isfinite(total(toy_model([fine]), batch))
    with pytest.raises(ValueError, match=r"regioncl\.cell is 32, but level 0 has 10 cells for 160 pixels.*about 16"):
        toy_model([dict(fine, cell=32, upper=4)]).loss(batch)


def test_errors_name_the_key():
    with pytest.raises(ValueError, match=r"objectives\.regioncl: lower=3 and upper=6 cells of 32.*2 x 2 cells"):
        toy_model([dict(MOCO, lower=3, upper=6)]).loss(toy_batch())
    with pytest.raises(ValueError, match=r"objectives\.regioncl\.pairing 'reversed' is unknown; did you mean reverse"):
        RegionCL(pairing="reversed", length=4)
    with pytest.raises(ValueError, match=r"objectives\.regioncl\.placement 'align' is unknown; did you mean aligned"):
        RegionCL(placement="align", length=4)
