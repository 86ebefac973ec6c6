"""The format of a store of regions on disk, and its writer. The reader is :class:`densessl.regions.RegionStore`.

A store is a folder of four files; numbers are little-endian.

- ``boxes.bin``: a header, then five uint16 (10 bytes) per box: x0, y0, x1, y1 in 65535ths of the image's width or
  height, and the level. The boxes of an image are contiguous, draw after draw, and images are in the order of the list.
  100 boxes for each of 1.28 million images take 1.3 GB, of which a training step reads one page per image.
- ``index.bin``: a header, then an open-addressing hash table over 64-bit BLAKE2b hashes of the relative paths, at most
  two thirds full. Its entries (:func:`entry_type`) hold the positions of the boxes and the path, and a digest of the
  image's file (:mod:`densessl.regions.file_digest`), which version 1 does not have; a lookup reads one page.
- ``paths.bin``: the relative paths in order, each followed by a zero byte; they distinguish images of equal hash.
- ``manifest.json``: format, sizes and SHA-256 of the files, counts, and how the boxes were made. It is written last, so
  a folder without it is not a store yet.

Boxes with integer coordinates in images with sides of up to 32767 pixels are restored exactly, others to within half of
a 65535th of the side. Equal input gives equal bytes.
"""

import hashlib
import json
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np

from densessl.errors import DensesslError, SettingError
from densessl.files import sha256
from densessl.regions.file_digest import UNKNOWN
from densessl.regions.proposals import Proposals

FORMAT, VERSION = "densessl regions", 2
READABLE = (1, 2)  # versions
BOXES, INDEX, PATHS, MANIFEST = "boxes.bin", "index.bin", "paths.bin", "manifest.json"
JOURNAL = "journal.bin"  # of an unfinished build, see densessl.regions.journal
HEADER_BYTES = 32  # the format's name, zeros, and the version in the last four bytes
QUANTA = 65535
_CHUNK, _ROWS = 1 << 20, 1 << 14  # bytes to buffer before writing, and entries to gather before packing
_SLACK = 1e-6  # pixels by which rounding errors may put a box outside the image


class StoreError(DensesslError, ValueError):
    """A store does not exist, is damaged or unfinished, or does not fit the images. The message says what to do."""


class StoreMissing(StoreError):
    """There is no store in a folder; the message has the command that makes one.

    Args:
        folder: where it was looked for.
        reason: what is in its place.
        data: the images that it should have, as the command names them.
        more: what else the user can do.
    """

    def __init__(self, folder: Path, reason: str, data: str = "DATA", more: str = "") -> None:
        command = f"densessl regions build {shlex.quote(data)} {shlex.quote(str(folder))}"
        super().__init__(f"no store of regions: {folder} {reason}. Make one with `{command}`{more}")
        self.folder, self.reason = folder, reason


class Packed(NamedTuple):
    """The regions of an image as they are stored.

    Attributes:
        size: (width, height) of the image in pixels.
        exact: whether all coordinates are whole pixels, which rounding restores.
        counts: number of boxes in each draw.
        rows: (sum of the counts, 5) uint16, the quantised boxes and their levels.
        digest: of the image's file, see :mod:`densessl.regions.file_digest`; 0 if unknown.
    """

    size: tuple[int, int]
    exact: bool
    counts: tuple[int, ...]
    rows: np.ndarray
    digest: int = UNKNOWN


def pack(path: str, size: tuple[int, int], draws: Sequence[Proposals], digest: int = UNKNOWN) -> Packed:
    """Quantise the regions of an image. A box thinner than one quantum becomes one quantum thick.

    Args:
        path: path of the image, for messages.
        size: (width, height) of the upright image in pixels.
        draws: proposals of each draw.
        digest: of the image's file; 0 if unknown.

    Raises:
        SettingError: the image has no area, a box is empty or not inside the image, or a level is outside 1..65535.
        ValueError: there is no draw, or a draw has other numbers of boxes and levels.
    """
    width, height = (int(side) for side in size)
    if min(width, height) < 1 or max(width, height) >= 2**32:
        raise SettingError(f"{path}: the image has size {size}, expected a positive width and height")
    if not draws:
        raise ValueError(f"{path}: no draw of regions, expected at least one (it may be without boxes)")
    boxes = np.concatenate([np.asarray(draw.boxes, np.float64).reshape(-1, 4) for draw in draws])
    levels = np.concatenate([np.asarray(draw.levels).reshape(-1) for draw in draws])
    if len(levels) != len(boxes):
        raise ValueError(f"{path}: {len(boxes)} boxes with {len(levels)} levels")
    sides = np.array([width, height] * 2, np.float64)
    inside = (boxes >= -_SLACK) & (boxes <= sides + _SLACK)
    good = inside.all(1) & (boxes[:, :2] < boxes[:, 2:]).all(1)
    if not good.all():
        raise SettingError(
            f"{path}: box {boxes[~good][0].tolist()} is empty, not finite or leaves the image of {width} x {height}"
        )
    if not ((levels >= 1) & (levels <= QUANTA)).all():
        raise SettingError(f"{path}: levels from {levels.min()} to {levels.max()}, expected 1 to {QUANTA}")
    rows = np.empty((len(boxes), 5), "<u2")
    rows[:, :4] = np.rint(boxes * QUANTA / sides).clip(0, QUANTA)
    rows[:, 4] = levels
    thin = rows[:, :2] == rows[:, 2:4]
    at_end = rows[:, 2:4] == QUANTA
    rows[:, :2] -= thin & at_end
    rows[:, 2:4] += thin & ~at_end
    exact = np.array_equal(unpack(rows, (width, height), True).boxes, boxes)
    return Packed((width, height), exact, tuple(len(draw.boxes) for draw in draws), rows, digest)


def unpack(rows: np.ndarray, size: tuple[int, int], exact: bool) -> Proposals:
    """Restore the proposals of stored rows (B, 5)."""
    boxes = rows[:, :4].astype(np.float64) * (size * 2) / QUANTA
    return Proposals(np.rint(boxes, out=boxes) if exact else boxes, rows[:, 4].astype(np.int64))


def encoded(path: str) -> bytes:
    """The bytes of a path. Surrogate escapes, as from ``os.listdir``, become the bytes that are not UTF-8."""
    return path.encode("utf-8", "surrogateescape")


def path_hash(path: str) -> int:
    """64 bits of a relative path, never 0, which marks an empty slot."""
    return int.from_bytes(hashlib.blake2b(encoded(path), digest_size=8).digest(), "little") or 1


def entry_type(draws: int, version: int = VERSION) -> np.dtype:
    """The dtype of an index slot: hash of the path (0 if empty), offset of the path in ``paths.bin``, index of the
    first box, digest of the image's file (0 if unknown; not in version 1), size of the image, whether coordinates are
    whole, and the number of boxes in each draw."""
    sides = [("width", "<u4"), ("height", "<u4")]
    places = [("hash", "<u8"), ("path", "<u8"), ("first", "<u8")]
    places += [("digest", "<u8")] if version > 1 else []
    return np.dtype([*places, *sides, ("exact", "<u4"), ("counts", "<u4", (draws,))])


def header(version: int = VERSION) -> bytes:
    """The header of ``boxes.bin`` and ``index.bin``."""
    return FORMAT.encode().ljust(HEADER_BYTES - 4, b"\0") + version.to_bytes(4, "little")


def write_store(
    out: Path | str, images: Iterable[tuple[str, tuple[int, int], Sequence[Proposals]]], about: dict
) -> dict:
    """Write a store.

    Args:
        out: folder, created if it does not exist.
        images: for each image its path relative to the root of the data, with "/" between folders, its (width, height)
            and one Proposals per draw. Iterated once; boxes are not held in memory.
        about: how the boxes were made, in JSON's types. Dates and folders would make equal stores differ in bytes.

    Returns:
        The manifest.

    Raises:
        StoreError: ``out`` is a store already.
        SettingError: there is no image, an image appears twice, or its regions are invalid (see :func:`pack`).
    """
    return write_packed(out, ((path, pack(path, size, draws)) for path, size, draws in images), about)


def write_packed(out: Path | str, images: Iterable[tuple[str, Packed]], about: dict) -> dict:
    """Write a store of regions that are packed already; otherwise the same as :func:`write_store`."""
    out = Path(out)
    out.mkdir(parents=True, exist_ok=True)
    if (out / MANIFEST).exists():
        raise StoreError(f"{out} is a store of regions already. Give another folder, or remove it first")
    files = {}
    with written(out / BOXES) as boxes, written(out / PATHS) as paths:
        boxes.write(header())
        entries = _write_images(boxes, paths, iter(images))
    _refuse_twins(entries, out / PATHS)
    with written(out / INDEX) as index:
        index.write(header())
        index.write(_table(entries))
    for name in (BOXES, INDEX, PATHS):
        files[name] = {"bytes": (out / name).stat().st_size, "sha256": sha256(out / name)}
    manifest = {
        "format": FORMAT,
        "version": VERSION,
        "images": len(entries),
        "draws": entries["counts"].shape[1],
        "boxes": int(entries["counts"].sum(dtype=np.int64)),
        "files": files,
        "about": about,
    }
    with written(out / MANIFEST) as file:
        file.write((json.dumps(manifest, indent=1, sort_keys=True) + "\n").encode())
    return manifest


def _write_images(boxes: IO[bytes], paths: IO[bytes], images: Iterator[tuple[str, Packed]]) -> np.ndarray:
    """Write boxes and paths, and return the entries of the index in order."""
    chunks, rows, place, first, draws = [], [], 0, 0, None
    for path, packed in images:
        if draws is None:
            draws = len(packed.counts)
        if "\0" in path:
            raise SettingError(f"{path!r} has a zero byte, which no path can have")
        if len(packed.counts) != draws:
            raise SettingError(f"{path} has {len(packed.counts)} draws of regions, the images before it {draws}")
        rows.append((path_hash(path), place, first, packed.digest, *packed.size, packed.exact, packed.counts))
        if len(rows) == _ROWS:
            chunks.append(np.array(rows, entry_type(draws)))
            rows.clear()
        place += paths.write(encoded(path) + b"\0")
        boxes.write(packed.rows.tobytes())
        first += len(packed.rows)
    if draws is None:
        raise SettingError("no image, and a store needs at least one")
    chunks.append(np.array(rows, entry_type(draws)))
    return np.concatenate(chunks)


def _refuse_twins(entries: np.ndarray, paths: Path) -> None:
    """Raise SettingError if a path appears twice. (Different paths may share a hash.)"""
    _, inverse, counts = np.unique(entries["hash"], return_inverse=True, return_counts=True)
    seen = set()
    with open(paths, "rb") as file:
        for place in entries["path"][counts[inverse] > 1].tolist():
            file.seek(place)
            path = b"".join(iter(lambda: file.read(1), b"\0"))
            if path in seen:
                raise SettingError(f"{path.decode('utf-8', 'surrogateescape')!r} comes twice, expected each image once")
            seen.add(path)


def _table(entries: np.ndarray) -> np.ndarray:
    """Build the hash table: each entry is in the first free slot at or after its hash, modulo the number of slots."""
    slots = 1 << (3 * len(entries) // 2).bit_length()
    table = np.zeros(slots, entries.dtype)
    taken = np.zeros(slots, bool)
    waiting = np.arange(len(entries))
    wanted = entries["hash"] & np.uint64(slots - 1)
    while len(waiting):
        # Of the entries that want the same free slot, the first gets it; the others try the next slot.
        goals, winners = np.unique(wanted, return_index=True)
        winners = winners[~taken[goals]]
        table[wanted[winners]] = entries[waiting[winners]]
        taken[wanted[winners]] = True
        waiting = np.delete(waiting, winners)
        wanted = np.delete(wanted, winners) + np.uint64(1) & np.uint64(slots - 1)
    return table


@contextmanager
def written(path: Path) -> Iterator[IO[bytes]]:
    """Open a file that gets its name only when it is complete and on disk, and is removed after an error."""
    beside = path.with_name(f"{path.name}.part")
    try:
        with open(beside, "wb", buffering=_CHUNK) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(beside, path)
    finally:
        beside.unlink(missing_ok=True)
