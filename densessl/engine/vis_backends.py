"""A visualizer backend that writes scalars to a JSON-lines file."""

import json
import math
import os
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.visualization.vis_backend import BaseVisBackend, force_init_env

from densessl.registry import VISBACKENDS


def to_json(value: Any) -> Any:
    """Convert a figure to JSON's types: numbers, strings and (nested) lists of them.

    NaN and infinities, which JSON does not have, become null, so that readers keep the column numeric (pandas reads
    NaN).

    Raises:
        TypeError: ``value`` is of any other type.
    """
    if isinstance(value, torch.Tensor | np.ndarray | np.generic):
        value = value.tolist()
    if value is None or isinstance(value, str | int):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, list | tuple):
        return [to_json(item) for item in value]
    raise TypeError(f"JsonlVisBackend writes numbers, strings and lists of them, got {type(value).__name__}")


@VISBACKENDS.register_module()
class JsonlVisBackend(BaseVisBackend):
    """Appends one JSON object per line: ``{"step": 200, "time": 1718000000.0, "loss": 2.31, ...}``.

    Every line is flushed as it is written, and a resumed run appends to the file, so one file covers a whole
    pretraining. Where a resumed run repeats steps, the later line (larger ``time``) counts. ``time`` is in seconds
    since 1970. Figures named ``step`` or ``time`` are dropped. Configs and images are left to other backends.

    Args:
        save_dir: folder that the Visualizer passes; ``<work_dir>/<timestamp>/vis_data`` in a Runner.
        filename: path of the file relative to ``save_dir``. The default is ``<work_dir>/metrics.jsonl``, outside the
            folder of a single start of the run, so that a resumed run finds it.
    """

    def __init__(self, save_dir: str, filename: str = "../../metrics.jsonl"):
        super().__init__(save_dir)
        self._filename = filename

    @property
    def path(self) -> Path:
        # normpath resolves `..` even if `save_dir` does not exist.
        return Path(os.path.normpath(os.path.join(self._save_dir, self._filename)))

    def _init_env(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._file = self.path.open("a", buffering=1, encoding="utf-8")

    @property
    @force_init_env
    def experiment(self) -> "JsonlVisBackend":
        return self

    def add_scalar(self, name: str, value: Any, step: int = 0, **kwargs: Any) -> None:
        """Append one line with one scalar."""
        self.add_scalars({name: value}, step)

    @force_init_env
    def add_scalars(self, scalar_dict: dict, step: int = 0, file_path: str | None = None, **kwargs: Any) -> None:
        """Append one line with all scalars of ``scalar_dict``. Only other backends use ``file_path``.

        Raises:
            TypeError: a value is not a number, a string or a list of them; the message names its key.
        """
        line = {"step": int(step), "time": round(time.time(), 3)}
        for name, value in scalar_dict.items():
            try:
                line.setdefault(name, to_json(value))
            except TypeError as error:
                raise TypeError(f"scalar {name!r}: {error}") from error
        self._file.write(json.dumps(line, allow_nan=False) + "\n")

    def close(self) -> None:
        """Close the file. A later write reopens it and appends."""
        if self._env_initialized:
            self._file.close()
            self._env_initialized = False
