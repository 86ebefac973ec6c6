"""Mean, deviation and paired differences of a few seeds: pure functions of lists of numbers."""

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

ERRORS = 2.0  # a mean difference of more standard errors than these is called significant
RULE = (
    f"`*`: the mean of the paired differences is more than {ERRORS:g} standard errors from zero. "
    "By a t test that is p < 0.19 with three seeds, 0.12 with five and 0.08 with ten."
)


class Spread(NamedTuple):
    """Of ``count`` values: mean and sample standard deviation (n - 1), which one value does not have."""

    count: int
    mean: float
    deviation: float | None


class Difference(NamedTuple):
    """Of two starts over the ``count`` seeds that both have: mean, its standard error (not known from one seed), and on
    how many of them the second is better (larger)."""

    count: int
    mean: float
    error: float | None
    better: int

    @property
    def significant(self) -> bool | None:
        """Whether the mean is more than :data:`ERRORS` standard errors from zero; None where there is no error."""
        return None if self.error is None else abs(self.mean) > ERRORS * self.error


def spread(values: Sequence[float]) -> Spread | None:
    """Mean and deviation; None of no values."""
    count = len(values)
    if not count:
        return None
    mean = math.fsum(values) / count
    if count == 1:
        return Spread(1, mean, None)
    return Spread(count, mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (count - 1)))


def standard_error(values: Sequence[float]) -> float | None:
    """Of the mean; None where it is not known."""
    found = spread(values)
    return None if found is None or found.deviation is None else found.deviation / math.sqrt(found.count)


def paired(values: Mapping[int, float], baseline: Mapping[int, float]) -> Difference | None:
    """``values`` less ``baseline``, both by seed, over the seeds that both have; None where they share none."""
    differences = [values[seed] - baseline[seed] for seed in values if seed in baseline]
    found = spread(differences)
    if found is None:
        return None
    return Difference(found.count, found.mean, standard_error(differences), sum(value > 0 for value in differences))
