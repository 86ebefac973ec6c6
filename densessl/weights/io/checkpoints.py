"""Read and write weights. Nothing here, or built on it, executes anything in a file.

:func:`densessl.weights.io.torch_files.load_content` reads files from anywhere. :func:`load_weights` accepts files whose
weights are named tensors only; :func:`densessl.weights.read.open_checkpoint` takes all tensors of any file.
:func:`read_checkpoint` reads what :func:`save_checkpoint` wrote.
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
    "checkpoint_to_resume",
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
    """Return the tensors of a checkpoint by name, on the CPU.

    Args:
        path: as for :func:`load_content`.
        key: entry of the file that holds the weights, for files with several (``'teacher'``). By default the entry that
            :func:`wrapper_of` finds, or the whole file.

    Returns:
        An ordered dict with the file's names, and with PyTorch's ``_metadata`` if the file has it.

    Raises:
        FileMissing: no such file.
        UnsafeCheckpointError: as :func:`load_content`.
        CheckpointError: the file is damaged, has no entry ``key``, or holds anything but named tensors.
    """
    content = load_content(path)
    contents = list(content) if isinstance(content, dict) else type(content).__name__
    key = wrapper_of(content) if key is None else key
    if key is not None:
        if not isinstance(content, dict) or key not in content:
            raise CheckpointError(f"{path} has no entry {key!r}; it holds {contents}")
        content = content[key]
    if not isinstance(content, dict) or not content:
        raise CheckpointError(f"{path}: expected named tensors, found {contents}")
    strangers = {str(name): type(value).__name__ for name, value in content.items() if not isinstance(value, Tensor)}
    if strangers:
        raise CheckpointError(
            f"{path}: expected tensors only, found {dict(list(strangers.items())[:5])}; if one of these entries "
            "holds the weights, name it (key=...)"
        )
    return content


def wrapper_of(content: Any) -> str | None:
    """Return the entry of a file that holds its weights: the first of ``WRAPPERS`` that is a dict, or None."""
    if not isinstance(content, Mapping):
        return None
    return next((name for name in WRAPPERS if isinstance(content.get(name), Mapping)), None)


def read_checkpoint(path: str | Path) -> dict:
    """Read a training checkpoint that :func:`save_checkpoint` wrote, onto the CPU.

    Raises:
        FileMissing: no such file.
        UnsafeCheckpointError: the file holds more than tensors and plain containers. It was not unpickled.
        CheckpointError: the file is damaged or holds no dict.
    """
    content = torch_load(existing(path))
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: expected a training checkpoint (a dict), found {type(content).__name__}")
    return content


def save_checkpoint(path: str | Path, content: dict) -> None:
    """Write ``content`` to ``path`` atomically: under a temporary name beside it, flushed to disk, read back, and
    renamed. At any time ``path`` is absent, the old file, or the complete new one.

    Args:
        content: tensors, numbers, strings, None, and lists, tuples and dicts of them (:func:`to_plain` converts it).

    Raises:
        TypeError: ``content`` holds anything else; the message says where. ``path`` is unchanged.
        OSError: the disk is full or failed. ``path`` is unchanged.
    """
    content = to_plain(content)
    with written_whole(path) as temporary:
        with open(temporary, "wb") as file:  # given a path, torch.save would write its name into the archive
            torch.save(content, file)
        torch.load(temporary, map_location="cpu", weights_only=True, mmap=True)


def to_plain(value, where: str = "checkpoint", drop: bool = False):
    """Return a copy of ``value`` made only of tensors on the CPU, numbers, strings, None, lists, tuples and dicts.

    Numpy scalars become Python's, numpy arrays of numbers become tensors, parameters become tensors. Ordered dicts and
    counters are kept, and so is the ``_metadata`` of a state dict.

    Args:
        where: name of ``value`` in error messages.
        drop: leave out dict entries that cannot be converted instead of raising.

    Raises:
        TypeError: a value cannot be converted; the message says where it is.
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
    """Return the checkpoint to resume from in a work folder, or None if it has none.

    It is the one that MMEngine's note ``last_checkpoint`` names, at that path or, if the folder was moved, by that name
    in ``folder``. The note is not written atomically: if it is empty or names no file, the ``epoch_N.pth`` or
    ``iter_N.pth`` written last is used.

    Raises:
        FileMissing: ``last_checkpoint`` names a file, but the folder holds no checkpoint.
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


def checkpoint_to_resume(resume: bool | str, load_from: str | Path | None, folder: str | Path) -> Path | None:
    """Return the checkpoint that a run goes on from, or None if it starts anew.

    Args:
        resume, load_from, folder: ``resume``, ``load_from`` and ``work_dir`` of the run's config; see
            :class:`densessl.engine.runner.DenseRunner`.

    Raises:
        FileMissing: as :func:`find_latest_checkpoint`.
    """
    if not resume:
        return None
    if load_from is None or resume == "auto":
        return find_latest_checkpoint(folder)
    return Path(load_from)


RenameRules = list[tuple[str, str | Callable[[re.Match], str]]]


def rename(weights: dict[str, Tensor], rules: RenameRules) -> dict[str, Tensor]:
    """Return ``weights`` with each (pattern, replacement) of ``rules`` applied to every name in turn, by ``re.sub``."""
    renamed = OrderedDict()
    for name, tensor in weights.items():
        for pattern, replacement in rules:
            name = re.sub(pattern, replacement, name)
        renamed[name] = tensor
    if hasattr(weights, "_metadata"):
        renamed._metadata = weights._metadata
    return renamed
