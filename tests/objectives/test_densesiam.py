"""DenseSiam's terms against loops over images, places and regions, and the alignment of its segmentation variant."""

import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.configs import load_config
from densessl.data.placed import Placed
from densessl.data.rng import keyed_rng
from densessl.data.views import cut_view, draw_crop, expand_views
from densessl.geometry import ViewGeometry, affine, cell_centres
from densessl.objectives.densesiam_seg import hard_cross_entropy, shared_places
from tests.objectives.cases.densesiam import DECODER, SEGMENTATION
from tests.objectives.toy import BACKBONE, HORIZON, toy_batch, toy_model, without_overlap

STOP = dict(kind="stop_gradient")


def region_loss(projected, predicted, temperature=0.1):
    """Mean over both directions and the regions of one image, of which both views' (R, C) are given."""
    total = 0.0
    for query, key in ((0, 1), (1, 0)):
        for r in range(len(projected[0])):
            s = predicted[query][r] / predicted[query][r].norm()
            logits = [s @ (u / u.norm()) / temperature for u in projected[key]]
            total = total - (logits[r] - torch.stack(logits).logsumexp(0))
    return total / (2 * len(projected[0]))


def region_vectors(features, z, valid):
    """(R, C) sums of one image's features (C, P) under the softmax over the channels of z (R, P), where valid (P,)."""
    masks = [[z[:, p].softmax(0)[r] if valid[p] else 0.0 for p in range(z.shape[1])] for r in range(len(z))]
    return torch.stack([sum(m * features[:, p] for p, m in enumerate(row)) for row in masks])


def test_two_crops_against_loops():
    """Values and gradients, with an image whose crops do not meet; the target's side is detached by hand."""
    small = dict(type="DenseSiam", hidden=6, dim=5, correspondence=dict(type="OverlapGrid", size=3), name="d")
    model = toy_model([dict(small, region_weight=0.3)], STOP, dtype=torch.float64)
    batch = without_overlap(toy_batch(3, dtype=torch.float64), [1])
    figures = model.loss(batch)
    parameters = [p for p in model.parameters() if p.requires_grad]
    actual = torch.autograd.grad(figures["d.loss_pixel"] + figures["d.loss_region"], parameters)

    objective, projectors = model.objectives["d"], model.online.projectors
    maps = [model.online(view)[-1] for view in batch.views]
    z = [projectors["d_projector"](item) for item in maps]
    p = [objective.predictor(item) for item in z]

    def at(features, view, image, point):
        """Bilinear value (C,) at a source point, from the four cells around it, the outermost held."""
        a, shift = batch.geometry[view].matrix[image, :, :2], batch.geometry[view].matrix[image, :, 2]
        x, y = torch.linalg.solve(a, point - shift) / batch.geometry[view].view_size[image]
        height, width = features.shape[2:]
        x, y = x * width - 0.5, y * height - 0.5
        total = 0.0
        for i in (math.floor(y), math.floor(y) + 1):
            for j in (math.floor(x), math.floor(x) + 1):
                weight = (1 - abs(y - i)) * (1 - abs(x - j))
                total = total + weight * features[image, :, min(max(i, 0), height - 1), min(max(j, 0), width - 1)]
        return total

    def box(view, image):
        geometry = batch.geometry[view]
        corners = [
            geometry.matrix[image] @ torch.tensor([x, y, 1.0], dtype=torch.float64) for x in (0, 64) for y in (0, 64)
        ]
        return torch.stack(corners).amin(0), torch.stack(corners).amax(0)

    cosines, grids = [], {}
    for image in (0, 2):
        (low1, high1), (low2, high2) = box(0, image), box(1, image)
        low, high = torch.maximum(low1, low2), torch.minimum(high1, high2)
        points = [
            low + (high - low) * torch.tensor([(j + 0.5) / 3, (i + 0.5) / 3], dtype=torch.float64)
            for i in range(3)
            for j in range(3)
        ]
        grids[image] = points
        for point in points:
            for one, other in ((0, 1), (1, 0)):
                prediction = at(p[one], one, image, point)
                cosines.append(F.cosine_similarity(prediction, at(z[other].detach(), other, image, point), dim=0))
    pixel = -sum(cosines) / len(cosines)

    vectors = []
    for view in (0, 1):
        rows = []
        for image in range(3):
            points = grids.get(image, [torch.zeros(2, dtype=torch.float64)])
            sampled, logits = (
                torch.stack([at(item[view], view, image, point) for point in points], 1) for item in (maps, z)
            )
            rows.append(region_vectors(sampled, logits, [image in grids] * len(points)))
        vectors.append(projectors["d_region"](torch.cat(rows)))
    predicted = [objective.region.predictor(item).unflatten(0, (3, 5)) for item in vectors]
    projected = [item.unflatten(0, (3, 5)) for item in vectors]
    region = sum(
        region_loss([item[image] for item in projected], [item[image] for item in predicted]) for image in (0, 2)
    )
    torch.testing.assert_close(figures["d.loss_pixel"], pixel, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(figures["d.loss_region"], 0.3 * region / 2, rtol=1e-8, atol=1e-10)
    assert figures["d.valid_pairs"] == 18
    for expected, found in zip(torch.autograd.grad(pixel + 0.3 * region / 2, parameters), actual):
        torch.testing.assert_close(found, expected, rtol=1e-6, atol=1e-9)


def test_identical_crops_of_a_perfect_predictor_reach_the_floor():
    model = toy_model([dict(type="DenseSiam", hidden=6, dim=5, region_weight=0)], STOP)
    model.objectives["densesiam"].predictor = torch.nn.Identity()
    batch = toy_batch()
    batch = batch._replace(views=[batch.views[0]] * 2, geometry=[batch.geometry[0]] * 2)
    assert model.loss(batch)["densesiam.loss_pixel"].item() == pytest.approx(-1, abs=1e-5)


@pytest.mark.parametrize("objective", [dict(type="DenseSiam", hidden=6, dim=5), SEGMENTATION], ids=lambda o: o["type"])
def test_norms_see_each_view_once(objective):
    """With the target under stop-gradient its projections are the online ones: no second pass moves statistics."""
    model = toy_model([dict(objective, name="d")], STOP, neck=DECODER)
    model.loss(toy_batch())
    counts = {n: int(b) for n, b in model.named_buffers() if n.endswith("num_batches_tracked")}
    assert counts and set(counts.values()) == {2}, counts


def test_the_region_term_starts_when_its_schedule_says():
    late = dict(type="switch", before=0.0, after=0.1, at_epoch=1)
    model = toy_model([dict(type="DenseSiam", hidden=6, dim=5, region_weight=late)], STOP)
    batch = toy_batch(2)
    for step in range(HORIZON.steps_per_epoch + 1):
        loss = model.loss(batch)["densesiam.loss_region"]
        assert (loss > 0.01) == (step == HORIZON.steps_per_epoch), step
        model.advance()


def two_views(images: int, size: int):
    """Geometry of the two views of the config, of noise, and the views' pixels."""
    specs = expand_views(load_config("configs/densesiam_r18_coco27.py").views)
    items = ([], [])
    for index in range(images):
        source = np.random.default_rng(index).integers(0, 256, (97, 131, 3)).astype(np.uint8)
        for number, spec in enumerate(specs):
            draw = draw_crop(keyed_rng(0, "crop", 0, index, number), (131, 97), spec)
            view = cut_view(Placed(source, affine.identity(), (131, 97)), draw, spec)
            items[number].append((view.to_source, view.size, view.source_size))
    return [ViewGeometry.stack(column) for column in items]


def test_all_cells_of_the_first_view_lie_in_the_second():
    """What is sampled of source coordinates are the coordinates of the first view's cells."""
    first, second = two_views(30, 320)
    sample, valid = shared_places(first, second, (80, 80))
    assert valid.all()
    assert (first.matrix[:, 0, 0] < 0).any() and not (second.matrix[:, 0, 0] < 0).any()
    coordinates = cell_centres(second, (80, 80)).mT.unflatten(2, (80, 80))
    wanted = cell_centres(first, (80, 80)).mT.unflatten(2, (80, 80))
    error = (sample(coordinates) - wanted).abs()
    # Beyond the outermost centres the map is held: half a cell of 97/80 pixels.
    assert error.max() < 0.61
    inside = ((wanted > coordinates.amin((2, 3), True)) & (wanted < coordinates.amax((2, 3), True))).all(
        1, keepdim=True
    )
    assert inside.float().mean() > 0.9 and error[inside.expand_as(error)].max() < 1e-9


@pytest.mark.parametrize("flip", [False, True])
def test_sampling_is_the_official_crop_resize_and_flip_of_features(flip):
    """For a crop on whole cells, away from its border, where the official resize does not look beyond the crop."""
    features = torch.randn(1, 3, 20, 20, dtype=torch.float64)
    left, top, side = 4, 7, 12  # cells; a cell is 5 source pixels
    maps = [affine.crop(5 * left, 5 * top), affine.resize((5 * side,) * 2, (40, 40))] + [affine.hflip(40)] * flip
    first = ViewGeometry.stack([(affine.compose(*maps), (40, 40), (100, 100))])
    second = ViewGeometry.stack([(affine.resize((100, 100), (40, 40)), (40, 40), (100, 100))])
    sample, valid = shared_places(first, second, (20, 20))
    cut = features[:, :, top : top + side, left : left + side]
    official = F.interpolate(cut, (20, 20), mode="bilinear", align_corners=False)
    official = official.flip(3) if flip else official
    assert valid.all()
    torch.testing.assert_close(sample(features)[..., 1:-1, 1:-1], official[..., 1:-1, 1:-1], rtol=1e-10, atol=1e-12)


def test_segmentation_counts_only_cells_that_both_views_show():
    """All terms against loops; some cells of the first view lie outside the second one."""
    objective = dict(SEGMENTATION, name="s", region_weight=0.3, seg_weight=0.7)
    stages = dict(BACKBONE, out_indices=(0, 1, 2, 3))
    model = toy_model([objective], STOP, backbone=stages, neck=DECODER, dtype=torch.float64)
    batch = without_overlap(toy_batch(3, sizes=(32, 32), dtype=torch.float64, seed=1), [1])
    figures = model.loss(batch)
    objective, projectors = model.objectives["s"], model.online.projectors
    sample, valid = shared_places(batch.geometry[0], batch.geometry[1], (8, 8))
    assert 0.1 < valid[[0, 2]].double().mean() < 0.95 and not valid[1].any()
    maps = [model.online(view, neck=True)["neck.0"] for view in batch.views]
    maps[1] = sample(maps[1])
    cells = [(n, i, j) for n in range(3) for i in range(8) for j in range(8) if valid[n, i, j]]

    for name, classes, weight in (("pixel", 5, math.log(7)), ("aux", 7, math.log(5))):
        z = [projectors[f"s_{name}"](item).detach() for item in maps]
        p = [objective.predictors[name](item).detach() for item in z]
        total = 0.0
        for n, i, j in cells:
            for one, other in ((0, 1), (1, 0)):
                q, logits = z[other][n, :, i, j].exp(), p[one][n, :, i, j]
                log_sum = math.log(sum(math.exp(v) for v in logits))
                total -= sum(q[c] / q.sum() * (logits[c] - log_sum) for c in range(classes)) / 2
        expected = weight / (math.log(5) + math.log(7)) * total / len(cells)
        assert figures[f"s.loss_{name}"].item() == pytest.approx(float(expected), rel=1e-8)

    z = [projectors["s_pixel"](item).detach() for item in maps]
    total = 0.0
    for logits in z:
        labels = {cell: int(logits[cell[0], :, cell[1], cell[2]].argmax()) for cell in cells}
        for (n, i, j), label in labels.items():
            share = list(labels.values()).count(label) / len(cells)
            row = logits[n, :, i, j]
            total += share * float(row.logsumexp(0) - row[label]) / 2
    assert figures["s.loss_seg"].item() == pytest.approx(0.7 * total / len(cells), rel=1e-8)

    vectors = [
        torch.cat([region_vectors(f[n].flatten(1), logits[n].flatten(1), valid[n].flatten()) for n in range(3)])
        for f, logits in zip(maps, z)
    ]
    projected = [projectors["s_region"](item) for item in vectors]
    predicted = [objective.region.predictor(item) for item in projected]
    rows = [
        region_loss([u[5 * n : 5 * n + 5] for u in projected], [s[5 * n : 5 * n + 5] for s in predicted])
        for n in (0, 2)
    ]
    assert figures["s.loss_region"].item() == pytest.approx(0.3 * sum(rows).item() / 2, rel=1e-8)
    agree = [z[0][n, :, i, j].argmax() == z[1][n, :, i, j].argmax() for n, i, j in cells]
    assert figures["s.agreement"].item() == pytest.approx(float(sum(agree)) / len(cells))


def test_shares_are_of_the_valid_labels():
    logits = torch.zeros(1, 3, 1, 4)
    labels = torch.tensor([[[0, 0, 2, 1]]])
    rows, shares = hard_cross_entropy(logits, labels, torch.tensor([[[True, True, True, False]]]))
    torch.testing.assert_close(shares, torch.tensor([2 / 3, 0, 1 / 3]))
    torch.testing.assert_close(rows, math.log(3) * torch.tensor([[[2 / 3, 2 / 3, 1 / 3, 0]]]))


def test_more_than_two_views_are_refused():
    with pytest.raises(ValueError, match=r"objectives\.densesiam\.views is \(0, 1, 2\)"):
        toy_model([dict(type="DenseSiam", views=(0, 1, 2))])
