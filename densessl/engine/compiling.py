"""MMEngine's switch ``compile``: compile the networks inside a model, in place.

MMEngine compiles the whole training step, with its preprocessing, hooks and optimiser, of which most is no tensor
code: it ends in errors of the tracer, or compiles anew in every step. Here each branch of a
:class:`densessl.TwoBranch`, and each backbone and neck of any other model, is compiled where it stands. Modules and
their parameters keep their names, so that checkpoints, exports, resuming and hooks do not notice.
"""

import inspect
import os
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn

from densessl.branches import Branch
from densessl.errors import SettingError
from densessl.wording import choose

_PARTS = ("backbone", "neck")
_COMPILERS = ("g++", "clang++", "c++")
_INSTEAD = "Give compile=dict(backend='aot_eager'), or compile=False"


def compile_networks(model: nn.Module, options: Mapping[str, Any]) -> list[str]:
    """Compile the networks inside a model, in place; the first iterations will be slow.

    Args:
        model: the model without its distributed wrapper.
        options: arguments of ``torch.compile``.

    Returns:
        The names of the compiled modules.

    Raises:
        SettingError: an argument is unknown, the backend needs a C++ compiler, or the model has none of these parts.
    """
    options = checked_options(options)
    parts = dict(_networks(model))
    if not parts:
        raise SettingError(
            f"compile: {type(model).__name__} has no branch, backbone or neck, expected one of them. Give compile=False"
        )
    for module in parts.values():
        module.compile(**options)
    return list(parts)


def checked_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of ``torch.compile``. Raises SettingError, see :func:`compile_networks`."""
    known = [name for name in inspect.signature(torch.compile).parameters if name != "model"]
    for name in options:
        choose("compile: argument", name, known)
    # Imported here, since it takes a second that only compiling needs.
    from torch import _dynamo, _inductor

    backend = options.get("backend", "inductor")
    if isinstance(backend, str):
        choose("compile.backend", backend, _dynamo.list_backends(exclude_tags=()))
    mode = options.get("mode")
    if mode is not None:
        choose("compile.mode", mode, ["default", *_inductor.list_mode_options()])
        if options.get("options"):
            raise SettingError("compile: found mode and options, expected one of them: torch.compile takes only one")
    compilers = (os.environ["CXX"],) if os.environ.get("CXX") else _COMPILERS
    if backend == "inductor" and not options.get("disable") and not any(map(shutil.which, compilers)):
        raise SettingError(
            f"compile: the backend 'inductor' needs a C++ compiler, expected one of {', '.join(compilers)} on the "
            f"PATH. {_INSTEAD}"
        )
    return dict(options)


def compile_error(error: Exception) -> SettingError | None:
    """The error of a compiler in words; None if the error has another cause."""
    # Imported here, since it takes a second that only compiling needs.
    from torch._dynamo.exc import TorchDynamoException

    if not isinstance(error, TorchDynamoException):
        return None
    reason = next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)
    return SettingError(f"compile: this model cannot be compiled so: {type(error).__name__}: {reason}. {_INSTEAD}")


def _networks(module: nn.Module, name: str = "") -> Iterator[tuple[str, nn.Module]]:
    """The outermost parts of a model that are compiled, by their names."""
    for key, child in module.named_children():
        path = f"{name}.{key}" if name else key
        if isinstance(child, Branch) or key in _PARTS:
            yield path, child
        else:
            yield from _networks(child, path)
