"""Lists the images that a run could not read, and ends a run that has too many."""

import os
from pathlib import Path
from typing import Any

from mmengine.dist import barrier, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

from densessl.budget import DEFAULT, allowed
from densessl.data.bad_images import FILE, record, recorded
from densessl.errors import DataError
from densessl.registry import HOOKS
from densessl.wording import count


@HOOKS.register_module()
class BadImagesHook(Hook):
    """Keeps ``bad_images.jsonl`` of the work folder: images that could not be read, each with the reason, the step and
    what was used instead.

    All processes and loaders append to one file, a line at a time, and count the images of all of them in it, so no
    process waits for another. A resumed run goes on with the file; a new one begins it anew.

    Args:
        budget: how many images may be bad: a share of the data set ("0.1%", at least one), a number, or "none".

    Raises:
        DataError: more are bad; the run ends with exit code 3.
    """

    priority = "LOWEST"  # after the checkpoint of the step is saved: a run that ends here can be resumed there

    def __init__(self, budget: str | int = DEFAULT):
        allowed(budget, 1)  # a typo is told at once
        self.budget = budget

    def before_train(self, runner: Runner) -> None:
        self.file = Path(runner.work_dir, FILE)
        self.images = len(runner.train_dataloader.dataset)
        self.most = allowed(self.budget, self.images)
        if is_main_process() and runner.iter == 0:
            self.file.unlink(missing_ok=True)
        barrier()
        self.seen, self.size = set(recorded(self.file)), self._bytes()

    def after_train_iter(self, runner: Runner, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        bad = getattr(data_batch, "bad", ())
        new = {each.path: each for each in bad if each.path not in self.seen}
        if new:
            record(self.file, new.values(), step=runner.iter + 1)
        self._look(runner)

    def after_val_epoch(self, runner: Runner, metrics: Any = None) -> None:
        if hasattr(self, "file"):
            self._look(runner)

    def _bytes(self) -> int:
        try:
            return os.stat(self.file).st_size
        except FileNotFoundError:
            return 0

    def _look(self, runner: Runner) -> None:
        """Tell what is new in the list, and end the run if it is too much."""
        size = self._bytes()
        if size == self.size:
            return
        entries = recorded(self.file)
        new = [entry for path, entry in entries.items() if path not in self.seen]
        self.seen, self.size = set(entries), size
        for number, entry in enumerate(new, len(entries) - len(new) + 1):
            runner.logger.warning(
                f"bad image {entry['path']}: {entry.get('reason')}; {entry.get('instead')} is used instead "
                f"({number:,} bad so far, {self.most:,} allowed)"
            )
        if new and len(entries) > self.most:
            raise DataError(
                f"{len(entries):,} of {count(self.images, 'image')} cannot be read, more than --bad-images "
                f"{self.budget} allows ({self.most:,}); the last is {new[-1]['path']}: {new[-1].get('reason')}\n"
                f"All so far are listed in {self.file}. Mend or remove them, or allow more with --bad-images 5% and "
                "continue with --resume"
            )
