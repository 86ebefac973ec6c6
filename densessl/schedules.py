"""Schedules as closed-form functions of the optimiser step.

The value at step ``s`` depends only on ``s`` and on the length of the run, never on earlier values: a resumed run, a
test and a plot get it by a single call. The functions count in optimiser steps; :func:`build_schedule` reads configs,
which count in epochs.
"""

import inspect
import math
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Literal

from densessl.constraints import Config, NonNegative, Positive, Range, Share, Value
from densessl.errors import SettingError
from densessl.horizon import Horizon, Step
from densessl.wording import choose

Schedule = Callable[[int, Horizon | None], float]  # the horizon may be None for a constant


def constant(step: float, *, value: float) -> float:
    """``value`` at every step."""
    return value


def linear(step: float, *, start: float, end: float, length: float, inclusive: bool = False) -> float:
    """A line from ``start`` at step 0 to ``end`` at step ``length``, and ``end`` after that.

    Args:
        inclusive: reach ``end`` one step earlier, at the last step of the line: step ``s < length`` has entry ``s`` of
            ``numpy.linspace(start, end, length)`` (warm-ups of DINO and SwAV). A line of one step is ``start``.
    """
    if step >= length:
        return end
    last = length - 1 if inclusive else length
    return start + (end - start) * min(step / last, 1.0) if last > 0 else start


def switch(step: float, *, before: float, after: float, at: float) -> float:
    """``before`` until step ``at``, and ``after`` from that step on."""
    return after if step >= at else before


def warmup_cosine(
    step: float,
    *,
    total: float,
    base: float,
    warmup: float = 0,
    start_factor: float = 0.01,
    final: float = 0.0,
    inclusive: bool = False,
    stretched: bool = False,
) -> float:
    """Linear warm-up, then half a cosine (PixPro, BYOL, DINO, SwAV).

    Args:
        step: 0 for the first update. From ``total`` on the value is ``final``.
        total: number of steps until ``final``.
        base: value at step ``warmup``.
        warmup: length in steps of the line from ``start_factor * base`` to ``base``.
        start_factor: first value of the warm-up, relative to ``base``.
        final: value at step ``total``. The last step of a run is ``total - 1``, one step before it.
        inclusive: ``base`` is also the value of step ``warmup - 1``; see :func:`linear`.
        stretched: the cosine without the warm-up takes ``total`` steps, so that a run of ``total`` steps ends above
            ``final`` (UniGrad's code).
    """
    total = total + warmup if stretched else total
    if step < warmup:
        return linear(step, start=start_factor * base, end=base, length=warmup, inclusive=inclusive)
    progress = min((step - warmup) / (total - warmup), 1.0) if total > warmup else 1.0
    return final + (base - final) * (1 + math.cos(math.pi * progress)) / 2


def warmup_multistep(
    step: float,
    *,
    base: float,
    milestones: Sequence[float],
    gamma: float = 0.1,
    warmup: float = 0,
    start_factor: float = 0.01,
) -> float:
    """Linear warm-up as in :func:`warmup_cosine`, then ``base * gamma ** k`` after ``k`` milestones.

    Args:
        milestones: ascending steps, counted from the start of the run, from which on the value is lower. A milestone
            within the warm-up takes effect after it: after step ``warmup``, which is the peak in PixPro's code.
        gamma: factor of each milestone.
    """
    if step < warmup:
        return linear(step, start=start_factor * base, end=base, length=warmup)
    if 0 < warmup == step:
        return base
    return base * gamma ** bisect_right(milestones, step)


def cosine_momentum(step: float, *, total: float, base: float, final: float = 1.0, clamp: bool = False) -> float:
    """Momentum of the target, ``final - (final - base) * (1 + cos(pi * step / total)) / 2`` (BYOL, PixPro).

    Args:
        clamp: stay at ``final`` after ``total``, as in BYOL's code. In PixPro's code the momentum falls again.
    """
    progress = min(step / total, 1.0) if clamp else step / total
    return final - (final - base) * (1 + math.cos(math.pi * progress)) / 2


def fractional_total(num_images: int, world: int, batch: int, epochs: float) -> int:
    """Steps of a run whose epochs include fractions of a batch, as PixPro's code counts them for its target momentum.

    A loader that drops the last incomplete batch makes fewer steps, so that the momentum ends slightly below ``final``.
    The order of the operations is PixPro's; another order may round to a neighbouring integer.

    Args:
        world: number of processes.
        batch: images per process and step.
    """
    return int(num_images / world / batch * epochs)


def build_schedule(cfg: dict) -> Schedule:
    """A schedule from its config.

    - ``dict(type='constant', value=...)``
    - ``dict(type='linear', start=..., end=..., epochs=None, by_epoch=False, inclusive=False, lead=0)``; without
      ``epochs`` the line takes the whole run
    - ``dict(type='switch', before=..., after=..., at_step=...)``, or ``at_epoch=...`` instead
    - ``dict(type='warmup_cosine', base=..., warmup_epochs=0, start_factor=0.01, final=0.0, by_epoch=False,
      inclusive=False, stretched=False)``
    - ``dict(type='warmup_multistep', base=..., milestones=[epochs], gamma=0.1, warmup_epochs=0, start_factor=0.01,
      by_epoch=False)``
    - ``dict(type='cosine_momentum', base=..., final=1.0, total='steps', clamp=False)``; ``total='images'`` counts the
      run by :func:`fractional_total`.

    With ``by_epoch=True`` the value of the first step of an epoch holds for the whole epoch (SimSiam, MoCo). With
    ``inclusive=True`` the last step (or epoch) of the line already has its end value, as in ``numpy.linspace``. DINO's
    teacher temperature needs both options; the learning rates of DINO and SwAV need the latter. With ``lead=1`` a line
    is one step (or epoch) ahead: the first step has the value of the second, and the last step the end value (CCOP).

    Returns:
        A function of (step, horizon).

    Raises:
        SettingError: an unknown type, an unknown or missing key, a ``total`` that is neither of the two, or not exactly
            one of ``at_step`` and ``at_epoch``.
    """
    options = dict(cfg)
    kind = options.pop("type", None)
    factory = SCHEDULES[choose("schedule type", kind, SCHEDULES)]
    parameters = inspect.signature(factory).parameters
    for key in options:
        choose(f"schedule {kind!r}: key", key, parameters)
    for key, parameter in parameters.items():
        if parameter.default is parameter.empty and key not in options:
            raise SettingError(f"schedule {kind!r} needs the key {key!r}, found {sorted(options)}")
    return factory(**options)


def _constant(value: Value | bool) -> Schedule:
    """The same value at every step.

    Args:
        value: value at every step.
    """
    return lambda step, horizon: constant(step, value=value)


def _linear(
    start: Value,
    end: Value,
    epochs: NonNegative | None = None,
    by_epoch: bool = False,
    inclusive: bool = False,
    lead: NonNegative = 0,
) -> Schedule:
    """A line, and its end value after that.

    Args:
        start: value at the first step.
        end: value at the end of the line, and after that.
        epochs: length of the line; by default that of the run.
        by_epoch: whether the value of an epoch's first step holds for the whole epoch.
        inclusive: whether the last step of the line already has its end value.
        lead: number of steps by which the line is ahead of the run.
    """

    def schedule(step: int, horizon: Horizon) -> float:
        if by_epoch:
            step, horizon = _in_epochs(step, horizon)
        length = horizon.total_steps if epochs is None else epochs * horizon.steps_per_epoch
        return linear(step + lead, start=start, end=end, length=length, inclusive=inclusive)

    return schedule


def _switch(
    before: Value | bool, after: Value | bool, at_step: NonNegative | None = None, at_epoch: NonNegative | None = None
) -> Schedule:
    """One value, then another.

    Args:
        before: the first value.
        after: the second value.
        at_step: optimiser step from which on the second value holds.
        at_epoch: epoch from which on the second value holds.
    """
    if (at_step is None) == (at_epoch is None):
        raise SettingError(f"schedule 'switch' needs at_step or at_epoch, found at_step={at_step}, at_epoch={at_epoch}")

    def schedule(step: int, horizon: Horizon) -> float:
        at = _step_of(at_epoch, horizon) if at_step is None else at_step
        return switch(step, before=before, after=after, at=at)

    return schedule


def _warmup_cosine(
    base: Value,
    warmup_epochs: NonNegative = 0,
    start_factor: NonNegative = 0.01,
    final: Value = 0.0,
    by_epoch: bool = False,
    inclusive: bool = False,
    stretched: bool = False,
) -> Schedule:
    """Linear warm-up, then half a cosine.

    Args:
        base: value at the end of the warm-up, the peak.
        warmup_epochs: length of the warm-up.
        start_factor: share of the peak at which the warm-up starts.
        final: value at the end of the run.
        by_epoch: whether the value of an epoch's first step holds for the whole epoch.
        inclusive: whether the last step of the warm-up already has the peak value.
        stretched: whether the cosine without the warm-up is as long as the run, which then ends above the final value.
    """

    def schedule(step: int, horizon: Horizon) -> float:
        if by_epoch:
            step, horizon = _in_epochs(step, horizon)
        return warmup_cosine(
            step,
            total=horizon.total_steps,
            base=base,
            warmup=warmup_epochs * horizon.steps_per_epoch,
            start_factor=start_factor,
            final=final,
            inclusive=inclusive,
            stretched=stretched,
        )

    return schedule


def _warmup_multistep(
    base: Value,
    milestones: Sequence[NonNegative],
    gamma: NonNegative = 0.1,
    warmup_epochs: NonNegative = 0,
    start_factor: NonNegative = 0.01,
    by_epoch: bool = False,
) -> Schedule:
    """Linear warm-up, then a lower value after every milestone.

    Args:
        base: value at the end of the warm-up, the peak.
        milestones: epochs from which on the value is lower.
        gamma: factor of each milestone.
        warmup_epochs: length of the warm-up.
        start_factor: share of the peak at which the warm-up starts.
        by_epoch: whether the value of an epoch's first step holds for the whole epoch.
    """

    def schedule(step: int, horizon: Horizon) -> float:
        if by_epoch:
            step, horizon = _in_epochs(step, horizon)
        return warmup_multistep(
            step,
            base=base,
            milestones=[_step_of(epoch, horizon) for epoch in sorted(milestones)],
            gamma=gamma,
            warmup=warmup_epochs * horizon.steps_per_epoch,
            start_factor=start_factor,
        )

    return schedule


def _cosine_momentum(
    base: Value, final: Value = 1.0, total: Literal["steps", "images"] = "steps", clamp: bool = False
) -> Schedule:
    """Momentum of a target along half a cosine.

    Args:
        base: value at the first step.
        final: value at the end of the run.
        total: unit in which the length of the run is counted: "steps", or "images" as in PixPro's code.
        clamp: whether the value stays at its final value, rather than falling again.
    """
    choose("schedule 'cosine_momentum': total", total, ("steps", "images"))

    def schedule(step: int, horizon: Horizon) -> float:
        steps = horizon.total_steps
        if total == "images":
            steps = fractional_total(horizon.num_images, 1, horizon.global_batch, horizon.epochs)
        return cosine_momentum(step, total=steps, base=base, final=final, clamp=clamp)

    return schedule


def _in_epochs(step: int, horizon: Horizon) -> tuple[int, Horizon]:
    """Step and horizon counted in epochs; the small term absorbs the rounding of fractional epochs."""
    epoch = math.floor(step / horizon.steps_per_epoch + 1e-9)
    return epoch, horizon._replace(steps_per_epoch=1, total_steps=horizon.epochs)


def _step_of(epoch: float, horizon: Horizon) -> int:
    """The first step that lies in ``epoch``."""
    return math.ceil(epoch * horizon.steps_per_epoch - 1e-9)


SCHEDULES: dict[str, Callable[..., Schedule]] = {
    "constant": _constant,
    "linear": _linear,
    "switch": _switch,
    "warmup_cosine": _warmup_cosine,
    "warmup_multistep": _warmup_multistep,
    "cosine_momentum": _cosine_momentum,
}
# Settings for :func:`scheduled`: numbers, or configs of :func:`build_schedule`.
ScheduledShare = Share | Annotated[dict, Config(SCHEDULES, values=Range(0, 1), trial=True)]
ScheduledPositive = Positive | Annotated[dict, Config(SCHEDULES, values=Range(0, above=True), trial=True)]
ScheduledNonNegative = NonNegative | Annotated[dict, Config(SCHEDULES, values=Range(0), trial=True)]
ScheduledSwitch = bool | Annotated[dict, Config(SCHEDULES, trial=True)]


def scheduled(value: float | dict, key: str = "the schedule") -> Callable[[Step], float]:
    """A setting as a function of the step: a number is constant, the config of a schedule is evaluated.

    Values may also be booleans: ``dict(type='switch', before=False, after=True, at_epoch=1)``. The function raises
    SettingError if a schedule is evaluated outside a run, since it needs the length of the run. The message names the
    schedule ``key``.
    """
    if not isinstance(value, Mapping):
        return lambda step: value
    schedule = build_schedule(dict(value))
    lengthless = value["type"] == "constant" or value.get("at_step") is not None

    def evaluate(step: Step) -> float:
        horizon = step.horizon if lengthless else step.horizon_for(f"{key} {dict(value)}")
        return schedule(step.index, horizon)

    return evaluate
