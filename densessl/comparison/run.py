"""Run a grid, and read its results back."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from densessl.comparison.cells import Cell, CompareError, Failure, read_record, run_cells, write_json
from densessl.comparison.grid import (
    ALL,
    Grid,
    cell_name,
    cells,
    check,
    explain,
    identity,
    init_hashes,
    is_name,
    shared_identity,
    timing_cell,
)
from densessl.comparison.results import choose_metrics, label, value
from densessl.errors import SettingError
from densessl.finetune.config.label_fractions import parse_labels
from densessl.wording import count

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
        length = count(steps, "step") if steps else "all the steps"
        say(f"{count(len(runs), 'run')} of {length}, {len(todo)} of them to do, in {grid.out}")

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
        check_stored(grid)
    except FileNotFoundError:
        raise CompareError(f"no comparison was begun in {out}: there is no {path}") from None
    except (ValueError, RecursionError) as error:
        raise CompareError(f"{path} is not that of a comparison: {error}") from error
    records = {}
    for init, digest in grid["inits"].items():
        for labels in grid["labels"]:
            for seed in grid["seeds"]:
                record = read_record(Path(out), cell_name(init, labels, seed))
                if record and record["identity"] == identity(grid["fixed"], digest, labels, seed):
                    check_record(Path(out), record, cell_name(init, labels, seed))
                    records[init, labels, seed] = record
    names = dict(inits=tuple(grid["inits"]), labels=tuple(grid["labels"]), seeds=tuple(grid["seeds"]))
    return Results(grid["config"], **names, steps=grid["fixed"]["steps"], records=records, failures=tuple(failures))


def check_stored(grid: Any) -> None:
    """Check what ``grid.json`` says: names of starts and labels become file names. Raises ValueError."""
    if not isinstance(grid, Mapping):
        raise ValueError(f"found a {type(grid).__name__}, expected a dict")
    expected = {
        "config": lambda config: isinstance(config, str),
        "inits": lambda inits: (
            isinstance(inits, Mapping)
            and len(inits) > 0
            and all(map(is_name, inits))
            and all(isinstance(digest, str | None) for digest in inits.values())
        ),
        "labels": lambda labels: isinstance(labels, list) and len(labels) > 0 and all(map(_is_fraction, labels)),
        "seeds": lambda seeds: isinstance(seeds, list) and len(seeds) > 0 and all(type(seed) is int for seed in seeds),
        "fixed": lambda fixed: isinstance(fixed, Mapping) and isinstance(fixed.get("steps", ""), int | None),
    }
    for key, fits in expected.items():
        if key not in grid or not fits(grid[key]):
            raise ValueError(f"{key}: {f'found {grid[key]!r:.60}' if key in grid else 'missing'}")


def check_record(out: Path, record: Mapping[str, Any], name: str) -> None:
    """Raise CompareError, unless the record of a run has its curve, and what the report shows of it."""
    result = record["result"]
    curve = result.get("curve") if isinstance(result, Mapping) else None
    texts = [record.get(key) for key in ("name", "densessl", "date", "command")]
    lines = curve if isinstance(curve, list) else [None]
    numbers = all(
        isinstance(line, Mapping) and "step" in line and all(map(_is_figure, line.values())) for line in lines
    )
    complete = bool(lines) and numbers and isinstance(result.get("load"), list)
    if not complete or not all(isinstance(text, str) for text in texts):
        raise CompareError(f"{out / name}.json is not the record of a run; remove it to run it anew")


def _is_figure(number: Any) -> bool:
    return isinstance(number, int | float | None)


def _is_fraction(labels: Any) -> bool:
    try:
        return isinstance(labels, str) and len(labels) < 100 and bool(labels == ALL or parse_labels(labels))
    except SettingError:
        return False


def _in_short(record: Mapping[str, Any]) -> str:
    """Return ``AP 26.1, 182 s``: the first metric of a run's last evaluation."""
    last = record["result"]["curve"][-1]
    key = choose_metrics([key for key in last if key != "step"])[0]
    number = value(last, key)
    return f"{label(key)} {'not known' if number is None else f'{number:.1f}'}, {record['seconds']:.0f} s"
