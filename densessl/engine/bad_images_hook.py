"""Lists the images that a run could not read, and ends a run that has too many."""

import json
import os
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.budget import DEFAULT, allowed
from densessl.data.bad_images import BadImage
from densessl.errors import DataError
from densessl.registry import HOOKS

FILE = "bad_images.jsonl"


@HOOKS.register_module()
class BadImagesHook(Hook):
    """Appends each image that was replaced, because it could not be read, to ``bad_images.jsonl`` of the work folder:
    its path, the reason, and the step.

    All processes append to one file, a line at a time, and count the images of all of them in it, so no process waits
    for another. A resumed run goes on with the file; a new one begins it anew.

    Args:
        budget: how many images may be bad: a share of the data set ("0.1%", at least one), a number, or "none".

    Raises:
        DataError: more are bad; the run ends with exit code 3.
    """

    def __init__(self, budget: str | int = DEFAULT):
        allowed(budget, 1)  # a typo is told at once
        self.budget = budget
        self.seen: set[str] = set()

    def before_train(self, runner: Runner) -> None:
        self.file = Path(runner.work_dir, FILE)
        self.images = len(runner.train_dataloader.dataset)
        self.most = allowed(self.budget, self.images)
        if is_main_process() and runner.iter == 0:
            self.file.unlink(missing_ok=True)
        barrier()
        self.seen = _paths(self.file)

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        new = {bad.path: bad for bad in getattr(data_batch, "bad", ()) if bad.path not in self.seen}
        if new:
            self._tell(runner, list(new.values()))

    def _tell(self, runner: Runner, new: list[BadImage]) -> None:
        with open(self.file, "a", encoding="utf-8", errors="surrogateescape") as file:
            for bad in new:
                line = dict(path=bad.path, reason=bad.reason, step=runner.iter + 1, epoch=bad.epoch, index=bad.index)
                file.write(json.dumps(line) + "\n")
                file.flush()
        self.seen = _paths(self.file)
        for bad in new:
            runner.logger.warning(
                f"bad image {bad.path}: {bad.reason}; another one takes its place ({len(self.seen):,} of "
                f"{self.most:,} bad images allowed)"
            )
        if len(self.seen) > self.most:
            raise DataError(
                f"{len(self.seen):,} of {self.images:,} images cannot be read, more than --bad-images "
                f"{self.budget} allows ({self.most:,}); the last is {new[-1].path}: {new[-1].reason}\n"
                f"All so far are listed in {self.file}. Mend or remove them, or allow more with --bad-images 5% and "
                "continue with --resume"
            )


def _paths(file: Path) -> set[str]:
    """The distinct paths in a list of bad images; empty if there is none. A line that was cut short is left out."""
    if not file.is_file():
        return set()
    paths = set()
    for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        try:
            paths.add(os.fspath(json.loads(line)["path"]))
        except (ValueError, KeyError, TypeError):
            continue
    return paths
