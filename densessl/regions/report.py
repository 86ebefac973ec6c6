"""Statistics of a store of regions: counts, sizes and aspect ratios of its boxes."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from densessl.regions.store import RegionStore

_SIZE_ROWS = {"below 0.05": 0.05, "to 0.1": 0.1, "to 0.2": 0.2, "to 0.3": 0.3, "to 0.5": 0.5, "to 0.7": 0.7, "to 1": 1}
_ASPECT_ROWS = {"below 1/4": 1 / 4, "to 1/3": 1 / 3, "to 1/2": 1 / 2, "to 2/3": 2 / 3, "to 1": 1, "to 3/2": 3 / 2}
_ASPECT_ROWS |= {"to 2": 2, "to 3": 3, "to 4": 4, "above 4": np.inf}
SIZE_EDGES = np.linspace(0, 1, 1001)
ASPECT_EDGES = np.union1d(2 ** np.linspace(-8, 8, 1601), [edge for edge in _ASPECT_ROWS.values() if edge < np.inf])
_BATCH = 4096  # images whose boxes are counted at once
_BAR, _SHOWN = 50, 10


@dataclass(frozen=True)
class Histogram:
    """A histogram. Values beyond the edges count in the first or last bin.

    Attributes:
        edges: (n + 1,) ascending edges of the bins.
        counts: (n,) numbers of values at or above an edge and below the next; the last bin includes its upper edge.
    """

    edges: np.ndarray
    counts: np.ndarray

    @classmethod
    def empty(cls, edges: np.ndarray) -> "Histogram":
        """A histogram without values."""
        return cls(edges, np.zeros(len(edges) - 1, np.int64))

    def add(self, values: np.ndarray) -> None:
        """Add values (N,)."""
        self.counts[:] += np.histogram(values.clip(self.edges[0], self.edges[-1]), self.edges)[0]

    def quantiles(self, shares: Sequence[float]) -> np.ndarray:
        """The quantiles at these shares (0 to 1), accurate to a bin. NaN without values."""
        total = self._cumulated()
        return (
            np.interp(np.asarray(shares) * total[-1], total, self.edges) if total[-1] else np.full(len(shares), np.nan)
        )

    def below(self, edge: float) -> int:
        """Number of values below the histogram's edge that is nearest to ``edge``."""
        return int(self._cumulated()[np.abs(self.edges - min(edge, self.edges[-1])).argmin()])

    def _cumulated(self) -> np.ndarray:
        return np.concatenate([[0], np.cumsum(self.counts)])


@dataclass(frozen=True)
class Statistics:
    """Statistics of a store.

    Attributes:
        images: number of images.
        draws: number of draws of regions per image.
        counts: (images * draws,) numbers of boxes, image by image.
        levels: the highest level; 0 without boxes.
        size: sizes of the boxes: square root of their share of the image's area, 0 to 1.
        aspect: aspect ratios of the boxes: width over height, in pixels.
    """

    images: int
    draws: int
    counts: np.ndarray
    levels: int
    size: Histogram
    aspect: Histogram


def statistics(store: RegionStore) -> Statistics:
    """Compute the statistics of a store in one pass, without holding all boxes in memory."""
    counts, levels = [], 0
    size, aspect = Histogram.empty(SIZE_EDGES), Histogram.empty(ASPECT_EDGES)
    images = iter(store)
    while batch := list(itertools.islice(images, _BATCH)):
        found = [draw for _, _, draws in batch for draw in draws]
        counts.append(np.array([len(draw.boxes) for draw in found]))
        levels = max(levels, *(int(draw.levels.max(initial=0)) for draw in found))
        boxes = np.concatenate([draw.boxes for draw in found])
        width, height = (boxes[:, 2:] - boxes[:, :2]).T
        areas = np.repeat([w * h for _, (w, h), draws in batch for _ in draws], counts[-1])
        size.add(np.sqrt(width * height / areas))
        aspect.add(width / height)
    return Statistics(len(store), store.draws, np.concatenate(counts), levels, size, aspect)


def format_statistics(found: Statistics, unreadable: Sequence[str] = ()) -> str:
    """Format statistics as lines of at most 100 columns.

    Args:
        unreadable: images that are not in the store because they could not be read.
    """
    counts = found.counts
    low, *quartiles, high = (f"{value:g}" for value in np.quantile(counts, [0, 0.25, 0.5, 0.75, 1], method="nearest"))
    per_image = "boxes per image" if found.draws == 1 else "boxes per draw"
    lines = [
        f"{'images':<17}{found.images:,}" + (f", {found.draws} draws of each" if found.draws > 1 else ""),
        f"{'boxes':<17}{counts.sum():,}, levels up to {found.levels}",
        f"{per_image:<17}{counts.mean():.1f} on average, {low} to {high}, quartiles {_listed(quartiles)}",
        f"{'without boxes':<17}{(counts == 0).sum():,}",
        f"{'unreadable':<17}{len(unreadable):,}",
        *(f"  {name}"[:100] for name in unreadable[:_SHOWN]),
    ]
    if len(unreadable) > _SHOWN:
        lines.append(f"  and {len(unreadable) - _SHOWN:,} more")
    if counts.any():
        lines += _histogram("size, root of area over the image's", found.size, _SIZE_ROWS)
        lines += _histogram("width over height", found.aspect, _ASPECT_ROWS)
    return "\n".join(lines)


def _histogram(title: str, found: Histogram, rows: dict[str, float]) -> list[str]:
    """Lines of a histogram: a title with the quartiles, and a bar for each row, whose value is its upper edge."""
    below = np.array([0] + [found.below(edge) for edge in rows.values()])
    shares = np.diff(below) / below[-1]
    quartiles = _listed([f"{value:.2f}" for value in found.quantiles([0.25, 0.5, 0.75])])
    bars = ("#" * round(_BAR * share / shares.max()) for share in shares)
    return [f"{title}: quartiles {quartiles}"] + [
        f"  {name:<12}{share:>6.1%}  {bar}".rstrip() for name, share, bar in zip(rows, shares, bars)
    ]


def _listed(values: Sequence[str]) -> str:
    return " | ".join(values)
