"""MMEngine's parameter schedulers in a resumed run: they follow the config, whatever schedule the checkpoint was under.

MMEngine restores every attribute of the saved schedulers, their lengths included, over those of the config. A run that
goes on with more steps would then keep the old schedule, or bend it.
"""

import functools
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

from mmengine.optim import _ParamScheduler

from densessl.errors import CheckpointError
from densessl.weights.io.checkpoints import to_plain

Schedulers = list[_ParamScheduler] | dict[str, list[_ParamScheduler]] | None
Position = tuple[int, int, int]  # iterations done, epochs done, iterations per epoch

# What a scheduler counts, as opposed to how it was configured; the last line is of ReduceOnPlateau.
_COUNTERS = {"last_step", "_global_step", "_last_value", "verbose"}
_COUNTERS |= {"best", "cooldown_counter", "num_bad_epochs"}
_SHOWN = 4  # changes named in the log


def each(schedulers: Any, function: Callable[[list], Any]) -> Any:
    """Apply ``function`` to a list of schedulers, or to each list in a dict of lists (several optimisers)."""
    if isinstance(schedulers, dict):
        return {name: function(entries) for name, entries in schedulers.items()}
    return None if schedulers is None else function(schedulers)


def scheduler_states(schedulers: Schedulers) -> Any:
    """The states of schedulers as plain data, in their arrangement. Functions among the attributes are dropped: they
    are no state, and the resuming scheduler has its own."""
    return each(schedulers, lambda entries: [to_plain(entry.state_dict(), drop=True) for entry in entries])


def resume_schedulers(
    schedulers: Schedulers, saved: Any, position: Position, source: str, restores_rates: bool = True
) -> tuple[str, Callable[[], None]]:
    """Bring new schedulers to the position of a checkpoint.

    Those configured as in the checkpoint take its states. Otherwise all are stepped from the beginning, so that
    learning rates and momenta are from here on those of a run that had this config from its beginning.

    Args:
        schedulers: schedulers that have made no step, on an optimiser with the config's values.
        saved: the states in the checkpoint, from :func:`scheduler_states`.
        position: iterations and epochs done, and iterations per epoch.
        source: the checkpoint, for messages.
        restores_rates: whether the state of the optimiser, with its learning rates, is going to be restored.

    Returns:
        What is configured otherwise than in the checkpoint, as part of a sentence, and a function to call once the
        state of the optimiser is restored.

    Raises:
        CheckpointError: the checkpoint has another number of schedulers; or the schedules differ, and a scheduler
            depends on validation results, so that its past cannot be computed.
    """
    if each(saved, len) != each(schedulers, len):
        raise CheckpointError(
            f"cannot resume {source}: it holds {each(saved, len)} parameter schedulers, this run has "
            f"{each(schedulers, len)}"
        )
    changes = _changes(schedulers, saved)
    # The end of one that follows validation results changes nothing before it; by default it is that of the run.
    if restores_rates and all(change.name == "end" and _follows(change.scheduler) for change in changes):
        return _in_words(changes), functools.partial(_load_states, schedulers, saved)
    for scheduler in filter(_follows, _flat(schedulers)):
        raise CheckpointError(
            f"cannot resume {source}: it was trained under another schedule ({_in_words(changes)}), and this run's "
            f"cannot be computed up to there, since {type(scheduler).__name__} follows validation results. Keep "
            "`param_scheduler` as it was, or start a new run from the weights with --init, in another work folder"
        )
    return _in_words(changes), _replay(_flat(schedulers), position)


class _Change(NamedTuple):
    scheduler: _ParamScheduler
    name: str
    old: Any
    new: Any

    def __str__(self) -> str:
        return f"{type(self.scheduler).__name__}.{self.name} {_short(self.old)} -> {_short(self.new)}"


def _changes(schedulers: Schedulers, saved: Any) -> list[_Change]:
    changes = []
    for scheduler, old in zip(_flat(schedulers), _flat(saved), strict=True):
        new = to_plain(scheduler.state_dict(), drop=True)
        names = sorted((new.keys() | old.keys()) - _COUNTERS)
        changes += [_Change(scheduler, k, old.get(k), new.get(k)) for k in names if old.get(k) != new.get(k)]
    return changes


def _in_words(changes: Sequence[_Change]) -> str:
    public = [str(change) for change in changes if not change.name.startswith("_")]
    more = f" and {len(public) - _SHOWN} more" if len(public) > _SHOWN else ""
    return ", ".join(public[:_SHOWN]) + more


def _follows(scheduler: _ParamScheduler) -> bool:
    """Whether a scheduler depends on validation results."""
    return getattr(scheduler, "need_val_args", False)


def _replay(schedulers: list[_ParamScheduler], position: Position) -> Callable[[], None]:
    """Step new schedulers to a position, in the order in which a run from the beginning steps them.

    Returns a function that sets the values reached once more, since the optimiser's saved state holds other ones.
    """
    iterations, epochs, per_epoch = position
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # MMEngine: a scheduler's step before the optimiser's
        done = 0
        for iteration in range(1, iterations + 1):
            _step(schedulers, by_epoch=False)
            if done < epochs and iteration % per_epoch == 0:
                done += 1
                _step(schedulers, by_epoch=True)
        for _ in range(done, epochs):
            _step(schedulers, by_epoch=True)
    reached = [[_scheduled(group, scheduler) for group in scheduler.optimizer.param_groups] for scheduler in schedulers]

    def set_values() -> None:
        for scheduler, values in zip(schedulers, reached, strict=True):
            for group, new in zip(scheduler.optimizer.param_groups, values, strict=True):
                group.update(new)

    return set_values


def _load_states(schedulers: Schedulers, saved: Any) -> None:
    for scheduler, state in zip(_flat(schedulers), _flat(saved), strict=True):
        scheduler.load_state_dict(dict(state, end=scheduler.end))


def _flat(schedulers: Any) -> list:
    if isinstance(schedulers, Mapping):
        return [entry for name in sorted(schedulers) for entry in schedulers[name]]
    return list(schedulers or ())


def _step(schedulers: Sequence[_ParamScheduler], by_epoch: bool) -> None:
    for scheduler in schedulers:
        if scheduler.by_epoch == by_epoch:
            scheduler.step()


def _scheduled(group: Mapping[str, Any], scheduler: _ParamScheduler) -> dict[str, Any]:
    """The entries of a parameter group that a scheduler reads or sets."""
    name = scheduler.param_name
    names = {name, f"initial_{name}", f"max_{name}", f"min_{name}"}  # the last two are of OneCycle
    names |= {"betas"} if getattr(scheduler, "use_betas", False) else set()
    return {key: group[key] for key in names & group.keys()}


def _short(value: Any) -> str:
    if isinstance(value, list) and len(set(map(repr, value))) == 1:
        value = value[0]  # one value for all parameter groups
    text = f"{value:g}" if isinstance(value, float) else str(value)
    return text if len(text) <= 40 else f"{text[:37]}..."
