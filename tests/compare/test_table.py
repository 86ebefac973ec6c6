"""Tables and pictures of results that are made up."""

import numpy as np
import pytest
from scipy import stats

from densessl.comparison import Results, report, summary
from densessl.comparison.curve import draw_curves, draw_fractions, places_of, save

AP, MIOU = "coco/bbox_mAP", "mIoU"


def record(name, *evaluations, load=()):
    curve = [dict(zip(("step", AP, MIOU), values)) for values in evaluations]
    return dict(name=name, command=f"python {name}", result=dict(curve=curve, load=list(load)), densessl="0", date="d")


@pytest.fixture
def results():
    rng, records = np.random.default_rng(0), {}
    for at, init in enumerate(("random", "ours", "theirs")):
        for labels in ("10%", "all"):
            for seed in range(4):
                last = 0.2 + 0.02 * at + rng.normal(0, 0.01)
                lines = [(10, last / 2, 10.0), (20, last, 20.0 + at)]
                records[init, labels, seed] = record(f"{init}_{labels}_{seed}", *lines, load=[f"{init} loaded"])
    del records["theirs", "all", 1]
    return Results("c.py", ("random", "ours", "theirs"), ("10%", "all"), (0, 1, 2, 3), 20, records)


def last(results, init, labels, key=AP, scale=100):
    runs = [results.records.get((init, labels, seed)) for seed in results.seeds]
    return np.array([scale * run["result"]["curve"][-1][key] if run else np.nan for run in runs])


def test_the_text_has_means_deviations_and_paired_differences(results):
    text = report(results)
    for labels, part in zip(results.labels, text.split("\n## ")[1:]):
        for init in results.inits:
            values = last(results, init, labels)
            values = values[~np.isnan(values)]
            assert f"| {init:6} | {len(values)}     | {values.mean():.1f} ± {values.std(ddof=1):.1f} |" in part
        for init in ("ours", "theirs"):
            both = last(results, init, labels) - last(results, "random", labels)
            both = both[~np.isnan(both)]
            star = " *" if abs(both.mean()) > 2 * stats.sem(both) else ""
            shown = f"{both.mean():+.1f} ± {stats.sem(both):.1f} ({(both > 0).sum()}/{len(both)}){star}"
            assert f"| {init:12} | {shown}" in part
    assert "Not done: 1 of 24 runs" in text and "minus random" in text
    assert text.count("- ours: ours loaded") == 1 and text.count("\npython ") == 23


def test_the_data_has_every_value(results):
    found = {(line["labels"], line["init"], line["metric"]): line for line in summary(results)["results"]}
    line = found["all", "theirs", AP]
    np.testing.assert_allclose(list(line["by_seed"].values()), last(results, "theirs", "all")[[0, 2, 3]])
    assert line["spread"]["count"] == line["difference"]["count"] == 3
    both = (last(results, "theirs", "all") - last(results, "random", "all"))[[0, 2, 3]]
    assert line["difference"]["mean"] == pytest.approx(both.mean())
    assert line["difference"]["error"] == pytest.approx(stats.sem(both))
    assert line["difference"]["significant"] == (abs(both.mean()) > 2 * stats.sem(both))
    assert found["all", "random", MIOU]["difference"] is None and len(found) == 12


def test_one_seed_has_no_deviation(results):
    text = report(
        Results("c.py", results.inits, ("10%",), (0,), 20, {("random", "10%", 0): record("x", (20, 0.2, 3.0))})
    )
    assert "| random | 1     | 20.0 ± – | 3.0 ± – |" in text and "| ours   | 0     | –" in text
    assert "deviation and standard error are unknown" in text


def test_one_start_is_compared_with_nothing(results):
    text = report(Results("c.py", ("random",), ("all",), (0, 1), None, results.records))
    assert "minus random" not in text and "The config's own schedule" in text


def test_nothing_is_done_yet(results):
    assert "no run is done yet, of 24" in report(Results("c.py", results.inits, results.labels, (0, 1, 2, 3), 20, {}))


def test_curves_show_means_and_standard_errors(results, tmp_path):
    figure = draw_curves(results, AP)
    panel = figure.axes[1]
    values = last(results, "theirs", "all")
    values = values[~np.isnan(values)]
    (line,) = [line for line in panel.get_lines() if line.get_label() == "theirs"]
    np.testing.assert_allclose(line.get_xydata(), [[10, values.mean() / 2], [20, values.mean()]])
    band = panel.collections[2].get_paths()[0].vertices
    at_end = band[band[:, 0] == 20][:, 1]
    np.testing.assert_allclose([at_end.min(), at_end.max()], values.mean() + np.array([-1, 1]) * stats.sem(values))
    assert [panel.get_title() for panel in figure.axes] == ["10% labels", "All labels"]
    styles = [(line.get_linestyle(), line.get_marker()) for line in panel.get_lines()]
    assert len(set(styles)) == 3  # told apart without colour
    save(figure, tmp_path / "a.png")
    assert (tmp_path / "a.png").read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_the_legend_names_every_start_beside_the_panels(results, tmp_path):
    for seed in range(4):
        del results.records["ours", "all", seed]  # a start that the last panel lacks
    figure = draw_curves(results, AP)
    save(figure, tmp_path / "a.png")  # which lays it out
    (legend,) = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == ["random", "ours", "theirs"]
    assert legend.get_window_extent().x0 >= max(panel.get_tightbbox().x1 for panel in figure.axes)
    save(draw_curves(Results("c.py", results.inits, results.labels, (0,), 20, {}), AP), tmp_path / "none.png")


def test_fractions_lie_on_a_logarithmic_axis(results):
    (panel,) = draw_fractions(results, MIOU).axes
    (line,) = [line for line in panel.get_lines() if line.get_label() == "ours"]
    np.testing.assert_allclose(line.get_xydata(), [[10, 21], [100, 21]])
    assert panel.get_xscale() == "log"
    assert [text.get_text() for text in panel.get_xticklabels()] == ["10%", "all"]


@pytest.mark.parametrize(
    "labels, places, unit",
    [
        (["all", "1%", "0.5%"], [100, 1, 0.5], "%"),
        (["10-shot", "30-shot"], [10, 30], "-shot"),
        (["10-shot", "all"], [0, 1], ""),
    ],
)
def test_places_of_fractions(labels, places, unit):
    assert places_of(labels) == (places, unit)
