"""Results as text: a table for each fraction of the labels, differences from the first start, and the commands."""

from collections.abc import Iterable, Sequence
from typing import Any

from densessl.comparison.grid import ALL
from densessl.comparison.results import is_percent, label
from densessl.comparison.run import Results
from densessl.comparison.statistics import RULE, Difference, Spread, paired, spread
from densessl.wording import count

UNKNOWN = "–"


def report(results: Results, wanted: Sequence[str] = ()) -> str:
    """Return the whole report, in Markdown that is also readable as plain text.

    Args:
        wanted: Metrics to show, by key or by name in tables.

    Raises:
        CompareError: One of the metrics was not measured.
    """
    if not results.records:
        return f"{results.config}: no run is done yet, of {results.missing}\n"
    keys = results.metrics(wanted)
    first, *others = results.inits
    schedule = count(results.steps, "step") if results.steps else "The config's own schedule"
    legend = f"{schedule}; the last evaluation{_percent(keys)}: mean ± standard deviation over seeds."
    if others:
        legend += f" Differences from {first} are paired by seed: mean ± standard error (better seeds / seeds). {RULE}"
    parts = [f"# {results.config}", legend]
    if results.missing:
        parts.append(f"Not done: {results.missing} of {count(results.missing + len(results.records), 'run')}.")
    for labels in results.labels:
        parts.append(f"## {heading(labels)}")
        names = [label(key) for key in keys]
        rows = [[init, *_spreads(results, keys, init, labels)] for init in results.inits]
        parts.append(markdown(["start", "seeds", *names], rows))
        if others:
            rows = [[init, *_differences(results, keys, init, labels)] for init in others]
            parts.append(markdown([f"minus {first}", *names], rows))
    if len(results.seeds) == 1:
        parts.append("One seed: deviation and standard error are unknown, so no difference is significant.")
    return "\n\n".join([*parts, *loads(results), *commands(results)]) + "\n"


def heading(labels: str) -> str:
    """Return a fraction of the labels in words."""
    return "All labels" if labels == ALL else f"{labels} labels"


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table with aligned columns."""
    lines = [list(head), *map(list, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    lines.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(text.ljust(width) for text, width in zip(line, widths)) + " |" for line in lines)


def loads(results: Results) -> list[str]:
    """Return what the runs loaded: once for each start, or more often if its runs differ."""
    lines = {}
    for (init, _, _), record in results.records.items():
        for line in record["result"]["load"]:
            lines[f"- {init}: {line}"] = None
    return ["## What was loaded", "\n".join(lines)] if lines else []


def commands(results: Results) -> list[str]:
    """Return the commands of the finished runs, and the versions that ran them."""
    records = list(results.records.values())
    versions = sorted({record["densessl"] for record in records})
    dates = sorted(record["date"][:10] for record in records)
    text = "\n".join(record["command"] for record in records)
    return ["## Commands", f"densessl {', '.join(versions)}; {dates[0]} to {dates[-1]}.", f"```sh\n{text}\n```"]


def summary(results: Results, wanted: Sequence[str] = ()) -> dict[str, Any]:
    """Return the same as plain data, with every single value."""
    keys = results.metrics(wanted) if results.records else []
    first = results.inits[0]
    cells = []
    for labels in results.labels:
        for init in results.inits:
            for key in keys:
                values = results.values(key, init, labels)
                found, difference = spread(list(values.values())), None
                if init != first:
                    difference = paired(values, results.values(key, first, labels))
                cells.append(
                    dict(
                        labels=labels,
                        init=init,
                        metric=key,
                        by_seed={str(seed): number for seed, number in values.items()},
                        spread=found and found._asdict(),
                        difference=difference and dict(difference._asdict(), significant=difference.significant),
                    )
                )
    grid = dict(config=results.config, steps=results.steps, inits=list(results.inits), labels=list(results.labels))
    done = {record["name"]: record["command"] for record in results.records.values()}
    return dict(**grid, seeds=list(results.seeds), compared_with=first, rule=RULE, results=cells, commands=done)


def _percent(keys: Sequence[str]) -> str:
    return ", in percent" if all(map(is_percent, keys)) else ""


def _spreads(results: Results, keys: Sequence[str], init: str, labels: str) -> list[str]:
    """Return the number of finished runs, and each metric."""
    done = sum((init, labels, seed) in results.records for seed in results.seeds)
    return [str(done), *(spread_text(spread(list(results.values(key, init, labels).values()))) for key in keys)]


def _differences(results: Results, keys: Sequence[str], init: str, labels: str) -> list[str]:
    first = results.inits[0]
    return [
        difference_text(paired(results.values(key, init, labels), results.values(key, first, labels))) for key in keys
    ]


def spread_text(found: Spread | None) -> str:
    """``26.1 ± 0.4``."""
    if found is None:
        return UNKNOWN
    return f"{found.mean:.1f} ± {UNKNOWN if found.deviation is None else f'{found.deviation:.1f}'}"


def difference_text(found: Difference | None) -> str:
    """``+5.2 ± 0.4 (3/3) *``."""
    if found is None:
        return UNKNOWN
    error = UNKNOWN if found.error is None else f"{found.error:.1f}"
    return f"{found.mean:+.1f} ± {error} ({found.better}/{found.count}){' *' if found.significant else ''}"
