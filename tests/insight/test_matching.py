"""Matching with backbones whose features are known, so that the right answer is too."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from densessl.insight.matching import cell_centres, dense_matching, nearest_by_cosine, pck
from densessl.insight.stereo import StereoPair, motorcycle

RADIUS = 4000.0


def on_sphere(points):
    """Positions (x, y) in pixels as unit vectors whose cosine falls with distance: points (..., 2) -> (..., 3)."""
    points = torch.as_tensor(points, dtype=torch.float64) / RADIUS
    return torch.cat([points, (1 - points.square().sum(-1, keepdim=True)).sqrt()], dim=-1)


class Oracle(torch.nn.Module):
    """Gives every cell of the right image its position, every cell of the left one its true position in the right."""

    def __init__(self, pair, cells):
        super().__init__()
        centres = cell_centres(cells, pair.left.shape[:2])
        truth, valid = pair.true_points(centres)
        points = torch.from_numpy(np.stack([np.where(valid[:, None], truth, 0), centres]))
        self.maps = on_sphere(points).mT.reshape(2, 3, *cells)

    def forward(self, images):
        return torch.zeros(2, 1, 1, 1), self.maps


@pytest.mark.parametrize("cells", [(32, 48), (17, 23)])
def test_oracle_features_find_every_point(cells):
    pair = motorcycle()
    result = dense_matching(Oracle(pair, cells), pair, size=(64, 96))
    assert 0.85 * cells[0] * cells[1] < len(result.query) < cells[0] * cells[1]
    half_diagonal = np.hypot(*result.cell) / 2
    assert result.cell == (741 / cells[1], 500 / cells[0])
    assert result.error.max() <= half_diagonal + 1e-6, "what is found is the cell the truth lies in"
    figures = result.figures()
    assert figures["features"]["pck@1cell"] == 1
    assert figures["features"]["exact"] == 1
    assert figures["chance"]["exact"] == 1 / (cells[0] * cells[1])
    nearest = [np.hypot(*(result.candidates - point).T).min() for point in result.truth]
    same = [
        np.hypot(*(result.candidates[np.hypot(*(result.candidates - own).T).argmin()] - point)) <= least + 1e-9
        for own, point, least in zip(result.query, result.truth, nearest)
    ]
    assert figures["same_position"]["exact"] == pytest.approx(np.mean(same))
    assert figures["same_position"]["pck@1cell"] < 0.6
    assert figures["chance"]["pck@1cell"] < 0.02
    disparity = result.query[:, 0] - result.truth[:, 0]
    np.testing.assert_allclose(result.error_same_position, disparity)
    assert 7 < disparity.min() < disparity.max() < 60


class Colours(torch.nn.Module):
    """Reads positions back from images whose red is x and whose green is y: mean colour of each 4 x 4 block."""

    def forward(self, images):
        assert not self.training
        assert images.shape == (2, 3, 48, 96)
        pixels = images * torch.tensor([50.0, 60.0, 70.0]).view(3, 1, 1) + torch.tensor([1.0, 2.0, 3.0]).view(3, 1, 1)
        np.testing.assert_allclose(pixels.amax(dim=(0, 2, 3)), [47, 23, 0], atol=1e-4)  # normalised by mean and std
        points = F.avg_pool2d(pixels, 4)[:, :2].permute(0, 2, 3, 1) + 0.5
        return (on_sphere(points).permute(0, 3, 1, 2),)


def test_pixels_that_are_coordinates_come_back_through_the_whole_path():
    """The left image is the right one moved by 8 pixels, which is four cells of the images at twice their size."""
    y, x = np.mgrid[:24, :48]
    right = np.stack([x, y, 0 * x], axis=-1).astype(np.uint8)
    left = np.stack([np.clip(x - 8, 0, None), y, 0 * x], axis=-1).astype(np.uint8)
    pair = StereoPair(left, right, np.full((24, 48), 8, np.float32))
    backbone = Colours()
    result = dense_matching(backbone, pair, size=(48, 96), mean=(1, 2, 3), std=(50, 60, 70))
    assert backbone.training
    assert result.cell == (2, 2)
    inside = result.truth[:, 0] > 2  # blocks over the clipped edge are blurred with it
    assert inside.sum() == 12 * 19
    np.testing.assert_allclose(result.found[inside], result.truth[inside])


def test_features_that_know_nothing_do_no_better_than_chance():
    pair = motorcycle()

    class Noise(torch.nn.Module):
        def forward(self, images):
            return (torch.randn(2, 16, 32, 48, generator=torch.Generator().manual_seed(0)),)

    class Constant(torch.nn.Module):
        def forward(self, images):
            return (torch.ones(2, 16, 32, 48),)

    result = dense_matching(Noise(), pair, size=(64, 96))
    figures = result.figures(pixels=(100,))
    chance = figures["chance"]["pck@100px"]
    deviation = (chance * (1 - chance) / len(result.query)) ** 0.5
    assert abs(figures["features"]["pck@100px"] - chance) < 4 * deviation
    assert figures["features"]["mean"] == pytest.approx(figures["chance"]["mean"], rel=0.05)
    constant = dense_matching(Constant(), pair, size=(64, 96))
    assert (constant.found == constant.candidates[0]).all()
    assert constant.figures()["features"]["pck@1cell"] <= constant.figures()["chance"]["pck@1cell"]


def test_chance_is_the_mean_over_all_answers():
    pair = motorcycle()
    result = dense_matching(Oracle(pair, (5, 6)), pair, size=(64, 96))
    errors = [np.hypot(*(c - t)) for t in result.truth for c in cell_centres((5, 6), (500, 741))]
    figures = result.figures(pixels=(90,))["chance"]
    assert figures["mean"] == pytest.approx(np.mean(errors))
    assert figures["median"] == pytest.approx(np.median(errors))
    assert figures["pck@90px"] == np.mean([error <= 90 for error in errors])


def test_cell_centres():
    np.testing.assert_array_equal(cell_centres((1, 2), (10, 30)), [[7.5, 5], [22.5, 5]])
    np.testing.assert_array_equal(cell_centres((2, 1), (10, 30)), [[15, 2.5], [15, 7.5]])


def test_nearest_by_cosine_is_the_loop():
    g = torch.Generator().manual_seed(0)
    queries, keys = torch.randn(9, 5, generator=g).half(), torch.randn(7, 5, generator=g).half() * 100
    expected = [
        max(range(7), key=lambda k: F.cosine_similarity(query.double(), keys[k].double(), dim=0)) for query in queries
    ]
    assert nearest_by_cosine(queries, keys, chunk=4).tolist() == expected


def test_pck_counts_the_threshold_in():
    assert pck(np.array([1.0, 2.0, 3.0, 4.0]), 2.0) == 0.5
