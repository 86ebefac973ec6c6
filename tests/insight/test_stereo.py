import numpy as np
import pytest

from densessl.insight import stereo


def colour_error(pair, direction):
    """Mean absolute difference of colours between pixels said to correspond."""
    height, width = pair.disparity.shape
    rows, columns = np.mgrid[:height:7, :width:7]
    d = pair.disparity[rows, columns]
    with np.errstate(invalid="ignore"):
        target = np.round(columns + direction * d)
        valid = np.isfinite(d) & (target >= 0) & (target < width)
    target = target[valid].astype(int)
    left, right = pair.left[rows[valid], columns[valid]], pair.right[rows[valid], target]
    return np.abs(left.astype(float) - right).mean()


def test_the_photographs_say_which_way_the_disparity_goes():
    pair = stereo.motorcycle()
    assert pair.left.shape == pair.right.shape == (500, 741, 3)
    assert pair.left.dtype == np.uint8
    assert np.isfinite(pair.disparity).mean() == pytest.approx(0.93, abs=0.01)
    assert colour_error(pair, -1) < 0.4 * min(colour_error(pair, 0), colour_error(pair, +1))


def test_true_points_follow_the_same_way():
    pair = stereo.motorcycle()
    points = np.stack(np.meshgrid(np.arange(0.5, 741, 9), np.arange(0.5, 500, 9)), axis=-1).reshape(-1, 2)
    truth, valid = pair.true_points(points)
    right = pair.right[truth[valid, 1].astype(int), truth[valid, 0].astype(int)].astype(float)
    left = pair.left[points[valid, 1].astype(int), points[valid, 0].astype(int)]
    moved = pair.right[points[valid, 1].astype(int), points[valid, 0].astype(int)]
    assert np.abs(left - right).mean() < 0.4 * np.abs(left - moved.astype(float)).mean()
    assert np.isnan(truth[~valid]).all()


def test_true_points_by_hand():
    disparity = np.array([[1.5, 0, np.inf, 4.0], [0, 0, np.nan, 2.0]], np.float32)
    image = np.zeros((2, 4, 3), np.uint8)
    pair = stereo.StereoPair(image, image, disparity)
    truth, valid = pair.true_points([[0.5, 0.5], [1.9, 0.1], [2.5, 0.5], [3.5, 0.5], [3.25, 1.5], [2.0, 1.0]])
    assert valid.tolist() == [False, True, False, False, True, False]  # left of the image, ., inf, outside, ., NaN
    np.testing.assert_array_equal(truth[[1, 4]], [[1.9, 0.1], [1.25, 1.5]])


def test_relit_changes_the_light_and_nothing_else():
    pair = stereo.motorcycle()
    other = stereo.relit(pair)
    assert other.left is pair.left
    assert other.disparity is pair.disparity
    assert other.right.shape == pair.right.shape
    assert (np.ptp(other.right, axis=2) == 0).all()
    assert other.right.mean() < 0.7 * pair.right.mean()
    ramp = np.repeat(np.array([0, 64, 128, 255], np.uint8), 40).reshape(1, -1, 1) * np.ones((40, 1, 3), np.uint8)
    flat = stereo.relit(stereo.StereoPair(ramp, ramp, np.zeros((40, 160)))).right[20, [20, 60, 100, 140], 0]
    np.testing.assert_allclose(flat, 255 * (np.array([0, 64, 128, 255]) / 255) ** 2.2, atol=1)
