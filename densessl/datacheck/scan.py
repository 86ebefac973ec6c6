"""Read the images of data sets in parallel, and yield what is known of each, in order."""

import itertools
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import NamedTuple

from densessl.data.decode import Reading
from densessl.datacheck.facts import Fact, fact_of
from densessl.errors import SettingError
from densessl.loaders import AUTO, workers

CHUNK = 16  # images that a worker gets at once
AHEAD = 4  # chunks of a worker that are under way or wait to be yielded: what limits the memory


class Images(NamedTuple):
    """Images of several data sets, numbered on from one set to the next.

    Attributes:
        roots: folder or archive of each set.
        paths: paths of each set, relative to its root.
    """

    roots: Sequence[str]
    paths: Sequence[Sequence[str]]

    @property
    def total(self) -> int:
        return sum(map(len, self.paths))

    def place(self, number: int) -> tuple[int, int]:
        """The set of an image, and its index there."""
        for which, paths in enumerate(self.paths):
            if number < len(paths):
                return which, number
            number -= len(paths)
        raise IndexError(number)

    def file(self, number: int) -> str:
        which, index = self.place(number)
        return os.path.join(self.roots[which], self.paths[which][index])

    def files(self) -> Iterator[str]:
        for root, paths in zip(self.roots, self.paths):
            yield from (os.path.join(root, paths[index]) for index in range(len(paths)))


def worker_count(text: str | int) -> int:
    """Number of processes that ``--workers`` means. Raises SettingError: it is neither ``auto`` nor at least 1."""
    if text == AUTO:
        return workers()
    try:
        number = int(text)
    except ValueError:
        number = 0
    if number < 1:
        raise SettingError(f"--workers: found {text!r}, expected {AUTO} or a whole number of at least 1")
    return number


def scan(
    files: Iterator[str], reading: Reading, processes: int, advance: Callable[[int], None] = lambda number: None
) -> Iterator[Fact]:
    """Yield the facts of image files, in their order, for any number of processes.

    Args:
        processes: that read; 1 reads in this process.
        advance: is called with the number of images that were read.
    """
    if processes == 1:
        for file in files:
            yield fact_of(file, reading)
            advance(1)
        return
    chunks = iter(lambda: list(itertools.islice(files, CHUNK)), [])
    # Spawned: a fork would copy locks that torch's threads hold.
    with ProcessPoolExecutor(processes, multiprocessing.get_context("spawn")) as pool:
        waiting = deque(pool.submit(_facts, chunk, reading) for chunk in itertools.islice(chunks, AHEAD * processes))
        try:
            while waiting:
                facts = waiting.popleft().result()
                waiting.extend(pool.submit(_facts, chunk, reading) for chunk in itertools.islice(chunks, 1))
                yield from facts
                advance(len(facts))
        finally:
            for each in waiting:
                each.cancel()


def _facts(files: list[str], reading: Reading) -> list[Fact]:
    return [fact_of(file, reading) for file in files]
