"""Plots: a metric against steps, and against the fraction of the labels."""

from collections.abc import Sequence
from pathlib import Path

from densessl.comparison.grid import ALL
from densessl.comparison.results import label, value
from densessl.comparison.run import Results
from densessl.comparison.statistics import spread, standard_error
from densessl.comparison.table import heading
from densessl.files import written_whole
from densessl.finetune.config.label_fractions import parse_labels

# Distinguishable without colour: by dashes and markers, and in grey by lightness.
STYLES = [
    dict(color="#000000", linestyle="-", marker="o"),
    dict(color="#d55e00", linestyle="--", marker="s"),
    dict(color="#0072b2", linestyle="-.", marker="^"),
    dict(color="#56b4e9", linestyle=":", marker="D"),
    dict(color="#009e73", linestyle=(0, (5, 1, 1, 1, 1, 1)), marker="v"),
    dict(color="#cc79a7", linestyle=(0, (1, 1)), marker="P"),
]
WIDTH, HEIGHT = 4.2, 3.4  # size of a panel in inches
LEGEND = 1.5  # width of the legend in inches


def draw_curves(results: Results, key: str):
    """Plot a metric against optimiser steps: one panel per fraction of the labels, and one line per start with the mean
    over seeds and a band of ± one standard error. Returns a matplotlib Figure."""
    figure, panels = _panels(len(results.labels))
    for panel, labels in zip(panels, results.labels):
        for init, style in zip(results.inits, _styles(len(results.inits))):
            curves = [results.curve(init, labels, seed) for seed in results.seeds]
            points = {}
            for line in (line for curve in curves for line in curve):
                if (number := value(line, key)) is not None:
                    points.setdefault(line["step"], []).append(number)
            _line(panel, sorted(points.items()), init, style)
        panel.set(title=heading(labels), xlabel="optimiser steps")
    return _finished(figure, panels, label(key))


def draw_fractions(results: Results, key: str):
    """Plot a metric at the last evaluation against the fraction of the labels, on a logarithmic axis if all fractions
    have one unit (percent, images or shots). Returns a matplotlib Figure."""
    figure, (panel,) = _panels(1)
    places, unit = places_of(results.labels)
    order = sorted(range(len(places)), key=places.__getitem__)
    for init, style in zip(results.inits, _styles(len(results.inits))):
        points = [(places[i], list(results.values(key, init, results.labels[i]).values())) for i in order]
        _line(panel, [(place, values) for place, values in points if values], init, style)
    if unit:
        panel.set_xscale("log")
    panel.set_xticks(places, results.labels)
    panel.minorticks_off()
    panel.set(xlabel="labels")
    return _finished(figure, [panel], label(key))


def places_of(labels: Sequence[str]) -> tuple[list[float], str]:
    """Return the positions of fractions on the axis, and their common unit: 1 and 10, in ``%``, for ``["1%", "10%"]``;
    ``all`` is 100%. Fractions of several units are spaced evenly, and the unit is empty."""
    specs = [parse_labels("100%" if text == ALL else text) for text in labels]
    if len({spec.form for spec in specs}) == 1:
        return [float(spec.amount) for spec in specs], specs[0].form
    return [float(number) for number in range(len(labels))], ""


def _panels(count: int) -> tuple:
    from matplotlib.figure import Figure  # not pyplot: no window, no state

    figure = Figure(figsize=(WIDTH * count + LEGEND, HEIGHT), dpi=150, layout="constrained")
    return figure, figure.subplots(1, count, squeeze=False, sharey=True)[0]


def _line(panel, points: Sequence[tuple[float, list[float]]], name: str, style: dict) -> None:
    """Draw the means of (place, values), with their standard errors if they are known."""
    if not points:
        return
    places = [place for place, _ in points]
    means = [spread(values).mean for _, values in points]
    errors = [standard_error(values) or 0.0 for _, values in points]
    low, high = ([mean + sign * error for mean, error in zip(means, errors)] for sign in (-1, 1))
    panel.fill_between(places, low, high, color=style["color"], alpha=0.18, linewidth=0)
    panel.plot(places, means, label=name, linewidth=1.6, markersize=4.5, **style)


def _styles(count: int) -> list[dict]:
    """Return a style per start; when the list repeats, markers are hollow."""
    hollow = dict(markerfacecolor="white")
    return [STYLES[i % len(STYLES)] | (hollow if i // len(STYLES) % 2 else {}) for i in range(count)]


def _finished(figure, panels, name: str):
    panels[0].set_ylabel(f"{name}, mean ± standard error over seeds")
    for panel in panels:
        panel.grid(alpha=0.3, linewidth=0.6)
        panel.spines[["top", "right"]].set_visible(False)
    named = {init: line for panel in panels for line, init in zip(*panel.get_legend_handles_labels())}
    # Beside the panels, because lines and bands may fill a panel.
    figure.legend(named.values(), named, loc="outside right upper", frameon=False, handlelength=3.5)
    return figure


def save(figure, path: Path) -> None:
    """Write a Figure as PNG."""
    with written_whole(path) as temporary:
        figure.savefig(temporary, format="png")
