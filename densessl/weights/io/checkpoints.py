"""Reading and writing of weights. Nothing here, or built on it, executes anything a file holds.

Files from anywhere come through :func:`densessl.weights.io.torch_files.load_content`. :func:`load_weights` takes those
whose weights are tensors by name and nothing else, :func:`densessl.weights.read.open_checkpoint` all tensors of any
file. :func:`read_checkpoint` reads back what :func:`save_checkpoint` wrote.
"""

import re
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from densessl.errors import CheckpointError, FileMissing, UnsafeCheckpointError
from densessl.files import written_whole
from densessl.weights.io.torch_files import existing, load_content, torch_load

WRAPPERS = ("state_dict", "model", "model_state_dict", "blobs")
__all__ = [
    "CheckpointError",
    "UnsafeCheckpointError",
    "find_latest_checkpoint",
    "load_content",
    "load_weights",
    "read_checkpoint",
    "rename",
    "save_checkpoint",
    "to_plain",
    "wrapper_of",
    "written_whole",
]


def load_weights(path: str | Path, key: str | None = None) -> dict[str, Tensor]:
    """The tensors of a checkpoint by name, on the CPU.

    Args:
        path: as of :func:`load_content`.
        key: entry of the file that holds the weights, for files with several (``'teacher'``). By default that of
            :func:`wrapper_of`, else the file itself.

    Returns:
        An ordered dict, with PyTorch's ``_metadata`` if the file has it. Names are those of the file.

    Raises:
        FileMissing: no such file.
        UnsafeCheckpointError: as of :func:`load_content`.
        CheckpointError: the file is damaged, has no entry ``key``, or holds something else than named tensors.
    """
    content = load_content(path)
    found = list(content) if isinstance(content, dict) else type(content).__name__
    key = wrapper_of(content) if key is None else key
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise CheckpointError(f"{path} has no entry {key!r}; it holds {found}")
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: expected named tensors, found {found}")
    strangers = {str(name): type(value).__name__ for name, value in content.items() if not isinstance(value, Tensor)}
    if strangers:
        raise CheckpointError(
            f"{path}: expected tensors only, found {dict(list(strangers.items())[:5])}; if one of these entries "
            "holds the weights, name it (key=...)"
        )
    return content


def wrapper_of(content: Any) -> str | None:
    """The entry of a file that holds its weights: the first of ``WRAPPERS`` that is a dict, None where none is."""
    if not isinstance(content, Mapping):
        return None
    return next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)


def read_checkpoint(path: str | Path) -> dict:
    """The content of a training checkpoint that :func:`save_checkpoint` wrote, on the CPU.

    Raises:
        FileMissing: no such file.
        UnsafeCheckpointError: the file holds more than tensors and plain containers. It has not been unpickled.
        CheckpointError: the file is damaged or holds no dict.
    """
    content = torch_load(existing(path))
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a training checkpoint (a dict), found {type(content).__name__}")
    return content


def save_checkpoint(path: str | Path, content: dict) -> None:
    """Write ``content`` to ``path`` so that a file of that name is at all times absent, the old one, or whole.

    It is written under a temporary name beside ``path``, flushed to the disk, read back, and moved into place.

    Args:
        content: tensors, numbers, strings, None, and lists, tuples and dicts of them (:func:`to_plain` makes them so).

    Raises:
        TypeError: something else is in ``content``; the message names where. ``path`` is untouched.
        OSError: the disk is full, or the like. ``path`` is untouched.
    """
    content = to_plain(content)
    with written_whole(path) as temporary:
        with open(temporary, "wb") as file:  # named by its path, the archive would have that name inside
            torch.save(content, file)
        torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)


def to_plain(value, where: str = "checkpoint", drop: bool = False):
    """A copy of ``value`` of nothing but tensors on the CPU, numbers, strings, None, lists, tuples and dicts.

    Numpy scalars become Python's, numpy arrays of numbers become tensors, parameters become tensors. Ordered dicts and
    counters are kept, and so is the ``_metadata`` of a state dict.

    Args:
        where: name of ``value`` in error messages.
        drop: leave out dict entries that cannot be converted instead of raising.

    Raises:
        TypeError: a value cannot be converted; the message names where it is.
    """
    if isinstance(value, Tensor):
        return value.detach().cpu()
    if isinstance(value, np.bool_ | np.integer | np.float64 | np.float32 | np.float16 | np.str_):
        return value.item()
    if isinstance(value, np.ndarray) and value.dtype.kind in "biuf":
        return torch.from_numpy(np.array(value, order="C"))
    if value is None or type(value) in (bool, int, float, str, bytes):
        return value
    if isinstance(value, torch.dtype | torch.Size):
        return value
    if isinstance(value, dict):
        plain = {Counter: Counter, OrderedDict: OrderedDict}.get(type(value), dict)()
        for key, entry in value.items():
            try:
                plain[to_plain(key, f"{where}: key {key!r}")] = to_plain(entry, f"{where}[{key!r}]", drop)
            except TypeError:
                if not drop:
                    raise
        if hasattr(value, "_metadata") and isinstance(plain, OrderedDict):
            plain._metadata = to_plain(value._metadata, f"{where}._metadata")
        return plain
    if isinstance(value, list | tuple):
        entries = [to_plain(entry, f"{where}[{index}]", drop) for index, entry in enumerate(value)]
        return tuple(entries) if isinstance(value, tuple) else entries
    if isinstance(value, str):  # a subclass, such as an enum of strings
        return str(value)
    raise TypeError(
        f"{where} is a {type(value).__module__}.{type(value).__qualname__}; checkpoints hold tensors, numbers, "
        "strings, None, and lists, tuples and dicts of them"
    )


def find_latest_checkpoint(folder: str | Path) -> Path | None:
    """The checkpoint to resume from in a work folder, or None when it has none.

    It is the one MMEngine's ``last_checkpoint`` names, there or, if the folder was moved, by that name in ``folder``.
    That note is not written atomically: when it is empty or names no file, the ``epoch_N.pth`` or ``iter_N.pth``
    written last counts.

    Raises:
        FileMissing: ``last_checkpoint`` names a file, and there is no checkpoint at all.
    """
    folder = Path(folder)
    note = folder / "last_checkpoint"
    named = note.read_text(encoding="utf-8").strip() if note.is_file() else ""
    if named:
        for candidate in (Path(named), folder / Path(named).name):
            if candidate.is_file():
                return candidate
    written = [file for file in folder.glob("*.pth") if re.fullmatch(r"(epoch|iter)_\d+\.pth", file.name)]
    if written:
        return max(written, key=lambda file: (file.stat().st_mtime_ns, file.name))
    if named:
        raise FileMissing(f"{note} names {named}, which does not exist, and {folder} holds no other checkpoint")
    return None


RenameRules = list[tuple[str, str | Callable[[re.Match], str]]]


def rename(weights: dict[str, Tensor], rules: RenameRules) -> dict[str, Tensor]:
    """``weights`` with every (pattern, replacement) of ``rules`` applied to the names in turn, as ``re.sub`` does."""
    renamed = OrderedDict()
    for name, tensor in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    if hasattr(weights, "_metadata"):
        renamed._metadata = weights._metadata
    return renamed
