"""Open files from anywhere. Nothing here executes anything in a file.

PyTorch's restricted unpickler reads what ``torch.save`` wrote; :mod:`densessl.weights.io.array_pickles` reads other
pickles. There is no fallback to full unpickling.
"""

import errno
import pickle
import re
from collections import OrderedDict
from pathlib import Path
from tarfile import is_tarfile
from typing import Any
from zipfile import is_zipfile

import numpy as np
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from densessl.errors import CheckpointError, FileMissing, UnsafeCheckpointError
from densessl.weights.io.array_pickles import DAMAGED, RefusedPickle, in_a_line, load_arrays
from densessl.wording import near_it

# The first bytes of files in torch.save's older format, after a few bytes of pickle.
_LEGACY = torch.serialization.MAGIC_NUMBER.to_bytes(10, "little")


class _Inert:
    """A placeholder for an object of a checkpoint that is not a weight. Accepts any arguments and state, and drops
    them."""

    def __init__(self, *args, **kwargs):
        pass

    def __setstate__(self, state) -> None:
        pass


def _empty(*_: Any) -> OrderedDict:
    return OrderedDict()


# Objects that trainers store beside weights: log buffers of MMEngine (with numpy arrays), options of research code,
# hyper-parameters of Lightning. These names are read as _Inert; the objects are neither created nor called.
_INERT: list[tuple[Any, str]] = [
    (_Inert, name)
    for name in (
        "argparse.Namespace",
        *(f"builtins.{name}" for name in ("bool", "dict", "float", "getattr", "int", "list", "slice", "str", "tuple")),
        "mmengine.logging.history_buffer.HistoryBuffer",
        "numpy.dtype",
        "numpy.ndarray",
        "numpy.core.multiarray._reconstruct",
        "numpy.core.multiarray.scalar",
        "numpy._core.multiarray._reconstruct",
        "numpy._core.multiarray.scalar",
        *(f"omegaconf.base.{name}" for name in ("ContainerMetadata", "Metadata")),
        "omegaconf.dictconfig.DictConfig",
        "omegaconf.listconfig.ListConfig",
        *(f"omegaconf.nodes.{kind}Node" for kind in ("Any", "Boolean", "Float", "Integer", "String")),
        *(f"{at}.{system}Path" for at in ("pathlib", "pathlib._local") for system in ("Posix", "PurePosix", "Windows")),
        "typing.Any",
    )
]
# The most names of objects that one file may have dropped.
_MOST_NAMES = 1000
# PyTorch's unpickler fills only dicts of its own kinds.
_INERT += [(_empty, "collections.defaultdict")] + [
    (OrderedDict, f"{module}.AttributeDict")
    for module in (
        "pytorch_lightning.utilities.parsing",
        "lightning.pytorch.utilities.parsing",
        "lightning.fabric.utilities.data",
        "lightning_fabric.utilities.data",
    )
]


def load_content(path: str | Path, drop_objects: bool = False) -> Any:
    """Return the tensors and plain containers in a file, on the CPU.

    In a pickle of arrays, arrays of numbers become tensors. In a file of ``torch.save`` they are dropped, like other
    objects that trainers store.

    Args:
        path: a local ``.safetensors`` file, a file of ``torch.save``, or a pickle of arrays (Detectron's, from Python 2
            or 3). The latter two are told apart by their first bytes, not by their names.
        drop_objects: skip objects of any class in files of ``torch.save``, in either format: they become empty
            placeholders, and nothing is imported or called for them. Names of the operating system's modules are still
            refused.

    Raises:
        FileMissing: no such file.
        UnsafeCheckpointError: the file holds objects other than tensors, plain containers and the known harmless
            objects of common trainers. It was not unpickled.
        CheckpointError: the file is damaged, or a pickle of arrays contains itself.
    """
    path = existing(path)
    if path.suffix == ".safetensors":
        try:
            return load_file(path)
        except SafetensorError as error:
            raise CheckpointError(f"{path} is not a readable safetensors file: {error}") from error
    if not _of_torch(path):
        return _pickle_load(path)
    with torch.serialization.safe_globals(_INERT):
        return torch_load(path, drop_objects)


def existing(path: str | Path) -> Path:
    """Return the path of a local file. Raise FileMissing, with the nearest names, if there is none, or for a URL."""
    if re.match(r"[a-z0-9+-]+://", str(path)):
        raise FileMissing(f"{path}: expected a local file; download it first")
    path = Path(path).expanduser()
    if not path.is_file():
        what = f"{path} is a folder, expected a checkpoint" if path.is_dir() else f"no checkpoint {path}{near_it(path)}"
        raise FileMissing(what)
    return path


def _of_torch(path: Path) -> bool:
    """Whether ``torch.save`` wrote the file, in any of its formats. Otherwise it is some other pickle."""
    with open(path, "rb") as file:
        start = file.read(64)
    return is_zipfile(path) or start[:2] == b"PK" or _LEGACY in start or is_tarfile(path)


def torch_load(path: Path, drop_objects: bool = False) -> Any:
    """Read a file of ``torch.save``. Arguments and errors are those of :func:`load_content`, but objects that trainers
    store are refused unless the caller allows them."""
    dropped = _unknown_names(path) if drop_objects else set()
    while True:
        try:
            with torch.serialization.safe_globals([(_Inert, name) for name in dropped]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except pickle.UnpicklingError as error:
            found = re.search(r"GLOBAL (\S+)", str(error))
            name = found and found[1]
            if drop_objects and name and name not in dropped and len(dropped) < _MOST_NAMES:
                dropped |= {name, f"builtins.{name}"}  # the error message names builtins without their module
                continue
            raise UnsafeCheckpointError(f"{path} {_refusal(name, 'is blocked' in str(error), drop_objects)}") from error
        except Exception as error:  # a damaged file can raise anything
            # EINVAL comes from seeking in a truncated file
            if isinstance(error, OSError) and error.errno != errno.EINVAL:
                raise
            raise CheckpointError(f"{path} is not a readable checkpoint: {DAMAGED} ({in_a_line(error)})") from error


def _unknown_names(path: Path) -> set[str]:
    try:
        return set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception:  # the older format, whose names torch.load reports one by one, or a damaged file
        return set()


def _refusal(name: str | None, blocked: bool, drop_objects: bool) -> str:
    """Return why a file was not read, and what would help."""
    what = f"holds the object `{name}`" if name else "is damaged or holds more than plain data"
    what += "; reading it could execute code, so it was not read"
    if blocked:
        return f"{what}. That is the operating system's: no option reads past it"
    if not name or drop_objects:
        return what
    return f"{what}. To take only its tensors, without running anything: densessl convert FILE OUT --drop-objects"


def _pickle_load(path: Path) -> Any:
    try:
        return _tensors(load_arrays(path))
    except RefusedPickle as error:
        if " names " in str(error):
            raise UnsafeCheckpointError(
                f"{error}. Save the weights as a pickle of plain numpy arrays with the code that made the file"
            ) from error
        raise CheckpointError(f"{path} is not a readable checkpoint: {str(error).removeprefix(f'{path}: ')}") from error
    except UnsafeCheckpointError as error:
        raise UnsafeCheckpointError(f"{path} {error}") from error
    except RecursionError as error:
        raise CheckpointError(f"{path} holds a list or dict that contains itself, or is nested too deeply") from error


def _tensors(value: Any) -> Any:
    """Return the content of a pickle, with its arrays of numbers as tensors."""
    if isinstance(value, dict):
        return {key: _tensors(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_tensors(entry) for entry in value]
    if isinstance(value, np.ndarray):
        if value.dtype.hasobject:
            raise UnsafeCheckpointError("holds an array of objects, expected numbers: it was not read")
        if value.dtype.kind in "biuf":
            return torch.from_numpy(np.array(value, value.dtype.newbyteorder("="), order="C"))
    return value
