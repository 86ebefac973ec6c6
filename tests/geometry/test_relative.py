"""Relative cells against crop parameters in plain numbers, against tables, and against pixels that are coordinates."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from densessl import geometry as G
from densessl.branches.positions import grid_points, point_embedding, relative_embedding
from densessl.data import UnlabelledImages, collate_views
from densessl.geometry import affine

SOURCE = (120, 90)
IDENTICAL = dict(rtol=0, atol=1e-10)


def crop_view(top, left, height, width, flip, size, vflip=False):
    """A crop of the upright source, resized to (w, h), then flipped."""
    maps = [affine.crop(left, top), affine.resize((width, height), size)]
    maps += [affine.hflip(size[0])] * flip + [affine.vflip(size[1])] * vflip
    return G.ViewGeometry.stack([(affine.compose(*maps), size, SOURCE)])


def crop_strategy():
    span = st.tuples(st.integers(0, 60), st.integers(1, 30))
    return st.tuples(span, span, st.booleans(), st.booleans())


@given(crop_strategy(), crop_strategy())
def test_cells_match_a_loop_over_crop_parameters(first, second):
    """Any flips of either view, of unequal shapes, in grids of unequal cells."""
    grids = [(3, 5), (2, 4)]
    views, boxes = [], []
    for ((top, height), (left, width), flip, vflip), size in zip((first, second), [(40, 24), (32, 48)]):
        views.append(crop_view(top, left, height, width, flip, size, vflip))
        boxes.append((top, left, height, width, flip, vflip))
    points, scale = G.relative_cells(*views, *grids)
    (t1, l1, h1, w1, f1, v1), (t2, l2, h2, w2, f2, v2) = boxes
    for row in range(2):
        for column in range(4):
            u, v = (column + 0.5) / 4, (row + 0.5) / 2
            x = l2 + w2 * (1 - u if f2 else u)  # in source pixels
            y = t2 + h2 * (1 - v if v2 else v)
            u, v = (x - l1) / w1, (y - t1) / h1
            expected = 5 * (1 - u if f1 else u) - 0.5, 3 * (1 - v if v1 else v) - 0.5
            assert points[0, 4 * row + column].tolist() == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert scale[0].tolist() == pytest.approx((w2 / 4 / (w1 / 5), h2 / 2 / (h1 / 3)), rel=1e-9)


@given(crop_strategy(), crop_strategy())
def test_official_parameters_give_the_same_cells(first, second):
    """As in SIM's released code: crops in coordinates of the source flipped beforehand, and a record of both flips."""
    g, width = 4, SOURCE[0]
    ((i1, h1), (j1, w1), f1, _), ((i2, h2), (j2, w2), f2, _) = first, second
    views = []
    for i, j, h, w, f in ((i1, j1, h1, w1, f1), (i2, j2, h2, w2, f2)):
        views.append(crop_view(i, width - j - w if f else j, h, w, f, (16, 16)))
    points, scale = G.relative_cells(*views, (g, g), (g, g))
    dh, dw = h2 / h1, w2 / w1
    for r in range(g):
        for c in range(g):
            x = -dw * (c + 0.5) + g * (width - j1 - j2) / w1 if f1 != f2 else dw * (c + 0.5) + g * (j2 - j1) / w1
            y = dh * (r + 0.5) + g * (i2 - i1) / h1
            assert points[0, g * r + c].tolist() == pytest.approx((x - 0.5, y - 0.5), rel=1e-9, abs=1e-9)
    assert scale[0].tolist() == pytest.approx((dw, dh), rel=1e-9)


@pytest.mark.parametrize("flip", [False, True])
@pytest.mark.parametrize("grid", [(4, 4), (2, 6), (1, 1)])
def test_a_view_sees_its_own_cells_at_whole_numbers(grid, flip):
    view = crop_view(7, 11, 33, 50, flip, (48, 32))
    points, scale = G.relative_cells(view, view, grid, grid)
    torch.testing.assert_close(points[0], grid_points(grid, points), **IDENTICAL)
    torch.testing.assert_close(scale, torch.ones(1, 2, dtype=torch.float64), **IDENTICAL)


def test_equal_crops_have_the_fixed_table_and_mirrored_ones_the_mirrored_table():
    """The first half of the embedding, however both are flipped; the second is that of equal scales."""
    grid, dim = (3, 5), 16
    views = {flip: crop_view(7, 11, 33, 50, flip, (80, 48)) for flip in (False, True)}
    table = point_embedding(grid_points(grid, torch.zeros((), dtype=torch.float64)), dim)
    mirrored = table.unflatten(0, grid).flip(1).flatten(0, 1)
    still = torch.tensor([0.0] * 4 + [1.0] * 4, dtype=torch.float64).repeat(2)
    for one in (False, True):
        for other in (False, True):
            points, scale = G.relative_cells(views[one], views[other], grid, grid)
            found = relative_embedding(points, scale, dim)[0]
            torch.testing.assert_close(found[:, :dim], table if one == other else mirrored, **IDENTICAL)
            torch.testing.assert_close(found[:, dim:], still.expand(15, -1), **IDENTICAL)


def test_the_embedding_matches_a_loop():
    """The order of its four parts, and of what is in them."""
    dim, points, scale = 8, torch.tensor([[[1.25, -3.0], [0.0, 7.5]]]).double(), torch.tensor([[0.5, 3.0]]).double()
    found = relative_embedding(points, scale, dim)
    assert found.shape == (1, 2, 16)
    for row, (x, y) in zip(found[0], points[0].tolist()):
        expected = []
        for value in (y, x, 10 * np.log(3.0), 10 * np.log(0.5)):
            frequencies = [10000 ** (-k / 2) for k in range(2)]
            expected += [np.sin(value * w) for w in frequencies] + [np.cos(value * w) for w in frequencies]
        assert row.tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_positions_are_fp32_under_autocast_and_for_coarse_points(dtype):
    points, scale = torch.rand(2, 3, 2).to(dtype), torch.rand(2, 2).to(dtype) + 0.5
    plain = relative_embedding(points, scale, 8)
    with torch.autocast("cpu", torch.bfloat16):
        found = relative_embedding(points, scale, 8)
    assert plain.dtype == torch.float32 and torch.equal(found, plain)


@pytest.mark.parametrize(
    ("first", "second", "aligned"), [(0, 0, True), (30, 30, True), (0, 1, False), (90, 0, False), (180, 0, True)]
)
def test_axis_aligned(first, second, aligned):
    """Of a batch, the image whose views are turned against each other."""
    views = []
    for angle, box, size in ((first, (64, 48), (32, 24)), (second, (50, 50), (40, 40))):
        turned = affine.compose(affine.crop(3, 5), affine.resize(box, size), affine.rotate(angle, size))
        straight = affine.compose(affine.crop(1, 2), affine.resize((7, 80), size), affine.hflip(size[0]))
        views.append(G.ViewGeometry.stack([(straight, size, SOURCE), (turned, size, SOURCE)]))
    assert G.axis_aligned(*views).tolist() == [True, aligned]


@pytest.fixture(scope="module")
def ramp(tmp_path_factory):
    """An image whose red and green are its coordinates, stored without loss."""
    root = tmp_path_factory.mktemp("ramp")
    y, x = np.mgrid[:180, :240]
    Image.fromarray(np.stack([x, y, 0 * x], -1).astype(np.uint8)).save(root / "ramp.png")
    return root


def test_pixels_of_the_data_pipeline_lie_where_relative_cells_say(ramp):
    """Mean colours of a view's patches are where they lie in the source; from those of the first view's corner patches
    the places of the second's follow, in the first's patches."""
    patch = 8
    specs = [dict(size=(48, 64), scale=(0.3, 0.9)), dict(size=(80, 40), scale=(0.2, 0.7), interpolation="bicubic")]
    dataset = UnlabelledImages(str(ramp), specs)
    batch = collate_views([dataset[epoch, 0] for epoch in range(20)])
    grids = [tuple(side // patch for side in view.shape[2:]) for view in batch.views]
    assert grids == [(8, 6), (5, 10)]
    flips = [item.matrix[:, 0, 0] < 0 for item in batch.geometry]
    assert len({(bool(a), bool(b)) for a, b in zip(*flips)}) == 4, "all combinations of flips"
    first, second = (
        torch.nn.functional.avg_pool2d(view[:, :2].double(), patch).flatten(2).mT + 0.5 for view in batch.views
    )
    points, scale = G.relative_cells(*batch.geometry, *grids)
    height, width = grids[0]
    origin, last = first[:, 0], first[:, -1]
    step = (last - origin) / torch.tensor([width - 1, height - 1])
    expected = (second - origin[:, None]) / step[:, None]
    assert (points - expected).abs().max() < 0.04  # of a cell, for colours are whole numbers
    right, down = second[:, 1] - second[:, 0], second[:, grids[1][1]] - second[:, 0]
    steps = torch.stack([right[:, 0], down[:, 1]], 1)
    assert (scale - (steps / step).abs()).abs().max() < 0.04
