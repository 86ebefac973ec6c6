"""Add up what is known of the images of data sets. It takes some 40 bytes an image; no pixels are kept."""

from array import array
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from densessl.budget import allowed
from densessl.datacheck.duplicates import equal_groups, near_groups
from densessl.datacheck.facts import Fact
from densessl.datacheck.labels import LabelReport
from densessl.datacheck.scan import Images

LISTED = 10_000  # unreadable images, and groups of duplicates, that are listed by name
EXTREMES = 3  # smallest and largest images that are named
MEGAPIXELS = (0, 0.05, 0.1, 0.25, 0.5, 1, 2, 4, 8, 16, 32, 64)  # edges of the histogram


class Sized(NamedTuple):
    """An image by its size: pixels, then file, so that sorting is the same for any number of workers."""

    pixels: int
    file: str
    width: int
    height: int


@dataclass
class SetSummary:
    """The images of one data set.

    Attributes:
        name: "images", "train" or "val".
        images: that it lists.
        unreadable: how many of them cannot be read.
        budget: how many may be.
        others: files of the folder that are no images, by suffix.
        labels: of the set; None without labels.
    """

    name: str
    images: int
    unreadable: int
    budget: int
    others: Mapping[str, int] = field(default_factory=dict)
    labels: LabelReport | None = None


@dataclass
class Summary:
    """What is known of all images that were checked.

    Attributes:
        sets: data sets.
        unreadable: file and reason of the first ``LISTED`` images that cannot be read.
        kinds: good images by format, mode and bits.
        histogram: good images by size, between the edges in ``MEGAPIXELS``.
        smallest, largest: good images, at the end first.
        bytes: of the good files.
        deep: good images of more than 8 bits; low, high: least and greatest of their samples.
        exact, near: files of each group of duplicates, the first ``LISTED`` groups; near ones that are not equal.
        exact_groups, near_groups: how many groups there are.
        copies: images that equal an earlier one.
        across: groups, exact or near, with images of several data sets.
        hashed: whether near duplicates were looked for.
        good, copy: (images,) bool by number of the image.
    """

    sets: list[SetSummary]
    unreadable: list[tuple[str, str]]
    kinds: Counter[tuple[str, str, int]]
    histogram: list[int]
    smallest: list[Sized]
    largest: list[Sized]
    bytes: int
    deep: int
    low: float | None
    high: float | None
    exact: list[list[str]]
    near: list[list[str]]
    exact_groups: int
    near_groups: int
    copies: int
    across: int
    hashed: bool
    good: np.ndarray = field(repr=False)
    copy: np.ndarray = field(repr=False)

    @property
    def beyond(self) -> list[SetSummary]:
        """Sets of which more images are unreadable than may be."""
        return [each for each in self.sets if each.unreadable > each.budget]

    def as_dict(self) -> dict[str, Any]:
        """For a JSON file."""
        return dict(
            sets=[
                dict(
                    name=each.name,
                    images=each.images,
                    unreadable=each.unreadable,
                    budget=each.budget,
                    passed_over=dict(each.others),
                    labels=each.labels and each.labels.as_dict(),
                )
                for each in self.sets
            ],
            unreadable=[dict(path=path, reason=reason) for path, reason in self.unreadable],
            kinds=[dict(format=f, mode=m, bits=b, images=n) for (f, m, b), n in self.kinds.most_common()],
            megapixels=dict(edges=list(MEGAPIXELS), images=self.histogram),
            smallest=[dict(path=e.file, width=e.width, height=e.height) for e in self.smallest],
            largest=[dict(path=e.file, width=e.width, height=e.height) for e in self.largest],
            bytes=self.bytes,
            more_than_8_bits=dict(images=self.deep, lowest=self.low, highest=self.high),
            exact_duplicates=dict(groups=self.exact_groups, copies=self.copies, files=self.exact),
            near_duplicates=dict(groups=self.near_groups, files=self.near) if self.hashed else None,
            duplicates_across_sets=self.across,
        )


class Tally:
    """Takes the facts of images one after the other.

    Args:
        images: that are checked.
    """

    def __init__(self, images: Images):
        self.images = images
        self._good = bytearray()
        self._digests, self._looks = array("Q"), array("Q")
        self._unreadable: list[tuple[str, str]] = []
        self._kinds: Counter[tuple[str, str, int]] = Counter()
        self._histogram = [0] * len(MEGAPIXELS)
        self._small: list[Sized] = []
        self._large: list[Sized] = []
        self._bytes = self._deep = 0
        self._lows: list[float] = []
        self._highs: list[float] = []
        self._hashed = True

    def add(self, file: str, fact: Fact) -> None:
        """Count the next image."""
        self._good.append(not fact.reason)
        if fact.reason:
            if len(self._unreadable) < LISTED:
                self._unreadable.append((file, fact.reason))
            return
        self._digests.frombytes(fact.digest)
        self._hashed &= fact.look is not None
        self._looks.append(fact.look or 0)
        self._kinds[fact.format, fact.mode, fact.bits] += 1
        pixels = fact.width * fact.height
        self._histogram[int(np.searchsorted(MEGAPIXELS, pixels / 1e6, "right")) - 1] += 1
        sized = Sized(pixels, file, fact.width, fact.height)
        self._small = sorted([*self._small, sized])[:EXTREMES]
        self._large = sorted([*self._large, sized], key=lambda each: (-each.pixels, each.file))[:EXTREMES]
        self._bytes += fact.bytes
        if fact.bits > 8 or fact.high is not None:
            self._deep += 1
            self._lows = [min([*self._lows, *([] if fact.low is None else [fact.low])], default=0)]
            self._highs = [max([*self._highs, *([] if fact.high is None else [fact.high])], default=0)]

    def summary(
        self,
        names: Sequence[str],
        budget: str | int,
        others: Sequence[Mapping[str, int]],
        labels: Sequence[LabelReport | None],
    ) -> Summary:
        """Return what was counted.

        Args:
            names, others, labels: of each set, as in :class:`SetSummary`.
            budget: see :func:`densessl.budget.allowed`; it holds for each set.
        """
        good = np.frombuffer(bytes(self._good), np.uint8).astype(bool)
        numbers = np.flatnonzero(good)
        exact = equal_groups(np.frombuffer(self._digests, np.uint64).reshape(-1, 2))
        copy = np.zeros(len(good), bool)
        first = np.ones(len(numbers), bool)
        for group in exact:
            first[group[1:]] = False
        copy[numbers[~first]] = True
        firsts = np.flatnonzero(first)
        hashed = self._hashed and len(numbers) > 0
        near = [firsts[group] for group in near_groups(np.frombuffer(self._looks, np.uint64)[firsts])] if hashed else []
        ends = np.cumsum([len(paths) for paths in self.images.paths])

        def files(groups: Sequence[np.ndarray]) -> list[list[str]]:
            return [[self.images.file(int(numbers[place])) for place in group] for group in groups[:LISTED]]

        spans = [len(np.unique(np.searchsorted(ends, numbers[group], "right"))) > 1 for group in [*exact, *near]]
        parts = np.split(good, ends[:-1])
        return Summary(
            sets=[
                SetSummary(name, len(part), int((~part).sum()), allowed(budget, len(part)), other, label)
                for name, part, other, label in zip(names, parts, others, labels)
            ],
            unreadable=self._unreadable,
            kinds=self._kinds,
            histogram=self._histogram,
            smallest=self._small,
            largest=self._large,
            bytes=self._bytes,
            deep=self._deep,
            low=next(iter(self._lows), None),
            high=next(iter(self._highs), None),
            exact=files(exact),
            near=files(near),
            exact_groups=len(exact),
            near_groups=len(near),
            copies=int(copy.sum()),
            across=sum(spans),
            hashed=hashed,
            good=good,
            copy=copy,
        )
