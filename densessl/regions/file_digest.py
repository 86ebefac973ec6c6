"""A short digest of an image file, by which a store notices that an image has changed under the same name."""

import hashlib
import os
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

from densessl.data.archives import read_file

END_BYTES = 1 << 16  # read at each end of a file; an image saved anew differs there, or in its length
UNKNOWN = 0
_THREADS = 8  # for disks that answer slowly


def digest_of_file(place: str | os.PathLike) -> int:
    """64 bits of the length of a file and its first and last 64 KiB; 0, which stands for unknown, if it cannot be
    read."""
    try:
        with open(place, "rb", buffering=0) as file:
            length = file.seek(0, os.SEEK_END)
            start = max(0, length - END_BYTES)
            first, last = os.pread(file.fileno(), END_BYTES, 0), os.pread(file.fileno(), END_BYTES, start)
    except NotADirectoryError:
        return _digest_of_member(place)
    except OSError:
        return UNKNOWN
    return _digest(length, first, last)


def _digest_of_member(place: str | os.PathLike) -> int:
    """The same of a file in an archive."""
    try:
        data = read_file(place)
    except (OSError, ValueError):
        return UNKNOWN
    return _digest(len(data), data[:END_BYTES], data[-END_BYTES:])


def _digest(length: int, first: bytes, last: bytes) -> int:
    content = length.to_bytes(8, "little") + first + last
    return int.from_bytes(hashlib.blake2b(content, digest_size=8).digest(), "little") or 1


def changed_files(expected: Iterable[tuple[str, int]], root: str) -> Iterator[str]:
    """Yield the paths of the files whose digest is another one. Files that cannot be read are passed over.

    Args:
        expected: paths relative to ``root``, and the digests that their files had; unknown ones are passed over.
    """
    known = [(path, digest) for path, digest in expected if digest != UNKNOWN]
    with ThreadPoolExecutor(_THREADS) as pool:
        places = (os.path.join(root, path) for path, _ in known)
        for (path, digest), found in zip(known, pool.map(digest_of_file, places), strict=True):
            if found not in (UNKNOWN, digest):
                yield path
