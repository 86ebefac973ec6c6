"""Pickles of a few bytes that would make numpy read or free the memory of others: refused, and nothing crashes."""

import pickle
import subprocess
import sys

import torch

READ = """
import sys
from densessl.weights.io.array_pickles import RefusedPickle, load_arrays
for place in sys.argv[1:]:
    try:
        print("read", repr(load_arrays(place)))
    except RefusedPickle:
        print("refused")
"""
ARRAY = b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85U\x01btR"
FROM_BUFFER = b"cnumpy.core.numeric\n_frombuffer\n"
KEEP, KEPT = b"r\xff\0\0\0", b"j\xff\0\0\0"


def plain(value) -> bytes:
    """What puts a number, text or the like on the stack of the machine."""
    return pickle.dumps(value, 3)[2:-1]


def kind(name: str) -> bytes:
    return b"cnumpy\ndtype\n" + plain((name, 0, 1)) + b"R"


def given(shape, name: str, data) -> bytes:
    """What gives the array on the stack its data."""
    return b"(K\x01" + plain(shape) + kind(name) + b"\x89" + plain(data) + b"tb"


def viewed(shape, name: str) -> bytes:
    return FROM_BUFFER + b"(" + KEPT + kind(name) + plain(shape) + plain("C") + b"tR"


def wider_tensor() -> bytes:
    whole = pickle.dumps(torch.ones(2), 2)[2:-1]
    assert whole.count(b"K\x02\x85") == 1
    return whole.replace(b"K\x02\x85", b"K\x63\x85")


BAD = {
    "a list shorter than the shape": ARRAY + given((4,), "O8", [7]),
    "an empty list": ARRAY + given((100,), "O8", []),
    "a list longer than the shape": ARRAY + given((1,), "O8", [7, 8]),
    "no list": ARRAY + given((1,), "O8", (7,)),
    "lengths below 0": ARRAY + given((-1, -1), "O8", [7]),
    "a product beyond 64 bits": ARRAY + given((1 << 32, 1 << 32), "O8", []),
    "a product beyond 64 bits, of numbers": ARRAY + given((1 << 32, 1 << 31), "f8", b""),
    "entries of no bytes": ARRAY + given((1 << 62,), "S0", b""),
    "bytes of another length": ARRAY + given((4,), "f8", bytes(8)),
    "objects in fields": ARRAY + given((1,), "O8,O8", [7]),
    "objects in an array within": ARRAY + given((1,), "(4,)O8", [7]),
    "a scalar of objects": b"cnumpy.core.multiarray\nscalar\n(" + kind("O8") + plain(bytes(8)) + b"tR",
    "objects in a buffer": plain(bytes(8)) + KEEP + b"0" + viewed((1,), "O8"),
    "data twice": ARRAY + given((64,), "f8", bytes(512)) + given((1,), "f8", bytes(8)),
    "data twice, with a view": (
        ARRAY + KEEP + given((4096,), "f8", bytes(8 * 4096)) + b"0" + viewed((4096,), "f8")
        + KEPT + given((1,), "f8", bytes(8)) + b"0"
    ),
    "a view of more than there is": plain(bytes(8)) + KEEP + b"0" + viewed((2,), "f8"),
    "a class that is changed": (
        b"cmmengine.structures.instance_data\nInstanceData\n(N" + plain({"__index__": 4}) + b"tb"
    ),
    "a tensor larger than its data": wider_tensor(),
}  # fmt: skip


def test_memory_of_others_is_neither_read_nor_freed(tmp_path):
    good = {"data once": ARRAY + given((1, 2), "O8", [7, 8]), "a view": plain(b"ab") + KEEP + b"0" + viewed((2,), "i1")}
    cases = BAD | good
    for name, opcodes in cases.items():
        (tmp_path / name).write_bytes(b"\x80\x03" + opcodes + b".")
    command = [sys.executable, "-c", READ, *(str(tmp_path / name) for name in cases)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=600)
    said = dict(zip(cases, done.stdout.splitlines(), strict=False))  # up to the crash
    expected = dict.fromkeys(BAD, "refused")
    expected |= {"data once": "read Array([[7, 8]], dtype=object)", "a view": "read array([97, 98], dtype=int8)"}
    assert (said, done.returncode) == (expected, 0), done.stderr
