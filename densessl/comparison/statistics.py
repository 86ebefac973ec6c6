"""Mean, deviation and paired differences of a few seeds: pure functions of lists of numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ERRORS = 2.0  # a mean difference of more standard errors than this counts as significant
RULE = (
    f"`*`: the mean of the paired differences is more than {ERRORS:g} standard errors from zero. "
    "By a t test that is p < 0.19 with three seeds, 0.12 with five and 0.08 with ten."
)


class Spread(NamedTuple):
    """Mean and sample standard deviation (n - 1) of ``count`` values; the deviation of one value is None."""

    count: int
    mean: float
    deviation: float | None


class Difference(NamedTuple):
    """The difference of two starts over the ``count`` seeds that both have: mean, its standard error (None for one
    seed), and on how many seeds the second start is better (larger)."""

    count: int
    mean: float
    error: float | None
    better: int

    @property
    def significant(self) -> bool | None:
        """Whether the mean is more than :data:`ERRORS` standard errors from zero; None without an error."""
        return None if self.error is None else abs(self.mean) > ERRORS * self.error


def spread(values: Sequence[float]) -> Spread | None:
    """Return mean and deviation; None if there are no values."""
    count = len(values)
    if not count:
        return None
    mean = math.fsum(values) / count
    if count == 1:
        return Spread(1, mean, None)
    return Spread(count, mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)))


def standard_error(values: Sequence[float]) -> float | None:
    """Return the standard error of the mean; None if it is unknown."""
    result = spread(values)
    return None if result is None or result.deviation is None else result.deviation / math.sqrt(result.count)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """Return ``values`` minus ``baseline``, both by seed, over the seeds that both have; None if they share none."""
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    result = spread(differences)
    if result is None:
        return None
    return Difference(result.count, result.mean, standard_error(differences), sum(value > 0 for value in differences))
