"""Write the results of a comparison: a page, its figures as JSON, and plots."""

from collections.abc import Sequence
from pathlib import Path

from densessl.comparison.cells import write_json
from densessl.comparison.curve import draw_curves, draw_fractions, save
from densessl.comparison.run import Results
from densessl.comparison.table import report, summary
from densessl.files import written_whole


def write_results(results: Results, out: Path, metrics: Sequence[str] = ()) -> str:
    """Write results.md, results.json and the plots, and return the text.

    Raises:
        CompareError: One of the metrics was not measured.
    """
    text = report(results, metrics)
    with written_whole(out / "results.md") as temporary:
        temporary.write_text(text, encoding="utf-8")
    write_json(out / "results.json", summary(results, metrics))
    if results.records:
        key = results.metrics(metrics)[0]
        save(draw_curves(results, key), out / "steps.png")
        if len(results.labels) > 1:
            save(draw_fractions(results, key), out / "labels.png")
    return text
