"""PixPro masks against the worked cases of the paper's official code, and against a loop in float64."""

import math

import numpy as np
import pytest
import torch

from densessl import geometry as G
from densessl.geometry import affine

SOURCE = (500, 375)


def crop_view(top, left, height, width, flip, size=224, source=SOURCE):
    maps = [affine.crop(left, top), affine.resize((width, height), (size, size))]
    if flip:
        maps.append(affine.hflip(size))
    return G.ViewGeometry.stack([(affine.compose(*maps), (size, size), source)])


# name: view 1, view 2 as (top, left, h, w, flip), diagonals, positives, rows and columns with one
CASES = {
    "A": ((10, 20, 200, 300, 0), (60, 120, 150, 200, 1), (0.114478, 0.080529), 145, (30, 49)),
    "B": ((0, 0, 375, 500, 0), (0, 0, 375, 500, 0), (0.202031, 0.202031), 49, (49, 49)),
    "C": ((0, 0, 375, 500, 0), (0, 0, 375, 500, 1), (0.202031, 0.202031), 49, (49, 49)),
    "D": ((0, 0, 100, 100, 0), (250, 350, 100, 100, 0), (0.047258, 0.047258), 0, (0, 0)),
    "E": ((100, 100, 224, 224, 0), (116, 132, 224, 224, 0), (0.106449, 0.106449), 78, (42, 42)),
}


@pytest.mark.parametrize("name", CASES)
def test_worked_masks(name):
    first, second, diagonals, positives, rows_columns = CASES[name]
    frames = [G.pixpro_frame(crop_view(*view)) for view in (first, second)]
    for frame, expected in zip(frames, diagonals):
        assert G.frame_cells(frame, (7, 7))[1].item() == pytest.approx(expected, abs=1e-6)
    mask = G.distance_mask(*frames, (7, 7), threshold=0.7)[0]
    assert mask.sum().item() == positives
    assert (mask.any(1).sum().item(), mask.any(0).sum().item()) == rows_columns
    pairs = [tuple(pair) for pair in mask.nonzero().tolist()]
    if name == "A":
        box_1, box_2 = (G.frame_to_coords(frame)[0] for frame in frames)
        np.testing.assert_allclose(box_1, [0.040080, 0.026738, 0.639279, 0.558824], atol=1e-6)
        np.testing.assert_allclose(box_2, [0.639279, 0.160428, 0.240481, 0.558824], atol=1e-6)
        assert pairs[:3] == [(9, 6), (10, 4), (10, 5)]
    if name == "B":
        assert pairs == [(i, i) for i in range(49)]
    if name == "C":
        assert pairs == [(7 * v + u, 7 * v + 6 - u) for v in range(7) for u in range(7)]
    if name == "E":
        assert pairs[:3] == [(1, 0), (2, 1), (3, 2)]


def test_record_round_trip_and_both_flips():
    maps = affine.compose(affine.crop(7, 3), affine.resize((40, 30), (64, 64)), affine.hflip(64), affine.vflip(64))
    coords = G.frame_to_coords(G.pixpro_frame(G.ViewGeometry.stack([(maps, (64, 64), (100, 80))])))
    np.testing.assert_allclose(coords[0], [46 / 99, 32 / 79, 7 / 99, 3 / 79], atol=1e-12)
    torch.testing.assert_close(G.frame_to_coords(G.coords_to_frame(coords)), coords)


def test_distances_match_a_loop_on_unequal_grids():
    views = [crop_view(10, 20, 200, 300, 1), crop_view(60, 120, 150, 200, 0)]
    frames = [G.edge_frame(view)[0].numpy() for view in views]
    grids = [(3, 5), (4, 2)]
    actual = G.cell_distances(*(G.edge_frame(view) for view in views), *grids)[0]
    diagonals = [
        math.sqrt(sum((f[r, c] / (w, h)[c]) ** 2 for r in range(2) for c in range(2)))
        for f, (h, w) in zip(frames, grids)
    ]

    def centre(frame, grid, index):
        v, u = divmod(index, grid[1])
        return frame[:, :2] @ [(u + 0.5) / grid[1], (v + 0.5) / grid[0]] + frame[:, 2]

    for i in range(15):
        for j in range(8):
            gap = centre(frames[0], grids[0], i) - centre(frames[1], grids[1], j)
            assert actual[i, j].item() == pytest.approx(math.hypot(*gap) / max(diagonals), rel=1e-12)


def test_a_rotated_view_keeps_its_matches():
    """Turning a view by 90 degrees permutes its cells and nothing else."""
    plain = crop_view(50, 60, 210, 210, 0, source=(400, 400))
    turned = G.ViewGeometry(
        torch.from_numpy(affine.compose(plain.matrix[0].numpy(), affine.rotate(90, (224, 224))))[None],
        *plain[1:],
    )
    mask = G.distance_mask(G.pixpro_frame(turned), G.pixpro_frame(plain), (7, 7))[0]
    # Counter-clockwise: the turned view's cell (row v, column u) shows the plain view's (row u, column 6 - v).
    assert mask.nonzero().tolist() == [[7 * v + u, 7 * u + 6 - v] for v in range(7) for u in range(7)]


def test_one_pixel_source_is_finite():
    view = G.ViewGeometry.stack([(affine.resize((1, 1), (8, 8)), (8, 8), (1, 1))])
    assert torch.isfinite(G.pixpro_frame(view)).all()
