"""The journal of a build: the regions of finished images, written to disk at once so that a build can resume."""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from densessl.regions.file_digest import UNKNOWN
from densessl.regions.store_format import Packed, StoreError, written

_RECORD = struct.Struct("<IIQ")  # CRC-32 of all that follows, bytes of the payload, position of the image
_IMAGE = struct.Struct("<BII")  # whether coordinates are whole, width, height; followed by the draws' counts and rows
_DIGEST = struct.Struct("<Q")  # of the image's file; follows where the first number has this bit:
_WITH_DIGEST = 4
_UNREADABLE = b"\2"
_PLAN = 2**64 - 1  # position of the first record, the plan


def image_record(packed: Packed) -> bytes:
    """Payload of the record of a finished image."""
    counts = np.array(packed.counts, "<u4").tobytes()
    head = _IMAGE.pack(packed.exact | _WITH_DIGEST, *packed.size) + _DIGEST.pack(packed.digest)
    return head + counts + packed.rows.tobytes()


def unreadable_record(reason: str) -> bytes:
    """Payload of the record of an image that cannot be read."""
    return _UNREADABLE + reason.encode("utf-8", "surrogateescape")


class Journal:
    """An append-only file of records, each with its length and checksum, written by one process.

    The first record is the plan of the build; each other one is of an image, in any order. An existing file is read up
    to its last whole record and truncated there.

    Args:
        path: the file; created if it does not exist.
        plan: plain data that determines the result, including the number of ``draws``.
        images: number of images of the build.

    Attributes:
        done: (images,) bool, whether each image has a record of regions.
        unreadable: (images,) bool, whether each image has a record of why it cannot be read.

    Raises:
        StoreError: the file is the journal of another plan, or not a journal.
    """

    def __init__(self, path: Path, plan: dict, images: int):
        self.path, self._draws = path, plan["draws"]
        self.done, self.unreadable = np.zeros((2, images), bool)
        self._places = np.zeros(images, np.int64)
        if not path.exists():
            with written(path) as file:
                file.write(_record(_PLAN, json.dumps(plan).encode()))
        self._file = open(path, "r+b")  # noqa: SIM115 (close() closes it)
        try:
            self._read(plan)
        except BaseException:
            self.close()
            raise

    def append(self, position: int, payload: bytes) -> None:
        """Append the record of an image; it replaces an earlier one."""
        self._note(position, payload, self._file.tell())
        self._file.write(_record(position, payload))
        self._file.flush()

    def image(self, position: int) -> Packed:
        """The regions of a finished image."""
        payload = self._payload(position)
        flags, width, height = _IMAGE.unpack_from(payload)
        digest, place = UNKNOWN, _IMAGE.size
        if flags & _WITH_DIGEST:
            (digest,), place = _DIGEST.unpack_from(payload, place), place + _DIGEST.size
        counts = np.frombuffer(payload, "<u4", self._draws, place)
        rows = np.frombuffer(payload, "<u2", offset=place + counts.nbytes).reshape(-1, 5)
        return Packed((width, height), bool(flags & 1), tuple(counts.tolist()), rows, digest)

    def forget(self, position: int) -> None:
        """Take an image as not done; the next record of it replaces this one."""
        self.done[position] = False

    def reason(self, position: int) -> str:
        """Why an image cannot be read."""
        return self._payload(position)[len(_UNREADABLE) :].decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def _read(self, plan: dict) -> None:
        size = os.fstat(self._file.fileno()).st_size
        begun = self._next(size)
        if begun is None or begun[0] != _PLAN:
            raise StoreError(f"{self.path} is not the journal of a build, or its beginning is damaged: remove it")
        refuse_other_plan(self.path.parent, json.loads(begun[1]), plan)
        place = self._file.tell()
        while (record := self._next(size)) is not None:
            self._note(*record, place)
            place = self._file.tell()
        self._file.seek(place)
        self._file.truncate()

    def _next(self, size: int) -> tuple[int, bytes] | None:
        """Position and payload of the next record; None if there is no further whole record."""
        head = self._file.read(_RECORD.size)
        if len(head) < _RECORD.size:
            return None
        crc, length, position = _RECORD.unpack(head)
        if length > size - self._file.tell():
            return None
        payload = self._file.read(length)
        return (position, payload) if zlib.crc32(payload, zlib.crc32(head[4:])) == crc else None

    def _note(self, position: int, payload: bytes, place: int) -> None:
        self._places[position] = place
        self.unreadable[position] = payload.startswith(_UNREADABLE)
        self.done[position] = not self.unreadable[position]

    def _payload(self, position: int) -> bytes:
        descriptor, place = self._file.fileno(), int(self._places[position])
        _, length, _ = _RECORD.unpack(os.pread(descriptor, _RECORD.size, place))
        return os.pread(descriptor, length, place + _RECORD.size)


def refuse_other_plan(out: Path, found: dict, plan: dict) -> None:
    """Raise StoreError, naming the differences, if ``out`` was begun or finished with another plan."""
    differs = [name for name in plan if found.get(name) != plan[name]]
    if differs:
        what = "; ".join(f"{name}: {found.get(name)!r} there, {plan[name]!r} now" for name in differs)
        raise StoreError(f"{out} was built of something else ({what}). Give another folder, or remove this one")


def _record(position: int, payload: bytes) -> bytes:
    rest = _RECORD.pack(0, len(payload), position)[4:] + payload
    return struct.pack("<I", zlib.crc32(rest)) + rest
