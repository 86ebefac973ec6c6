"""A table of millions of relative paths that takes no memory in DataLoader workers.

A Python list of strings is copied into a spawned worker, and page by page into a forked one, because reading a string
writes its reference count. The table is kept in a file instead; all processes share its pages in the page cache.
"""

import os
import struct
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Sequence


class PathTable(Sequence):
    """An immutable sequence of strings in a temporary file: their UTF-8 bytes, then ``len + 1`` int64 offsets.

    Reading an entry with ``os.pread`` takes 2 microseconds. A memory map would take 1, but the pages that a worker has
    touched, in time all of them, would count as its private memory.

    The table pickles as the name of its file. The process that built it removes the file when the table is collected or
    at exit; forked and spawned copies never do. A copy must be unpickled before the removal, and works from then on.

    Args:
        paths: the strings, iterated once and held one at a time. Bytes that are not UTF-8 (old file names) survive as
            surrogate escapes, as in ``os.listdir``.
    """

    def __init__(self, paths: Iterable[str] = ()):
        offsets = array("q", [0])
        descriptor, self._name = tempfile.mkstemp(prefix="densessl-paths-", suffix=".bin")
        weakref.finalize(self, _remove_file, self._name, os.getpid())
        with open(descriptor, "wb", buffering=1 << 20) as file:
            for path in paths:
                offsets.append(offsets[-1] + file.write(path.encode("utf-8", "surrogateescape")))
            file.write(offsets)
        self._open(len(offsets) - 1, offsets[-1])

    def _open(self, length: int, table: int) -> None:
        self._length, self._table = length, table
        self._file = os.open(self._name, os.O_RDONLY | os.O_CLOEXEC)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self._length

    def __getitem__(self, index: int) -> str:
        """The path at ``index``, counted from the end if negative. Raises IndexError, and TypeError for a slice."""
        position = range(self._length)[index.__index__()]
        start, end = struct.unpack("=qq", os.pread(self._file, 16, self._table + 8 * position))
        return os.pread(self._file, end - start, start).decode("utf-8", "surrogateescape")

    def __getstate__(self) -> tuple[str, int, int]:
        return self._name, self._length, self._table

    def __setstate__(self, state: tuple[str, int, int]) -> None:
        self._name, length, table = state
        self._open(length, table)

    def __deepcopy__(self, memo: dict) -> "PathTable":
        return self  # immutable; a copy could outlive the file

    __copy__ = __deepcopy__

    def __repr__(self) -> str:
        return f"PathTable({self._length} paths)"


def _remove_file(name: str, creator: int) -> None:
    if os.getpid() == creator and os.path.exists(name):
        os.remove(name)
