"""Against numpy and scipy."""

import re

import numpy as np
import pytest
from scipy import stats

from densessl.comparison.statistics import ERRORS, RULE, paired, spread, standard_error

RNG = np.random.default_rng(0)


@pytest.mark.parametrize("count", [2, 3, 7])
def test_spread(count):
    values = RNG.normal(30, 2, count).tolist()
    found = spread(values)
    np.testing.assert_allclose(found, (count, np.mean(values), np.std(values, ddof=1)), rtol=1e-12)
    assert standard_error(values) == pytest.approx(stats.sem(values), rel=1e-12)


@pytest.mark.parametrize("shift", [0.1, 1.0, -1.0])
def test_paired_differences(shift):
    a, b = RNG.normal(30, 2, 5), RNG.normal(0, 0.3, 5)
    baseline = dict(zip(range(5), a.tolist()))
    values = dict(zip(reversed(range(5)), (a + b + shift).tolist()[::-1]))
    found = paired(values, baseline)
    t = stats.ttest_rel(a + b + shift, a).statistic
    assert found.mean / found.error == pytest.approx(t, rel=1e-9)
    assert found.better == (b + shift > 0).sum() and found.count == 5
    assert found.significant == (abs(t) > 2)


def test_only_seeds_that_both_have_are_paired():
    found = paired({0: 3.0, 2: 5.0, 3: 9.0}, {0: 1.0, 1: 100.0, 2: 4.0})
    assert found[:2] == (2, 1.5)
    assert paired({0: 1.0}, {1: 1.0}) is None and paired({}, {}) is None


def test_of_one_seed_no_deviation_is_known():
    assert spread([3.0]) == (1, 3.0, None)
    assert standard_error([3.0]) is None and spread([]) is None and standard_error([]) is None
    found = paired({0: 3.0}, {0: 1.0})
    assert found == (1, 2.0, None, 1) and found.significant is None


def test_the_rule_says_what_it_is_worth():
    bounds = [float(text) for text in re.findall(r"0\.\d\d", RULE)]
    exact = [2 * stats.t.sf(ERRORS, seeds - 1) for seeds in (3, 5, 10)]
    assert all(0 <= bound - p < 0.01 or round(p, 2) == bound for bound, p in zip(bounds, exact, strict=True))
