"""LC-loss against loops over images, points and candidates in float64."""

import math

import numpy as np
import pytest
import torch

from densessl.geometry import ViewGeometry, affine
from densessl.objectives.lcloss import cell_weights
from densessl.registry import OBJECTIVES
from densessl.schedules import Step
from tests.objectives.toy import toy_batch, toy_model, without_overlap

POINTS, T = 7, 0.2


class Given:
    """Stands in for a branch: projections are given maps, of view 0 and view 1."""

    def __init__(self, *maps):
        self.maps = maps

    def __getitem__(self, view):
        return [self.maps[view]]

    def project(self, name, view, level):
        return self.maps[view]


def setting(candidates="points", images=4, apart=(1,), **options):
    """An objective without predictor, leaf maps of its branches (5x4 cells online, 4x6 target), and their batch."""
    options = dict(correspondence=dict(type="RandomPoints", count=POINTS), predictor=False) | options
    objective = OBJECTIVES.build(dict(type="LCLoss", candidates=candidates, temperature=T, **options))
    batch = without_overlap(toy_batch(images, dtype=torch.float64), list(apart))
    generator = torch.Generator().manual_seed(3)
    online, target = (
        [torch.randn(images, 6, *size, generator=generator, dtype=torch.float64) for _ in range(2)]
        for size in ((5, 4), (4, 6))
    )
    for leaf in online:
        leaf.requires_grad_()
    return objective, {"online": Given(*online), "target": Given(*target)}, batch


def read(features, geometry, n, source):
    """Bilinear value of a map (C, H, W) at a source point, and the weights (H, W) it is made with, by hand."""
    height, width = features.shape[1:]
    x, y = affine.apply(affine.invert(geometry.matrix[n].numpy()), np.array(source))
    x = min(max(x / geometry.view_size[n, 0].item() * width - 0.5, 0), width - 1)
    y = min(max(y / geometry.view_size[n, 1].item() * height - 0.5, 0), height - 1)
    weights = torch.zeros(height, width, dtype=torch.float64)
    for row in range(height):
        for column in range(width):
            weights[row, column] = max(0, 1 - abs(row - y)) * max(0, 1 - abs(column - x))
    return (features * weights).sum((1, 2)), weights


def box(geometry, n):
    corners = [affine.apply(geometry.matrix[n].numpy(), np.array(p)) for p in ((0, 0), geometry.view_size[n].numpy())]
    return np.minimum(*corners), np.maximum(*corners)


def unit(vector):
    return vector / vector.norm()


def by_loops(maps, batch, candidates, step):
    """The loss, and of one direction (view 0 to 1) the images that count."""
    numbers = step.rng("correspondence").random((POINTS, 2))
    total = 0.0
    for first, second in ((0, 1), (1, 0)):
        geometry = batch.geometry[first], batch.geometry[second]
        places = {}
        for n in range(len(batch.keys)):
            (low_a, high_a), (low_b, high_b) = (box(item, n) for item in geometry)
            low, high = np.maximum(low_a, low_b), np.minimum(high_a, high_b)
            if (high > low).all():
                places[n] = [low + number * (high - low) for number in numbers]
        a, b, weights = {}, {}, {}
        for n, sources in places.items():
            for i, source in enumerate(sources):
                a[n, i] = unit(read(maps["online"].maps[first][n].detach(), geometry[0], n, source)[0])
                value, weights[n, i] = read(maps["target"].maps[second][n], geometry[1], n, source)
                b[n, i] = unit(value)
        rows = []
        for (n, i), query in a.items():
            if candidates == "cells":
                cells = maps["target"].maps[second][n].flatten(1).T
                logits = [(query @ unit(cell)).item() / T for cell in cells]
                positive = sum(w * s for w, s in zip(weights[n, i].flatten().tolist(), logits))
            else:
                others = [key for key in b if candidates == "batch" or key[0] == n]
                logits = [(query @ b[key]).item() / T for key in others]
                positive = (query @ b[n, i]).item() / T
            rows.append(math.log(sum(math.exp(s) for s in logits)) - positive)
        total += sum(rows) / len(rows) / 2
    return total, sorted(places)


@pytest.mark.parametrize("candidates", ["points", "cells", "batch"])
def test_the_loss_matches_loops(candidates):
    objective, maps, batch = setting(candidates)
    expected, counted = by_loops(maps, batch, candidates, Step(4))
    figures = objective(maps, batch, Step(4))
    assert counted == [0, 2, 3]
    assert figures["loss"].item() == pytest.approx(expected, rel=1e-10)
    assert figures["valid_pairs"] == 3 * POINTS and figures["valid_images"] == 3


@pytest.mark.parametrize("candidates", ["points", "cells", "batch"])
def test_images_without_overlap_have_no_gradient_and_no_say(candidates):
    objective, maps, batch = setting(candidates)
    loss = objective(maps, batch, Step(0))["loss"]
    loss.backward()
    for leaf in maps["online"].maps:
        assert not leaf.grad[1].any() and all(leaf.grad[n].any() for n in (0, 2, 3))
    for given in maps["target"].maps:
        given[1] = 9.0
    torch.testing.assert_close(objective(maps, batch, Step(0))["loss"], loss)
    nowhere = without_overlap(batch, [0, 1, 2, 3])
    nothing = objective(maps, nowhere, Step(0))["loss"]
    nothing.backward()
    assert nothing == 0


def test_points_at_cell_centres_have_one_hot_targets():
    """Identical views, a point on every cell: matching among cells is then contrast among points."""
    grid = dict(correspondence=dict(type="OverlapGrid", size=4))
    objectives = [setting(candidates, apart=(), **grid)[0] for candidates in ("cells", "points")]
    _, maps, batch = setting(apart=())
    square = [torch.randn(4, 6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1)]
    maps = {"online": Given(*square), "target": Given(*square[::-1])}
    view = ViewGeometry.stack([(affine.crop(3, 5), (32, 32), (99, 88))] * 4)
    batch = batch._replace(geometry=[view, view])
    pairs = objectives[0].correspondence(*square, batch.geometry, Step(0))
    weights = cell_weights(pairs.second, square[0])
    torch.testing.assert_close(weights, torch.eye(16, dtype=torch.float64).expand(4, -1, -1), rtol=0, atol=1e-12)
    one, other = (objective(maps, batch, Step(0)) for objective in objectives)
    for name in ("loss", "top1", "positive_cosine"):
        torch.testing.assert_close(one[name], other[name], rtol=1e-10, atol=0)


def test_cell_weights_are_bilinear_and_sum_to_one():
    objective, maps, batch = setting(apart=())
    like = maps["target"].maps[1]
    pairs = objective.correspondence(like, like, (batch.geometry[0], batch.geometry[1]), Step(0))
    weights = cell_weights(pairs.second, like)
    torch.testing.assert_close(weights.sum(2), torch.ones(4, POINTS, dtype=torch.float64))
    torch.testing.assert_close(weights @ like.flatten(2).mT, pairs.second(like))
    assert ((weights > 1e-9).sum(2) <= 4).all()


def test_a_point_finds_itself_where_the_maps_agree_and_chance_where_all_cells_are_one():
    grid = dict(correspondence=dict(type="OverlapGrid", size=3))
    objective, _, batch = setting(images=3, apart=(), **grid)
    batch = batch._replace(geometry=[batch.geometry[0]] * 2)
    same = torch.randn(3, 16, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    figures = objective({"online": Given(same, same), "target": Given(same, same)}, batch, Step(0))
    assert figures["top1"] == 1 and figures["positive_cosine"].item() == pytest.approx(1)
    flat = torch.ones_like(same)
    figures = objective({"online": Given(flat, flat), "target": Given(flat, flat)}, batch, Step(0))
    assert figures["loss"].item() == pytest.approx(math.log(9))
    assert figures["between_images"].item() == pytest.approx(1)


def test_the_predictor_is_online_only_and_no_bias_stands_before_a_norm():
    model = toy_model([dict(type="LCLoss", hidden=12, dim=8)])
    names = [name for name, _ in model.named_parameters() if "lcloss" in name]
    assert any(name.startswith("objectives.lcloss.predictor.linear1") for name in names)
    assert any(name.startswith("target.projectors.lcloss_projector") for name in names)
    assert not any(name.startswith("target") and "predictor" in name for name in names)
    assert not any(name.endswith("linear0.bias") for name in names)


def test_errors_name_the_key():
    for key, options in (("views", dict(views=(0, 1, 2))), ("candidates", dict(candidates="queue"))):
        with pytest.raises(ValueError, match=rf"objectives.lcloss.{key} "):
            OBJECTIVES.build(dict(type="LCLoss", **options))


def test_places_without_a_counterpart_are_no_candidates():
    """Cells of view 0 that no cell of view 1 is close to are neither counted nor among what the others are compared
    with."""
    objective, _, batch = setting(apart=(), correspondence=dict(type="DistanceThreshold"))
    online, target = (
        torch.randn(2, 4, 6, 4, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(s)) for s in (0, 1)
    )
    maps = {"online": Given(*online), "target": Given(*target)}
    expected, some = 0.0, False
    for first, second in ((0, 1), (1, 0)):
        geometry = batch.geometry[first], batch.geometry[second]
        pairs = objective.correspondence(online[first], target[second], geometry, Step(0))
        a, b, rows = pairs.first(online[first]), pairs.second(target[second]), []
        for n in range(4):
            valid = [i for i in range(16) if pairs.valid[n, i]]
            some = some or 0 < len(valid) < 16
            for i in valid:
                logits = [(unit(a[n, i]) @ unit(b[n, j])).item() / T for j in valid]
                rows.append(math.log(sum(map(math.exp, logits))) - logits[valid.index(i)])
        expected += sum(rows) / len(rows) / 2
    assert some
    assert objective(maps, batch, Step(0))["loss"].item() == pytest.approx(expected, rel=1e-10)
