"""Run a grid, and read its results back."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from densessl.comparison.cells import Cell, CompareError, Failure, read_record, run_cells, write_json
from densessl.comparison.grid import (
    Grid,
    cell_name,
    cells,
    check,
    explain,
    identity,
    init_hashes,
    shared_identity,
    timing_cell,
)
from densessl.comparison.results import choose_metrics, label, value

GRID = "grid.json"  # the grid of the last command


@dataclass(frozen=True)
class Results:
    """The results of a grid so far.

    Attributes:
        config: Config of the runs.
        inits, labels, seeds: Those of the grid; the others are compared with the first of ``inits``.
        steps: Optimiser steps of every run; None for the config's own schedule.
        records: Records of the finished runs, by (init, labels, seed).
        failures: Runs that ended without a result in this call.
    """

    config: str
    inits: Sequence[str]
    labels: Sequence[str]
    seeds: Sequence[int]
    steps: int | None
    records: Mapping[tuple[str, str, int], Mapping[str, Any]]
    failures: Sequence[Failure] = ()

    @property
    def missing(self) -> int:
        """Number of runs that are not done."""
        return len(self.inits) * len(self.labels) * len(self.seeds) - len(self.records)

    def metrics(self, wanted: Sequence[str] = ()) -> list[str]:
        """Keys of the metrics to show, see :func:`choose_metrics`."""
        keys = {key: None for record in self.records.values() for line in record["result"]["curve"] for key in line}
        return choose_metrics([key for key in keys if key != "step"], wanted)

    def curve(self, init: str, labels: str, seed: int) -> list[Mapping[str, Any]]:
        """The evaluations of a run; empty if it is not done."""
        record = self.records.get((init, labels, seed))
        return record["result"]["curve"] if record else []

    def values(self, key: str, init: str, labels: str) -> dict[int, float]:
        """A metric at the last evaluation, by seed, as :func:`value` returns it."""
        last = {seed: value(curve[-1], key) for seed in self.seeds if (curve := self.curve(init, labels, seed))}
        return {seed: number for seed, number in last.items() if number is not None}


def run_grid(
    grid: Grid,
    jobs: int = 1,
    keep: bool = False,
    redo: bool = False,
    say: Callable[[str], None] = print,
) -> Results:
    """Start all runs of a grid that are not done yet, and wait for them.

    Args:
        jobs: Number of simultaneous runs.
        keep: Keep the checkpoints of the runs in ``out/runs``.
        redo: Repeat runs that were done with another identity: config, weights, labels, data or steps.
        say: Called with each line of progress.

    Raises:
        FileNotFoundError: The config does not exist.
        CompareError: Nothing could be run, see :func:`check` and :func:`run_cells`; or the run that plans the steps
            failed.
    """
    check(grid)
    shared, environment = shared_identity(grid)
    settings = dict(redo=redo, explain=partial(explain, grid.out))
    steps = grid.steps
    if grid.minutes is not None:
        say(f"steps for {grid.minutes:g} minutes: {grid.out / 'plan.json'}")
        plan, failures = run_cells([timing_cell(grid, shared, environment)], grid.out, **settings)
        if failures:
            raise CompareError(f"the steps could not be planned. {failures[0]}")
        steps = plan["plan"]["result"]["steps"]
    fixed = dict(shared, steps=steps, evaluations=grid.evaluations)
    runs = cells(grid, fixed, environment, steps, keep)
    ended = []

    def accepted(todo: list[Cell]) -> None:
        names = dict(inits=init_hashes(grid), labels=list(grid.labels), seeds=list(grid.seeds))
        write_json(grid.out / GRID, dict(config=grid.config, **names, fixed=fixed))
        say(f"{len(runs)} runs of {steps or 'all the'} steps, {len(todo)} of them to do, in {grid.out}")

    def finished(cell: Cell, outcome: dict | Failure) -> None:
        ended.append(cell)
        say(f"[{len(ended)}] {cell.name}: {outcome if isinstance(outcome, Failure) else _in_short(outcome)}")

    _, failures = run_cells(runs, grid.out, jobs, accepted=accepted, finished=finished, **settings)
    return read_results(grid.out, failures)


def read_results(out: Path, failures: Sequence[Failure] = ()) -> Results:
    """Read the results so far of the grid that was last run in a folder.

    Raises:
        CompareError: No grid was run there, or one of its files is damaged.
    """
    path = Path(out) / GRID
    try:
        grid = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise CompareError(f"no comparison was begun in {out}: there is no {path}") from None
    except ValueError as error:
        raise CompareError(f"no comparison was begun in {out}: {path}: {error}") from error
    records = {}
    for init, digest in grid["inits"].items():
        for labels in grid["labels"]:
            for seed in grid["seeds"]:
                record = read_record(Path(out), cell_name(init, labels, seed))
                if record and record["identity"] == identity(grid["fixed"], digest, labels, seed):
                    records[init, labels, seed] = record
    names = dict(inits=tuple(grid["inits"]), labels=tuple(grid["labels"]), seeds=tuple(grid["seeds"]))
    return Results(grid["config"], **names, steps=grid["fixed"]["steps"], records=records, failures=tuple(failures))


def _in_short(record: Mapping[str, Any]) -> str:
    """Return ``AP 26.1, 182 s``: the first metric of a run's last evaluation."""
    last = record["result"]["curve"][-1]
    key = choose_metrics([key for key in last if key != "step"])[0]
    number = value(last, key)
    return f"{label(key)} {'not known' if number is None else f'{number:.1f}'}, {record['seconds']:.0f} s"
