"""Correspondence strategies against loops, and against the source coordinates both readers must agree on."""

import numpy as np
import pytest
import torch

from densessl.correspondence import cells
from densessl.geometry import ViewGeometry, affine, cell_centres, frame_cells, pixpro_frame, to_view
from densessl.registry import CORRESPONDENCES
from densessl.schedules import Step
from tests.geometry.test_cell_distance import CASES, crop_view

STEP = Step(3)


def noise(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def pairs_of(kind, first, second, geometry=(None, None), step=STEP, **options):
    return CORRESPONDENCES.build(dict(type=kind, **options))(first, second, geometry, step)


# By features.


def loop_argmax(first, second, image):
    """For each cell of the first map the lowest index among the most similar cells of the second."""
    f, s = (x[image].flatten(1).T.tolist() for x in (first, second))

    def cosine(a, b):
        return sum(x * y for x, y in zip(a, b)) / (sum(x * x for x in a) * sum(y * y for y in b)) ** 0.5

    return [max(range(len(s)), key=lambda j: (cosine(cell, s[j]), -j)) for cell in f]


@pytest.mark.parametrize("size", [(3, 3), (4, 2)], ids=str)
def test_argmax_reads_each_cells_most_similar_cell(size):
    first, second, values = noise(2, 5, 2, 3), noise(2, 5, *size, seed=1), noise(2, 4, *size, seed=2)
    pairs = pairs_of("FeatureArgmax", first, second)
    read = pairs.second(values)
    for n in range(2):
        for i, j in enumerate(loop_argmax(first, second, n)):
            assert torch.equal(read[n, i], values[n].flatten(1)[:, j])
    own = noise(2, 7, 2, 3, seed=3)
    assert torch.equal(pairs.first(own)[1, 4], own[1, :, 1, 1])
    assert pairs.valid.shape == (2, 6) and pairs.valid.dtype == torch.bool and pairs.valid.all()


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_argmax_gives_ties_to_the_first_cell(dtype):
    first = noise(4, 64, 7, 7).to(dtype)
    distinct = noise(4, 64, 7, 1, seed=1).to(dtype)
    second = distinct.expand(-1, -1, -1, 7).contiguous()  # each row of the map seven times the same cell
    index = torch.arange(49.0, dtype=dtype).view(1, 1, 7, 7).expand(4, 1, 7, 7)
    found = pairs_of("FeatureArgmax", first, second).second(index)
    assert not (found % 7).any() and len(found.unique()) == 7
    same = torch.ones(1, 8, 2, 3, dtype=dtype)
    assert not pairs_of("FeatureArgmax", same, same).second(index[:1, :, :2, :3]).any()


def test_permuting_the_key_map_permutes_the_matches_and_changes_nothing_read():
    first, second, values = noise(2, 5, 3, 4), noise(2, 5, 3, 4, seed=1), noise(2, 6, 3, 4, seed=2)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0))

    def moved(maps):
        return maps.flatten(2)[:, :, order].unflatten(2, (3, 4))

    index = torch.arange(12.0).view(1, 1, 3, 4).expand(2, 1, 3, 4)
    plain, permuted = (pairs_of("FeatureArgmax", first, s) for s in (second, moved(second)))
    assert torch.equal(order[permuted.second(index).long()], plain.second(index).long())
    assert torch.equal(permuted.second(moved(values)), plain.second(values))


def test_soft_attention_matches_a_loop_and_is_argmax_when_cold():
    first, second, values = noise(2, 5, 2, 3), noise(2, 5, 4, 2, seed=1), noise(2, 4, 4, 2, seed=2)
    read = pairs_of("SoftAttention", first, second, temperature=0.3).second(values)
    for n in range(2):
        for i in range(6):
            f = first[n].flatten(1)[:, i]
            cosines = [(f @ s / f.norm() / s.norm()).item() for s in second[n].flatten(1).T]
            terms = [np.exp(cosine / 0.3) for cosine in cosines]
            expected = sum(t / sum(terms) * v for t, v in zip(terms, values[n].flatten(1).T))
            torch.testing.assert_close(read[n, i], expected, rtol=1e-12, atol=1e-14)
    cold = pairs_of("SoftAttention", first, second, temperature=1e-4)
    hard = pairs_of("FeatureArgmax", first, second)
    torch.testing.assert_close(cold.second(values), hard.second(values), rtol=0, atol=1e-9)
    assert cold.valid.all() and torch.equal(cold.first(first), cells(first))


@pytest.mark.parametrize("kind", ["FeatureArgmax", "SoftAttention"])
def test_matching_sends_no_gradient_into_the_maps_it_looks_at(kind):
    first, second = noise(1, 5, 2, 3).requires_grad_(), noise(1, 5, 2, 3, seed=1).requires_grad_()
    values = noise(1, 4, 2, 3, seed=2).requires_grad_()
    pairs = pairs_of(kind, first, second)
    (pairs.first(values) * pairs.second(values)).sum().backward()
    assert first.grad is None and second.grad is None and torch.isfinite(values.grad).all() and values.grad.any()


@pytest.mark.parametrize("kind", ["FeatureArgmax", "SoftAttention"])
def test_half_precision_maps_are_compared_in_fp32(kind):
    first, second = (noise(2, 64, 4, 4, seed=s).to(torch.bfloat16) for s in (0, 1))
    with torch.autocast("cpu", torch.bfloat16):
        actual = pairs_of(kind, first, second).second(second)
    expected = pairs_of(kind, first.float(), second.float()).second(second.float())
    torch.testing.assert_close(actual.float(), expected, rtol=0, atol=0)


# By geometry.


@pytest.mark.parametrize("name", CASES)
def test_distance_threshold_on_the_worked_masks(name):
    first, second, _, positives, (rows, columns) = CASES[name]
    geometry = tuple(crop_view(*view) for view in (first, second))
    maps = torch.zeros(1, 1, 7, 7, dtype=torch.float64)
    basis = torch.eye(49, dtype=torch.float64).view(1, 49, 7, 7)
    pairs = pairs_of("DistanceThreshold", maps, maps, geometry, coords="official")
    weights = pairs.second(basis)[0]
    assert (weights > 0).sum() == positives
    assert pairs.valid.sum() == rows and ((weights > 0).any(0)).sum() == columns
    torch.testing.assert_close(weights.sum(1), pairs.valid[0].double(), rtol=0, atol=1e-15)
    if name == "A":
        assert [tuple(pair) for pair in (weights > 0).nonzero().tolist()][:3] == [(9, 6), (10, 4), (10, 5)]


def test_distance_threshold_means_over_the_close_cells_of_maps_of_any_size():
    geometry = crop_view(10, 20, 200, 300, 0), crop_view(60, 120, 150, 200, 1)
    values, grids = noise(1, 4, 5, 6), ((3, 4), (5, 6))
    first, second = (torch.zeros(1, 1, *grid, dtype=torch.float64) for grid in grids)
    for coords in ("official", "edges"):
        pairs = pairs_of("DistanceThreshold", first, second, geometry, coords=coords, threshold=0.6)
        if coords == "official":
            (near, one), (far, other) = (frame_cells(pixpro_frame(g), grid) for g, grid in zip(geometry, grids))
        else:  # plain source positions over the source size; a cell's sides from its neighbours
            size = torch.tensor([500.0, 375], dtype=torch.float64)
            near, far = (cell_centres(g, grid) / size for g, grid in zip(geometry, grids))
            one = torch.tensor([300 / 4 / 500, 200 / 3 / 375], dtype=torch.float64).norm()
            other = torch.tensor([200 / 6 / 500, 150 / 5 / 375], dtype=torch.float64).norm()
        read = pairs.second(values)
        for i in range(12):
            close = [j for j in range(30) if (near[0, i] - far[0, j]).norm() / max(one, other) < 0.6]
            assert pairs.valid[0, i] == bool(close)
            expected = sum(values[0].flatten(1)[:, j] for j in close) / len(close) if close else torch.zeros(4).double()
            torch.testing.assert_close(read[0, i], expected, rtol=0, atol=1e-14)
        assert 0 < pairs.valid.sum() < 12
    with pytest.raises(ValueError, match=r"correspondence\.coords 'pixels' is unknown"):
        pairs_of("DistanceThreshold", first, second, geometry, coords="pixels")


def view(left, top, width, height, *more, size=(60, 40)):
    """A crop of a source of 200 x 150, resized, then flipped or turned."""
    maps = [affine.crop(left, top), affine.resize((width, height), size), *more]
    return affine.compose(*maps), size, (200, 150)


FLIP_X, FLIP_Y, TURN = affine.hflip(60), affine.vflip(40), affine.rotate(25, (60, 40))
VIEWS = {
    "plain": (view(10, 20, 120, 90), view(60, 5, 130, 100)),
    "flipped": (view(10, 20, 120, 90, FLIP_X), view(60, 5, 130, 100, FLIP_Y)),
    "both flips": (view(0, 0, 200, 150, FLIP_X, FLIP_Y), view(30, 40, 50, 60)),
    "turned": (view(10, 20, 120, 90, TURN), view(60, 5, 130, 100)),
    "both turned": (view(10, 20, 120, 90, TURN), view(30, 5, 130, 100, FLIP_X, affine.rotate(-70, (60, 40)))),
}
GEOMETRIC = {"OverlapGrid": dict(size=7), "RandomPoints": dict(count=60)}


def ramp(geometry, height, width):
    """The map whose features are the source coordinates of its cells, (N, 2, height, width)."""
    return cell_centres(geometry, (height, width)).mT.unflatten(2, (height, width))


def interior(geometry, points, height, width):
    """Which source points (N, P, 2) lie within the outermost cell centres of a map, where bilinear is exact."""
    place = to_view(geometry, points) / geometry.view_size[:, None]
    margin = 0.5 / torch.tensor([width, height], dtype=torch.float64)
    return ((place > margin + 1e-9) & (place < 1 - margin - 1e-9)).all(2)


@pytest.mark.parametrize("kind", GEOMETRIC)
@pytest.mark.parametrize("name", VIEWS)
def test_both_readers_read_the_same_source_points(kind, name):
    geometry = tuple(ViewGeometry.stack([item]) for item in VIEWS[name])
    sizes = (30, 40), (24, 25)
    maps = [ramp(item, *size) for item, size in zip(geometry, sizes)]
    pairs = pairs_of(kind, *maps, geometry, **GEOMETRIC[kind])
    one, other = pairs.first(maps[0]), pairs.second(maps[1])
    exact = pairs.valid & interior(geometry[0], one, *sizes[0]) & interior(geometry[1], other, *sizes[1])
    assert exact.sum() > 20
    torch.testing.assert_close(one[exact], other[exact], rtol=0, atol=1e-9)
    # At the border of a view its outermost cells count: never more than half a cell's diagonal off.
    diagonals = [
        (item.matrix[0, :, :2] * item.view_size[0] / torch.tensor(s[::-1])).norm() for item, s in zip(geometry, sizes)
    ]
    assert (one - other)[pairs.valid].norm(dim=1).max() <= sum(diagonals) / 2 + 1e-9
    if "turned" not in name:
        assert pairs.valid.all()
    else:  # the overlap is that of bounding boxes: what lies beside a view does not count
        assert 0 < pairs.valid.sum() < pairs.valid.numel()


def test_the_grid_covers_the_overlap_as_a_loop_says():
    geometry = tuple(ViewGeometry.stack([item]) for item in VIEWS["flipped"])
    maps = [ramp(item, 80, 90) for item in geometry]
    pairs = pairs_of("OverlapGrid", *maps, geometry, size=4)
    left, top, right, bottom = 60, 20, 130, 105  # of the views x 10 … 130, 60 … 190 and y 20 … 110, 5 … 105
    expected = [
        [left + (u + 0.5) / 4 * (right - left), top + (v + 0.5) / 4 * (bottom - top)]
        for v in range(4)
        for u in range(4)
    ]
    for read in (pairs.first(maps[0]), pairs.second(maps[1])):
        torch.testing.assert_close(read[0], torch.tensor(expected, dtype=torch.float64), rtol=0, atol=1e-9)


def test_random_points_fill_the_overlap_and_depend_on_seed_and_step_only():
    geometry = tuple(ViewGeometry.stack([item, item]) for item in VIEWS["plain"])
    maps = [ramp(item, 80, 90) for item in geometry]

    def read(step, rows=slice(None)):
        own = tuple(ViewGeometry(*(field[rows] for field in item)) for item in geometry)
        return pairs_of("RandomPoints", *(m[rows] for m in maps), own, step, count=500).first(maps[0][rows])

    points = read(Step(3, None, 1))
    assert torch.equal(points, read(Step(3, None, 1)))
    assert torch.equal(points[1:], read(Step(3, None, 1), slice(1, 2)))  # as a rank that has only this image
    assert not torch.equal(points, read(Step(4, None, 1))) and not torch.equal(points, read(Step(3, None, 2)))
    box = torch.tensor([60.0, 20, 130, 105], dtype=torch.float64)
    assert (points >= box[:2] - 1e-9).all() and (points <= box[2:] + 1e-9).all()
    share = (points[0] - box[:2]) / (box[2:] - box[:2])
    torch.testing.assert_close(share.mean(0), torch.full((2,), 0.5).double(), rtol=0, atol=0.05)
    torch.testing.assert_close(share.std(0), torch.full((2,), 12**-0.5).double(), rtol=0, atol=0.03)


@pytest.mark.parametrize(("kind", "options"), [*GEOMETRIC.items(), ("DistanceThreshold", {})])
def test_views_that_do_not_meet_are_invalid_and_everything_stays_finite(kind, options):
    """One image without overlap, one whose views only touch, one with overlap."""
    apart = [(view(0, 0, 40, 30), view(150, 100, 50, 50)), (view(0, 0, 40, 30), view(40, 0, 40, 30)), VIEWS["plain"]]
    geometry = tuple(ViewGeometry.stack(items) for items in zip(*apart))
    first, second = noise(3, 4, 5, 6).requires_grad_(), noise(3, 4, 3, 2, seed=1).requires_grad_()
    pairs = pairs_of(kind, first, second, geometry, **options)
    one, other = pairs.first(first), pairs.second(second)
    assert not pairs.valid[:1].any() and pairs.valid[2].any()
    assert kind == "DistanceThreshold" or not pairs.valid[1].any()
    assert torch.isfinite(one).all() and torch.isfinite(other).all()
    torch.where(pairs.valid[..., None], one * other, 0).sum().backward()
    for grad in (first.grad, second.grad):
        assert torch.isfinite(grad).all() and not grad[0].any() and grad[2].any()


@pytest.mark.parametrize(("kind", "options"), [*GEOMETRIC.items(), ("DistanceThreshold", {})])
def test_half_precision_maps_are_read_in_fp32(kind, options):
    geometry = tuple(ViewGeometry.stack([item]) for item in VIEWS["flipped"])
    maps = noise(1, 64, 4, 5).to(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        actual = pairs_of(kind, maps, maps, geometry, **options).second(maps)
    expected = pairs_of(kind, maps, maps, geometry, **options).second(maps.float())
    assert actual.dtype == torch.float32 and torch.equal(actual, expected)
