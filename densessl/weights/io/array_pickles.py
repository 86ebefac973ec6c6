"""Read pickles that hold arrays, without running code from them.

A pickle is a program: it may name any importable function and have it called. Here it may name only the few functions
that rebuild arrays, which are replaced by safe ones; any other name is an error. Objects of MMEngine become
:class:`Held`, so that neither MMEngine nor MMDetection needs to be installed.
"""

import io
import os
import pickle
import re
from collections import OrderedDict
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch

from densessl.errors import CheckpointError

DAMAGED = "it is damaged, cut short, or of another kind"


def in_a_line(error: Exception) -> str:
    """What a reader of binary files tripped over; not what PyTorch advises, to read the file with less care."""
    text = (str(error).strip().splitlines() or [""])[0]
    return f"{text:.100}" if text and "weights_only" not in text else type(error).__name__


class RefusedPickle(CheckpointError):
    """The file is no pickle, or names something that arrays do not need; the message says what."""


class Held:
    """A placeholder for an object of another package, with its attributes only."""

    def __setstate__(self, state: dict) -> None:
        # Pickle's default would also change the class, if a file passes it the state.
        vars(self).update(state)


def load_arrays(place: str | os.PathLike) -> Any:
    """Read a pickle of dicts, lists, sets, numbers, strings, numpy arrays, torch tensors and ``InstanceData``.

    Args:
        place: path of the file. Strings of Python 2 are read as Latin-1.

    Returns:
        The content of the file. Tensors are on the CPU; an ``InstanceData`` is a :class:`Held`.

    Raises:
        RefusedPickle: the file is no pickle, or names anything else. Nothing that it names was imported or called.
    """
    with open(place, "rb") as file:
        try:
            return _Reader(file).load()
        except RefusedPickle as error:
            raise RefusedPickle(f"{os.fspath(place)}: {error}") from None
        except Exception as error:  # a damaged stream makes the machine and the rebuilding functions raise anything
            raise RefusedPickle(f"{os.fspath(place)}: {DAMAGED} ({in_a_line(error)})") from error


class _Reader(pickle.Unpickler):
    def __init__(self, file: IO[bytes]):
        super().__init__(file, encoding="latin1")
        # Built anew for each file, because a file can set attributes of the objects that it names.
        self._known = _stand_ins()

    def find_class(self, module: str, name: str) -> Callable | None:
        if (module, name) not in self._known:
            raise RefusedPickle(
                f"names {module}.{name}, which could run code: refused. Only dicts, lists, numpy arrays, torch tensors "
                "and InstanceData are read"
            )
        return self._known[module, name]


def _stand_ins() -> dict[tuple[str, str], Callable | None]:
    """Return what a file may name, and the safe replacement of each."""

    class InstanceData(Held):
        pass

    class DType:
        """A numpy dtype without fields. Numpy's own takes flags from the file that make it treat bytes as pointers."""

        def __init__(self, kind: str, *_: Any):
            if not re.fullmatch(r"[?biufcSUO]\d*", kind):
                raise RefusedPickle(f"has an array of type {kind!r}, expected numbers or strings")
            self.numpy = np.dtype(kind)

        def __setstate__(self, state: tuple) -> None:
            self.numpy = self.numpy.newbyteorder(state[1])

    class Array(np.ndarray):
        """An array that accepts its state once, with a shape that fits its data. Numpy's own reads past a list of
        objects that is shorter than its shape, and a second state frees memory that views may use.
        """

        def __setstate__(self, state: tuple) -> None:
            if self.size:
                raise ValueError("an array is given data twice")
            _, shape, dtype, fortran, data = state
            if isinstance(data, str):  # from Python 2
                data = data.encode("latin1")
            flat = np.empty(len(data), object) if dtype.numpy.hasobject else np.frombuffer(data, dtype.numpy)
            super().__setstate__((1, flat.reshape(shape).shape, dtype.numpy, bool(fortran), data))

    def reconstruct(*_: Any) -> Array:
        return np.empty(0).view(Array)

    def frombuffer(buffer: bytes, dtype: DType, shape: tuple[int, ...], order: str) -> np.ndarray:
        return np.frombuffer(buffer, dtype.numpy).reshape(shape, order=order).copy("K")  # the buffer may be an array's

    def scalar(dtype: DType, data: bytes) -> np.generic:
        return np.frombuffer(data, dtype.numpy)[0]

    def encode(text: str, _: str) -> bytes:  # how protocols below 3 write bytes
        return text.encode("latin1")

    def load_storage(data: bytes) -> Any:
        return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)

    def rebuild_tensor(storage: Any, offset: int, size: tuple, stride: tuple, *_: Any) -> torch.Tensor:
        held = storage._untyped_storage.nbytes()
        tensor = torch._utils._rebuild_tensor(storage, offset, size, stride)
        if storage._untyped_storage.nbytes() > held:  # enlarged, with uninitialised memory
            raise ValueError(f"a tensor of shape {tuple(size)} is larger than its data")
        return tensor

    known = {
        ("collections", "OrderedDict"): OrderedDict,
        ("_codecs", "encode"): encode,
        ("numpy", "ndarray"): None,  # only the argument of _reconstruct; as a class it could be called
        ("numpy", "dtype"): DType,
        ("torch._utils", "_rebuild_tensor_v2"): rebuild_tensor,
        ("torch.storage", "_load_from_bytes"): load_storage,
        ("mmengine.structures.instance_data", "InstanceData"): InstanceData,
    }
    for package in ("numpy.core", "numpy._core"):
        known[f"{package}.multiarray", "_reconstruct"] = reconstruct
        known[f"{package}.multiarray", "scalar"] = scalar
        known[f"{package}.numeric", "_frombuffer"] = frombuffer
    for builtins in ("builtins", "__builtin__"):
        known |= {(builtins, kind.__name__): kind for kind in (set, frozenset, bytes, bytearray)}
    return known
