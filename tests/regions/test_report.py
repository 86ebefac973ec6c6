"""Statistics of a store, against numpy over all boxes at once."""

import numpy as np
import pytest

from densessl.regions import Proposals, RegionStore, report, write_store
from densessl.regions.report import Histogram, format_statistics, statistics


def make_store(folder, counts, draws=1, seed=0):
    """Random boxes in an image for each of ``counts``; returns the store, all boxes and their images' sizes."""
    rng = np.random.default_rng(seed)
    images, boxes, sizes = [], [], []
    for number, count in enumerate(counts):
        size = tuple(int(side) for side in rng.integers(40, 700, 2))
        found = []
        for _ in range(draws):
            low = np.floor(rng.random((count, 2)) * (np.array(size) - 1))
            high = low + 1 + np.floor(rng.random((count, 2)) * (size - low - 1))
            found.append(Proposals(np.concatenate([low, high], 1), rng.integers(1, 9, count)))
            boxes.append(found[-1].boxes)
            sizes += [size] * count
        images.append((f"folder/{number}.jpg", size, found))
    write_store(folder, images, dict(made_by="a test"))
    return RegionStore(folder), np.concatenate(boxes), np.array(sizes).reshape(-1, 2)


@pytest.mark.parametrize("batch", [2, 4096])
def test_statistics_are_those_of_all_boxes(tmp_path, monkeypatch, batch):
    monkeypatch.setattr(report, "_BATCH", batch)
    counts = [900, 0, 300, 41, 1, 800]
    store, boxes, sizes = make_store(tmp_path / "store", counts, draws=2)
    found = statistics(store)
    assert (found.images, found.draws, found.counts.tolist()) == (6, 2, [n for n in counts for _ in "ab"])
    assert found.levels == 8
    sides = boxes[:, 2:] - boxes[:, :2]
    shares = (0.1, 0.5, 0.9)
    size, aspect = np.sqrt(sides.prod(1) / sizes.prod(1)), sides[:, 0] / sides[:, 1]
    np.testing.assert_allclose(found.size.quantiles(shares), np.quantile(size, shares), atol=2e-3)
    np.testing.assert_allclose(found.aspect.quantiles(shares), np.quantile(aspect, shares), rtol=2e-2)
    assert found.size.counts.sum() == found.aspect.counts.sum() == len(boxes)
    for edge in (1 / 3, 1, 3):
        assert found.aspect.below(edge) == (aspect < edge).sum()


def test_text_is_narrow_and_adds_up(tmp_path):
    store, boxes, _ = make_store(tmp_path / "store", [500, 0, 20])
    text = format_statistics(statistics(store), [f"{'long/' * 40}{number}.jpg" for number in range(12)])
    lines = text.splitlines()
    assert max(map(len, lines)) <= 100
    assert f"{len(boxes)}, levels up to 8" in text and "0 to 500, quartiles 0 | 20 | 500" in text
    assert "without boxes    1" in text and "unreadable       12" in text and "  and 2 more" in text
    for title in ("size", "width"):
        start = next(number for number, line in enumerate(lines) if line.startswith(title)) + 1
        rows = [line for line in lines[start:] if line.startswith("  ")]
        rows = rows[: 7 if title == "size" else 10]
        shares = [float(line.split("%")[0].split()[-1]) for line in rows]
        assert sum(shares) == pytest.approx(100, abs=0.5)
        assert max(line.count("#") for line in rows) == 50
        assert rows[int(np.argmax(shares))].count("#") == 50


def test_a_store_without_any_box(tmp_path):
    found = statistics(make_store(tmp_path / "store", [0, 0])[0])
    assert np.isnan(found.size.quantiles([0.5])).all()
    assert "quartiles 0 | 0 | 0" in format_statistics(found)


def test_values_beyond_the_edges_are_counted():
    histogram = Histogram.empty(np.array([1.0, 2, 3]))
    histogram.add(np.array([0.0, 1.5, 2.5, 3, 99]))
    assert histogram.counts.tolist() == [2, 3] and histogram.below(2) == 2 and histogram.below(9) == 5
