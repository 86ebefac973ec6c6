"""DINO and SCFS against loops, and what their goldens and the conformance suite do not ask."""

import math

import pytest
import torch
import torch.nn.functional as F

from densessl.losses import cell_cosines, cross_view_entropy
from densessl.objectives.dino import target_figures
from tests.objectives.cases import AFTER
from tests.objectives.toy import HORIZON, take_step, toy_batch, toy_model

GROUPS = ((0, 1), (2, 3), (4,))
SIZES = (64, 64, 48, 48, 40)
DINO = dict(type="DINO", views=GROUPS, prototypes=16, hidden=(8,), bottleneck=6, train_prototypes=True)
SCFS = dict(type="SCFS", views=GROUPS, levels=(0, -1), width=4, hidden=8, dim=6)


@pytest.mark.parametrize("owners", [2, 3])
def test_cross_view_entropy_is_the_mean_over_pairs(owners):
    torch.manual_seed(0)
    logits = torch.randn(5, 3, 7, dtype=torch.float64, requires_grad=True)
    targets = torch.randn(owners, 3, 7, dtype=torch.float64).softmax(2)
    pairs = [(g, v) for g in range(owners) for v in range(5) if v != g]
    expected = sum(
        F.cross_entropy(logits[v] / 0.3, targets[g])  # mean over the images
        for g, v in pairs
    ) / len(pairs)
    loss = cross_view_entropy(logits, targets, 0.3)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, logits)[0] for value in (loss, expected)))


def test_searched_levels_equal_a_loop_over_crops():
    """Two groups of local crops: each is a batch of its own for the online head, the searched maps are one."""
    model = toy_model([dict(SCFS, teacher_temperature=0.06)], AFTER, dtype=torch.float64)
    for step in range(2):  # so that centre and target are not where they started
        take_step(model, toy_batch(sizes=SIZES, dtype=torch.float64, seed=step))
    batch = toy_batch(sizes=SIZES, dtype=torch.float64, seed=2)
    online, target = model.online, model.target.branch(model.online)
    centres = {name: centre.value.clone() for name, centre in model.objectives["scfs"].centres.items()}
    student_maps = [online(torch.cat([batch.views[v] for v in group])).levels for group in GROUPS]
    teacher_maps = target(torch.cat(batch.views[:2])).levels
    expected, means = {}, {}
    for level in (0, -1):
        name = f"level{level}"
        heads = [branch.projectors[f"scfs_{name}"] for branch in (online, target)]
        s1, s2 = heads[0](student_maps[0][level]).chunk(2)
        t = heads[1](teacher_maps[level])
        t1, t2 = ((t - centres[name]) / 0.06).softmax(1).chunk(2)
        expected[f"global_{name}"] = (F.cross_entropy(s2 / 0.1, t1) + F.cross_entropy(s1 / 0.1, t2)) / 2
        searched, students = [], []
        for group, maps in zip(GROUPS[1:], student_maps[1:]):
            students += heads[0](maps[level]).chunk(len(group))
            for crop in maps[level].chunk(len(group)):
                for whole, local in zip(teacher_maps[level][:4], crop):
                    direction = local.mean((1, 2))
                    cosine = F.cosine_similarity(whole, direction[:, None, None], dim=0)
                    searched.append(cosine * whole)
        targets = (heads[1](torch.stack(searched)) / 0.06).softmax(1).chunk(3)
        expected[f"local_{name}"] = sum(F.cross_entropy(s / 0.1, t) for s, t in zip(students, targets)) / 3
        expected[f"loss_{name}"] = (expected[f"global_{name}"] + expected[f"local_{name}"]) / 2
        means[name] = 0.9 * centres[name] + 0.1 * t.mean(0)
    figures = model.loss(batch)
    for name, value in expected.items():
        torch.testing.assert_close(figures[f"scfs.{name}"], value, rtol=1e-9, atol=1e-11)
    for name, value in means.items():
        torch.testing.assert_close(model.objectives["scfs"].centres[name].value, value)


def test_a_query_along_every_cell_leaves_the_map_as_it_is():
    direction = torch.rand(2, 5)
    whole = direction[:, :, None, None] * torch.rand(2, 1, 3, 4)
    torch.testing.assert_close(cell_cosines(whole, 3 * direction)[:, None] * whole, whole)


def test_prototypes_are_frozen_for_the_first_epoch_and_no_longer():
    model = toy_model([{key: value for key, value in DINO.items() if key != "train_prototypes"}], AFTER)
    weight = model.online.projectors["dino_head"].prototypes.weight
    start, moved = weight.detach().clone(), []
    for step in range(HORIZON.steps_per_epoch + 1):
        take_step(model, toy_batch(sizes=SIZES, seed=step))
        moved.append(not torch.equal(weight, start))
    assert moved == [False] * HORIZON.steps_per_epoch + [True]


def test_the_teacher_temperature_follows_its_schedule():
    schedule = dict(type="linear", start=0.04, end=0.07, epochs=2, by_epoch=True, inclusive=True)
    model = toy_model([dict(DINO, teacher_temperature=schedule)], AFTER)
    seen = []
    for _ in range(7):
        seen.append(model.loss(toy_batch(sizes=SIZES))["dino.teacher_temperature"].item())
        model.advance()
    assert seen == pytest.approx([0.04] * 5 + [0.07] * 2)


def test_target_figures_tell_both_collapses_from_a_healthy_state():
    one_peak, uniform = torch.eye(8)[:1].expand(4, -1), torch.full((4, 8), 1 / 8)
    for targets, entropy, information in (
        (one_peak, 0.0, 0.0),
        (uniform, math.log(8), 0.0),
        (torch.eye(8)[:4], 0.0, math.log(4)),
    ):
        figures = target_figures(targets)
        assert figures["target_entropy"].item() == pytest.approx(entropy, abs=1e-6)
        assert figures["target_information"].item() == pytest.approx(information, abs=1e-6)


@pytest.mark.parametrize("views", [(0, 1, 2), ((0,), (1, 2)), ()])
def test_views_must_be_groups(views):
    with pytest.raises(ValueError, match=r"objectives.dino.views is .*expected groups of crops"):
        toy_model([dict(DINO, views=views)], AFTER)


def test_the_search_needs_local_crops_and_levels():
    for wrong in (dict(views=((0, 1),)), dict(levels=())):
        with pytest.raises(ValueError, match=r"objectives.scfs has views=.* and levels="):
            toy_model([dict(SCFS, **wrong)], AFTER)


def test_one_image_with_one_local_crop_is_refused():
    model = toy_model([dict(SCFS, views=((0, 1), (2,)))], AFTER)
    with pytest.raises(ValueError, match=r"online.projectors.scfs_level0.mlp.norm0 is a batch norm.*batch_size"):
        model.loss(toy_batch(1, sizes=(64, 64, 64)))
