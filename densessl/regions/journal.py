"""The journal of a build: what is finished, on disk at once, whatever happens next."""

import json
import os
import struct
import zlib
from pathlib import Path

import numpy as np

from densessl.regions.store_format import Packed, StoreError, written

_RECORD = struct.Struct("<IIQ")  # CRC-32 of all that follows, bytes of the payload, position of the image
_IMAGE = struct.Struct("<BII")  # whether coordinates are whole, width, height; then counts of the draws and rows
_UNREADABLE = b"\2"
_PLAN = 2**64 - 1  # the first record's position


def image_record(packed: Packed) -> bytes:
    """Payload of an image that is done."""
    counts = np.array(packed.counts, "<u4").tobytes()
    return _IMAGE.pack(packed.exact, *packed.size) + counts + packed.rows.tobytes()


def unreadable_record(reason: str) -> bytes:
    """Payload of an image that cannot be read."""
    return _UNREADABLE + reason.encode("utf-8", "surrogateescape")


class Journal:
    """An append-only file of records, each with its length and checksum: first the plan of the build, then an image
    each, in any order. Opened again, it is read up to the last whole record and cut there. One process writes it.

    Args:
        path: the file; made where there is none.
        plan: what decides the result, with the number of ``draws``; plain data.
        images: how many there are to do.

    Attributes:
        done: (images,) bool, which have a record of regions.
        unreadable: (images,) bool, which have a record of why they cannot be read.

    Raises:
        StoreError: the file is that of another plan, or no journal.
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
        """Keep the record of an image, in place of an earlier one."""
        self._note(position, payload, self._file.tell())
        self._file.write(_record(position, payload))
        self._file.flush()

    def image(self, position: int) -> Packed:
        """The regions of an image that is done."""
        payload = self._payload(position)
        exact, width, height = _IMAGE.unpack_from(payload)
        counts = np.frombuffer(payload, "<u4", self._draws, _IMAGE.size)
        rows = np.frombuffer(payload, "<u2", offset=_IMAGE.size + counts.nbytes).reshape(-1, 5)
        return Packed((width, height), bool(exact), tuple(counts.tolist()), rows)

    def reason(self, position: int) -> str:
        """Why an image cannot be read."""
        return self._payload(position)[len(_UNREADABLE) :].decode("utf-8", "surrogateescape")

    def close(self) -> None:
        """Let go of the file."""
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
        """Position and payload of the next record; None where there is no whole one."""
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
    """Raise StoreError, naming what differs, where ``out`` was begun or finished with another plan."""
    differs = [name for name in plan if found.get(name) != plan[name]]
    if differs:
        what = "; ".join(f"{name}: {found.get(name)!r} there, {plan[name]!r} now" for name in differs)
        raise StoreError(f"{out} was built of something else ({what}). Give another folder, or remove this one")


def _record(position: int, payload: bytes) -> bytes:
    rest = _RECORD.pack(0, len(payload), position)[4:] + payload
    return struct.pack("<I", zlib.crc32(rest)) + rest
