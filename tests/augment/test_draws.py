"""The random numbers: probabilities, ranges, uniformity, and how they line up between operations."""

import numpy as np
import pytest
import scipy.stats

from densessl.augment import ColorJitter, GaussianBlur, Grayscale, Photometric, Solarize

SAMPLES = 20_000
# One fixed seed, nine tests of a true hypothesis: a correct implementation fails some of them with odds of 1 to 100.
P_VALUE = 1e-3


def table(op) -> np.ndarray:
    rng = np.random.default_rng(20)
    return np.stack([op.draw(rng) for _ in range(SAMPLES)])


@pytest.mark.parametrize("p", [0.1, 0.2, 0.8])
def test_probability(p):
    coins = table(Grayscale(p=p))[:, 0]
    assert set(coins) == {0, 1}
    assert scipy.stats.binomtest(int(coins.sum()), SAMPLES, p).pvalue > P_VALUE


@pytest.mark.parametrize("op", [Grayscale(p=0), Solarize(p=1), ColorJitter(0, 0, 0, 0, p=1), GaussianBlur(p=0)])
def test_certainty(op):
    assert (table(op)[:200, 0] == op.p).all()


def test_jitter_factors_are_uniform_and_independent():
    drawn = table(ColorJitter(0.4, 0.3, 1.5, 0.1, p=0.8))
    for column, (low, high) in enumerate([(0.6, 1.4), (0.7, 1.3), (0, 2.5), (-0.1, 0.1)], start=1):
        values = drawn[:, column].astype(np.float64)
        assert low - 1e-6 <= values.min() and values.max() <= high + 1e-6
        assert scipy.stats.kstest(values, "uniform", (low, high - low)).pvalue > P_VALUE
    # 5 standard errors of a correlation, 15 pairs
    assert np.abs(np.corrcoef(drawn.T) - np.eye(6)).max() < 5 / np.sqrt(SAMPLES)


def test_orders_are_uniform_over_24():
    orders, counts = np.unique(table(ColorJitter(0.4, 0.4, 0.2, 0.1, p=1))[:, 5], return_counts=True)
    assert orders.tolist() == list(range(24))
    assert scipy.stats.chisquare(counts).pvalue > P_VALUE


def test_sigmas_are_uniform():
    drawn = table(GaussianBlur(sigma=(0.1, 2.0), p=0.5))
    assert drawn[:, 1].min() >= 0.1 - 1e-6 and drawn[:, 1].max() <= 2.0 + 1e-6
    assert scipy.stats.kstest(drawn[:, 1].astype(np.float64), "uniform", (0.1, 1.9)).pvalue > P_VALUE


def recipe(p: float) -> Photometric:
    return Photometric([ColorJitter(0.4, 0.4, 0.2, 0.1, p=p), Grayscale(p=0.2), GaussianBlur(p=p), Solarize(p=0.2)])


def test_a_recipe_draws_its_columns_side_by_side():
    whole = recipe(0.5)
    assert whole.width == 10
    rng = np.random.default_rng(1)
    parts = np.concatenate([op.draw(rng) for op in whole.ops])
    drawn = whole.draw(np.random.default_rng(1))
    assert drawn.dtype == np.float32
    np.testing.assert_array_equal(drawn, parts)
    assert Photometric([]).draw(rng).shape == (0,)


def test_a_probability_does_not_shift_the_other_draws():
    never, always = (recipe(p).draw(np.random.default_rng(2)) for p in (0, 1))
    assert np.flatnonzero(never != always).tolist() == [0, 7]
